"""Files that are damaged or made to do harm: checkpoints, exported models, configurations, figures and tables."""

from __future__ import annotations

import copy
import io
import json
import pickle
import random
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from experiments.reliability.command import Said, Trial, fault, model, parts, run

from squad_lit.system.table import read_rows

_SECONDS = 60  # what takes longer hangs
_WRONG = [None, -1, 10**12, 1e300, "text", [], {}, [[]], True, "../../x", {"_target_": "os.system"}, [1, "a", None]]
_TARGETS = ["os.system", "builtins.eval", "subprocess.Popen", "squad_lit.system.file.write_text", "torch.load", "x", ""]
_YAML = [
    "", "5", "- 1\n- 2", "a: &a [*a]", "a: 1\na: 2", "a: \xff\xfe", "\0", "a: [", "? [a]\n: b", "a: ${b}\nb: ${a}",
    "a: !!python/object/apply:os.system [touch harm]", "a: " + "[" * 3000, "a: " + "x" * 1_100_000, "dataset: 5",
    "dataset: {_target_: 5}", "dataset: {_target_: a.B}\nmodel: 5", "dataset: {_target_: a.B}\nmodel: {}\nseed: x",
    "dataset: {_target_: os.system}\nmodel: {_target_: os.system}\nseed: 0", "a: ${oc.env:HOME}",
    "%YAML 9.9\n---\na: 1",
    "\n".join(["a0: &a0 [1, 1]", *(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 40))]),
]  # fmt: skip
_JSON = ["", "5", "[]", "{}", "null", "{", '{"run": 5}', '{"run": {}}', "[" * 10**5, '{"a":' * 10**5, "\xff", "NaN"]
_TABLES = [
    "", "a", "a,b\n1,2\n", "\0", "\xff\xfe", "{header}\n", "{header}\n../../escaped,../../escaped,1,1,1,0,,,0,,,\n",
    "{header}\n/abs,/abs/escaped,1,1,1,0,,,0,,,\n", "{header}\n/a,a,nan,1,1,0,,,0,,,\n",
    "{header}\n/a,a,x,y,z,w,,,0,,,\n",
    "{header}\n/a\n", "{header}\n" + "/a," * 300, "{header}\n" + '"' + "x" * 200_000, "{header}\n/a,,1,1,1,0,,,0,,,\n",
    "{header}\n/a,.,1,1,1,0,,,0,,,\n", "{header}\n/a,b\0c,1,1,1,0,,,0,,,\n",
]  # fmt: skip


class _Harm:
    """What runs a program where it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return Path.touch, (self.marker,)


def trials(work: Path, rng: random.Random, count: int) -> Iterator[Trial]:
    """Give each kind of file in turn to the command that reads it."""
    bench = _Bench(work)
    kinds: dict[str, Callable[[Path, random.Random], tuple[str, str | None]]] = {
        "checkpoint with a pickle": bench.pickled,
        "damaged checkpoint": bench.damaged_checkpoint,
        "checkpoint, wrong entry": bench.forged_checkpoint,
        "config.yaml": bench.config,
        "metrics.json": bench.figures,
        "metrics.json, wrong entry": bench.forged_figures,
        "predictions.csv": bench.table,
        "damaged export": bench.damaged_export,  # at the end, because it takes long to make one
        "export, wrong metadata": bench.forged_metadata,
    }
    for number in range(count):
        name = list(kinds)[number % len(kinds)]
        place = work / f"hostile{number}"
        place.mkdir()
        try:
            what, wrong = kinds[name](place, rng)
        except Exception as error:  # what is fine is not even readable
            what, wrong = "", f"{type(error).__name__}: {error}"
        if bench.marker.exists():
            wrong = "a program ran"
            bench.marker.unlink()
        yield f"{name}: {what} ({number})", wrong
        if wrong is None:
            shutil.rmtree(place)


class _Bench:
    """A model in all forms, a run, and the score of an image by them."""

    def __init__(self, work: Path) -> None:
        self.marker = work / "harm"
        self.checkpoint = model(work / "material")
        self.run = self.checkpoint.parent
        self.images = parts(work / "material" / "new", "PD", seed=1)
        self.scores: dict[str, list[float]] = {"last.ckpt": self.score(work / "of last.ckpt", self.checkpoint)[1]}
        self.exported = work / "material" / "exported"

    def export(self, name: str) -> Path:
        """The model in another form, which is made when it is first asked for."""
        path = self.exported / name
        if not path.exists():
            form = {".onnx": "onnx", ".xml": "openvino", ".pt2": "torch"}[path.suffix]
            command = ["--checkpoint", self.checkpoint, "--format", form, "--output", path]
            if wrong := fault(run("squad_lit.export", *command, seconds=180), 0):
                raise RuntimeError(wrong)
            self.scores[name] = self.score(self.exported / f"of {name}", path)[1]
        return path

    def score(self, place: Path, path: Path) -> tuple[Said, list[float]]:
        """How a prediction ends, and its scores."""
        command = ["--checkpoint", path, "--output", place / "out", self.images]
        said = run("squad_lit.predict", *command, seconds=_SECONDS)
        table = place / "out" / "predictions.csv"
        rows = read_rows(table) if said.status == 0 else []
        return said, [float(row["anomaly_score"]) for row in rows]

    def judge(self, place: Path, path: Path, like: str) -> str | None:
        """A file is refused by its name, or gives the scores of the whole one."""
        said, scores = self.score(place, path)
        if wrong := fault(said, 0, 1, names=path.stem):
            return wrong
        if said.status == 0 and any(abs(a - b) > 1e-4 for a, b in zip(scores, self.scores[like], strict=True)):
            return f"accepted, with other scores: {scores} and not {self.scores[like]}"
        return None

    def pickled(self, place: Path, rng: random.Random) -> tuple[str, str | None]:
        path, harm = place / "evil.ckpt", _Harm(self.marker)
        kind = rng.choice(["whole", "plain pickle", "weights", "state", "key", "tar", "protocol 5"])
        content = torch.load(self.checkpoint, weights_only=True)
        if kind == "plain pickle":
            path.write_bytes(pickle.dumps(harm))
        elif kind == "protocol 5":
            path.write_bytes(pickle.dumps({"state_dict": harm}, protocol=5))
        elif kind == "tar":
            torch.save(harm, path, _use_new_zipfile_serialization=False)
        else:
            if kind == "weights":
                content["state_dict"]["x"] = harm
            elif kind == "state":
                content["squad_lit"]["config"] = harm
            elif kind == "key":
                content["callbacks"] = {"x": harm}
            torch.save(harm if kind == "whole" else content, path)
        return kind, self.judge(place, path, "last.ckpt")

    def damaged_checkpoint(self, place: Path, rng: random.Random) -> tuple[str, str | None]:
        return self._damage(place, self.checkpoint, rng, "last.ckpt")

    def _damage(self, place: Path, source: Path, rng: random.Random, like: str) -> tuple[str, str | None]:
        content = bytearray(source.read_bytes())
        at = rng.randrange(len(content))
        kind = rng.choice(["4096 bytes overwritten", "cut off", "one bit", "one byte", "doubled"])
        if kind == "cut off":
            del content[at:]
        elif kind == "doubled":
            content = content * 2
        elif kind == "one bit":
            content[at] ^= 1 << rng.randrange(8)
        else:
            size = 4096 if kind.startswith("4096") else 1
            content[at : at + size] = rng.randbytes(len(content[at : at + size]))
        (place / source.name).write_bytes(content)
        path = place / source.with_suffix(".xml").name if source.suffix == ".bin" else place / source.name
        return f"{source.name}, {kind} at {at}", self.judge(place, path, like)

    def forged_checkpoint(self, place: Path, rng: random.Random) -> tuple[str, str | None]:
        content = torch.load(self.checkpoint, weights_only=True)
        where, holder = "", content
        while True:  # down to any depth, where most is
            key = rng.choice(list(holder))
            where = f"{where}.{key}".lstrip(".")
            if not isinstance(holder[key], dict) or not holder[key] or rng.random() < 0.2:
                break
            holder = holder[key]
        if torch.is_tensor(weight := holder[key]):
            most = 1e38 if weight.is_floating_point() else 1
            wrong = rng.choice([torch.zeros(1), weight[..., :0], torch.full_like(weight, most), None])
        else:
            wrong = rng.choice([*_WRONG, *_TARGETS])
        old, holder[key] = holder[key], copy.deepcopy(wrong)
        torch.save(content, place / "forged.ckpt")
        said, scores = self.score(place, place / "forged.ckpt")
        told = fault(said, 0, 1, names="forged")
        if told is None and said.status == 0 and not all(abs(score) < 1e30 for score in scores):
            told = f"accepted, with scores {scores}"
        return f"{where} = {str(wrong)[:40]!r}, before {str(old)[:40]!r}", told

    def damaged_export(self, place: Path, rng: random.Random) -> tuple[str, str | None]:
        name = rng.choice(["model.onnx", "model.xml", "model.bin", "model.pt2"])
        whole = self.export(name.replace(".bin", ".xml"))
        if whole.suffix == ".xml":
            for file in (whole, whole.with_suffix(".bin")):
                shutil.copy(file, place)
        return self._damage(place, whole.with_name(name), rng, whole.name)

    def forged_metadata(self, place: Path, rng: random.Random) -> tuple[str, str | None]:
        import onnx

        path = place / "model.onnx"
        loaded = onnx.load(self.export("model.onnx"))
        (own,) = [entry for entry in loaded.metadata_props if entry.key == "squad_lit"]
        about = json.loads(own.value)
        key, wrong = rng.choice(list(about)), rng.choice(_WRONG)
        about[key] = wrong
        own.value = rng.choice([json.dumps(about)] * 4 + _JSON)
        onnx.save(loaded, path)
        said, scores = self.score(place, path)
        told = fault(said, 0, 1, names="model.onnx")
        if told is None and said.status == 0 and not all(abs(score) < 1e30 for score in scores):
            told = f"accepted, with scores {scores}"
        return f"{key} = {wrong!r}"[:80] if own.value == json.dumps(about) else own.value[:40], told

    def _report(self, place: Path) -> str | None:
        """A report of a whole run and of another one is made, and names the other if it is damaged."""
        shutil.copytree(self.run, place / "runs" / "whole", dirs_exist_ok=True)
        command = [place / "runs", "--output", place / "report"]
        return fault(run("squad_lit.report.__main__", *command, seconds=_SECONDS), 0, 1)

    def config(self, place: Path, rng: random.Random) -> tuple[str, str | None]:
        text = rng.choice(_YAML)
        folder = place / "runs" / "bad"
        shutil.copytree(self.run, folder)
        (folder / "config.yaml").write_text(text, encoding="latin-1")
        wrong = self._report(place)
        view = run("squad_lit.view", folder, "--output", place / "view.html", seconds=_SECONDS)
        return repr(text[:50]), wrong or fault(view, 0, 1, 2)

    def figures(self, place: Path, rng: random.Random) -> tuple[str, str | None]:
        text = rng.choice(_JSON)
        folder = place / "runs" / "bad"
        shutil.copytree(self.run, folder)
        name = rng.choice(["metrics.json", "curves.json"])
        (folder / name).write_text(text, encoding="latin-1")
        return f"{name} {text[:40]!r}", self._report(place)

    def forged_figures(self, place: Path, rng: random.Random) -> tuple[str, str | None]:
        figures = json.loads((self.run / "metrics.json").read_text())
        figures["pixel_ap"] = figures["image_auroc"] = 0.5  # of a test
        holder, key = figures, rng.choice(list(figures))
        if isinstance(figures[key], dict) and figures[key] and rng.random() < 0.7:
            holder, key = figures[key], rng.choice(list(figures[key]))
        holder[key] = rng.choice(_WRONG)
        folder = place / "runs" / "bad"
        shutil.copytree(self.run, folder)
        (folder / "metrics.json").write_text(json.dumps(figures))
        return f"{key} = {holder[key]!r}", self._report(place)

    def table(self, place: Path, rng: random.Random) -> tuple[str, str | None]:
        from squad_lit.deploy.output_folder import HEADER

        text = rng.choice(_TABLES).replace("{header}", ",".join(HEADER))
        out = place / "deep" / "er" / "out"
        out.mkdir(parents=True)
        (out / "predictions.csv").write_text(text, encoding="latin-1")
        viewed = run("squad_lit.view", out, "--output", place / "view.html", seconds=_SECONDS)
        command = ["--checkpoint", self.checkpoint, "--output", out, self.images]
        said = run("squad_lit.predict", *command, seconds=_SECONDS)
        wrong = fault(viewed, 0, 1, 2) or fault(said, 0, 1, names="predictions.csv")
        if wrong is None and said.status == 1 and (out / "predictions.csv").read_text(encoding="latin-1") != text:
            wrong = "the table is refused, and changed"
        escaped = [path for path in place.rglob("*escaped*") if out not in path.parents]
        return repr(text[-60:]), wrong or ("wrote outside of its folder" if escaped else None)


def _bomb(path: Path) -> Path:
    """An archive of few bytes that stands for a gigabyte."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("archive/data.pkl", "w") as file:
        block = io.BytesIO(bytes(2**20)).getvalue()
        for _ in range(1024):
            file.write(block)
    return path
