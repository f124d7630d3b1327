"""Which form of the similarity operations runs: the kernels for eager tensors, else the references."""

import types

import pytest
import torch
from emulation import emulate

from destseg.ops import kernels
from destseg.ops.destmap import destmap, destmap_of_features
from destseg.ops.similarity import cosine_distances, similarity_input
from destseg.training.losses import cosine_loss

KERNELS = ("similarity_input", "cosine_distances", "cosine_gradients", "destmap", "destmap_of_features")


def features(seed=0):
    """Teacher and student features of three levels."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(2, 17, 13, 21), (2, 3, 7, 11), (2, 1, 4, 6)]
    taught, learnt = ([torch.randn(shape, generator=generator) for shape in shapes] for _ in range(2))
    return taught, learnt


def no_kernel(monkeypatch):
    """Make every call of a kernel fail."""
    for name in KERNELS:
        if kernels.cpu is not None:
            monkeypatch.setattr(kernels.cpu, name, lambda *_: pytest.fail("a kernel was called"))


def test_meta_tensors_take_the_reference():
    taught, learnt = ([level.to("meta") for level in levels] for levels in features())
    assert similarity_input(taught, learnt).shape == (2, 21, 13, 21)
    assert [d.device.type for d in cosine_distances(taught, learnt)] == ["meta"] * 3


def test_double_precision_takes_the_reference(monkeypatch):
    taught, learnt = ([level.double() for level in levels] for levels in features())
    no_kernel(monkeypatch)
    learnt = [level.requires_grad_() for level in learnt]
    distances = cosine_distances(taught, learnt)
    cosine_loss(distances).backward()
    with torch.no_grad():
        found = [similarity_input(taught, learnt), destmap(distances), destmap_of_features(taught, learnt)]
    assert {result.dtype for result in (*found, *distances)} == {torch.float64}


class Everything(torch.nn.Module):
    def forward(self, taught, learnt):
        distances = cosine_distances(taught, learnt)
        return similarity_input(taught, learnt), *distances, destmap(distances, (20, 30))


def test_an_exported_graph_holds_standard_operators_only(monkeypatch):
    taught, learnt = features()
    expected = Everything()(taught, learnt)
    no_kernel(monkeypatch)
    exported = torch.export.export(Everything(), (taught, learnt))
    calls = [str(node.target) for node in exported.graph.nodes if node.op == "call_function"]
    assert calls
    assert all(call.startswith("aten.") for call in calls)
    torch.testing.assert_close(exported.module()(taught, learnt), expected)


@pytest.mark.filterwarnings("ignore")  # tracing is deprecated, and still used
def test_a_traced_graph_follows_its_input(monkeypatch):
    taught, learnt = features()
    others = features(seed=1)
    expected = Everything()(*others)
    no_kernel(monkeypatch)
    traced = torch.jit.trace(Everything(), (taught, learnt), check_trace=False)
    torch.testing.assert_close(traced(*others), expected)


@pytest.mark.skipif(kernels.cpu is None, reason="the compiled kernels are not there")
def test_the_kernels_are_reached(monkeypatch):
    taught, learnt = features()
    reached = []
    for name in KERNELS:
        kernel = getattr(kernels.cpu, name)
        monkeypatch.setattr(
            kernels.cpu, name, lambda *a, name=name, kernel=kernel: (reached.append(name), kernel(*a))
        )
    similarity_input(taught, learnt)
    cosine_loss(cosine_distances(taught, [level.bfloat16().requires_grad_() for level in learnt])).backward()
    destmap([level[:, :1].abs() for level in taught])
    destmap_of_features(taught, learnt)
    assert reached == list(KERNELS)


def test_on_a_gpu_only_the_input_from_features_in_channels_last_order_has_a_kernel(
    emulated_kernels, monkeypatch
):
    taught, learnt = ([level.relu() for level in levels] for levels in features())
    last = [[level.to(memory_format=torch.channels_last) for level in levels] for levels in (taught, learnt)]
    reached = []

    def kernel(*arguments):
        reached.append("similarity_input")
        emulated_kernels.similarity_input(*arguments)

    emulate(types.SimpleNamespace(similarity_input=kernel), monkeypatch.setattr)
    expected = similarity_input(taught, learnt)
    similarity_input([level.half() for level in last[0]], last[1])
    destmap(cosine_distances(*last))
    destmap_of_features(*last)
    cosine_loss(cosine_distances(last[0], [level.requires_grad_() for level in last[1]])).backward()
    assert reached == []
    with torch.no_grad():
        torch.testing.assert_close(similarity_input(*last), expected)
    assert reached == ["similarity_input"]
