"""Which tensors the kernels take: plain, eager, in CPU memory, float32 or float64; or on a GPU."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from destseg.ops import kernels, tensors


def test_what_kernels_can_take():
    plain, compiled = torch.zeros(2, 2), kernels.cpu is not None
    assert tensors.usable(plain) is compiled
    assert not tensors.usable(plain.double(), plain)
    assert tensors.usable(torch.nn.Parameter(plain)) is compiled
    assert not tensors.usable(plain, plain.bfloat16())
    assert not tensors.usable(plain.half())
    assert not tensors.usable(plain.to("meta"))
    assert not tensors.usable(plain.as_subclass(type("Subclass", (torch.Tensor,), {})))
    with FakeTensorMode():
        assert not tensors.usable(torch.zeros(2, 2))


def test_kernels_keep_out_of_compiled_graphs(monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert not tensors.usable(torch.zeros(2, 2))


@pytest.mark.filterwarnings("ignore")  # tracing is deprecated, and still used
def test_kernels_keep_out_of_traced_graphs():
    asked = []
    torch.jit.trace(lambda x: asked.append(tensors.usable(x)) or x + 1, torch.zeros(2, 2), check_trace=False)
    assert asked == [False]


def test_kernels_that_are_not_there_take_nothing(monkeypatch):
    monkeypatch.setattr(kernels, "cpu", None)
    monkeypatch.setattr(kernels, "gpu", lambda: None)
    monkeypatch.setattr(tensors, "on_gpu", lambda tensor: True)
    assert not tensors.usable(torch.zeros(2, 2))
    assert not tensors.usable_on_gpu(torch.zeros(2, 2))


def test_what_kernels_for_gpus_can_take(monkeypatch):
    plain = torch.zeros(2, 2)
    assert not tensors.usable_on_gpu(plain)  # in CPU memory
    monkeypatch.setattr(kernels, "gpu", lambda: "kernels")
    monkeypatch.setattr(tensors, "on_gpu", lambda tensor: True)
    assert tensors.usable_on_gpu(plain, torch.nn.Parameter(plain))
    assert tensors.usable_on_gpu(plain.half(), plain.half()) and tensors.usable_on_gpu(plain.bfloat16())
    assert not tensors.usable_on_gpu(plain, plain.half()) and not tensors.usable_on_gpu(plain.double())
    assert not tensors.usable_on_gpu(plain, plain.to("meta"))
    assert not tensors.usable_on_gpu(plain, dtypes=(torch.uint8,))
    assert not tensors.usable_on_gpu(plain.as_subclass(type("Subclass", (torch.Tensor,), {})))
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert not tensors.usable_on_gpu(plain)


def test_dtypes_have_the_names_that_kernels_for_gpus_know():
    names = [tensors.name_of(dtype) for dtype in tensors.GPU_PRECISIONS]
    assert names == ["float32", "float16", "bfloat16"]
