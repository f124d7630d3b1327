"""From pictures to maps and scores: tiles without seams, constant memory, padding and regions that count."""

import tracemalloc

import numpy as np
import pytest

from destseg.inference.scoring import framed_maps, score, scores, top_count
from destseg.ops.resizing import resize_maps
from destseg.pictures.framing import Framing, framing_of
from destseg.pictures.roi import RegionOfInterest
from destseg.pictures.store import Picture
from destseg.settings import Settings


class Scorer:
    """Stands in for a network, and remembers how many inputs each call brought."""

    def __init__(self, size, batch=8):
        self.size, self.batch = size, batch
        self.batches = []

    def maps(self, pixels):
        assert pixels.dtype == np.uint8 and pixels.shape[1:] == (*self.size, 3)
        assert 1 <= len(pixels) <= self.batch
        self.batches.append(len(pixels))
        return self.found(pixels)


class Edges(Scorer):
    """Sees 20 pixels far: how much neighbours differ, at a quarter of the size.

    At the border of its input it sees zeros, like a network that pads. No value of its maps is 0, so that
    what does not count can be told from what looks normal.
    """

    def found(self, pixels):
        grey = (
            pixels.mean(axis=3, dtype=np.float32) - 114.5
        ) / 57.6  # about as a network's input is normalised
        n, h, w = len(grey), self.size[0] // 4, self.size[1] // 4
        grey = grey[:, : 4 * h, : 4 * w].reshape(n, h, 4, w, 4).mean(axis=(2, 4))
        padded = np.pad(grey, [(0, 0), (2, 2), (2, 2)])
        blurred = np.lib.stride_tricks.sliding_window_view(padded, (5, 5), (1, 2)).mean(axis=(3, 4))
        return resize_maps((4 * (grey - blurred) ** 2).clip(1e-9, 1), self.size)


class Constant(Scorer):
    """Takes one level for the map of everything."""

    def __init__(self, size, level, batch=8):
        super().__init__(size, batch)
        self.level = level

    def found(self, pixels):
        return np.full((len(pixels), *self.size), self.level, np.float32)


class Border(Scorer):
    """Everything is anomalous in the outer 16 pixels, and nothing else."""

    def found(self, pixels):
        maps = np.ones((len(pixels), *self.size), np.float32)
        maps[:, 16:-16, 16:-16] = 0
        return maps


def framing_with(size, **settings):
    return framing_of(Settings(image_size=size, **settings))


def blobs(height, width):
    """A picture of soft spots of every grey."""
    coarse = np.random.default_rng(0).random((1, height // 8 + 1, width // 8 + 1), np.float32)
    grey = resize_maps(coarse, (height, width))[0]
    return np.repeat((255 * grey).astype(np.uint8)[..., None], 3, axis=2)


def map_of(framing, pixels, scorer=None):
    return framed_maps(scorer or Edges(framing.size), framing, [framing.view(pixels)])[0]


def scored(scorer, framing, pixels):
    (found,) = score(scorer, framing, [Picture(pixels, framing.view(pixels))])
    return found


def test_the_map_of_a_picture_of_one_frame_is_the_scorers_own():
    scorer, framing = Edges((64, 96)), Framing((64, 96))
    view = framing.view(blobs(64, 96))
    assert np.array_equal(framed_maps(scorer, framing, [view])[0], scorer.maps(view.pixels[None])[0])


def test_frames_of_equal_maps_give_that_map_everywhere():
    framing = framing_with((64, 64), tile=64, overlap=0.5)
    flat = map_of(framing, blobs(200, 300), Constant((64, 64), 0.7))
    assert flat.dtype == np.float32 and flat == pytest.approx(np.full((200, 300), 0.7))
    assert map_of(framing, blobs(200, 300), Constant((64, 64), 1.0)).max() <= 1


@pytest.mark.parametrize("shift", [32, 64, 20, 7])
def test_shifting_the_tiles_changes_the_map_by_less_than_a_hundredth(shift):
    pixels, framing = blobs(500, 420), framing_with((256, 256), tile=256)
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
    tiled = map_of(framing_with((128, 128), tile=128, overlap=overlap), pixels)
    assert np.abs(tiled - map_of(Framing((512, 320)), pixels)).max() < 1e-2


def test_without_an_overlap_there_are_seams():
    pixels = blobs(512, 320)
    tiled = map_of(framing_with((128, 128), tile=128, overlap=0), pixels)
    assert np.abs(tiled - map_of(Framing((512, 320)), pixels)).max() > 0.05


@pytest.mark.parametrize("batch", [1, 8, 32])
def test_frames_go_through_the_scorer_a_batch_at_a_time(batch):
    scorer, framing = Edges((64, 64), batch), framing_with((64, 64), tile=64)
    view = framing.view(blobs(400, 640))
    framed_maps(scorer, framing, [view])
    count = len(framing.frames(view))
    assert sum(scorer.batches) == count > 3 * batch
    assert scorer.batches[:-1] == [batch] * (len(scorer.batches) - 1)


@pytest.mark.parametrize("batch", [1, 3, 32])
def test_pictures_of_several_sizes_share_batches_and_keep_their_own_maps(batch):
    framing = framing_with((64, 64), tile=64)
    pictures = [blobs(100, 150), blobs(64, 64), np.flipud(blobs(200, 70)).copy(), blobs(30, 40)]
    scorer = Edges((64, 64), batch)
    views = [framing.view(pixels) for pixels in pictures]
    together = framed_maps(scorer, framing, views)
    count = sum(len(framing.frames(view)) for view in views)
    assert len(scorer.batches) == -(-count // batch)  # no batch is left half full between pictures
    for found, pixels in zip(together, pictures, strict=True):
        assert found.shape == pixels.shape[:2] and np.array_equal(found, map_of(framing, pixels))


def test_memory_does_not_grow_with_the_number_of_tiles():
    def peak(tiles):
        """Bytes allocated beside the picture and its map."""
        framing = framing_with((64, 64), tile=64)
        view = framing.view(np.zeros((64, 48 * tiles + 16, 3), np.uint8))
        scorer = Constant((64, 64), 0.5)
        framed_maps(scorer, framing, [view])
        tracemalloc.start()
        (anomaly_map,) = framed_maps(scorer, framing, [view])
        _, highest = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return highest - anomaly_map.nbytes

    few, many = peak(20), peak(400)
    assert many - few < 380 * 48 * 64  # not a byte a pixel: weights and places, where a batch has 12 a pixel


def test_padding_influences_neither_map_nor_score():
    framing = framing_with((64, 64), keep_aspect=True)
    pixels = blobs(200, 50)  # 64 x 16 of the input's pixels: columns 24 to 40
    found = scored(Border((64, 64)), framing, pixels)
    assert found.anomaly_map.shape == (64, 16)
    assert found.anomaly_map[20:44].max() == 0
    assert found.score > 0.99  # of the rows above and below
    half = Framing((64, 64), keep_aspect=True).within([(0, 70), (49, 70), (49, 130), (0, 130)])
    assert scored(Border((64, 64)), half, pixels).score == 0


@pytest.mark.parametrize(
    ("size", "count"), [((256, 256), 100), ((128, 256), 50), ((512, 512), 400), ((64, 64), 6), ((1, 1), 1)]
)
def test_the_number_of_largest_values_follows_the_input(size, count):
    assert top_count(size) == count


def test_the_largest_values_that_count_make_the_score():
    values = np.random.default_rng(0).permutation(np.linspace(0, 1, 5000, dtype=np.float32))
    size = (128, 256)  # 50 of its pixels
    image_score, pixel_score = scores(values.reshape(50, 100), size)
    expected = np.linspace(0, 1, 5000, dtype=np.float32)[-50:]
    assert image_score == pytest.approx(expected.astype(float).mean()) and pixel_score == expected[0]
    assert scores(values[:3], size) == (pytest.approx(values[:3].mean()), values[:3].min())


def test_nan_counts_as_the_largest_value():
    values = np.full((64, 64), 0.5, np.float32)
    values[20, 30] = np.nan
    image_score, pixel_score = scores(values, (64, 64))
    assert np.isnan(image_score) and pixel_score == 0.5


def test_nan_from_the_network_is_an_error_and_no_score():
    framing = Framing((64, 64))
    words = r"^the network gives NaN: its training has diverged.*inference_precision"
    with pytest.raises(RuntimeError, match=words):
        scored(Constant((64, 64), np.nan), framing, blobs(64, 64))


class Few(Scorer):
    """Gives one value a picture."""

    def found(self, pixels):
        return np.zeros((len(pixels), 1, 1), np.float32)


@pytest.mark.parametrize(
    ("scorer", "words"),
    [
        (Constant((64, 64), 1.01), r"must lie in \[0, 1\], got values from 1.01 to 1.01"),
        (Constant((64, 64), -3), r"must lie in \[0, 1\], got values from -3 to -3"),
        (Constant((64, 64), np.inf), r"must lie in \[0, 1\], got values from inf to inf"),
        (Few((64, 64)), r"must be float32 of shape \(1, 64, 64\), got float32 of \(1, 1, 1\)"),
    ],
)
def test_what_an_engine_gives_must_be_maps(scorer, words):
    with pytest.raises(RuntimeError, match=words):
        scored(scorer, Framing((64, 64)), blobs(64, 64))


@pytest.mark.parametrize(("level", "expected"), [(1.0001, 1), (-0.0001, 0)])
def test_rounding_beyond_the_range_is_cut_off(level, expected):
    found = scored(Constant((64, 64), level), Framing((64, 64)), blobs(64, 64))
    assert found.score == expected and (found.anomaly_map == expected).all()


def test_nan_where_no_pixel_counts_is_an_error_too():
    framing = framing_with((64, 64), roi=RegionOfInterest([(0, 0), (10, 0), (10, 10)]))

    class Corner(Constant):
        def found(self, pixels):
            maps = super().found(pixels)
            maps[:, 60:, 60:] = np.nan
            return maps

    with pytest.raises(RuntimeError, match="gives NaN"):
        scored(Corner((64, 64), 0.5), framing, blobs(64, 64))


def test_a_defect_scores_alike_in_a_large_and_in_a_small_picture():
    framing = framing_with((256, 256), tile=256)
    small = np.full((256, 256, 3), 115, np.uint8)
    small[100:140, 100:140] = 255
    large = np.full((700, 1200, 3), 115, np.uint8)
    large[400:656, 640:896] = small
    found = [scored(Edges((256, 256)), framing, pixels).score for pixels in (small, large)]
    assert found[0] > 0.1 and found[0] == pytest.approx(found[1], abs=1e-2)


def test_a_part_of_the_region_never_scores_higher():
    generator = np.random.default_rng(1)
    for _ in range(20):
        values = generator.random((64, 64))
        outer = generator.random((64, 64)) < generator.random()
        inner = outer & (generator.random((64, 64)) < generator.random())
        if inner.any():
            pairs = zip(scores(values[inner], (256, 256)), scores(values[outer], (256, 256)), strict=True)
            if inner.sum() >= 100:
                assert all(part <= whole for part, whole in pairs)


def test_outside_of_the_region_the_map_is_zero_and_nothing_scores():
    pixels = np.full((128, 128, 3), 115, np.uint8)  # about what a network's padding looks like
    pixels[90:110, 90:110] = 255
    framing, scorer = Framing((128, 128)), Edges((128, 128))
    without = scored(scorer, framing, pixels)
    left = framing.within([(0, 0), (50, 0), (50, 127), (0, 127)])
    within = scored(scorer, left, pixels)
    assert without.score > 0.9 and within.pixel_score <= within.score < 1e-3
    assert np.array_equal(without.anomaly_map, within.anomaly_map)
    shown = within.resized_map((256, 200))
    assert shown.shape == (256, 200) and shown.dtype == np.float32
    assert shown[:, 80:].max() == 0 and shown[:, :79].min() > 0  # columns 0 to 50 of 128 are 0 to 79 of 200
    whole = framing.within(np.ones((3, 3)))
    assert scored(scorer, whole, pixels).score == without.score


def test_tiles_without_the_region_are_not_looked_at():
    scorer = Edges((64, 64))
    framing = framing_with((64, 64), tile=64, overlap=0).within([(0, 0), (60, 0), (60, 60), (0, 60)])
    found = scored(scorer, framing, blobs(256, 256))
    assert sum(scorer.batches) == 1 and found.anomaly_map[64:].max() == 0
    alone = Edges((64, 64))
    assert found.score == scored(alone, framing, blobs(256, 256)[:64, :64]).score


def test_what_is_scored_knows_its_picture_and_what_counts():
    framing = Framing((64, 64)).within([(0, 0), (49, 0), (49, 199), (0, 199)])
    pixels = blobs(200, 100)
    found = scored(Edges((64, 64)), framing, pixels)
    assert found.pixels is pixels and found.size == (200, 100) and found.roi is framing.roi
    assert found.anomaly_map.shape == (64, 64) and found.anomaly_map.dtype == np.float32
    region = found.roi_mask((64, 64))
    assert region[:, :32].all() and not region[:, 32:].any()
    everywhere = scored(Edges((64, 64)), Framing((64, 64)), pixels)
    assert everywhere.roi is None and everywhere.roi_mask((64, 64)) is None
    assert np.array_equal(everywhere.resized_map((64, 64)), everywhere.anomaly_map)
    assert everywhere.resized_map((9, 5)).shape == (9, 5)


def test_several_pictures_are_scored_as_each_alone():
    framing = framing_with((64, 96), keep_aspect=True)
    pictures = [blobs(64, 96), blobs(100, 40), np.fliplr(blobs(30, 80)).copy()]
    scorer = Edges((64, 96))
    together = score(scorer, framing, [Picture(pixels, framing.view(pixels)) for pixels in pictures])
    assert scorer.batches == [3]
    for found, pixels in zip(together, pictures, strict=True):
        alone = scored(Edges((64, 96)), framing, pixels)
        assert found.pixels is pixels and np.array_equal(found.anomaly_map, alone.anomaly_map)
        assert (found.score, found.pixel_score) == (alone.score, alone.pixel_score)


def test_of_no_pictures_nothing_is_scored():
    scorer = Edges((64, 64))
    assert score(scorer, Framing((64, 64)), []) == [] and scorer.batches == []
