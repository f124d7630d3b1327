"""Processes in which the bench measures: how many threads they use, and how much memory they took."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def threads_of_children(count: int) -> Iterator[None]:
    """Let processes that begin meanwhile use so many threads each."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = str(count)  # they read it when they begin
    try:
        yield
    finally:
        os.environ.pop("OMP_NUM_THREADS")
        os.environ |= {} if before is None else {"OMP_NUM_THREADS": before}


def peak_memory() -> int:
    """Return the largest resident size of this process in bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # on Linux; there getrusage would start with the parent's size
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return 1024 * int(lines["VmHWM"].split()[0])
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
