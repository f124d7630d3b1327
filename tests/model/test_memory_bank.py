"""The memory of normal features: distances by hand, what is kept, whom a picture is compared with."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from destseg.model.memory_bank import FEW, KEPT, NEAR, MemoryBank, Normal, farthest
from destseg.model.networks import CHANNELS, DeSTSegNet
from destseg.settings import Settings

SIZES = ((16, 24), (8, 12), (4, 6))


def levels(n=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(n, channels, *size, generator=generator)
        for channels, size in zip(CHANNELS, SIZES, strict=False)
    ]


def filled(normals, seed=0):
    bank = MemoryBank(CHANNELS[1:3])
    bank.fill(iter(normals), len(normals), seed)
    return bank


def by_hand(bank, taught, k):
    """The share of one position of the second level, from all that is kept."""
    second, third = (F.avg_pool2d(level, 3, 1, 1) for level in taught[1:])
    third = F.interpolate(third, size=second.shape[2:], mode="bilinear", align_corners=False)
    both = torch.cat([F.normalize(level)[0].flatten(1)[:, k] for level in (second, third)])
    distance = 1 - (bank.kept.flatten(1) @ both).max() / 2
    return (distance / bank.scale).clamp(0.01, 1)


def test_distances_by_hand():
    bank, taught = filled([Normal(levels(seed=k), k) for k in range(3)]), levels(seed=9)
    shares = bank(taught)
    assert shares.shape == (1, 1, 8, 12) and shares.dtype == torch.float32
    for k in (0, 17, 95):
        torch.testing.assert_close(shares.flatten()[k], by_hand(bank, taught, k))


def test_each_input_has_its_own():
    bank = filled([Normal(levels(seed=k), k) for k in range(3)])
    both = bank(levels(2, seed=5))
    torch.testing.assert_close(both[1:], bank([level[1:] for level in levels(2, seed=5)]))


def test_half_precision_rounds_only_what_is_kept():
    bank, taught = filled([Normal(levels(seed=k), k) for k in range(3)]), levels(seed=9)
    wanted = bank(taught)
    torch.testing.assert_close(bank.half()(taught), wanted, rtol=0, atol=1e-3)
    torch.testing.assert_close(bank([level.half() for level in taught]), wanted, rtol=0, atol=2e-3)


def test_what_is_kept_is_near_and_what_is_not_is_far():
    normal = levels(seed=1)
    bank = filled([Normal(normal, 0)])  # 96 positions: all are kept
    assert bank(normal).max() == pytest.approx(0.01) and bank.scale == pytest.approx(1e-3)
    assert bank(levels(seed=2)).min() == 1


def test_the_scale_is_three_times_a_distance_that_other_pictures_rarely_exceed():
    """Each picture is compared with the other; its own positions, which are kept, too, do not count."""
    first, second = levels(seed=1), levels(seed=2)
    bank = filled([Normal(first, 4), Normal(second, 7)])  # 192 positions: all are kept
    apart = []
    for one, other in ((first, second), (second, first)):
        alone = filled([Normal(other, 0)])
        alone.scale.fill_(2)  # the largest distance there is
        apart.append(2 * alone(one).flatten())
    usual = torch.cat(apart).sort().values[int(0.999 * 191)]
    torch.testing.assert_close(bank.scale, 3 * usual)


def test_only_positions_that_count_are_kept():
    normal, counts = levels(seed=1), torch.zeros(64, 96, dtype=torch.bool)
    counts[:, :48] = True  # the left half
    bank = filled([Normal(normal, 0, counts)])
    positions = F.normalize(F.avg_pool2d(normal[1], 3, 1, 1))[0]
    similarity = (bank.kept[:, :128, 0, 0] @ positions.flatten(1)).amax(0).reshape(8, 12)
    assert (similarity[:, :6] > 0.9999).all() and (similarity[:, 6:] < 0.9).all()
    counts[:] = False
    counts[30:34, 40] = True  # of no position half of the pixels, but at least one position counts
    assert len(filled([Normal(normal, 0, counts)]).kept.unique(dim=0)) == 2


def test_far_positions_are_chosen_and_few_come_again():
    generator = np.random.default_rng(0)
    clusters = F.normalize(torch.from_numpy(generator.standard_normal((KEPT // 2, 40))).float())
    features = torch.cat([clusters, clusters.repeat(20, 1) + 0.001])
    chosen = farthest(features, generator)
    assert len(chosen) == KEPT and len(set((chosen[: KEPT // 2] % (KEPT // 2)).tolist())) == KEPT // 2
    assert farthest(features[:3], generator).tolist().count(0) in (KEPT // 3, KEPT // 3 + 1)


def test_the_same_seed_keeps_the_same():
    normals = [Normal(levels(seed=k), k) for k in range(8)]
    first, again, other = filled(normals), filled(normals), filled(normals, seed=1)
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    assert not torch.equal(first.kept, other.kept)


@pytest.mark.parametrize("preset", ["fast", "paper"])
def test_which_networks_have_one(preset):
    assert DeSTSegNet(**Settings(preset, memory_bank=True).parts).memory_bank is not None
    assert DeSTSegNet(**Settings(preset, memory_bank=False).parts).memory_bank is None
    assert DeSTSegNet(**Settings(preset, segmentation=False, memory_bank=True).parts).memory_bank is None


def test_the_bank_weighs_more_where_there_are_few_pictures():
    assert filled([Normal(levels(seed=k), k) for k in range(FEW - 1)]).weight == 1 / 2
    assert filled([Normal(levels(seed=k), k) for k in range(FEW)]).weight == 3 / 8
    assert filled([Normal(levels(seed=k), k // 2) for k in range(FEW)]).weight == 1 / 2  # two tiles of each


@pytest.mark.parametrize("product", [0.0, -1e-21, 1e-6, 8.0])
def test_distances_count_within_bounds(product):
    """Rounding takes the product of equal features' distances below 0, of which a root would be NaN."""
    network, maps = DeSTSegNet(**Settings().parts).eval(), torch.full((1, 1, 64, 64), 0.5)
    with torch.no_grad():
        taught = network.teacher_net(torch.randn(1, 3, 64, 64))
        found = network.fused(maps, taught, torch.full((1, 1, 16, 16), product))
        share = F.interpolate(network.memory_bank(taught), (64, 64), mode="bilinear", align_corners=False)
    expected = (0.5 * share) ** (3 / 8) * min(max(product, NEAR**3), 1) ** (1 / 12)
    torch.testing.assert_close(found, expected)


def test_maps_are_the_geometric_mean_of_segmentation_bank_and_distances():
    network, images = DeSTSegNet(**Settings().parts).eval(), torch.randn(1, 3, 64, 64)
    network.memory_bank.fill([Normal(network.teacher_net(torch.randn(1, 3, 64, 64)), 0)], 1, 0)
    network.memory_bank.scale.fill_(0.5)
    with torch.no_grad():
        output = network(images)
        maps = [output.probability, network.memory_bank(network.teacher_net(images)), output.destmap]
        probability, share, product = (
            F.interpolate(one, size=(64, 64), mode="bilinear", align_corners=False)[:, 0] for one in maps
        )
        assert product.min() > NEAR**3 and product.max() < 1
        expected = probability ** (1 / 4) * share ** (1 / 2) * product ** (1 / 12)
        torch.testing.assert_close(network.maps(images), expected)
        network.memory_bank.weight.fill_(2 / 3)  # as earlier files have it
        network.memory_bank.distance_weight.fill_(0)
        torch.testing.assert_close(network.maps(images), (probability * share**2) ** (1 / 3))
