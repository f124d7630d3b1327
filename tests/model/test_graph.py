"""The graph from pixels to a verdict: it resizes as Pillow does, and scores as prediction does."""

import numpy as np
import PIL.Image
import pytest
import torch

from destseg.model.construction import random_network
from destseg.model.graph import Inference, fixed_point_weights, resize_like_pillow, trace
from destseg.pictures.decoding import resize
from destseg.settings import Settings

NETWORKS = [{"preset": "paper"}, {"preset": "stpm"}, {"student_encoder": False}]
SIZES = ((64, 96), (64, 64), (200, 150), (97, 131), (51, 40), (1, 2), (700, 61))


def pictures(size, count=1, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *size, 3), dtype=np.uint8)


@pytest.mark.parametrize("given", [1, 2, 7, 64, 65, 150, 333, 1000])
def test_weights_are_those_of_pillow(given):
    """A picture of one white column gives a weight away, where it is the only one to be rounded."""
    high, low = fixed_point_weights(given, 64)
    weights = (high.double() * 2**11 + low.double()) / 2**22
    assert torch.allclose(weights.sum(dim=1), torch.ones(64, dtype=torch.float64), atol=1e-4)
    for column in {0, given // 3, given - 1}:
        pixels = np.zeros((1, given, 3), np.uint8)
        pixels[:, column] = 255
        expected = PIL.Image.fromarray(pixels).resize((64, 1), PIL.Image.Resampling.BILINEAR)
        found = torch.floor(255 * weights[:, column] + 0.5)
        np.testing.assert_array_equal(found, np.asarray(expected)[0, :, 0])


@pytest.mark.parametrize("size", [*SIZES, (517, 733), (1000, 100)])
def test_the_graph_resizes_to_the_very_grey_levels_of_pillow(size):
    pixels = pictures(size)
    found = resize_like_pillow(torch.from_numpy(pixels).permute(0, 3, 1, 2).float(), (64, 96))
    np.testing.assert_array_equal(found[0].permute(1, 2, 0), resize(pixels[0], (64, 96)))


@pytest.mark.parametrize("settings", NETWORKS, ids=str)
def test_graphs_of_every_network_hold_standard_operators_only(settings):
    network = random_network(Settings(**settings)).eval()
    program = trace(Inference(network, (64, 64), 0.5))
    called = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert called and all(
        name.startswith(("aten.", "<built-in function")) for name in called
    )  # none of destseg.ops
    assert not any("stack_trace" in node.meta for node in program.graph.nodes)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_graph_predicts_what_the_model_predicts(light, size):
    inference = Inference(light.network_, (64, 96), light.threshold_).eval()
    pixels = pictures(size, 2)
    with torch.no_grad():
        own, score, is_anomalous, images, maps = inference(torch.from_numpy(pixels))
    assert own.shape == (2, *size) and own.dtype == torch.float32
    assert images.shape == (2, 3, 64, 96) and maps.shape == (2, 64, 96)
    for k, expected in enumerate(light.predict(pixels)):
        np.testing.assert_allclose(own[k], expected.anomaly_map, atol=1e-3)
        assert score[k].item() == pytest.approx(expected.score, abs=1e-3)
        np.testing.assert_array_equal(images[k].permute(1, 2, 0), resize(pixels[k], (64, 96)))
        np.testing.assert_allclose(
            maps[k], light.scorer.maps(resize(pixels[k], (64, 96))[None])[0], atol=1e-3
        )
        assert is_anomalous.dtype == torch.bool
        if abs(expected.score - expected.threshold) > 1e-3:
            assert bool(is_anomalous[k]) == expected.is_anomalous


def test_channels_are_reduced_before_resizing_with_the_same_outcome():
    network = random_network(Settings("fast")).eval()
    generator = torch.Generator().manual_seed(0)
    for name, value in network.segmentation_net.named_parameters():
        if name.endswith("bias"):
            value.data.copy_(torch.randn(value.shape, generator=generator))
    levelwise = Inference(network, (72, 104), 0.5).network
    images = torch.randn(3, 3, 72, 104, generator=generator)
    with torch.no_grad():
        taught, learnt = network.features(images)
        expected, found = network.logits(taught, learnt), levelwise.logits(taught, learnt)
    assert expected.std() > 0.01
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_the_flag_compares_with_the_threshold(light):
    pixels = torch.from_numpy(pictures((64, 96), 4, seed=3))
    scores = [one.score for one in light.predict(pixels.numpy())]
    between = sum(sorted(scores)[1:3]) / 2
    flags = Inference(light.network_, (64, 96), between)(pixels)[2]
    assert flags.tolist() == [score > between for score in scores]


def test_the_graph_leaves_the_network_alone(light):
    before = {name: tensor.clone() for name, tensor in light.network_.state_dict().items()}
    Inference(light.network_, (64, 96), 0.5)(torch.from_numpy(pictures((64, 96))))
    after = light.network_.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[name], before[name]) for name in before)


def test_a_traced_program_takes_any_number_of_pictures_of_any_size(light):
    inference = Inference(light.network_, (64, 96), light.threshold_).eval()
    program = trace(inference).module()
    for count, size in ((1, (64, 96)), (3, (150, 111)), (2, (33, 200))):
        pixels = torch.from_numpy(pictures(size, count, seed=2))
        with torch.no_grad():
            for found, expected in zip(program(pixels), inference(pixels), strict=True):
                torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
