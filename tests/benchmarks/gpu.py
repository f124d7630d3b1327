"""What the benchmarks on a GPU share: times by its own clock, and what copying memory can do there."""

import statistics
from collections.abc import Callable

import torch


def milliseconds(call: Callable[[], object], repeats: int = 100) -> float:
    """Return the median time of a call on the GPU; between calls its caches are written over."""
    flush = torch.empty(256 << 20, dtype=torch.uint8, device="cuda")
    for _ in range(5):
        call()
    times = []
    for _ in range(repeats):
        flush.zero_()
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        call()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    return statistics.median(times)


def copy_bandwidth() -> float:
    """Return what a copy within the GPU's memory reaches in bytes a second, reading and writing counted."""
    source, target = (torch.empty(1 << 30, dtype=torch.uint8, device="cuda") for _ in range(2))
    return 2 * (1 << 30) / milliseconds(lambda: target.copy_(source), 20) * 1e3
