"""The file of a model that may be replaced while it is in use."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from squad_lit.deploy.seal import parts
from squad_lit.deploy.watch.arrival import describe
from squad_lit.system.console import USER_ERRORS, say, sentence
from squad_lit.system.file import digest

if TYPE_CHECKING:
    from squad_lit.deploy.predictor import Predictor


class ModelFile:
    """A model, and another one as soon as its file changes.

    Whoever replaces the file should write the new one beside it and rename it. One that cannot be opened is refused in
    words, and the model before goes on.

    Args:
        path: The file.
        load: Opens it.

    Attributes:
        predictor: The model.
        digest: Identifies its file by the content.

    Raises:
        Exception: What ``load`` raises.
    """

    def __init__(self, path: Path, load: Callable[[], Predictor]) -> None:
        self._path, self._load = path, load
        self._used = self._seen = self._stamp()
        self.predictor, self.digest = load(), identify(path)

    def refresh(self) -> bool:
        """Open the file anew if it has changed since, and not since the last call; returns whether that worked."""
        stamp, before = self._stamp(), self._seen
        self._seen = stamp
        if stamp in ("", self._used) or stamp != before:
            return False
        self._used = stamp
        try:
            self.predictor, self.digest = self._load(), identify(self._path)
        except USER_ERRORS as error:
            say(f"warning: {sentence(error)}; the model before goes on", to=sys.stderr)
            return False
        return True

    def _stamp(self) -> str:
        try:
            return "; ".join(describe(path.stat()) for path in parts(self._path))
        except OSError:  # a file that is being replaced
            return ""


def identify(path: Path) -> str:
    """Identifies the file of a model, and its weights if they lie beside it, by the content."""
    return digest(*parts(path))[:12]
