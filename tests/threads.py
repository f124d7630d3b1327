"""Work done by several threads at once, for tests."""

import threading
from collections.abc import Callable
from typing import TypeVar

R = TypeVar("R")


def in_threads(count: int, work: Callable[[int], R]) -> list[R]:
    """Run work(0) to work(count - 1), each in a thread of its own, and return what they return."""
    results: dict[int, R] = {}

    def collect(number: int) -> None:
        results[number] = work(number)

    threads = [threading.Thread(target=collect, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [results[number] for number in range(count)]  # KeyError: that one failed
