"""Results that threads compute before they are asked for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def ahead(
    threads: Executor, function: Callable[[_Item], _Result], items: Iterable[_Item], count: int
) -> Iterator[_Result]:
    """``function`` of each item, in order; up to ``count`` further items are under way while the caller is busy."""
    waiting: deque[Future[_Result]] = deque()
    for item in items:
        waiting.append(threads.submit(function, item))
        if len(waiting) > count:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
