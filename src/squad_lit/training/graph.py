"""A computation on a GPU, captured once as a CUDA graph and replayed: one launch in the place of a thousand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

# PyTorch asks for some runs on a side stream before a capture, in which libraries choose their algorithms.
_WARM_UP = 3


class Graph:
    """A module, or a step with its backward pass, as a CUDA graph.

    Inputs are copied into those of the capture, and what is returned is overwritten by the next call. Random numbers
    follow ``torch.manual_seed``. Gradients lie where the capture has put them, so nobody may set them to None.

    The optimisers are not part of a captured step. OneCycleLR gives them another learning rate and another beta in each
    step, as numbers, which a graph would keep as they were.

    Args:
        module: Its buffers, which a step may change, are set back after the runs that prepare a capture, as are the
            random numbers.
        compute: Takes tensors in any containers, and an option; it must not wait for the device. None: the module.
    """

    def __init__(self, module: nn.Module, compute: Callable[..., Any] | None = None) -> None:
        self.module, self.compute = module, compute or module
        self._known: Any = None

    def __call__(self, given: Any, *option: Any) -> Any:
        """Replay the computation; another option, or another shape, is captured first and takes the place of before.

        Raises:
            ValueError: The computation waits for the device.
        """
        tensors, form = tree_flatten(given)
        known = option, form, [(t.shape, t.dtype) for t in tensors]
        with torch.cuda.device(tensors[0].device):  # streams and graphs are of the current device
            if known != self._known:
                self._known = None  # if the capture fails
                self._inputs = [t.clone() for t in tensors]
                with _anew():
                    self._capture(tree_unflatten(self._inputs, form), option)
                self._known = known
            for into, tensor in zip(self._inputs, tensors, strict=True):
                into.copy_(tensor, non_blocking=True)
            self._graph.replay()
        return self._outputs

    def _capture(self, given: Any, option: Any) -> None:
        before, random = [buffer.clone() for buffer in self.module.buffers()], torch.cuda.get_rng_state()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP):
                self.module.zero_grad()
                self.compute(given, *option)
        torch.cuda.current_stream().wait_stream(stream)
        self.module.zero_grad()  # the capture makes gradients of its own
        self._graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(self._graph):
                self._outputs = tree_map(_detached, self.compute(given, *option))
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise ValueError(
                f"the computation cannot be captured as a CUDA graph, because a part of it waits for the device "
                f"({str(error).partition(chr(10))[0]}): train with model.cuda_graph=false"
            ) from error
        with torch.no_grad():
            for buffer, value in zip(self.module.buffers(), before, strict=True):
                buffer.copy_(value)
        torch.cuda.set_rng_state(random)  # so that the first replay draws what any other one would draw


@contextmanager
def _anew() -> Iterator[None]:
    """Let autocast cast weights each time: a graph would replay with those that were cast before it."""
    before = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(before)


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value
