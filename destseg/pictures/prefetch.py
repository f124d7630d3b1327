"""Threads that work ahead; results keep their order."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def prefetch(make: Callable[[T], R], items: Iterable[T], workers: int) -> Generator[R, None, None]:
    """Yield make(item) for each item, in order, made ahead by `workers` threads; with 0, made when asked for.

    At most workers + 1 items are taken ahead of the last result. An error of the items themselves comes after
    the results of those taken before it. However this generator ends, its threads end, and then the generator
    of the items, if they come from one, is closed.
    """
    try:
        if workers == 0:
            yield from map(make, items)
            return
        pool, source = ThreadPoolExecutor(workers), iter(items)
        ahead: deque[Future[R]] = deque()
        end: Exception | None = None
        try:
            while ahead or end is None:
                if end is None and len(ahead) <= workers:
                    try:
                        ahead.append(pool.submit(make, next(source)))
                    except Exception as error:  # StopIteration, or a fault of the items
                        end = error
                else:
                    yield ahead.popleft().result()
            if not isinstance(end, StopIteration):
                raise end
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    finally:
        if isinstance(items, Generator):
            items.close()


def taken_ahead(items: Generator[T, None, None]) -> Generator[T, None, None]:
    """Yield the items of a generator, none of which is None; a thread takes the next one meanwhile.

    However this generator ends, its thread ends, which waits for the item that it is taking, and then the
    generator of the items is closed.
    """
    try:
        with ThreadPoolExecutor(1) as pool:
            following = pool.submit(next, items, None)
            while (item := following.result()) is not None:
                following = pool.submit(next, items, None)
                yield item
    finally:
        items.close()
