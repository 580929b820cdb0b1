"""Bad image files, and what each way to read one makes of them: Python, predict, calibrate, check and train."""

from __future__ import annotations

import json
import math
import os
import random
import re
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from experiments.reliability.bad_image import BAD, EITHER, GOOD, make
from experiments.reliability.command import MEMORY, Said, Trial, fault, model, parts, run

from squad_lit.image.file import is_image
from squad_lit.system.console import visible
from squad_lit.system.table import read_rows

_BATCH, _SECONDS = 60, 10


def trials(work: Path, rng: random.Random, count: int) -> Iterator[Trial]:
    """Write files, and give each to all ways to read one, which have to agree; each file is a trial."""
    trained = model(work / "material")
    for start in range(0, count, _BATCH):
        place = work / f"image{start}"
        made = make(place / "cap" / "good", rng, min(_BATCH, count - start))
        wrong = _try(place, trained, made)
        for path, expected in made.items():
            yield f"image {start}/{path.name!r} ({expected})", wrong.get(os.fsdecode(path))
        if "" in wrong:
            yield f"images from {start} on", wrong[""]
        else:
            shutil.rmtree(place)


def _try(place: Path, trained: Path, made: dict[Path, str]) -> dict[str, str]:
    """What is wrong by file; the key is empty for what concerns all of them."""
    wrong: dict[str, str] = {}
    said = run("experiments.reliability.image", trained, place / "python.json", *made, seconds=300)
    if text := fault(said, 0):
        return {"": f"load().predict: {text}"}
    by_python = json.loads((place / "python.json").read_text())
    for path, expected in made.items():
        score, error, seconds = by_python[os.fsdecode(path)]
        if error.startswith("trace"):
            wrong[str(path)] = f"load().predict: {error}"
        elif error and path.name not in error:
            wrong[str(path)] = f"load().predict does not name it: {error}"
        elif expected != EITHER and (expected == BAD) != bool(error):
            wrong[str(path)] = f"load().predict: has to be {expected}: {error or score}"
        elif seconds > _SECONDS:
            wrong[str(path)] = f"load().predict takes {seconds:.0f} s"
        elif not error and not math.isfinite(score):
            wrong[str(path)] = f"load().predict: score {score}"
    refused = {path for path in made if by_python[os.fsdecode(path)][1]}
    listed = {path for path in made if is_image(path)}
    for way, (said, found) in _ways(place, trained, list(made)).items():
        if text := fault(said, 0, 1, 2):
            wrong[""] = f"{way}: {text}"
            continue
        seen = set(made) if way == "predict" else listed
        if way == "calibrate":  # which leaves out copies, whether they can be read or not
            contents = Counter(path.read_bytes() for path in seen if path.is_file())
            seen = {path for path in seen if not path.is_file() or contents[path.read_bytes()] == 1}
        for path in seen:
            if (path in found) != (path in refused):
                wrong.setdefault(str(path), f"{way} and load().predict differ: {by_python[os.fsdecode(path)][1]!r}")
    return wrong


def _ways(place: Path, trained: Path, made: Sequence[Path]) -> dict[str, tuple[Said, set[Path]]]:
    """By command: how it ended, and which files it refused."""
    out, good, extra = place / "out", place / "cap" / "good", parts(place / "extra")
    images = [path for path in made if not path.is_dir()]  # a folder without images is an error for all
    said = run("squad_lit.predict", "--checkpoint", trained, "--output", out, *images, seconds=300)
    rows = read_rows(out / "predictions.csv") if said.status in (0, 2) else []
    whole = {row["image_path"] for row in rows if (out / "map" / f"{row['name']}.tiff").is_file()}
    found = {"predict": (said, {path for path in made if str(path) not in whole})}
    calibrate = ["--checkpoint", trained, "--output", place / "line.ckpt", good, extra]
    found["calibrate"] = _refused(run("squad_lit.calibrate", *calibrate, seconds=300), "skipped: ", made)
    root = [*MEMORY, f"dataset.root={place / 'cap'}"]
    found["check"] = _refused(run("squad_lit.check", *root, seconds=300), "error: ", made)
    for image in extra.iterdir():  # enough for a training
        shutil.copy(image, good / f"extra{image.name}")
    skipping = [*root, "dataset.skip_unreadable=true", f"hydra.run.dir={place / 'run'}"]
    found["train"] = _refused(run("squad_lit.train", *skipping, seconds=300), "cannot read image|image ", made)
    return found


def _refused(said: Said, start: str, made: Sequence[Path]) -> tuple[Said, set[Path]]:
    """The files that a command names after words with which it begins a line."""
    blocks = re.split(
        rf"^(?={start}|errors?: |warning: )", said.text, flags=re.MULTILINE
    )  # a name may have a line feed
    text = "".join(block for block in blocks if re.match(start, block))
    return said, {path for path in made if visible(path.name.encode(errors="backslashreplace").decode()) in text}


def main(arguments: Sequence[str]) -> int:
    """Predict each file from Python, and write score, error and seconds of each."""
    import squad_lit

    trained, output, *images = arguments
    predictor = squad_lit.load(trained)
    found = {}
    for path in images:
        started = time.perf_counter()
        score, error = math.nan, ""
        try:
            result = predictor.predict(path)
            score = result.anomaly_score
        except (OSError, ValueError) as caught:
            error = str(caught) or "nothing"
        except Exception as caught:
            error = f"trace {caught!r}"
        found[path] = score, error, time.perf_counter() - started
    Path(output).write_text(json.dumps(found))
    return 0


__all__ = ["GOOD", "main", "trials"]
