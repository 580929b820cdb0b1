"""Results that threads compute before they are asked for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def ahead(
    threads: Executor,
    function: Callable[[_Item], _Result],
    items: Iterable[_Item],
    count: float,
    weight: Callable[[_Item], float] = lambda item: 1,
) -> Iterator[_Result]:
    """``function`` of each item, in order; up to ``count`` further items are under way while the caller is busy.

    Where items differ in size, ``weight`` says for how many each counts. One that counts for more than ``count`` waits
    until no other is under way.
    """
    waiting: deque[tuple[Future[_Result], float]] = deque()

    def under_way() -> float:
        return sum(own for _, own in waiting)

    for item in items:
        own = weight(item)
        while waiting and under_way() + own > count + 1:
            yield waiting.popleft()[0].result()
        waiting.append((threads.submit(function, item), own))
        if under_way() > count:
            yield waiting.popleft()[0].result()
    while waiting:
        yield waiting.popleft()[0].result()
