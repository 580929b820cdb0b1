"""Drift: the martingale by all orders of a few scores, error and delay by simulation, the command as it is run."""

import csv
import itertools
import math
from pathlib import Path

import numpy as np
import pytest

from squad_lit.deploy.drift import Drift, DriftMonitor, RowMonitor
from squad_lit.deploy.known_scores import recall, remember
from squad_lit.deploy.threshold import from_normals
from squad_lit.drift import main
from squad_lit.system.table import read_rows

NORMAL = np.random.default_rng(1).normal(size=500).tolist()
THRESHOLD = from_normals(NORMAL, 0.01).value


def reports(monitor: DriftMonitor, scores: np.ndarray) -> list[tuple[int, Drift]]:
    return [(number, found) for number, score in enumerate(scores, 1) if (found := monitor.feed(float(score)))]


def test_the_evidence_grows_by_one_per_normal_image_on_average_of_all_orders() -> None:
    # If all are of one distribution, each order of 3 known and 4 new scores is as likely as each other one.
    evidence = np.zeros((math.factorial(7), 4))
    for row, order in zip(evidence, itertools.permutations(range(7)), strict=True):
        known, new = [float(score) for score in order[:3]], order[3:]
        monitor = DriftMonitor(known, threshold=max(known))
        for number, score in enumerate(new):
            monitor.feed(score)
            row[number] = monitor.evidence
    assert evidence.mean(axis=0) == pytest.approx([1, 2, 3, 4])
    assert evidence.std(axis=0).min() > 0.1


def test_the_stated_error_is_kept_with_few_images_of_the_calibration() -> None:
    rng, lines, length = np.random.default_rng(2), 400, 1000
    false = 0
    for _ in range(lines):
        known = rng.exponential(size=12).tolist()
        monitor = DriftMonitor(known, from_normals(known, 0.01).value, run_length=length)
        false += bool(reports(monitor, rng.exponential(size=100)))
    bound = 100 / length
    assert false / lines <= bound + 3 * math.sqrt(bound * (1 - bound) / lines)


def test_a_shift_is_told_once_and_what_is_told_is_true() -> None:
    rng = np.random.default_rng(3)
    monitor = DriftMonitor(NORMAL, THRESHOLD)
    before, after = rng.normal(size=2000), rng.normal(2, 1, size=3000)
    assert not reports(monitor, before)
    assert not monitor.drifting
    ((delay, found),) = reports(monitor, after)
    assert delay < 50
    assert monitor.drifting
    assert found.images <= delay + 30  # about when it began
    last = np.concatenate([before, after[:delay]])[-found.images :]
    assert found.above == (last > found.level).sum()
    assert found.median == pytest.approx(np.median(last))
    assert f"{found.above} of the last {found.images} images" in str(found) or "the median score of" in str(found)
    assert not reports(monitor, rng.normal(size=1500))  # it has ended
    assert len(reports(monitor, after)) == 1  # another one


def test_falling_scores_are_a_drift_unless_a_region_explains_them() -> None:
    dark = np.random.default_rng(4).normal(-1.5, 1, size=500)
    ((_, found),) = reports(DriftMonitor(NORMAL, THRESHOLD), dark)
    assert found.kind == "median"
    assert found.median < found.level == sorted(NORMAL)[250]
    assert "the median score of the last" in str(found)
    assert not reports(DriftMonitor(NORMAL, THRESHOLD, downward=False), dark)


def test_usual_defects_are_no_drift_if_they_are_stated() -> None:
    rng = np.random.default_rng(5)
    scores = np.where(rng.random(5000) < 0.05, 20, rng.normal(size=5000))
    ((_, found), *_) = reports(DriftMonitor(NORMAL, THRESHOLD), scores)
    assert found.kind == "share"
    assert not reports(DriftMonitor(NORMAL, THRESHOLD, defect_rate=0.05), scores)
    assert reports(DriftMonitor(NORMAL, THRESHOLD, defect_rate=0.05), np.where(rng.random(5000) < 0.2, 20, scores))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"run_length": 1}, "--run-length: expected a number of images above 1, got 1"),
        ({"run_length": math.inf}, "--run-length"),
        ({"defect_rate": 1.0}, r"--defect-rate: expected a share in \[0, 1\), got 1.0"),
        ({"normal": []}, "no normal image"),
    ],
)
def test_what_is_out_of_range_is_refused(options: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        DriftMonitor(**{"normal": NORMAL, "threshold": THRESHOLD} | options)


def test_a_score_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="expected the finite score of an image, got nan"):
        DriftMonitor(NORMAL, THRESHOLD).feed(math.nan)


def write_table(root: Path, scores: np.ndarray, model: str = "abc", **more: str) -> Path:
    rows = [
        {"image_path": f"/line/{i}.png", "anomaly_score": f"{score:.6g}", "threshold": f"{THRESHOLD:.6g}"}
        | {"roi": "", "model": model}
        | more
        for i, score in enumerate(scores)
    ]
    with (root / "predictions.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return root / "predictions.csv"


def test_the_command_reads_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(6)
    normal, shifted = rng.normal(size=300), rng.normal(2, 1, size=300)
    table = write_table(tmp_path, normal)
    assert main([str(table)]) == 1
    assert "there is no calibration.json with the model abc beside the table" in capsys.readouterr().err
    remember(tmp_path, "abc", {"normal_scores": NORMAL, "roi": "", "other": 1})
    assert main([str(table)]) == 0
    assert capsys.readouterr().out.startswith(
        "300 images, no drift; as long as all is well, a false report comes once in 10,000,"
    )
    write_table(tmp_path, np.concatenate([normal, shifted]))
    assert main([str(tmp_path), "--run-length", "1e6"]) == 2
    line, last = capsys.readouterr().out.splitlines()
    number, path = int(line.split()[1]), line.split()[2]
    assert 300 < number < 350
    assert path == f"(/line/{number - 1}.png):"
    assert last.startswith(
        "600 images, 1 drift; as long as all is well, a false report comes once in 1,000,000 images at most"
    )


def test_each_model_is_compared_with_its_own_normal_scores(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    remember(tmp_path, "abc", {"normal_scores": NORMAL, "roi": ""})
    remember(tmp_path, "other", {"normal_scores": [score + 5 for score in NORMAL], "roi": ""})
    assert recall(tmp_path).keys() == {"abc", "other"}
    high = rng.normal(5, 1, size=300)
    assert main([str(write_table(tmp_path, high))]) == 2
    assert main([str(write_table(tmp_path, high, "other", threshold=f"{THRESHOLD + 5:.6g}"))]) == 0
    low = rng.normal(3, 1, size=300)  # as a region of interest makes it
    assert main([str(write_table(tmp_path, low, "other", threshold="9"))]) == 2
    assert main([str(write_table(tmp_path, low, "other", threshold="9", roi="123"))]) == 0


def test_a_threshold_of_few_digits_is_still_the_score_that_it_comes_from(tmp_path: Path) -> None:
    highest = max(NORMAL)
    assert float(f"{highest:.6g}") < highest
    remember(tmp_path, "abc", {"normal_scores": NORMAL, "roi": ""})
    table = write_table(tmp_path, np.full(50, 9.0), threshold=f"{highest:.6g}")
    monitor = RowMonitor(recall(tmp_path))
    found = next(filter(None, map(monitor.feed, read_rows(table))))
    assert found.expected == pytest.approx(1 / 501)


def test_a_table_that_is_none_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 1
    assert "no table" in capsys.readouterr().err
    remember(tmp_path, "abc", {"normal_scores": NORMAL, "roi": ""})
    table = write_table(tmp_path, np.zeros(2))
    table.write_text(table.read_text().replace("anomaly_score", "score"))
    assert main([str(table)]) == 1
    assert "it lacks anomaly_score" in capsys.readouterr().err
    write_table(tmp_path, np.zeros(2))
    table.write_text(table.read_text().replace(",0,", ",much,"))
    assert main([str(table)]) == 1
    assert "anomaly_score of /line/0.png is 'much', expected a number" in capsys.readouterr().err
    (tmp_path / "calibration.json").write_text("[]")
    assert main([str(table)]) == 1
    assert "calibration.json is damaged" in capsys.readouterr().err
