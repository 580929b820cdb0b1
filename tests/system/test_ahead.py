"""What runs ahead: never more than asked for, and a large item alone."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from squad_lit.system.ahead import ahead


@pytest.mark.parametrize(("count", "weights"), [(3, [1] * 30), (3, [1, 1, 9, 1, 1, 1, 9, 9, 1, 2, 2, 2, 1] * 2)])
def test_results_come_in_order_and_few_items_are_under_way(count: int, weights: list[int]) -> None:
    lock, running, most, beside = threading.Lock(), [0], [0], [0]

    def work(item: int) -> int:
        with lock:
            running[0] += weights[item]
            most[0] = max(most[0], running[0])
            if weights[item] > count:
                beside[0] = max(beside[0], running[0] - weights[item])
        time.sleep(0.002 * (item % 3))
        with lock:
            running[0] -= weights[item]
        return item

    with ThreadPoolExecutor(8) as threads:
        found = list(ahead(threads, work, range(len(weights)), count, weights.__getitem__))
    assert found == list(range(len(weights)))
    assert most[0] <= max(count + 1, *weights)
    assert beside[0] == 0


def test_items_are_taken_when_there_is_room_for_them() -> None:
    taken: list[int] = []

    def items() -> object:
        for item in range(10):
            taken.append(item)
            yield item

    with ThreadPoolExecutor(2) as threads:
        results = ahead(threads, lambda item: item, items(), 2)  # type: ignore[arg-type]
        assert next(results) == 0
        assert taken == [0, 1, 2]
