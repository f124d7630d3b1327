"""The three losses: worked by hand, recorded, saturated, in half precision, and their gradients."""

import math

import numpy as np
import pytest
import torch

from destseg.model.networks import DeSTSegNet
from destseg.training.losses import cosine_loss, focal_loss, l1_loss, segmentation_loss, shrunk_mask

THREE_TO_ONE = math.log(3)  # the logit of probability 3/4


def test_cosine_loss_averages_positions_and_sums_images_and_levels():
    fine = torch.tensor([[[[1.0, 0.0], [0.0, 1.0]]], [[[0.5, 0.5], [0.5, 0.5]]]])  # two images: 1/2 each
    coarse = torch.tensor([[[[0.25]]], [[[2.0]]]])
    assert cosine_loss((fine, coarse)).item() == 0.5 + 0.5 + 0.25 + 2.0


@pytest.mark.parametrize(
    ("logit", "truth", "gamma", "expected"),
    [
        (0.0, 1, 4.0, 0.5**4 * math.log(2)),
        (THREE_TO_ONE, 1, 4.0, 0.25**4 * math.log(4 / 3)),
        (THREE_TO_ONE, 0, 4.0, 0.75**4 * math.log(4)),
        (-THREE_TO_ONE, 0, 4.0, 0.25**4 * math.log(4 / 3)),
        (THREE_TO_ONE, 0, 0.0, math.log(4)),
        (THREE_TO_ONE, 1, 1.0, 0.25 * math.log(4 / 3)),
    ],
)
def test_focal_loss_of_one_pixel(logit, truth, gamma, expected):
    logits, mask = torch.tensor([logit], dtype=torch.float64), torch.tensor([truth], dtype=torch.uint8)
    assert focal_loss(logits, mask, gamma).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("truth", "expected"), [(1, 0.25), (0, 0.75)])
def test_l1_loss_of_one_pixel(truth, expected):
    assert l1_loss(torch.tensor([THREE_TO_ONE]), torch.tensor([truth])).item() == pytest.approx(expected)


def test_losses_are_means_over_pixels():
    logits, mask = torch.tensor([0.0, THREE_TO_ONE]), torch.tensor([1.0, 0.0])
    assert l1_loss(logits, mask).item() == pytest.approx((0.5 + 0.75) / 2)
    focal = (0.5**4 * math.log(2) + 0.75**4 * math.log(4)) / 2
    assert focal_loss(logits, mask).item() == pytest.approx(focal)


def test_mask_shrinks_bilinearly_and_half_counts_as_defect():
    drawn = """
        . . . . . . . .
        . # # . . . . .
        . . . . . # . .
        . . . . . . . .
        . # # . . . . .
        . # # . . . # .
        . # # . . # # .
        . # . . . # . .
    """
    rows = [line.split() for line in drawn.strip().splitlines()]
    mask = torch.tensor([[cell == "#" for cell in row] for row in rows])[None, None]
    # Each quarter's middle four pixels decide: two of four, one of four, four of four, three of four.
    assert shrunk_mask(mask, (2, 2))[0, 0].tolist() == [[1.0, 0.0], [1.0, 1.0]]


def test_segmentation_loss_is_focal_plus_l1_against_the_shrunk_mask():
    mask = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    mask[..., :4] = 1
    logits = torch.tensor([[[[THREE_TO_ONE, THREE_TO_ONE], [THREE_TO_ONE, THREE_TO_ONE]]]])
    right, wrong = 0.25**4 * math.log(4 / 3) + 0.25, 0.75**4 * math.log(4) + 0.75
    assert segmentation_loss(logits, mask).item() == pytest.approx((right + wrong) / 2)


@pytest.mark.parametrize("loss", [focal_loss, l1_loss])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_saturated_logits_give_finite_loss_and_gradient(loss, dtype):
    logits = torch.tensor([200.0, -200.0, 200.0, -200.0], dtype=dtype, requires_grad=True)
    value = loss(logits, torch.tensor([0.0, 0.0, 1.0, 1.0]))
    value.backward()
    # Two of four pixels are wholly wrong: 200 each for focal, 1 each for l1; the right ones cost nothing.
    assert value.item() == pytest.approx({focal_loss: 100.0, l1_loss: 0.5}[loss])
    assert torch.isfinite(logits.grad).all()


def test_gradient_of_a_wrong_saturated_pixel_is_not_lost():
    logits = torch.tensor([200.0], requires_grad=True)
    focal_loss(logits, torch.tensor([0.0])).backward()
    assert logits.grad.item() == pytest.approx(1.0)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 4.0])
def test_every_exponent_has_finite_gradients(gamma):
    logits = torch.tensor([200.0, -200.0, 0.0], requires_grad=True)
    focal_loss(logits, torch.tensor([1.0, 1.0, 1.0]), gamma).backward()
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("loss", [focal_loss, l1_loss, segmentation_loss])
def test_half_precision_logits_are_computed_in_single(loss):
    logits = torch.tensor([[[[0.5, -3.0], [2.0, -0.25]]]])  # all exact in bfloat16
    mask = torch.tensor([[[[1, 0], [0, 1]]]], dtype=torch.uint8)
    value = loss(logits.bfloat16(), mask)
    assert value.dtype == torch.float32
    assert value.item() == loss(logits, mask).item()


@pytest.mark.parametrize("loss", [focal_loss, l1_loss, segmentation_loss])
def test_gradients_of_the_segmentation_losses(loss):
    generator = np.random.default_rng(1)
    logits = torch.from_numpy(3 * generator.standard_normal((2, 1, 3, 4))).requires_grad_()
    mask = torch.from_numpy(generator.integers(0, 2, (2, 1, 3, 4)))
    assert torch.autograd.gradcheck(lambda x: loss(x, mask), logits)


def test_gradient_of_the_cosine_loss():
    distances = [torch.rand(2, 1, side, side, dtype=torch.float64, requires_grad=True) for side in (4, 2, 1)]
    assert torch.autograd.gradcheck(lambda *levels: cosine_loss(levels), distances)


@pytest.mark.parametrize("case", [0, 1, 2])
def test_recorded_losses(golden, golden_state, case):
    import recipe

    recorded = np.load(golden / "networks.npz")
    shape = tuple(recorded[f"in{case}_shape"].tolist())
    network = DeSTSegNet().eval()
    network.load_state_dict(golden_state)
    corrupted, clean = (torch.from_numpy(recipe.golden_input(shape, seed)) for seed in (case, 50 + case))
    mask = torch.from_numpy(recipe.golden_mask((shape[0], 1, *shape[2:]), case))
    with torch.no_grad():
        taught, learnt = network.features(corrupted)
        logits = network.logits(taught, learnt)
        cosine = cosine_loss(network(corrupted, clean).distances)
    target = shrunk_mask(mask, logits.shape[-2:])
    found = [cosine.item(), focal_loss(logits, target).item(), l1_loss(logits, target).item()]
    np.testing.assert_allclose(found, recorded[f"in{case}_losses"], rtol=1e-4, atol=0)
    assert segmentation_loss(logits, mask).item() == pytest.approx(found[1] + found[2])


def region_of(*rows):
    return torch.tensor([[[[float(cell == "#") for cell in row] for row in rows]]])


def test_cosine_loss_counts_what_is_inside():
    distance = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]], [[[5.0, 6.0], [7.0, 8.0]]]])
    region = torch.cat([region_of("##..", "##..", "....", "...."), region_of("....", "....", "##.#", "####")])
    # Inside are 1, 7, and three quarters of 8: their mean, times two images.
    assert cosine_loss([distance], region).item() == pytest.approx(2 * (1 + 7 + 0.75 * 8) / 2.75)


def test_everything_inside_is_as_without_a_region():
    generator = torch.Generator().manual_seed(0)
    distances = [torch.rand(3, 1, side, side, generator=generator) for side in (8, 4, 2)]
    everything = torch.ones(3, 1, 32, 32, dtype=torch.uint8)
    assert cosine_loss(distances, everything).item() == pytest.approx(cosine_loss(distances).item())
    logits, mask = torch.randn(3, 1, 8, 8, generator=generator), everything.clone()
    mask[..., 5:15, 3:20] = 0
    expected = segmentation_loss(logits, mask).item()
    assert segmentation_loss(logits, mask, everything).item() == pytest.approx(expected)


def test_outside_neither_masks_nor_outputs_nor_gradients_count():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 1, 8, 8, generator=generator, requires_grad=True)
    mask = (torch.rand(2, 1, 32, 32, generator=generator) < 0.5).to(torch.uint8)
    region = torch.zeros(2, 1, 32, 32, dtype=torch.uint8)
    region[:, :, :, :16] = 1
    loss = segmentation_loss(logits, mask, region)
    loss.backward()
    assert logits.grad[..., :4].abs().min() > 0 and logits.grad[..., 4:].abs().max() == 0
    assert loss.item() == pytest.approx(segmentation_loss(logits[..., :4], mask[..., :16]).item())


def test_nothing_inside_is_no_loss_and_no_nan():
    logits, nothing = torch.zeros(1, 1, 4, 4, requires_grad=True), torch.zeros(1, 1, 16, 16)
    loss = segmentation_loss(logits, nothing, nothing) + cosine_loss([logits], nothing)
    loss.backward()
    assert loss.item() == 0 and logits.grad.abs().max() == 0
