"""Where the compiled kernels are looked for, and how many threads an operation uses."""

import logging
import os
import sys

import pytest
import torch

import destseg
from destseg.ops import kernels


def test_continuous_integration_has_the_kernels():
    if os.environ.get("CI") and os.environ.get("DESTSEG_EXT") != "0":
        assert kernels.cpu is not None


def test_the_switch_leaves_every_kernel_out(monkeypatch):
    monkeypatch.setenv("DESTSEG_EXT", "0")
    assert kernels._find() is None
    assert kernels.gpu.__wrapped__() is None  # what it would find, were it not kept


@pytest.mark.parametrize(
    ("find", "module", "words"),
    [
        (kernels._find, "_C", "destseg runs without its compiled kernels, and more slowly"),
        (kernels.gpu.__wrapped__, "_C_cuda", "destseg runs without its kernels for GPUs, and more slowly"),
    ],
)
def test_missing_kernels_are_said_and_nothing_fails(monkeypatch, caplog, find, module, words):
    monkeypatch.delenv("DESTSEG_EXT", raising=False)
    monkeypatch.setitem(sys.modules, f"destseg.{module}", None)  # what importing it again finds
    monkeypatch.delattr(destseg, module, raising=False)
    with caplog.at_level(logging.WARNING, "destseg.ops"):  # the command line may have raised it
        assert find() is None
    assert words in caplog.text


def test_operations_have_as_many_threads_as_torch():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert kernels.thread_count() == 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("variable", "expected"), [("3", 3), ("0", 5), ("", 5), ("many", 5), ("-2", 5)])
def test_without_torch_operations_have_a_thread_a_core_or_as_many_as_the_variable_says(
    monkeypatch, variable, expected
):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(5)), raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", variable)
    assert kernels.thread_count() == expected
