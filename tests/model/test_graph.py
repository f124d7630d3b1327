"""The whole way from pixels to a verdict as one graph: Pillow's resizing, standard operators, the flag."""

import numpy as np
import PIL.Image
import pytest
import torch
from engines import pictures

from destseg.model.graph import Inference, fixed_point_weights, resized, traced
from destseg.model.networks import DeSTSegNet, folded
from destseg.model.normalisation import normalise
from destseg.pictures.decoding import resize
from destseg.settings import Settings

SIZES = ((64, 96), (64, 64), (200, 150), (97, 131), (51, 40), (1, 2), (700, 61), (517, 733), (1000, 100))


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


@pytest.mark.parametrize("size", SIZES)
def test_the_graph_resizes_to_the_very_grey_levels_of_pillow(size):
    pixels = pictures(size)
    found = resized(torch.from_numpy(pixels).permute(0, 3, 1, 2).float(), (64, 96))
    np.testing.assert_array_equal(found[0].permute(1, 2, 0), resize(pixels[0], (64, 96)))


def test_folded_networks_give_the_same_and_leave_the_network_alone(light):
    before = {name: tensor.clone() for name, tensor in light.network_.state_dict().items()}
    small = folded(light.network_)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in small.modules())
    images = normalise(pictures((64, 96), 2))
    torch.testing.assert_close(small.maps(images), light.network_.maps(images), atol=1e-5, rtol=0)
    after = light.network_.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize("preset", ["paper", "stpm"])
def test_graphs_of_every_preset_hold_standard_operators_only(preset):
    network = DeSTSegNet(**Settings(preset).parts).eval()
    program = traced(Inference(network, (64, 64), 0.5))
    called = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert called and all(
        name.startswith(("aten.", "<built-in function")) for name in called
    )  # none of destseg.ops
    assert not any("stack_trace" in node.meta for node in program.graph.nodes)


def test_the_flag_compares_with_the_threshold(light):
    pixels = torch.from_numpy(pictures((64, 96), 4, seed=3))
    scores = [one.score for one in light.predict(pixels.numpy())]
    between = sum(sorted(scores)[1:3]) / 2
    flags = Inference(light.network_, (64, 96), between)(pixels)[2]
    assert flags.tolist() == [score > between for score in scores]
