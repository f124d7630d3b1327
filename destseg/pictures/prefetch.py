"""Work done ahead by threads, in order."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def prefetched(make: Callable[[T], R], items: Iterable[T], workers: int) -> Generator[R, None, None]:
    """Yield make(item) for each item, in order, made ahead by `workers` threads; 0 makes each when asked.

    No more than workers + 1 items are taken ahead of what was yielded. On every way out the threads end, and
    then what the items come from is closed.
    """
    try:
        if workers == 0:
            yield from map(make, items)
            return
        pool = ThreadPoolExecutor(workers)
        ahead: deque[Future[R]] = deque()
        try:
            for item in items:
                ahead.append(pool.submit(make, item))
                if len(ahead) > workers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    finally:
        if isinstance(items, Generator):
            items.close()
