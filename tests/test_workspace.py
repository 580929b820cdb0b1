"""The workspace as W&B would get it, compared with what the logger writes."""

import re

import pytest

from squad_lit import workspace
from squad_lit.report.logger import section_key

pytest.importorskip("wandb_workspaces", reason="needs the extra 'workspace'")

LOGGED = ["train/loss", "train/feature/low", "train/image", "train/focal", "train/dice", "train/adversarial"]
LOGGED += ["train/lr/generator", "train/images_per_second", "val/copy_ratio/high", "val/codebook_usage/low"]
LOGGED += ["val/perplexity/low", "val/feature_error/high", "val/synthetic_ap", "val/synthetic_auroc"]
LOGGED += ["val/normal_score", "test/image_auroc", "test/pixel_auroc", "test/pixel_ap", "test/pixel_aupro"]
LOGGED += ["train/gpu_use", "train/gpu_memory_mb"]
LOGGED += [f"test/per_category/a b/{name}" for name in workspace.METRICS]
LOGGED += [f"test/threshold/{name}" for name in ("anomaly_score", "pixel", "false_alarm_rate")]


def test_each_logged_key_has_one_panel_and_each_panel_a_key() -> None:
    spec = workspace.build("someone", "squad_lit")._to_model().spec.section.panel_bank_config
    sections = {s.name: [p.model_dump(by_alias=True)["config"] for p in s.panels] for s in spec.sections}
    assert [name for name in sections if sections[name]] == [
        "metrics",
        "maps",
        "losses",
        "codes",
        "training",
        "per_category",
        "threshold",
    ]
    panels = [p for own in sections.values() for p in own if p.get("metricRegex") or p.get("metrics")]
    for key in map(section_key, LOGGED):
        fitting = [p for p in panels if re.search(p.get("metricRegex") or "$^", key) or key in (p.get("metrics") or [])]
        assert len(fitting) == 1, key
    assert len(panels) == len(LOGGED)
    assert sections["maps"][0]["mediaKeys"] == ["maps/lowest_anomalous", "maps/highest_normal", "maps/first"]


def test_a_failure_is_told_in_words(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(*_: str) -> None:
        raise RuntimeError("no API key")

    monkeypatch.setattr(workspace, "build", fail)
    assert workspace.main(["--entity", "someone"]) == 1
    assert "W&B did not save the workspace: no API key" in capsys.readouterr().err
