"""What the benchmarks share: numbers of threads, and a fair way to compare calls."""

import statistics
import time
from collections.abc import Callable, Iterator

import pytest
import torch


@pytest.fixture
def set_threads() -> Iterator[Callable[[int], None]]:
    """Sets torch's number of threads, which the kernels follow, until the test is over."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(params=[1, 2], ids=["1 thread", "2 threads"])
def threads(request, set_threads) -> int:
    set_threads(request.param)
    return request.param


@pytest.fixture
def one_thread(set_threads) -> None:
    set_threads(1)


def times_as_long(ours: Callable[[], object], rival: Callable[[], object], seconds: float = 1.5) -> float:
    """Return the rival's median time over ours; they take turns of a twentieth of a second or one call.

    So both meet the same machine, and each the caches as it leaves them itself.
    """
    times: dict[Callable[[], object], list[float]] = {ours: [], rival: []}
    end = time.perf_counter() + seconds
    while len(times[rival]) < 5 or time.perf_counter() < end:
        for call, taken in times.items():
            begin = finish = time.perf_counter()
            while finish < begin + 0.05:
                start = finish
                call()
                finish = time.perf_counter()
                taken.append(finish - start)
    return statistics.median(times[rival]) / statistics.median(times[ours])


@pytest.fixture
def compare(benchmark) -> Callable[..., None]:
    """Writes into the benchmark's extra_info how many times as long a rival takes as ours."""

    def write(
        name: str, ours: Callable[[], object], rival: Callable[[], object], seconds: float = 1.5
    ) -> None:
        if benchmark.enabled:
            benchmark.extra_info[f"{name} takes times as long"] = round(
                times_as_long(ours, rival, seconds), 2
            )

    return write
