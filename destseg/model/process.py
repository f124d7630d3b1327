"""Whether torch can compute in this process: in one that was forked it may wait for ever."""

import functools
import os

import torch


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


@functools.cache
def _first_process() -> int:
    """Return the number of the process in which a model was first used; a fork hands it on."""
    return os.getpid()
