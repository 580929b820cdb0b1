"""Images that go through a model together."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from numpy.typing import NDArray

if TYPE_CHECKING:
    from squad_lit.deploy.predictor import Predictor, Result

_Item = TypeVar("_Item")

AHEAD = 2 * (os.cpu_count() or 1)
"""Images that are read, or written, by threads while the model is busy."""
# Most values of pixels that a batch of images holds in memory.
_VALUES = 2**25


def batches(items: Iterable[_Item], most: int, values: Callable[[_Item], int]) -> Iterator[list[_Item]]:
    """Neighbours, as many as a model computes together, and few if they are large.

    Args:
        items: The images, or what holds them.
        most: How many a model computes together.
        values: How many values the pixels of an item have.
    """
    batch: list[_Item] = []
    for item in items:
        batch.append(item)
        if len(batch) == most or sum(map(values, batch)) > _VALUES:
            yield batch
            batch = []
    if batch:
        yield batch


def judge_each(predictor: Predictor, images: Sequence[NDArray[Any]]) -> list[Result | Exception]:
    """The result of each image ``(H, W, 3)``, or its error: one that fails does not take its neighbours along."""
    try:
        return list(predictor.predict(images))
    except Exception as error:
        if len(images) == 1:
            return [error]
        return [found for image in images for found in judge_each(predictor, [image])]
