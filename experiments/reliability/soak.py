"""Thousands of predictions in one process: the same scores, from threads, too, and no more memory at the end."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from experiments.reliability.command import Command, Trial, fault, model, parts, run

_BLOCK, _THREADS = 100, 8
_GROWTH = 30 * 2**20  # bytes, from the first quarter on


def trials(work: Path, rng: random.Random, count: int) -> Iterator[Trial]:
    """Predict so often with a checkpoint and with exported files, in one thread and in eight; each file is a trial."""
    trained = model(work / "material")
    new = parts(work / "material" / "new", "PPLLPDPLDDPP", seed=rng.randrange(2**31))
    files = {"a checkpoint": trained}
    for form, name in (("onnx", "model.onnx"), ("openvino", "model.xml"), ("torch", "model.pt2")):
        if count < 1000:
            break
        said = run("squad_lit.export", "--checkpoint", trained, "--format", form, "--output", work / name, seconds=180)
        if wrong := fault(said, 0):
            yield f"export {form}", wrong
        files[name] = work / name
    for what, file in files.items():
        share = count // len(files)
        said = Command("experiments.reliability.soak", file, new, share).end(600)
        yield f"{share} predictions with {what}", fault(said, 0)


def main(arguments: Sequence[str]) -> int:
    """Predict so often; returns 1 if a score differs or the memory grows."""
    import psutil

    import squad_lit

    path, images, count = Path(arguments[0]), sorted(Path(arguments[1]).iterdir()), int(arguments[2])
    predictor = squad_lit.load(path)
    expected = [predictor.predict(image).anomaly_score for image in images]
    used = []
    with ThreadPoolExecutor(_THREADS) as threads:
        for start in range(0, count, _BLOCK):
            chosen = [(start + i) % len(images) for i in range(min(_BLOCK, count - start))]
            judge = map if start // _BLOCK % 2 else threads.map
            scores = list(judge(lambda i: predictor.predict(images[i]).anomaly_score, chosen))
            if wrong := [i for i, score in zip(chosen, scores, strict=True) if abs(score - expected[i]) > 1e-5]:
                print(f"error: {len(wrong)} scores differ from the first ones, from prediction {start} on")
                return 1
            used.append(psutil.Process().memory_info().rss)
    growth = max(used[-2:]) - max(used[: max(2, len(used) // 4)])
    if growth > _GROWTH:
        print(f"error: the memory has grown by {growth / 2**20:.0f} MB in {count} predictions")
        return 1
    return 0
