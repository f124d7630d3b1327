"""Scoring as on a GPU: near float32 in half precision, the same steps on every device, several at once."""

import threading

import numpy as np
import pytest
import torch
from threads import in_threads

from destseg.inference.scorer import Scorer
from destseg.inference.scoring import score
from destseg.model.gpu_scorer import BATCH, FEW, GpuScorer, Lane, in_precision
from destseg.model.networks import DeSTSegNet
from destseg.model.normalisation import normalise
from destseg.model.scorer import TorchScorer
from destseg.pictures.framing import Framing, framing_of
from destseg.pictures.store import Picture
from destseg.settings import Settings

NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
SIZE = (64, 96)
CLOSE = {"float32": 1e-5, "bfloat16": 3e-2, "float16": 1e-2}


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


def maps_of(network, pixels):
    """The maps in float32, in the plainest way."""
    device = next(network.parameters()).device
    with torch.no_grad():
        return network.maps(normalise(torch.from_numpy(pixels).to(device))).cpu().numpy()


@pytest.mark.parametrize("segmentation", [True, False])
@pytest.mark.parametrize("precision", CLOSE)
def test_maps_are_those_of_float32(place, precision, segmentation):
    network = network_on(place, segmentation=segmentation)
    lane = Lane(in_precision(network, getattr(torch, precision)), SIZE, 2)
    for seed, count in enumerate([2, 2, 1]):  # each call must see its own pictures
        pixels = pictures(count, seed)
        found = lane.maps(pixels)
        assert found.dtype == np.float32 and found.shape == (count, *SIZE)
        np.testing.assert_allclose(found, maps_of(network, pixels), rtol=0, atol=CLOSE[precision])
    assert next(network.parameters()).dtype == torch.float32  # it was copied


def test_maps_lie_in_memory_that_is_not_used_again(place):
    lane = Lane(network_on(place), SIZE, 2)
    first = lane.maps(pictures(2))
    kept = first.copy()
    lane.maps(pictures(2, seed=1))
    assert np.array_equal(first, kept)


def test_two_lanes_at_work_do_not_disturb_one_another(place):
    network = network_on(place)
    pair = [Lane(network, SIZE, 3) for _ in range(2)]
    expected = [maps_of(network, pictures(3, seed)) for seed in range(2)]

    def work(seed):
        return [pair[seed].maps(pictures(3, seed)) for _ in range(5)]

    for seed, found in enumerate(in_threads(2, work)):
        for maps in found:
            np.testing.assert_allclose(maps, expected[seed], rtol=0, atol=1e-5)


def test_words_about_other_pictures():
    lane = Lane(network_on("cpu"), SIZE, 2)
    wrong = [pictures(1)[:, :, :64], pictures(2).astype(np.float32), pictures(1)[0], pictures(0), pictures(3)]
    for pixels in wrong:
        words = rf"pixels must be \(1 to 2, 64, 96, 3\) uint8, got {pixels.dtype} of shape \("
        with pytest.raises(ValueError, match=words):
            lane.maps(pixels)


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("tile", [None, SIZE], ids=["one frame", "tiles"])
def test_scores_are_those_of_the_scorer_for_cpus(place, tile, precision):
    network = network_on(place)
    framing = framing_of(Settings(image_size=SIZE, tile=tile))
    ours, theirs = GpuScorer(network, SIZE, precision), TorchScorer(network, SIZE)
    several = [np.random.default_rng(k).integers(0, 256, (250, 300, 3), np.uint8) for k in (0, 1)]
    views = [Picture(pixels, framing.view(pixels)) for pixels in several]
    found = [score(ours, framing, [picture])[0] for picture in views]
    close = CLOSE[precision]
    for one, picture in zip(found, views, strict=True):  # the second did not overwrite the first one's map
        (expected,) = score(theirs, framing, [picture])
        np.testing.assert_allclose(one.anomaly_map, expected.anomaly_map, rtol=0, atol=close)
        assert (one.score, one.pixel_score) == pytest.approx(
            (expected.score, expected.pixel_score), abs=close / 2
        )


def test_a_scorer_takes_batches_and_tells_its_size():
    scorer: Scorer = GpuScorer(network_on("cpu"), SIZE, "float32")
    assert (scorer.size, scorer.batch) == (SIZE, BATCH) and BATCH == 32
    pixels = pictures(BATCH)
    found = scorer.maps(pixels)
    np.testing.assert_allclose(found, maps_of(scorer.network, pixels), rtol=0, atol=1e-5)
    for count in (1, 2):
        np.testing.assert_allclose(scorer.maps(pixels[:count]), found[:count], rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match=r"pixels must be \(1 to 32, 64, 96, 3\) uint8"):
        scorer.maps(pictures(BATCH + 1))


def test_one_picture_alone_has_a_lane_of_its_own(monkeypatch):
    """Recorded for 32 pictures, a graph would compute all of them."""
    made, real = [], Lane.__init__

    def noted(lane, network, size, count):
        made.append(count)
        real(lane, network, size, count)

    monkeypatch.setattr(Lane, "__init__", noted)
    scorer = GpuScorer(network_on("cpu"), SIZE, "float32")
    for count in (1, 3, 1, 2, 1):
        scorer.maps(pictures(count))
    scorer.maps(pictures(FEW + 1))
    assert made == [1, FEW, BATCH]


def test_a_lane_is_lent_to_one_at_a_time_and_made_no_oftener_than_needed():
    scorer = GpuScorer(network_on("cpu"), SIZE, "bfloat16")
    with scorer._lane(2) as one, scorer._lane(2) as other, scorer._lane(1) as third:
        assert len({one, other, third}) == 3
        assert one.network is other.network and one.precision == torch.bfloat16
    with pytest.raises(KeyError), scorer._lane(2):
        raise KeyError
    with scorer._lane(2) as again, scorer._lane(2) as other_again:
        assert {again, other_again} == {one, other}


def test_threads_share_a_scorer(place, monkeypatch):
    network = network_on(place)
    scorer, meeting = GpuScorer(network, SIZE, "float32"), threading.Barrier(3, timeout=60)
    expected = [maps_of(network, pictures(2, seed)) for seed in range(3)]
    real = Lane.maps

    def together(lane, pixels):
        meeting.wait()  # until all of them have a lane
        return real(lane, pixels)

    monkeypatch.setattr(Lane, "maps", together)
    for seed, found in enumerate(in_threads(3, lambda seed: scorer.maps(pictures(2, seed)))):
        np.testing.assert_allclose(found, expected[seed], rtol=0, atol=1e-5)
    assert len(scorer._spare[FEW]) == 3


@pytest.mark.parametrize("precision", CLOSE)
def test_a_scorer_computes_with_a_copy_without_normalisations(precision):
    network = network_on("cpu")
    scorer = GpuScorer(network, SIZE, precision)
    for one, dtype, kept in (
        (network, torch.float32, True),
        (scorer.network, getattr(torch, precision), False),
    ):
        assert {parameter.dtype for parameter in one.parameters()} == {dtype}
        assert any(isinstance(module, torch.nn.BatchNorm2d) for module in one.modules()) == kept


def test_framed_pictures_of_another_size_than_the_scorers_are_refused():
    scorer, framing = GpuScorer(network_on("cpu"), SIZE, "float32"), Framing((64, 64))
    pixels = pictures(1)[0]
    with pytest.raises(ValueError, match=r"got uint8 of shape \(1, 64, 64, 3\)"):
        score(scorer, framing, [Picture(pixels, framing.view(pixels))])
