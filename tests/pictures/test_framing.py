"""Framing: the three ways of scaling, frames that cover everything evenly, weights, padding, settings."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from destseg.pictures.decoding import resize
from destseg.pictures.folders import as_pictures
from destseg.pictures.framing import Framing, View, framing_of
from destseg.pictures.roi import RegionOfInterest
from destseg.pictures.store import PictureStore
from destseg.settings import Settings
from destseg.training.losses import weighted_mean


def noise(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def weights_of(frame):
    return np.outer(frame.row_weights, frame.column_weights)


def assembled(framing, view):
    """The sum of the weights of all frames, where they lie."""
    total = np.zeros(view.pixels.shape[:2])
    for frame in framing.frames(view):
        total[frame.rows, frame.columns] += weights_of(frame)
    return total


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, (64, 128)),
        ({"keep_aspect": True}, (64, 32)),  # 200 x 100 into 64 x 128: the height decides
        ({"tile": (100, 50)}, (128, 256)),
        ({"tile": (256, 512)}, (50, 25)),
    ],
)
def test_what_a_picture_is_scaled_to(arguments, expected):
    framing = Framing((64, 128), **arguments)
    assert framing.scaled_size((200, 100)) == expected
    view = framing.view(noise(200, 100))
    assert view.size == (200, 100)
    assert np.array_equal(view.pixels, resize(noise(200, 100), expected))


def test_a_stretched_picture_is_one_input_as_it_is():
    framing = Framing((64, 96))
    view = framing.view(noise(70, 30))
    (frame,) = framing.frames(view)
    assert framing.cut(view, frame) is view.pixels
    assert framing.input_roi(view, frame) is None and framing.roi_mask(view) is None
    assert (weights_of(frame) == 1).all() and weights_of(frame).shape == (64, 96)


def test_padding_repeats_the_edge_and_does_not_count():
    framing = Framing((8, 8), keep_aspect=True)
    view = framing.view(noise(16, 8))
    assert view.pixels.shape == (8, 4, 3)
    (frame,) = framing.frames(view)
    found, counting = framing.cut(view, frame), framing.input_roi(view, frame)
    assert np.array_equal(found[:, 2:6], view.pixels)
    assert np.array_equal(found[:, 0], view.pixels[:, 0]) and np.array_equal(found[:, 7], view.pixels[:, 3])
    assert np.array_equal(counting, np.tile([False, False, True, True, True, True, False, False], (8, 1)))
    assert frame.inside == (slice(0, 8), slice(2, 6))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from([0, 0.1, 0.25, 0.5, 0.75]))
def test_frames_cover_every_pixel_and_their_weights_sum_to_one(height, width, overlap):
    framing = Framing((64, 96), tile=(64, 96), overlap=overlap)
    view = View(np.zeros((height, width, 3), np.uint8), (height, width))
    frames = framing.frames(view)
    assert assembled(framing, view) == pytest.approx(np.ones((height, width)), abs=1e-5)
    for frame in frames:
        assert framing.cut(view, frame).shape == (64, 96, 3)
        assert weights_of(frame).min() >= 0
    for length, side, axis in ((height, 64, "rows"), (width, 96, "columns")):
        places = sorted({(getattr(f, axis).start, getattr(f, axis).stop) for f in frames})
        assert places[0][0] == 0 and places[-1][1] == length
        for (start, stop), (later, _) in itertools.pairwise(places):
            assert stop - start == side and stop - later >= int(overlap * side)


def test_tiles_start_on_the_lattice_and_the_last_ends_with_the_picture():
    framing = Framing((256, 256), tile=(256, 256), overlap=0.3)  # 179 pixels on, or 160 on the lattice
    view = View(np.zeros((256, 700, 3), np.uint8), (256, 700))
    assert [frame.columns.start for frame in framing.frames(view)] == [0, 160, 320, 444]
    assert len(Framing((256, 256), tile=(256, 256), overlap=0).frames(view)) == 3


def test_weights_fade_towards_the_edge_within_the_picture_only():
    framing = Framing((64, 64), tile=(64, 64), overlap=0.5)
    first, second, third = framing.frames(View(np.zeros((64, 128, 3), np.uint8), (64, 128)))
    assert (first.column_weights[:32] == 1).all() and (third.column_weights[32:] == 1).all()
    assert np.array_equal(second.weights, weights_of(second)) and second.weights.shape == (64, 64)
    rising, falling = second.column_weights[:32], second.column_weights[32:]
    for weights in (rising, falling[::-1]):
        assert (weights[:8] == 0).all() and (np.diff(weights[8:24]) > 0).all() and (weights[24:] == 1).all()


def test_frames_without_a_pixel_of_the_region_are_left_out():
    region = RegionOfInterest([(0, 0), (20, 0), (20, 20), (0, 20)])
    framing = Framing((64, 64), tile=(64, 64), overlap=0, roi=region)
    view = framing.view(noise(192, 192))
    (frame,) = framing.frames(view)
    assert (frame.rows, frame.columns) == (slice(0, 64), slice(0, 64))
    counting = framing.input_roi(view, frame)
    assert counting[:21, :21].all() and counting.sum() == 21 * 21


def test_another_region_for_one_call():
    framing = Framing((64, 64), roi=RegionOfInterest([(0, 0), (9, 0), (9, 9)]))
    assert framing.within(None) is framing
    other = framing.within(np.ones((4, 4), bool))
    assert other.size == (64, 64) and other.roi_mask(other.view(noise(80, 80))).all()


def test_settings_make_the_same_framing_again():
    ways = {"image_size": (64, 128), "keep_aspect": True, "tile": (128, 256)}
    given = Settings(**ways, overlap=0.5, roi=RegionOfInterest([(0, 0), (30, 0), (0, 30)]))
    framing = framing_of(given)
    assert (framing.size, framing.keep_aspect, framing.tile) == ((64, 128), True, (128, 256))
    assert framing.overlap == 0.5 and framing.roi is given.roi
    kept = given.stored()
    assert kept["image_size"] == [64, 128] and kept["tile"] == [128, 256]
    again = framing_of(Settings.from_stored(kept | {"roi": RegionOfInterest(kept["roi"])}))
    assert again.checksum == framing.checksum
    assert (again.size, again.keep_aspect, again.tile, again.overlap) == ((64, 128), True, (128, 256), 0.5)
    assert again.checksum != framing_of(Settings(**ways, overlap=0.25)).checksum
    assert framing_of(Settings(image_size=(64, 128))).checksum is None  # as checkpoints had none


def test_one_number_is_a_square_tile():
    assert framing_of(Settings(image_size=(64, 128), tile=200)).tile == (200, 200)
    assert framing_of(Settings(image_size=(64, 128), tile=[50, 60])).tile == (50, 60)


def test_a_store_gives_the_tiles_of_every_picture():
    framing = Framing((64, 64), tile=(64, 64), overlap=0.25)
    pictures = [noise(64, 64), noise(64, 160), noise(30, 64)]
    store = PictureStore(as_pictures(pictures), framing, progress=False)
    assert (store.pictures, len(store), store.size) == (3, 1 + 4 + 1, (64, 64))
    assert np.array_equal(store[1], pictures[1][:, :64]) and np.array_equal(store[4], pictures[1][:, 96:])
    tile, counting = store.input(5)
    assert np.array_equal(tile[17:47], pictures[2]) and counting.sum() == 30 * 64
    part = store.subset([1])
    assert (part.pictures, len(part)) == (1, 4) and part.picture(part.sources[0]).view.size == (64, 160)


@pytest.mark.parametrize(("memory", "kept"), [(0, 0), (64 * 64 * 3, 1), (64 * (64 + 160) * 3, 2)])
def test_a_store_counts_the_scaled_pictures(memory, kept):
    framing = Framing((64, 64), tile=(64, 64))
    store = PictureStore(as_pictures([noise(64, 64), noise(64, 160)]), framing, memory, progress=False)
    assert sum(isinstance(picture, View) for picture in store._views.values()) == kept
    assert np.array_equal(store[1], noise(64, 160)[:, :64])


def test_a_picture_without_any_of_the_region_is_left_out_by_name(caplog):
    framing = Framing((64, 64), roi=RegionOfInterest([(70, 70), (90, 70), (90, 90)]))
    store = PictureStore(as_pictures([noise(100, 100), noise(60, 60)]), framing, progress=False)
    assert store.pictures == 1
    assert (
        "left out: picture 1: roi must hold at least one pixel, got none in a picture of 60 x 60"
        in caplog.text
    )


def test_a_weighted_mean_counts_what_is_inside():
    import torch

    values = torch.arange(16.0).reshape(1, 1, 4, 4)
    region = torch.zeros(1, 1, 8, 8)
    assert weighted_mean(values, region) == 0
    region[..., :2, :3] = 1  # the whole of the first value and half of the second
    assert weighted_mean(values, region).item() == pytest.approx((0 * 1 + 1 * 0.5) / 1.5)
    assert weighted_mean(values, torch.ones(1, 1, 8, 8)) == weighted_mean(values, None) == 7.5


def test_tiles_share_their_weights():
    framing = Framing((64, 64), tile=(64, 64))
    frames = framing.frames(View(np.zeros((500, 500, 3), np.uint8), (500, 500)))
    assert len(frames) == 225
    assert len({id(frame.row_weights) for frame in frames}) == 15
    assert len({id(frame.column_weights) for frame in frames}) == 15
    with pytest.raises(ValueError, match="read-only"):
        frames[0].row_weights[0] = 2
