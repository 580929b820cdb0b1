"""Which files are ours, and what is kept in them."""

from pathlib import Path
from typing import Any

import pytest
import torch

from squad_lit.training.checkpoint import KEY, VERSION, State, read

# Reading


def write(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def test_a_checkpoint_of_ours_is_read(tmp_path):
    content: dict[str, Any] = {"state_dict": {"w": torch.arange(3)}}
    state = State(config={"a": [1]}, categories=["b"], step=7, normal_scores=[0.5], false_alarm_rate=0.25)
    state.save(content)
    state.normal_scores.append(1.0)  # afterwards
    found = read(write(tmp_path / "last.ckpt", content))
    expected = State(config={"a": [1]}, categories=["b"], step=7, normal_scores=[0.5], false_alarm_rate=0.25)
    assert State.load(found) == expected
    assert torch.equal(found["state_dict"]["w"], torch.arange(3))


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint .*nowhere\.ckpt"):
        read(tmp_path / "nowhere.ckpt")


def test_an_exported_file_is_told_from_a_damaged_one(tmp_path):
    (tmp_path / "part.onnx").write_bytes(b"graph")
    with pytest.raises(ValueError, match=r"part\.onnx is an exported file, .*: name the checkpoint that it comes from"):
        read(tmp_path / "part.onnx")


@pytest.mark.parametrize("content", [{"state_dict": {}}, {KEY: None}, {KEY: {"version": "a"}}, [1, 2], torch.zeros(2)])
def test_foreign_file_is_refused(tmp_path, content):
    with pytest.raises(ValueError, match=r"foreign\.ckpt is not a checkpoint of squad_lit"):
        read(write(tmp_path / "foreign.ckpt", content))


@pytest.mark.parametrize(
    ("version", "todo"), [(VERSION + 1, "update squad_lit"), (VERSION - 1, "train the model anew")]
)
def test_another_version_is_refused(tmp_path, version, todo):
    with pytest.raises(ValueError, match=rf"has checkpoint version {version}; this squad_lit reads {VERSION}: {todo}"):
        read(write(tmp_path / "new.ckpt", {KEY: {"version": version}}))


def test_a_state_with_a_part_missing_is_refused(tmp_path):
    content: dict[str, Any] = {}
    State().save(content)
    del content[KEY]["normal_maxima"]
    with pytest.raises(ValueError, match=r"part\.ckpt does not fit this squad_lit: .*'normal_maxima'"):
        read(write(tmp_path / "part.ckpt", content))


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"no checkpoint at all"])
def test_damaged_file_is_refused(tmp_path, damage):
    path = write(tmp_path / "last.ckpt", {KEY: {"version": VERSION}, "state_dict": {"w": torch.zeros(1000)}})
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"last\.ckpt is not a readable checkpoint"):
        read(path)


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_reading_runs_no_code(tmp_path):
    path = write(tmp_path / "trap.ckpt", {KEY: {"version": VERSION, "config": Trap(tmp_path / "sprung")}})
    with pytest.raises(ValueError, match="is not a readable checkpoint"):
        read(path)
    assert not (tmp_path / "sprung").exists()
    torch.load(path, weights_only=False)  # the trap is a real one
    assert (tmp_path / "sprung").exists()


@pytest.mark.parametrize("place", [0.3, 0.5, 0.8])
def test_a_single_changed_byte_of_a_weight_is_found(tmp_path, place):
    file = tmp_path / "last.ckpt"
    torch.save({KEY: {"version": VERSION}, "weight": torch.zeros(100_000)}, file)
    content = bytearray(file.read_bytes())
    content[int(place * len(content))] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"last\.ckpt is not a readable checkpoint: it is damaged"):
        read(file)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({KEY: {"config": [1]}}, "config: expected a dictionary, got"),
        ({KEY: {"normal_scores": [0.5, float("nan")]}}, r"normal_scores\[1\]: expected a finite number, got nan"),
        ({KEY: {"normal_maxima": [float("inf")]}}, r"normal_maxima\[0\]: expected a finite number, got inf"),
        ({KEY: {"defective_scores": torch.zeros(2)}}, "defective_scores: expected plain values, got Tensor"),
        ({KEY: {"step": "7"}}, "step: expected a whole number, got '7'"),
        ({KEY: {"image_size": 8}}, "image_size: expected a list, got 8"),
        ({KEY: {"categories": [1]}}, r"categories\[0\]: expected a text, got 1"),
        ({KEY: {"measured": {"a": {"b": {3}}}}}, "measured: expected plain values, got dict with others in it"),
        ({KEY: {"false_alarm_rate": True}}, "false_alarm_rate: expected a number or null, got true"),
        ({"state_dict": [1]}, "state_dict is list"),
        ({"loops": 3}, "loops is int"),
        ({"optimizer_states": {}}, "optimizer_states is dict"),
    ],
)
def test_an_entry_of_a_wrong_kind_is_named(tmp_path, change, words):
    content: dict[str, Any] = {"state_dict": {}, "loops": {}, "optimizer_states": []}
    State().save(content)
    read(write(tmp_path / "whole.ckpt", content))
    for key, value in change.items():
        content[key] = content[key] | value if key == KEY else value
    with pytest.raises(ValueError, match=rf"part\.ckpt does not fit this squad_lit: it is damaged, .*\({words}"):
        read(write(tmp_path / "part.ckpt", content))
