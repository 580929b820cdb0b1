"""Disks that are full, fill up in the middle, or cannot be written to."""

from __future__ import annotations

import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from experiments.reliability.command import SMALL, Said, Skipped, Trial, fault, model, parts, run

_MEGABYTES = 200


def trials(work: Path, rng: random.Random, count: int) -> Iterator[Trial]:
    """Run each command on a disk with a random rest of room, with none, read-only, and as folder of temporary files."""
    disk = work / "disk"
    disk.mkdir(parents=True)
    mounted = ["mount", "-t", "tmpfs", "-o", f"size={_MEGABYTES}m", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mounted, capture_output=True).returncode:
        raise Skipped("a small disk cannot be mounted here, which only root may")
    subprocess.run(["umount", str(disk)], check=True)
    commands = _commands(work / "material")
    for number in range(count):
        name = list(commands)[number % len(commands)]
        kind = ("nearly full", "full", "nearly full", "read-only", "for temporary files")[number // len(commands) % 5]
        subprocess.run(mounted, check=True)
        try:
            yield f"{name}, disk {kind} ({number})", _try(commands[name], kind, disk, work / f"disk{number}", rng)
        finally:
            subprocess.run(["umount", "--lazy", str(disk)], check=True)


def _try(command: Callable[..., Said], kind: str, disk: Path, beside: Path, rng: random.Random) -> str | None:
    if kind == "for temporary files":
        fill(disk, rng.choice([0, 4096]))
        beside.mkdir()
        return fault(command(beside, environment={"TMPDIR": str(disk)}), 0)
    old = disk / "out"
    old.mkdir()
    if kind == "read-only":
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        said = command(old)
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        wrong = fault(said, 1, names=str(disk))
    else:
        fill(disk, 0 if kind == "full" else int(10 ** rng.uniform(3, 7.7)))
        said = command(old)
        wrong = fault(said, 0, 1, names=str(disk))
        if not wrong and said.status == 1 and "no space left on the disk" not in said.text:
            wrong = f"does not say that there is no space: {said.text[-200:]}"
        (disk / "fill").unlink()
    if not wrong and (found := [path.name for path in disk.rglob("*") if ".part" in path.name]):
        wrong = f"left {', '.join(found)}"
    again = wrong or fault(command(old), 0)
    return wrong or (f"with room again: {again}" if again else None)


def fill(disk: Path, leave: int = 0) -> None:
    """Leave so many bytes, in pages of 4 KB."""
    with (disk / "fill").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
        file.truncate(max(0, file.tell() - leave))


def _commands(material: Path) -> dict[str, Callable[..., Said]]:
    trained = model(material)
    new = parts(material / "new", "PPLLPD" * 4, seed=1)
    training = [*SMALL, f"dataset.root={material / 'data'}", "model.pool.workers=0"]
    predict = ["--checkpoint", trained, "--output"]
    predicted = material / "predicted"
    if wrong := fault(run("squad_lit.predict", *predict, predicted, new), 0):
        raise RuntimeError(wrong)
    finished = material / "run"

    def export(form: str, name: str) -> Callable[..., Said]:
        return lambda out, **options: run(
            "squad_lit.export",
            "--checkpoint",
            trained,
            "--format",
            form,
            "--output",
            out / name,
            seconds=180,
            **options,
        )

    return {
        "train": lambda out, **options: run("squad_lit.train", *training, f"hydra.run.dir={out}", **options),
        "predict": lambda out, **options: run("squad_lit.predict", *predict, out, new, **options),
        "calibrate": lambda out, **options: run("squad_lit.calibrate", *predict, out / "line.ckpt", new, **options),
        "view": lambda out, **options: run("squad_lit.view", predicted, "--output", out / "view.html", **options),
        "report": lambda out, **options: run("squad_lit.report.__main__", finished, "--output", out, **options),
        "export onnx": export("onnx", "model.onnx"),
        "export openvino": export("openvino", "model.xml"),
        "export torch": export("torch", "model.pt2"),
    }
