"""Work done ahead by threads: in order, no further than asked, every thread and source closed at the end."""

import itertools
import threading
import time

import pytest

from destseg.pictures.prefetch import prefetch

any_number = pytest.mark.parametrize("workers", [0, 1, 3])


@pytest.fixture(autouse=True)
def no_thread_is_left():
    before = threading.active_count()
    yield
    assert threading.active_count() == before


class Source:
    """Endless items 0, 1, 2 ..; `taken` counts them, `closed` says whether nobody wants more."""

    def __init__(self):
        self.taken, self.closed = 0, False

    def items(self):
        try:
            for item in itertools.count():
                self.taken += 1
                yield item
        finally:
            self.closed = True


@any_number
def test_prefetching_raises_an_error_at_its_place(workers):
    def make(step):
        if step == 4:
            raise RuntimeError("step 4")
        return step

    threads = threading.active_count()
    found = []
    with pytest.raises(RuntimeError, match="step 4"):
        for value in prefetch(make, range(2, 9), workers):
            found.append(value)
    assert found == [2, 3]
    assert threading.active_count() == threads


@pytest.mark.parametrize("workers", [1, 3])
def test_prefetching_keeps_its_order_when_later_ones_are_ready_first(workers):
    def make(step):
        time.sleep(0.01 * (step % 3))
        return step

    assert list(prefetch(make, range(9, 0, -1), workers)) == list(range(9, 0, -1))
    assert list(prefetch(make, range(0), workers)) == []


@pytest.mark.parametrize("workers", [1, 3])
def test_prefetching_stops_when_nobody_wants_more(workers):
    threads, made = threading.active_count(), []
    values = prefetch(lambda step: made.append(step) or step, range(1000), workers)
    assert [next(values), next(values)] == [0, 1]
    values.close()
    assert threading.active_count() == threads
    assert len(made) <= workers + 2  # two were wanted, and no more are made ahead than there are workers


@any_number
def test_endless_items_are_taken_no_further_than_one_more_than_workers_ahead(workers):
    source, made = Source(), []
    values = prefetch(lambda item: made.append(item) or -item, source.items(), workers)
    assert source.taken == 0  # nothing happens before the first is wanted
    for item in range(50):
        assert next(values) == -item
        assert item < source.taken <= item + workers + 1
    values.close()
    assert source.closed and source.taken <= 50 + workers
    assert set(range(50)) <= set(made) <= set(range(source.taken))


@any_number
def test_items_may_be_of_any_kind_and_number(workers):
    assert list(prefetch(str.upper, ["a", "b", "c"], workers)) == ["A", "B", "C"]
    assert list(prefetch(str.upper, iter("abc"), workers)) == ["A", "B", "C"]
    assert list(prefetch(str.upper, {"a": 1}, workers)) == ["A"]
    assert list(prefetch(str.upper, (letter for letter in ""), workers)) == []


@any_number
def test_what_items_come_from_is_closed_after_the_last_of_the_threads(workers):
    threads, running_at_close = threading.active_count(), []

    def items():
        try:
            yield from itertools.count()
        finally:
            running_at_close.append(threading.active_count() - threads)

    values = prefetch(lambda item: item, items(), workers)
    assert next(values) == 0
    assert running_at_close == []
    values.close()
    assert running_at_close == [0]


@any_number
def test_an_error_while_making_closes_what_items_come_from(workers):
    source = Source()
    values = prefetch(lambda item: 1 // (3 - item), source.items(), workers)
    with pytest.raises(ZeroDivisionError):
        list(values)
    assert source.closed


@any_number
def test_an_error_of_the_items_themselves_arrives(workers):
    def items():
        yield 1
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        list(prefetch(lambda item: item, items(), workers))


@any_number
def test_prefetching_from_prefetched_work_closes_all_of_it(workers):
    source = Source()
    inner = prefetch(lambda item: item + 1, source.items(), workers)
    outer = prefetch(lambda item: 10 * item, inner, workers)
    assert [next(outer), next(outer)] == [10, 20]
    assert source.taken <= 2 + 2 * (workers + 1)
    outer.close()
    assert source.closed
    assert next(inner, None) is None


@pytest.mark.parametrize("workers", [2, 4])
def test_as_many_are_made_at_once_as_there_are_workers(workers):
    together = threading.Barrier(workers, timeout=10)
    values = prefetch(lambda item: (together.wait(), item), range(2 * workers), workers)
    assert [item for _, item in values] == list(range(2 * workers))
