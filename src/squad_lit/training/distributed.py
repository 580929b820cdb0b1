"""What the processes of one training bring together; with a single process each function returns what it is given."""

from __future__ import annotations

from typing import Any

from torch import Tensor, distributed


def gather(found: dict[int, Any]) -> dict[int, Any] | None:
    """Bring together, in the first process, what all processes have found for the images, by index.

    Returns:
        All of it in the first process, or the only one; None in the others.
    """
    if not _several():
        return found
    first = distributed.get_rank() == 0
    parts: list[dict[int, Any]] | None = [{}] * distributed.get_world_size() if first else None
    distributed.gather_object(found, parts)
    return {index: one for part in parts or [] for index, one in part.items()} if first else None


def share(value: Any) -> Any:
    """The value that the first process gives, in every process."""
    if not _several():
        return value
    held = [value]
    distributed.broadcast_object_list(held)
    return held[0]


def total(value: Tensor) -> Tensor:
    """The sum of a tensor that each process has one of."""
    if not _several():
        return value
    value = value.clone()
    distributed.all_reduce(value)
    return value


def _several() -> bool:
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
