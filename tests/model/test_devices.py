"""Devices by name: those that torch does not find are refused before anything is moved there."""

import pytest
import torch

from destseg.model.construction import torch_device


def test_auto_is_a_gpu_where_there_is_one():
    assert torch_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert torch_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "backend"),
    [("cuda", torch.cuda), ("cuda:1", torch.cuda), ("mps", torch.backends.mps), ("xpu", torch.xpu)],
)
def test_a_device_that_torch_does_not_find_is_refused(name, backend, monkeypatch):
    monkeypatch.setattr(backend, "is_available", lambda: False)
    with pytest.raises(
        ValueError, match=rf"device {name}: torch .* finds no such device here, use auto or cpu"
    ):
        torch_device(name)


def test_the_number_of_a_device_must_be_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [torch_device(name).index for name in ("cuda", "cuda:0", "cuda:1")] == [None, 0, 1]
    with pytest.raises(ValueError, match=r"device cuda:2: torch .* finds no such device here"):
        torch_device("cuda:2")


def test_names_of_no_device_are_refused():
    with pytest.raises(ValueError, match="device must be auto, cpu, cuda, cuda:1 or the like, got 'gpu'"):
        torch_device("gpu")
