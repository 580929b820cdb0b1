"""The gallery as its user makes it, of a memory's test and of its predictions; its counts against ones made here."""

import base64
import csv
import io
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

import squad_lit
from squad_lit import predict
from squad_lit.calibrate import main as calibrate
from squad_lit.report.gallery import TRUTH
from squad_lit.training.memory import Memory
from squad_lit.view import main

SIDE = 64
ODD = "<b>&\"'.png"
NO_TEXT = os.fsdecode(b"\xff.png")


def draw(seed: int, defect: bool = False) -> Image.Image:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(SIDE, SIDE)), 3, mode="wrap")
    image = (120 + 12 * noise / noise.std()).clip(0, 255).astype(np.uint8)[..., None].repeat(3, 2)
    if defect:
        image[20:36, 20:36] = (250, 40, 40)
    return Image.fromarray(image)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``data``, a ``run`` on it, and ``out``, predictions of its defects."""
    root = tmp_path_factory.mktemp("view")
    for folder in ("good", "spot"):
        (root / "data" / folder).mkdir(parents=True)
    for i in range(24):
        draw(i).save(root / "data" / "good" / f"{i:02}.png")
    for i, name in enumerate(("0.png", "1.png", ODD, NO_TEXT)):
        draw(100 + i, defect=i > 0).save(root / "data" / "spot" / name)  # 0.png is a miss
    (root / "data" / "masks" / "spot").mkdir(parents=True)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[20:36, 20:36] = 255
    Image.fromarray(mask).save(root / "data" / "masks" / "spot" / "1.png")
    overrides = ["trainer=smoke", "model.memory.patches=100", "model.groups={low: [4], high: [8]}", "logger=none"]
    overrides += [f"dataset.image_size={SIDE}", "dataset.limit_train=null", "dataset.test_fraction=0.25"]
    overrides += ["dataset.validation_fraction=0.5", "callback.progress=null", "callback.panels=null"]
    with pytest.warns(UserWarning, match="3 anomalous images have no mask"):
        squad_lit.fit("folder", root=root / "data", model="memory", output=root / "run", overrides=overrides)
    command = ["--checkpoint", str(root / "run" / "last.ckpt"), "--output", str(root / "out")]
    assert predict.main([*command, str(root / "data" / "spot")]) == 0
    return root


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A copy of the run, to be spoilt."""
    return Path(shutil.copytree(made / "run", tmp_path / "run"))


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "predictions.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


def data(page: str) -> dict[str, Any]:
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    return dict(json.loads(text))


def view(folder: Path, output: Path, *options: str) -> str:
    assert main([str(folder), "--output", str(output), *options]) == 0
    return output.read_text(encoding="utf-8")


def held_out(made: Path) -> list[float]:
    return list(torch.load(made / "run" / "last.ckpt", weights_only=True)["squad_lit"]["normal_scores"])


def decode(source: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(source.removeprefix("data:image/jpeg;base64,"))))


def test_a_run_is_shown_as_it_is_in_its_table(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    green = torch.tensor([0.0, 1.0, 0.0]).view(1, 3, 1, 1).expand(1, 3, SIDE, SIDE)
    monkeypatch.setattr(Memory, "image_recon", lambda self, output: green)  # a memory has none
    page = view(made / "run", tmp_path / "new" / "view.html", "--false-alarm-rate", "0.3")
    found, rows = data(page), table(made / "run")
    assert len(rows) == 10
    assert [r["score"] for r in found["rows"]] == [float(r["anomaly_score"]) for r in rows]
    assert [(r["kind"], str(r["label"])) for r in found["rows"]] == [(r["defect"], r["label"]) for r in rows]
    assert {r["name"] for r in found["rows"] if r["label"]} == {"0.png", "1.png", ODD, "\ufffd.png"}
    assert found["threshold"] == sorted(held_out(made))[-3]  # 9 images: the third highest is exceeded by 3 in 10
    for row in found["rows"]:
        pictures = {caption: np.asarray(decode(source), np.float64) for caption, source in row["pictures"].items()}
        assert list(pictures) == ["image", "map", "reconstruction"]
        assert (abs(pictures["reconstruction"] - [0, 255, 0]) < 8).all()
        path = made / "data" / row["kind"] / (NO_TEXT if "\ufffd" in row["name"] else row["name"])
        with Image.open(path) as image:
            different = abs(pictures["image"] - np.asarray(image))
        edge = np.zeros((SIDE, SIDE), bool)
        if row["name"] == "1.png" and row["label"]:  # the border of its mask, just outside
            edge[18:38, 18:38] = True
            edge[20:36, 20:36] = False
            assert abs(pictures["image"][edge] - TRUTH).mean() < 50  # JPEG blurs it
        assert different[~edge].mean() < 4  # what JPEG loses
        if row["kind"] == "spot" and row["name"] != "0.png":
            assert abs(pictures["map"] - pictures["image"])[20:36, 20:36].mean() > 20


def test_the_page_needs_nothing_else_and_names_are_no_marks(made: Path, tmp_path: Path) -> None:
    for folder in ("run", "out"):
        page = view(made / folder, tmp_path / "view.html")
        assert "http" not in page
        assert "@import" not in page
        assert not re.findall(r"<(?:link|iframe|script[^>]+src)", page)
        assert "<b>&" not in page
        assert page.count("</script>") == 3


def test_the_counts_of_the_page_are_those_of_python(made: Path, tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    page = view(made / "run", tmp_path / "view.html")
    (logic,) = re.findall(r'<script id="logic">(.*?)</script>', page, re.DOTALL)
    rng = np.random.default_rng(0)
    scores, labels = rng.integers(0, 20, 200) / 4, rng.integers(0, 2, 200)  # with ties
    rows = [
        {
            "score": float(s),
            "label": int(b),
            "name": f"{i}.png",
            "category": f"c{i % 2}",
            "kind": "<Crack>" if b else "",
        }
        for i, (s, b) in enumerate(zip(scores, labels, strict=True))
    ]
    thresholds = [-1.0, 0.0, 1.6, 2.5, 10.0]
    script = f"""{logic}
    const rows = {json.dumps(rows)}, thresholds = {thresholds};
    const unlabelled = rows.map(row => ({{...row, label: null}}));
    const chosen = choose(rows, {{threshold: 2.5, filter: "miss", category: "c1", search: " crack 1", sort: "lowest"}});
    console.log(JSON.stringify({{
        counts: thresholds.map(t => count(rows, t)),
        flagged: thresholds.map(t => count(unlabelled, t).flagged),
        chosen: chosen.map(row => row.name),
        order: choose(rows, {{threshold: 2.5, sort: "name"}}).map(row => row.name),
    }}));"""
    done = subprocess.run([node, "-e", script], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    for threshold, counts, flagged in zip(thresholds, found["counts"], found["flagged"], strict=True):
        above = scores > threshold
        true, false = int((above & (labels == 1)).sum()), int((above & (labels == 0)).sum())
        bad, good = int(labels.sum()), int((labels == 0).sum())
        assert (counts["found"], counts["miss"]) == (true, bad - true)
        assert (counts["false alarm"], counts["passed"]) == (false, good - false)
        assert counts["flagged"] == flagged == int(above.sum())
        assert counts["precision"] == (true / (true + false) if above.any() else None)
        assert counts["recall"] == true / bad
        assert counts["false_alarm_rate"] == false / good
    missed = [r for r in rows if r["label"] and r["score"] <= 2.5 and r["category"] == "c1" and "1" in r["name"] + "c1"]
    assert [rows[int(n[:-4])]["score"] for n in found["chosen"]] == sorted(r["score"] for r in missed)
    assert set(found["chosen"]) == {r["name"] for r in missed}
    assert found["order"] == [r["name"] for r in rows]  # 2.png before 10.png


def in_browser(page: str, folder: Path) -> str:
    """The page after its scripts have run."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium is installed")
    (folder / "act.html").write_text(page, encoding="utf-8")
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}/profile"]
    command += ["--dump-dom", (folder / "act.html").as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def test_the_slider_moves_counts_and_cards_in_a_browser(made: Path, tmp_path: Path) -> None:
    page = view(made / "run", tmp_path / "view.html")
    scores = sorted(r["score"] for r in data(page)["rows"] if r["label"] == 0)
    value = (scores[0] + scores[1]) / 2  # all good images but one are false alarms
    act = f"""<script>element("value").value = "{value}"; element("value").dispatchEvent(new Event("input"));
    element("filter").value = "false alarm"; element("filter").dispatchEvent(new Event("input"));
    element("gallery").children[1].click();
    document.dispatchEvent(new KeyboardEvent("keydown", {{key: "ArrowRight"}}));</script></body>"""
    dom = in_browser(page.replace("</body>", act), tmp_path)
    assert f"<b>{len(scores) - 1} of {len(scores)}</b> false alarms" in dom
    assert dom.count('class="card"') == len(scores) - 1
    assert f">{scores[-3]:.2f} false alarm · good · " in dom  # the second was clicked, the third is large
    assert f"(3 of {len(scores) - 1})" in dom
    assert re.search(r'id="moved" class="warn">', dom)


def test_keys_zoom_and_brighten_and_a_chosen_threshold_has_its_command(made: Path, tmp_path: Path) -> None:
    page = view(made / "run", tmp_path / "view.html")
    keys = ["End", "+", "+", "]", "]", "]", "[", "ArrowLeft"]
    act = f"""<script>const press = key => document.dispatchEvent(new KeyboardEvent("keydown", {{key}}));
    element("gallery").children[0].click(); {json.dumps(keys)}.forEach(press);
    element("value").value = "3.25"; element("value").dispatchEvent(new Event("input"));</script></body>"""
    dom = in_browser(page.replace("</body>", act), tmp_path)
    assert "(9 of 10)" in dom  # the last but one
    large = dom[dom.index('id="large-tiles"') :]
    assert "transform: scale(1.5625)" in large
    assert f"brightness({2**0.5:.4f}" in large
    assert '<output id="zoom">1.6</output>' in dom
    checkpoint, line = made / "run" / "last.ckpt", made / "run" / "line.ckpt"
    command = f"squad-lit calibrate --checkpoint {checkpoint} --output {line} --threshold 3.25"
    assert f'<code id="command">{command}</code>' in dom
    assert calibrate(command.replace(str(line), str(tmp_path / "line.ckpt")).split()[2:]) == 0
    assert squad_lit.load(tmp_path / "line.ckpt").threshold.value == 3.25


def test_names_of_folders_say_what_predictions_are(made: Path, tmp_path: Path) -> None:
    command = ["--checkpoint", str(made / "run" / "last.ckpt"), "--output", str(tmp_path / "out")]
    assert predict.main([*command, str(made / "data" / "good"), str(made / "data" / "spot")]) == 0
    page = view(tmp_path / "out", tmp_path / "view.html")
    found = data(page)["rows"]
    assert {(r["kind"], r["label"]) for r in found} == {("good", 0), ("spot", 1)}
    assert sum(r["label"] for r in found) == 4
    assert "is taken from the names of" in page
    dom = in_browser(page, tmp_path)
    true = sum(r["label"] and r["score"] > data(page)["threshold"] for r in found)
    assert f"<b>{true} of 4</b> found defects" in dom


def test_pictures_can_be_larger(made: Path, tmp_path: Path) -> None:
    for side in (32, 48):
        (row, *_) = data(view(made / "out", tmp_path / "view.html", "--side", str(side)))["rows"]
        assert max(decode(row["pictures"]["map"]).size) == side


def test_predictions_have_their_overlays_and_no_labels(made: Path, tmp_path: Path) -> None:
    found, rows = data(view(made / "out", tmp_path / "view.html")), table(made / "out")
    assert [r["score"] for r in found["rows"]] == [float(r["anomaly_score"]) for r in rows]
    assert found["threshold"] == float(rows[0]["threshold"])
    assert {r["label"] for r in found["rows"]} == {None}
    model = ["--checkpoint", str(made / "run" / "last.ckpt"), "--false-alarm-rate", "0.2"]
    assert data(view(made / "out", tmp_path / "view.html", *model))["threshold"] == sorted(held_out(made))[-2]
    for row, line in zip(found["rows"], rows, strict=True):
        name = Path(line["image_path"]).name
        with Image.open(made / "out" / "overlay" / f"{name}.png") as image:
            assert abs(np.asarray(decode(row["pictures"]["map"]), float) - np.asarray(image)).mean() < 6


def test_predictions_made_in_turns_and_gone_images_keep_their_overlays(made: Path, tmp_path: Path) -> None:
    parts, out = tmp_path / "parts", tmp_path / "out"
    for i, folder in enumerate(("a", "b")):
        (parts / folder).mkdir(parents=True)
        draw(i, defect=True).save(parts / folder / f"{i}.png")
        predict.main(["--checkpoint", str(made / "run" / "last.ckpt"), "--output", str(out), str(parts / folder)])
    (parts / "a" / "0.png").unlink()
    found = {r["name"]: list(r["pictures"]) for r in data(view(out, tmp_path / "view.html"))["rows"]}
    assert found == {"0.png": ["map"], "1.png": ["image", "map"]}
    (out / "overlay" / "1.png.png").unlink()
    assert main([str(out)]) == 2
    assert (out / "view.html").exists()


def test_predictions_without_overlays_show_their_images(made: Path, tmp_path: Path) -> None:
    draw(0, defect=True).save(tmp_path / "0.png")
    command = ["--checkpoint", str(made / "run" / "last.ckpt"), "--output", str(tmp_path / "out"), "--no-overlay"]
    predict.main([*command, str(tmp_path / "0.png")])
    (row,) = data(view(tmp_path / "out", tmp_path / "view.html"))["rows"]
    assert list(row["pictures"]) == ["image"]


def test_the_most_wrong_images_have_pictures_and_all_are_counted(made: Path, tmp_path: Path) -> None:
    page = view(made / "run", tmp_path / "view.html", "--limit", "1")
    assert [r["name"] for r in data(page)["rows"] if r["pictures"]] == ["0.png"]  # the miss
    assert len(data(page)["rows"]) == 10
    assert "10 images, 1 with pictures" in page


def test_a_changed_image_is_not_shown_under_its_old_score(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (run / "predictions.csv").read_bytes()
    score = next(r["anomaly_score"] for r in table(run) if r["image_path"].endswith("1.png"))
    (run / "predictions.csv").write_bytes(text.replace(score.encode(), b"77.5"))
    assert main([str(run)]) == 2
    assert "in predictions.csv 77.5: the image or the checkpoint has changed" in capsys.readouterr().err
    assert sum(bool(r["pictures"]) for r in data((run / "view.html").read_text())["rows"]) == 9


@pytest.mark.parametrize(
    ("columns", "line", "words"),
    [
        (None, "", "predictions.csv: a run leaves it when it has tested"),
        ("image_path,anomaly_score", "a.png,1", "is neither of squad_lit.train"),
        ("image_path,name,anomaly_score,threshold", "", "has no images"),
        (
            "image_path,name,anomaly_score,threshold",
            "a.png,a.png,nan,1",
            "anomaly_score of a.png is 'nan', expected",
        ),
        ("image_path,name,anomaly_score,threshold", "a.png,a.png,1", "threshold of a.png is None"),
        ("image_path,category,defect,label,anomaly_score", "a.png,c,good,0,1", "name it with --checkpoint FILE"),
    ],
)
def test_other_folders_are_refused_in_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], columns: str | None, line: str, words: str
) -> None:
    if columns:
        (tmp_path / "predictions.csv").write_text(f"{columns}\n{line}\n")
    assert main([str(tmp_path)]) == 1
    assert words in capsys.readouterr().err
    assert not (tmp_path / "view.html").exists()


def test_mistakes_are_told_in_words(run: Path, made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(run / "absent")]) == 1
    assert "error: no folder" in capsys.readouterr().err
    assert main([str(run), "--false-alarm-rate", "2"]) == 1
    assert "false-alarm rate: expected a share in (0, 1), got 2.0" in capsys.readouterr().err
    assert main([str(made / "out"), "--false-alarm-rate", "0.1"]) == 1
    assert "add --checkpoint FILE" in capsys.readouterr().err
    assert main([str(made / "out"), "--device", "cpu"]) == 1
    assert "--device cpu is for a model, and" in capsys.readouterr().err
    text = (run / "predictions.csv").read_bytes().replace(b"/data/", b"/gone/")
    (run / "predictions.csv").write_bytes(text)
    assert main([str(run)]) == 1
    assert "none of 10 images can be shown; the first: cannot read image" in capsys.readouterr().err
    assert not (run / "view.html").exists()
