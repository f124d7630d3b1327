"""Torch as a process has it: after a fork it may wait for ever, and a program may have set it otherwise."""

import contextlib
import functools
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

R = TypeVar("R")

_others = ThreadPoolExecutor(1, "destseg")  # starts its thread when it is first needed


def check_process() -> None:
    """Raise RuntimeError where torch would wait for ever; call it before networks compute.

    A fork copies the memory of a process, but not its threads. OpenMP then waits for those that torch had
    before. With a single thread it waits for none.
    """
    if os.getpid() != _first_process() and torch.get_num_threads() > 1:
        raise RuntimeError(
            "this process was forked from one that had used a model, and torch would wait for ever for that "
            "one's threads: load the model in each process after the fork, and in none before (gunicorn: "
            'without --preload); or start processes by multiprocessing.get_context("spawn"); or call '
            "torch.set_num_threads(1) in this one. Exported models need none of this"
        )


def in_one_thread(compute: Callable[[], R]) -> R:
    """Call a function in the main thread, or else in the one that computes for all other threads.

    OpenMP keeps a team of threads for each thread that computes: sixteen that predict would start sixteen
    times as many as there are cores. Where torch uses a single thread there are no teams, and each computes
    for itself.

    Raises RuntimeError where `check_process` does.
    """
    check_process()
    if torch.get_num_threads() == 1 or threading.current_thread() is threading.main_thread():
        return compute()
    return _others.submit(compute).result()


@contextlib.contextmanager
def plain_torch() -> Iterator[None]:
    """Undo, for a block or a function, autocast and a default device that a program has set around it."""
    with contextlib.ExitStack() as undone:
        if torch.get_default_device().type != "cpu":
            undone.enter_context(torch.device("cpu"))
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                undone.enter_context(torch.autocast(device, enabled=False))
        yield


@functools.cache
def _first_process() -> int:
    """Return the number of the process in which a model was first used; a fork hands it on."""
    return os.getpid()
