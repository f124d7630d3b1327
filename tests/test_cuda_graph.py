"""Scoring in half precision and as one CUDA graph: close to float32, the same steps on every device."""

import numpy as np
import pytest
import torch

from destseg.cuda_graph import GraphScorer
from destseg.networks import DeSTSegNet
from destseg.scoring import anomaly_maps, scores

NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
SIZE = (64, 96)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=NEEDS_GPU)])
def place(request):
    return request.param


def network_on(place, **switches):
    torch.manual_seed(0)
    network = DeSTSegNet(light=True, **switches).eval().to(place)
    for name, parameter in network.named_parameters():
        if name.endswith("bn2.weight"):  # 0 at first: the blocks would do nothing
            torch.nn.init.uniform_(parameter, 0.2, 0.4)
    return network.requires_grad_(False)


def pictures(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *SIZE, 3), dtype=np.uint8)


@pytest.mark.parametrize("segmentation", [True, False])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_maps_and_scores_are_those_of_float32(place, precision, segmentation):
    network = network_on(place, segmentation=segmentation)
    scorer = GraphScorer(network, SIZE, 2, precision)
    for seed in range(2):  # the second call must see its own pictures
        pixels = pictures(2, seed)
        maps = anomaly_maps(network, pixels)
        close = {torch.float32: 1e-5, torch.bfloat16: 3e-2, torch.float16: 1e-2}[precision]
        found = scorer(pixels)
        torch.testing.assert_close(found.anomaly_maps, maps.cpu(), rtol=0, atol=close)
        expected = torch.tensor([scores(anomaly_map, SIZE) for anomaly_map in maps]).double()
        torch.testing.assert_close(torch.stack(found[1:], dim=1), expected, rtol=0, atol=close / 2)
    assert next(network.parameters()).dtype == torch.float32  # it was copied


def test_words_about_other_pictures():
    scorer = GraphScorer(network_on("cpu"), SIZE, 2)
    for pixels in (pictures(1), pictures(2).astype(np.float32)):
        with pytest.raises(ValueError, match=r"pixels must be \(2, 64, 96, 3\) uint8, got"):
            scorer(pixels)
