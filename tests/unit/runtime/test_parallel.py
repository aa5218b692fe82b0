"""The bounded parallel map."""

import threading

import pytest

from agola_core.runtime.threads.parallel import parallel_map


@pytest.mark.parametrize("count", [0, 1, 2, 3, 8, 50])
@pytest.mark.parametrize("workers", [1, 2, 8])
def test_results_come_in_order_each_once(count, workers):
    assert list(parallel_map(lambda item: item * 2, range(count), workers=workers)) == [2 * n for n in range(count)]


def test_calls_run_at_the_same_time():
    together = threading.Barrier(4, timeout=30)
    assert list(parallel_map(lambda _: together.wait() >= 0, range(8), workers=4)) == [True] * 8


def test_no_more_is_taken_than_workers_are_ahead():
    taken = []

    def items():
        for number in range(100):
            taken.append(number)
            yield number

    results = parallel_map(lambda item: item, items(), workers=4)
    assert next(results) == 0
    assert len(taken) <= 5
    results.close()
    assert len(taken) <= 5


def test_an_error_comes_in_its_place():
    def work(item):
        if item == 3:
            raise ValueError(item)
        return item

    results = parallel_map(work, range(10), workers=3)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="3"):
        next(results)
