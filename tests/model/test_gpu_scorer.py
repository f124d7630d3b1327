"""Scoring as on a GPU: near float32 in half precision, the same steps on every device, several at once."""

import numpy as np
import pytest
import torch

from destseg.cuda_graph import GpuNetwork, GraphScorer, checked_precision, in_precision
from destseg.framing import Framing, framing_of
from destseg.networks import DeSTSegNet
from destseg.scoring import anomaly_maps, scored, scores

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
    scorer = GraphScorer(in_precision(network, precision), SIZE, 2)
    for seed, count in enumerate([2, 2, 1]):  # each call must see its own pictures
        pixels = pictures(count, seed)
        maps = anomaly_maps(network, pixels)
        close = {torch.float32: 1e-5, torch.bfloat16: 3e-2, torch.float16: 1e-2}[precision]
        found = scorer(pixels)
        torch.testing.assert_close(found.anomaly_maps, maps.cpu(), rtol=0, atol=close)
        expected = torch.tensor([scores(anomaly_map, SIZE) for anomaly_map in maps]).double()
        torch.testing.assert_close(torch.stack(found[1:], dim=1), expected, rtol=0, atol=close / 2)
    assert next(network.parameters()).dtype == torch.float32  # it was copied


def test_two_scorers_at_work_do_not_disturb_one_another(place):
    network = network_on(place)
    pair = [GraphScorer(network, SIZE, 3) for _ in range(2)]
    found = [scorer.start(pictures(3, seed)) for seed, scorer in enumerate(pair)]
    for seed, scorer in enumerate(pair):
        scorer.wait()
        expected = anomaly_maps(network, pictures(3, seed)).cpu()
        torch.testing.assert_close(found[seed].anomaly_maps, expected, rtol=0, atol=1e-5)


def test_words_about_other_pictures():
    scorer = GraphScorer(network_on("cpu"), SIZE, 2)
    for pixels in (pictures(1)[:, :, :64], pictures(2).astype(np.float32)):
        with pytest.raises(ValueError, match=r"each picture must be \(64, 96, 3\) uint8, got"):
            scorer(pixels)
    for count in (0, 3):
        with pytest.raises(ValueError, match=f"there must be 1 to 2 pictures, got {count}"):
            scorer(pictures(count))


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("framing", [Framing(SIZE), framing_of(SIZE, tile=SIZE)], ids=["one frame", "tiles"])
def test_in_place_of_a_network_it_scores_as_that_does(place, framing, precision):
    network = network_on(place)
    stand_in = GpuNetwork(network, SIZE, precision)
    close = {"float32": 1e-5, "float16": 1e-2}[precision]
    views = [framing.view(np.random.default_rng(k).integers(0, 256, (250, 300, 3), np.uint8)) for k in (0, 1)]
    found = [scored(stand_in, framing, view) for view in views]
    for one, view in zip(found, views, strict=True):  # the second did not overwrite the first one's map
        expected = scored(network, framing, view)
        torch.testing.assert_close(one.anomaly_map.cpu(), expected.anomaly_map.cpu(), rtol=0, atol=close)
        assert one[1:3] == pytest.approx(expected[1:3], abs=close / 2)


def test_a_scorer_is_lent_to_one_at_a_time_and_made_no_oftener_than_needed():
    stand_in = GpuNetwork(network_on("cpu"), SIZE, "bfloat16")
    with stand_in.scorer(2) as one, stand_in.scorer(2) as other, stand_in.scorer(1) as third:
        assert len({one, other, third}) == 3
        assert one.network is other.network and one.precision == torch.bfloat16
    with pytest.raises(KeyError), stand_in.scorer(2):
        raise KeyError
    with stand_in.scorer(2) as again, stand_in.scorer(2) as other_again:
        assert {again, other_again} == {one, other}


def test_words_about_precisions():
    assert checked_precision("float16", "cuda") == "float16"
    with pytest.raises(ValueError, match=r"must be one of float32, float16, bfloat16, got 'int8'"):
        checked_precision("int8", "cuda")
    with pytest.raises(ValueError, match=r"must be float32 on device 'cpu', which is no GPU, got 'float16'"):
        checked_precision("float16", "cpu")
