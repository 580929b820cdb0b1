"""Saves a W&B workspace for the runs of ``logger=wandb``: ``python -m squad_lit.workspace --entity NAME``.

It needs the extra ``workspace``, a key (``wandb login``) and uploaded runs (``wandb sync``). W&B saves no workspace
offline.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from squad_lit.system.console import exit_status

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Workspace

# Line plots in each section, by regular expressions: the model names its groups of features.
LINES = {
    "losses": ("loss", "feature_.*", "image", "focal", "dice", "adversarial"),
    "codes": ("copy_ratio_.*", "codebook_usage_.*", "perplexity_.*", "feature_error_.*"),
    "training": ("lr_.*", "images_per_second", "gpu_use", "gpu_memory_mb"),
    "per_category": ("image_auroc_.*", "pixel_auroc_.*", "pixel_ap_.*", "pixel_aupro_.*"),
    "threshold": ("anomaly_score", "pixel", "false_alarm_rate"),
}
METRICS = ("image_auroc", "pixel_auroc", "pixel_ap", "pixel_aupro")
LABEL_FREE = ("synthetic_ap", "synthetic_auroc", "normal_score")
PICTURES = ("maps/lowest_anomalous", "maps/highest_normal", "maps/first")


def build(entity: str, project: str) -> Workspace:
    """The workspace, not yet saved.

    Args:
        entity: User or team.
        project: Name of the project, as in ``logger.wandb.project``.
    """
    from wandb_workspaces.reports.v2 import BarPlot, LinePlot, MediaBrowser, WeavePanelSummaryTable
    from wandb_workspaces.workspaces import Section, Workspace, WorkspaceSettings

    lines = {
        section: [
            LinePlot(title=name.removesuffix("_.*"), x="step", metric_regex=f"^{section}/{name}$") for name in names
        ]
        for section, names in LINES.items()
    }
    metrics = [
        *(BarPlot(title=name, metrics=[f"metrics/{name}"]) for name in METRICS),
        *(LinePlot(title=name, x="step", y=[f"metrics/{name}"]) for name in LABEL_FREE),
    ]
    maps = [MediaBrowser(media_keys=list(PICTURES), num_columns=1), WeavePanelSummaryTable(table_name="maps/panels")]
    panels = {"metrics": metrics, "maps": maps, **lines}
    return Workspace(
        entity=entity,
        project=project,
        name="squad_lit",
        sections=[Section(name=name, panels=own, is_open=True) for name, own in panels.items()],
        settings=WorkspaceSettings(x_axis="step", group_by_prefix="first"),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m squad_lit.workspace``; returns the exit status."""
    options = _parse(arguments)
    return exit_status(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    try:
        workspace = build(options.entity, options.project).save()
    except ImportError:
        raise
    except Exception as error:  # W&B has a type for each failure: no key, no connection, no such project
        raise OSError(f"W&B did not save the workspace: {error}") from error
    print(workspace.url)
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="squad-lit workspace", description="Saves a W&B workspace for the runs of logger=wandb."
    )
    parser.add_argument("--entity", required=True, metavar="NAME", help="user or team")
    project = "default: squad_lit, as in logger=wandb"
    parser.add_argument("--project", default="squad_lit", metavar="NAME", help=project)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
