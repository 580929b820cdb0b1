"""Images of several requests that go through a model together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from squad_lit.deploy.together import judge_each

if TYPE_CHECKING:
    from squad_lit.deploy.predictor import Predictor, Result

_Asked = tuple[NDArray[Any], "asyncio.Future[Result]"]


class Batcher:
    """A model that judges whatever waits when it is free, as many images together as its runtime computes best.

    An image that comes alone is judged at once, and under load batches fill by themselves, so that nothing waits for a
    batch to fill.

    Args:
        predictor: The model.
        judged: Called with the number of images of each batch.
    """

    def __init__(self, predictor: Predictor, judged: Callable[[int], None]) -> None:
        self.predictor = predictor
        self._judged = judged
        self._waiting: asyncio.Queue[_Asked] = asyncio.Queue()
        self._thread = ThreadPoolExecutor(1)

    async def judge(self, pixels: NDArray[Any]) -> Result:
        """The result of an image ``(H, W, 3)``, uint8, or float32 in [0, 1].

        Raises:
            ValueError: Its score is not finite.
        """
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait((pixels, future))
        return await future

    async def run(self) -> None:
        """Judge until it is cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            batch = [await self._waiting.get()]
            while len(batch) < self.predictor.runtime.batch and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            batch = [asked for asked in batch if not asked[1].done()]  # whose request has not been given up
            batch.sort(key=lambda asked: (asked[0].shape, str(asked[0].dtype)))  # only equal sizes go together
            if not batch:
                continue
            found = await loop.run_in_executor(self._thread, self._judge, [pixels for pixels, _ in batch])
            for (_, future), result in zip(batch, found, strict=True):
                if future.done():
                    continue
                if isinstance(result, Exception):
                    future.set_exception(result)
                else:
                    future.set_result(result)

    def _judge(self, images: Sequence[NDArray[Any]]) -> list[Result | Exception]:
        """A result or an error for each image."""
        self._judged(len(images))
        return judge_each(self.predictor, images)
