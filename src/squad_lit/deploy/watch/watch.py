"""A folder that is watched: each new image is judged once, whatever ends the process in between."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from numpy.typing import NDArray

from squad_lit.deploy.drift import RowMonitor
from squad_lit.deploy.known_scores import recall, remember
from squad_lit.deploy.output_folder import ENDINGS, HEADER, files, output_name, write
from squad_lit.deploy.output_folder import describe as columns
from squad_lit.deploy.together import AHEAD, batches, judge_each
from squad_lit.deploy.watch.arrival import Arrival, Arrivals, describe
from squad_lit.deploy.watch.journal import Journal
from squad_lit.deploy.watch.post import Poster
from squad_lit.deploy.watch.row_log import RowLog
from squad_lit.image.file import to_uint8
from squad_lit.system.ahead import ahead
from squad_lit.system.console import say

if TYPE_CHECKING:
    from squad_lit.deploy.model_file import ModelFile
    from squad_lit.deploy.predictor import Result

# Images that are entered into the journal together.
_CHUNK = 32
# Images after which the journal forgets those that are gone.
_FORGET = 10_000
_TEXTS = ("image_path", "name", "roi", "model", "file")

_Judged = tuple[Arrival, dict[str, Any]]


class Watch:
    """Judges the images of a folder as they arrive, into an output folder whose lock the caller has.

    Args:
        folder: The folder that is watched.
        root: The output folder.
        model: The model; another one is used as soon as its file has changed.
        monitor: Takes the rows, and reports drifts.
        kinds: Which of map, mask and overlay are written.
        keep: How many images keep their rows and files; None keeps all.
        post: Where the lines are posted to, too.
        interval: Seconds between two looks at the folder, and without a change until a file is taken for whole.

    Raises:
        ValueError: The output folder is of another kind or damaged, or ``post`` is no address.
        OSError: The output folder cannot be written to.
    """

    def __init__(
        self,
        folder: Path,
        root: Path,
        model: ModelFile,
        monitor: RowMonitor,
        *,
        kinds: Collection[str] = tuple(ENDINGS),
        keep: int | None = None,
        post: str | None = None,
        interval: float = 0.5,
    ) -> None:
        self._folder, self._root, self._model, self._monitor = folder.absolute(), root, model, monitor
        self._kinds, self._interval = kinds, interval
        self._table = RowLog(root, keep)
        self._journal = Journal(root / "watch.db")
        self._arrivals = Arrivals(folder, [root / kind for kind in ENDINGS], self._journal.is_judged, interval)
        self._poster = Poster(post, self._journal) if post else None
        self._threads = ThreadPoolExecutor()
        self._said: set[str] = set()
        self._use()
        for row in self._table.rows():
            if row["model"] == model.digest:
                monitor.feed(row)

    def run(self, stopping: threading.Event) -> int:
        """Watch until told to stop; returns how many images were judged."""
        total, forgotten = 0, 0
        self._write()  # what a process that was killed has left
        while not stopping.is_set():
            before, started = total, time.monotonic()
            if self._model.refresh():
                self._say(f"another model: threshold {self._model.predictor.threshold}")
                self._use()
            arrived = self._arrivals.look()
            looked = time.monotonic() - started
            self._say(self._arrivals.trouble)
            while arrived and not stopping.is_set():
                judged = self._judge(arrived[:_CHUNK], stopping)
                self._enter(judged)
                total, arrived = total + len(judged), arrived[_CHUNK:]
            if total - forgotten >= _FORGET and not self._arrivals.trouble and not self._arrivals.is_empty:
                self._journal.forget(self._arrivals.is_there)
                forgotten = total
            if total == before:
                stopping.wait(max(self._interval, 10 * looked))
        return total

    def close(self) -> None:
        """Post what can be posted within some seconds, and free the files."""
        self._threads.shutdown(cancel_futures=True)
        if self._poster:
            self._poster.close()
        self._journal.close()

    def _use(self) -> None:
        """Begin to use the model."""
        predictor = self._model.predictor
        remember(self._root, self._model.digest, predictor.runtime.metadata)
        self._monitor.known = recall(self._root)
        self._of_model = {
            "threshold": f"{predictor.threshold.value:.6g}",
            "min_area": str(predictor.min_area),
            "roi": predictor.roi_digest,
            "model": self._model.digest,
        }

    def _judge(self, arrived: Sequence[Arrival], stopping: threading.Event) -> list[_Judged]:
        """Judge images, and write their files; returns what is to be said of those that are done with."""
        failed: list[_Judged] = []
        wanted = takewhile(lambda arrival: not stopping.is_set(), arrived)
        found = (image for image in ahead(self._threads, self._read, wanted, AHEAD) if self._is_read(image, failed))
        return [*ahead(self._threads, self._save, self._results(found), AHEAD), *failed]

    def _read(self, arrival: Arrival) -> _Image:
        try:
            pixels = self._model.predictor.read(arrival.path)
            is_same = describe(arrival.path.stat()) == arrival.stamp  # or a later look finds it again
            return _Image(arrival, pixels if is_same else None)
        except (OSError, ValueError) as error:
            return _Image(arrival, None, error)

    def _is_read(self, image: _Image, failed: list[_Judged]) -> bool:
        """Whether there are pixels; notes what will never have any."""
        if image.error is None:
            return image.pixels is not None
        if not isinstance(image.error, OSError) or self._arrivals.is_hopeless(image.arrival, image.error):
            failed.append(self._failure(image.arrival, image.error))
        elif image.arrival.path.exists() and isinstance(image.error.__cause__, OSError) and image.error.__cause__.errno:
            self._say(f"{image.error}; trying again")
        return False

    def _results(self, images: Iterator[_Image]) -> Iterator[tuple[_Image, Result | Exception]]:
        predictor = self._model.predictor
        for batch in batches(images, predictor.runtime.batch, lambda image: image.size):
            pixels = [image.pixels for image in batch if image.pixels is not None]
            yield from zip(batch, judge_each(predictor, pixels), strict=True)

    def _save(self, one: tuple[_Image, Result | Exception]) -> _Judged:
        """Write the files of an image; returns its line."""
        (arrival, pixels, _), result = one
        if isinstance(result, ValueError):  # such as of a score that is not finite
            return self._failure(arrival, result)
        if isinstance(result, Exception):
            raise result
        name = self._name(arrival)
        if self._kinds and pixels is not None:
            places = files(self._root, name, self._kinds)
            write(result, to_uint8(pixels), places, self._model.predictor.pixel_threshold.value)
        row = {
            "image_path": str(arrival.path),
            "name": name,
            "file": arrival.stamp,
            **columns(result),
            **self._of_model,
        }
        return arrival, {column: _typed(column, row[column]) for column in HEADER}

    def _failure(self, arrival: Arrival, error: Exception) -> _Judged:
        """The line of an image that cannot be judged."""
        named = str(error) if str(arrival.path) in str(error) else f"{arrival.path}: {error}"
        self._say(f"skipped: {named}", again=True)
        line = {"image_path": str(arrival.path), "name": self._name(arrival), "file": arrival.stamp}
        return arrival, line | {"error": str(error)}

    def _name(self, arrival: Arrival) -> str:
        return output_name(arrival.path.relative_to(self._folder).as_posix())

    def _enter(self, judged: Sequence[_Judged]) -> None:
        """Enter images into the journal, and write their rows and lines."""
        for _, line in judged:
            line["time"] = datetime.now(UTC).isoformat(timespec="milliseconds")
            if "error" not in line and (report := self._monitor.feed(_row(line))):
                line["drift"] = str(report)
                self._say(f"drift: {report}", again=True)
        if judged:
            self._journal.add(judged, place=self._table.size, post=self._poster is not None)
            self._write()

    def _write(self) -> None:
        """Write the rows and lines that the journal has and that may not be written yet."""
        place, lines = self._journal.unwritten()
        if not lines:
            return
        contents = [json.loads(line.text) for line in lines]
        self._table.append([_row(content) for content in contents if "error" not in content], place)
        for line in lines:
            print(line.text, flush=True)  # each by one write, which a kill does not divide
        self._journal.wrote()
        if self._poster:
            self._poster.wake()
        self._table.rotate(self._is_replaced)

    def _is_replaced(self, row: Mapping[str, str]) -> bool:
        stamp = self._journal.stamp(Path(row["image_path"]))
        return stamp is not None and stamp != row["file"]

    def _say(self, text: str, again: bool = False) -> None:
        """Tell the user something once, or each time."""
        if text and (again or text not in self._said):
            self._said = {*list(self._said)[-100:], text}
            say(text, to=sys.stderr)


class _Image(NamedTuple):
    """An image with its pixels, or with the reason why there are none; without both it has changed meanwhile."""

    arrival: Arrival
    pixels: NDArray[Any] | None
    error: Exception | None = None

    @property
    def size(self) -> int:
        return 0 if self.pixels is None else self.pixels.size


def _typed(column: str, value: Any) -> Any:
    """A value of the table as JSON has it: numbers, a list of numbers, or null where there is none."""
    if column in _TEXTS:
        return str(value)
    numbers = [json.loads(part) for part in str(value).split()]
    return numbers or None if column == "largest_box" else numbers[0] if numbers else None


def _row(line: Mapping[str, Any]) -> dict[str, str]:
    """The row of the table, from a line."""
    return {column: _text(line[column]) for column in HEADER}


def _text(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value))
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
