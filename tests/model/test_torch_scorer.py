"""The scorers that compute with torch: which one a device gets, what they give, and what they leave alone."""

import numpy as np
import pytest
import torch

from destseg.model.gpu_scorer import GpuScorer
from destseg.model.networks import DeSTSegNet
from destseg.model.normalisation import normalise
from destseg.model.scorer import (
    PublishedScorer,
    TorchScorer,
    check_inference_precision,
    ready_to_predict,
    scorer_of,
)

SIZE = (64, 96)
CPU = torch.device("cpu")


def pictures(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *SIZE, 3), dtype=np.uint8)


def network_of(**switches):
    """A network ready to predict, whose blocks and normalisations do something."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = DeSTSegNet(**switches)
        for name, parameter in network.named_parameters():
            if name.endswith("bn2.weight"):  # 0 at first: the blocks would do nothing
                torch.nn.init.uniform_(parameter, 0.2, 0.4)
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
    return ready_to_predict(network, CPU)


def normalisations(network):
    return [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]


def maps_of(network, pixels):
    with torch.no_grad():
        return network.maps(normalise(pixels)).numpy()


@pytest.mark.parametrize("segmentation", [True, False])
@pytest.mark.parametrize("light", [True, False])
def test_a_scorer_gives_the_maps_of_its_network(light, segmentation):
    network = network_of(light=light, segmentation=segmentation)
    scorer, pixels = TorchScorer(network, SIZE), pictures(2)
    found = scorer.maps(pixels)
    assert found.dtype == np.float32 and found.shape == (2, *SIZE)
    np.testing.assert_allclose(found, maps_of(network, pixels), atol=1e-5, rtol=0)
    assert (scorer.size, scorer.batch) == (SIZE, 1)


def test_a_map_lies_in_memory_that_is_not_used_again():
    scorer = TorchScorer(network_of(light=True), SIZE)
    first = scorer.maps(pictures(1))
    kept = first.copy()
    scorer.maps(pictures(1, seed=1))
    assert np.array_equal(first, kept)


def test_a_copy_computes_that_has_its_normalisations_merged(light):
    network = light.network_
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    scorer = TorchScorer(network, SIZE)
    assert normalisations(network) and not normalisations(scorer.network)
    seen = []
    scorer.network.register_forward_hook(lambda *_: seen.append("forward"))
    scorer.network.student_net.register_forward_hook(lambda *_: seen.append("student"))
    handle = network.student_net.register_forward_hook(lambda *_: seen.append("the network itself"))
    try:
        scorer.maps(pictures(1))
    finally:
        handle.remove()
    assert seen == ["student"]
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("light", [True, False])
def test_pictures_come_in_the_memory_order_of_the_weights(light):
    scorer, seen = TorchScorer(network_of(light=light), SIZE), []
    scorer.network.student_net.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    scorer.maps(pictures(2))
    (images,) = seen
    layout = torch.channels_last if light else torch.contiguous_format
    assert images.is_contiguous(memory_format=layout)
    assert not images.is_contiguous(memory_format=torch.contiguous_format if light else torch.channels_last)


def test_the_published_scorer_gives_the_same_maps_and_runs_the_teacher_twice():
    network, pixels = network_of(light=True), pictures(1)
    expected = TorchScorer(network, SIZE).maps(pixels)
    calls = []
    network.teacher_net.register_forward_hook(lambda *_: calls.append(1))
    scorer = PublishedScorer(network, SIZE)
    found = scorer.maps(pixels)
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)
    assert (
        found.dtype == np.float32 and found.shape == (1, *SIZE) and (scorer.size, scorer.batch) == (SIZE, 1)
    )
    assert len(calls) == 2
    weight = scorer.network.student_net.encoder.layer1[0].conv1.weight
    assert weight.is_contiguous() and normalisations(scorer.network)


def test_the_device_of_a_network_chooses_its_scorer(monkeypatch):
    network = network_of(light=True)
    assert type(scorer_of(network, SIZE, "float32")) is TorchScorer
    monkeypatch.setattr(torch.Tensor, "device", torch.device("cuda", 0))
    monkeypatch.setattr(torch.nn.Parameter, "device", torch.device("cuda", 0), raising=False)
    scorer = scorer_of(network, SIZE, "float16")
    assert type(scorer) is GpuScorer
    assert (scorer.size, scorer.batch) == (SIZE, 32)
    assert next(scorer.network.parameters()).dtype == torch.float16


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_network_on_a_gpu_gets_the_scorer_for_it():
    network = ready_to_predict(network_of(light=True), torch.device("cuda"))
    assert next(network.parameters()).is_cuda
    assert type(scorer_of(network, SIZE, "float16")) is GpuScorer


@pytest.mark.parametrize("light", [True, False])
def test_a_network_ready_to_predict_is_the_same_one_in_evaluation_mode(light):
    network = DeSTSegNet(light=light).train()
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    assert ready_to_predict(network, CPU) is network
    assert not any(module.training for module in network.modules())
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())
    weight = network.student_net.encoder.layer2[0].conv1.weight
    layout = torch.channels_last if light else torch.contiguous_format
    assert weight.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_half_precision_is_for_gpus(precision, monkeypatch):
    words = rf"inference_precision must be float32 on device 'cpu', which is no GPU, got '{precision}'"
    with pytest.raises(ValueError, match=words):
        check_inference_precision(precision, "cpu")
    check_inference_precision("float32", "cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for device in ("cuda", "cuda:0", "auto"):
        check_inference_precision(precision, device)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"must be float32 on device 'auto', which is no GPU"):
        check_inference_precision(precision, "auto")
