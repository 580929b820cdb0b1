"""A digest that an exported file has in its own description, by which damage is found before anything is loaded.

ONNX and OpenVINO's files have no checksum, so that a model with damaged weights would give other scores in silence. A
program of torch is an archive, which has.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

OPEN = "0" * 64
"""What a description has in the place of the digest until :func:`seal` puts it there."""

# In JSON, or in JSON in XML.
_PLACE = re.compile(rb'digest(?:"|&quot;): (?:"|&quot;)([^"&]{64})(?:"|&quot;)')


def seal(path: Path) -> None:
    """Put the SHA-256 of the file, and of the weights beside it, in the place that the description has for it."""
    content, place = _read(path)
    if place is None:
        raise ValueError(f"{path}: expected a description with a place for a digest")
    path.write_bytes(content[: place[0]] + _digest(path, content, place) + content[place[1] :])


def check_seal(path: Path) -> None:
    """Refuse a file whose content is not what its description says.

    Raises:
        ValueError: The file or its weights were changed. A file without a digest is left to the check of its
            description.
    """
    content, place = _read(path)
    if place is not None and content[slice(*place)] != _digest(path, content, place):
        raise ValueError(
            f"{path} is damaged, or its weights are of another file: they are not what was written; "
            f"export the checkpoint again with squad-lit export"
        )


def weights_beside(path: Path) -> Path:
    """Where OpenVINO has the weights of an ``.xml``."""
    return path.with_suffix(".bin")


def parts(path: Path) -> list[Path]:
    """The file of a model, and the weights if they lie beside it."""
    return [path, weights] if path.suffix == ".xml" and (weights := weights_beside(path)).is_file() else [path]


def _read(path: Path) -> tuple[bytes, tuple[int, int] | None]:
    """The content, and first and last place of its digest."""
    content = path.read_bytes()
    found = _PLACE.search(content)
    return content, found and found.span(1)


def _digest(path: Path, content: bytes, place: tuple[int, int]) -> bytes:
    summed = hashlib.sha256(content[: place[0]] + OPEN.encode() + content[place[1] :])
    for beside in parts(path)[1:]:
        summed.update(beside.read_bytes())
    return summed.hexdigest().encode()
