"""From pictures to maps and scores: tiles without seams, constant memory, padding and regions that count."""

import tracemalloc

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from destseg.framing import Framing, framing_of
from destseg.networks import Output
from destseg.scoring import FRAMES_AT_ONCE, anomaly_maps, framed_map, scored, scores


class Edges(nn.Module):
    """Stands in for a network that sees 20 pixels far: how much neighbours differ, at a quarter of the size.

    At the border of its input it sees zeros, like a network that pads.
    """

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.batches = []

    def forward(self, images):
        self.batches.append(len(images))
        grey = F.avg_pool2d(images.mean(dim=1, keepdim=True), 4)
        blurred = F.avg_pool2d(F.pad(grey, [2] * 4), 5, 1)
        probability = (4 * (grey - blurred) ** 2).clamp(0, 1) * self.weight
        return Output(probability, probability, ())


class Constant(nn.Module):
    """Stands in for a network that takes one level's mean for the probability of everything."""

    def __init__(self, level):
        super().__init__()
        self.level = nn.Parameter(torch.tensor(level))

    def forward(self, images):
        probability = self.level.expand(len(images), 1, images.shape[2] // 4, images.shape[3] // 4)
        return Output(probability, probability, ())


def blobs(height, width):
    """A picture of soft spots of every grey."""
    coarse = torch.from_numpy(np.random.default_rng(0).random((1, 1, height // 8 + 1, width // 8 + 1)))
    grey = F.interpolate(coarse, (height, width), mode="bilinear")[0, 0].numpy()
    return np.repeat((255 * grey).astype(np.uint8)[..., None], 3, axis=2)


def map_of(framing, pixels, network=None):
    return framed_map(network or Edges(), framing, framing.view(pixels)).numpy()


def test_a_picture_of_one_frame_is_the_networks_map_itself():
    network, framing = Edges(), Framing((64, 96))
    view = framing.view(blobs(64, 96))
    assert torch.equal(framed_map(network, framing, view), anomaly_maps(network, view.pixels[None])[0])


def test_frames_of_equal_maps_give_that_map_everywhere():
    framing = framing_of((64, 64), tile=64, overlap=0.5)
    assert map_of(framing, blobs(200, 300), Constant(0.7)) == pytest.approx(np.full((200, 300), 0.7))
    assert map_of(framing, blobs(200, 300), Constant(1.0)).max() <= 1


@pytest.mark.parametrize("shift", [32, 64, 20, 7])
def test_shifting_the_tiles_changes_the_map_by_less_than_a_hundredth(shift):
    pixels, framing = blobs(500, 420), framing_of((256, 256), tile=256)
    whole = map_of(framing, pixels)
    assert whole.max() > 0.3  # there is something to change
    shifted = map_of(framing, pixels[shift:, shift:])
    inside = (slice(40, None), slice(40, None))  # farther than the network sees from where it was cut
    if shift % 4 == 0:
        assert np.abs(whole[shift:, shift:] - shifted)[inside].max() < 1e-2
    else:  # the network's own grid of 4 pixels moves, too: as much as without any tiles
        tall = Framing((500 - 4, 420 - 4))
        untiled = map_of(tall, pixels[:-4, :-4])[shift:, shift:]
        other = map_of(Framing((500 - 4 - shift, 420 - 4 - shift)), pixels[shift:-4, shift:-4])
        grid = np.abs(untiled - other)[inside].max()
        assert np.abs(whole[shift:, shift:] - shifted)[inside].max() < grid + 1e-2


@pytest.mark.parametrize("overlap", [0.25, 0.5])
def test_tiles_agree_with_the_whole_picture_seen_at_once(overlap):
    pixels = blobs(512, 320)
    tiled = map_of(framing_of((128, 128), tile=128, overlap=overlap), pixels)
    assert np.abs(tiled - map_of(Framing((512, 320)), pixels)).max() < 1e-2


def test_without_an_overlap_there_are_seams():
    pixels = blobs(512, 320)
    tiled = map_of(framing_of((128, 128), tile=128, overlap=0), pixels)
    assert np.abs(tiled - map_of(Framing((512, 320)), pixels)).max() > 0.05


def test_frames_go_through_the_network_a_few_at_a_time():
    network, framing = Edges(), framing_of((64, 64), tile=64)
    view = framing.view(blobs(400, 640))
    framed_map(network, framing, view)
    assert sum(network.batches) == len(framing.frames(view)) > 5 * FRAMES_AT_ONCE
    assert max(network.batches) == FRAMES_AT_ONCE


def test_memory_does_not_grow_with_the_number_of_tiles():
    def peak(tiles):
        """Bytes allocated by numpy beside the picture; torch's map is 4 bytes a pixel."""
        framing = framing_of((64, 64), tile=64)
        view = framing.view(np.zeros((64, 48 * tiles + 16, 3), np.uint8))
        network = Constant(0.5)
        framed_map(network, framing, view)
        tracemalloc.start()
        framed_map(network, framing, view)
        _, highest = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return highest

    few, many = peak(20), peak(400)
    assert many - few < 380 * 48 * 64  # not a byte a pixel: weights and places, where a batch has 12 a pixel


def test_padding_influences_neither_map_nor_score():
    class Border(nn.Module):
        """Everything is anomalous in the outer 16 pixels, and nothing else."""

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, images):
            probability = torch.ones(len(images), 1, images.shape[2] // 4, images.shape[3] // 4)
            probability[..., 4:-4, 4:-4] = 0
            return Output(probability * self.weight, probability, ())

    framing = framing_of((64, 64), keep_aspect=True)
    view = framing.view(blobs(200, 50))  # 64 x 16 of the input's pixels: columns 24 to 40
    found = scored(Border(), framing, view)
    assert found.anomaly_map.shape == (64, 16)
    assert found.anomaly_map[20:44].max() == 0
    assert found.score > 0.99  # of the rows above and below
    half = Framing((64, 64), keep_aspect=True).within([(0, 70), (49, 70), (49, 130), (0, 130)])
    assert scored(Border(), half, half.view(blobs(200, 50))).score == 0


def test_the_largest_values_that_count_make_the_score():
    values = torch.linspace(0, 1, 5000)[torch.randperm(5000, generator=torch.Generator().manual_seed(0))]
    size = (128, 256)  # 50 of its pixels
    image_score, pixel_score = scores(values.reshape(50, 100), size)
    expected = np.linspace(0, 1, 5000, dtype=np.float32)[-50:]
    assert image_score == pytest.approx(expected.astype(float).mean()) and pixel_score == expected[0]
    assert scores(values[:3], size) == (pytest.approx(values[:3].mean().item()), values[:3].min().item())


def test_a_defect_scores_alike_in_a_large_and_in_a_small_picture():
    framing = framing_of((256, 256), tile=256)
    small = np.full((256, 256, 3), 115, np.uint8)
    small[100:140, 100:140] = 255
    large = np.full((700, 1200, 3), 115, np.uint8)
    large[400:656, 640:896] = small
    found = [scored(Edges(), framing, framing.view(pixels)).score for pixels in (small, large)]
    assert found[0] > 0.1 and found[0] == pytest.approx(found[1], abs=1e-2)


def test_a_part_of_the_region_never_scores_higher():
    generator = np.random.default_rng(1)
    for _ in range(20):
        values = torch.from_numpy(generator.random((64, 64)))
        outer = generator.random((64, 64)) < generator.random()
        inner = outer & (generator.random((64, 64)) < generator.random())
        if inner.any():
            pairs = zip(scores(values[inner], (256, 256)), scores(values[outer], (256, 256)), strict=True)
            if inner.sum() >= 100:
                assert all(part <= whole for part, whole in pairs)


def test_outside_of_the_region_the_map_is_zero_and_nothing_scores():
    pixels = np.full((128, 128, 3), 115, np.uint8)  # about what a network's padding looks like
    pixels[90:110, 90:110] = 255
    framing = Framing((128, 128))
    without = scored(Edges(), framing, framing.view(pixels))
    left = framing.within([(0, 0), (50, 0), (50, 127), (0, 127)])
    within = scored(Edges(), left, left.view(pixels))
    assert without.score > 0.9 and within.pixel_score <= within.score < 1e-3
    assert torch.equal(without.anomaly_map, within.anomaly_map)
    shown = within.resized_map((256, 200))
    assert shown.shape == (256, 200) and shown.dtype == np.float32
    assert shown[:, 80:].max() == 0 and shown[:, :79].min() > 0  # columns 0 to 50 of 128 are 0 to 79 of 200
    whole = framing.within(np.ones((3, 3)))
    assert scored(Edges(), whole, whole.view(pixels)).score == without.score


def test_tiles_without_the_region_are_not_looked_at():
    network = Edges()
    framing = framing_of((64, 64), tile=64, overlap=0, roi=[(0, 0), (60, 0), (60, 60), (0, 60)])
    found = scored(network, framing, framing.view(blobs(256, 256)))
    assert sum(network.batches) == 1 and found.anomaly_map[64:].max() == 0
    alone = Edges()
    small = framing.view(blobs(256, 256)[:64, :64])
    assert found.score == scored(alone, framing, small).score
