"""Training batches: the same however they are asked for, every picture in turn, changed pictures."""

import zlib

import numpy as np
import pytest
import torch

from destseg.model.normalisation import normalise
from destseg.pictures.folders import as_pictures
from destseg.pictures.framing import Framing
from destseg.pictures.roi import RegionOfInterest
from destseg.pictures.store import PictureStore
from destseg.settings import Schedule
from destseg.training.augmentation import augment_picture, augment_roi, draw_augmentation
from destseg.training.synthesis import Synthesis
from destseg.training.textures import PictureTextures, from_normals

SIZE = (24, 32)


def store_of(count, seed=3, roi=None, **arguments):
    """A store of `count` pictures of noise."""
    pictures = np.random.default_rng(seed).integers(0, 256, (count, *SIZE, 3), dtype=np.uint8)
    return PictureStore(as_pictures(pictures), Framing(SIZE).within(roi), **arguments)


def synthesis(count=5, batch_size=3, memory=1 << 30, **arguments):
    store = store_of(count, memory=memory)
    return Synthesis(store, from_normals(store), batch_size, **arguments)


def assert_equal(first, second):
    assert first.indices == second.indices
    for a, b in zip(first[:3], second[:3], strict=True):
        assert torch.equal(a, b)


def differ(first, second):
    return not torch.equal(first.corrupted, second.corrupted)


def test_what_a_batch_holds():
    batch = synthesis(batch_size=4, seed=1).batch(0)
    assert batch.corrupted.shape == batch.clean.shape == (4, 3, *SIZE)
    assert batch.corrupted.dtype == batch.clean.dtype == torch.float32
    assert batch.masks.shape == (4, 1, *SIZE) and batch.masks.dtype == torch.uint8
    pictures = np.stack([store_of(5)[index] for index in batch.indices])
    assert torch.equal(batch.clean, normalise(pictures))


def test_pictures_change_under_the_mask_and_nowhere_else():
    store = PictureStore(as_pictures(np.full((1, *SIZE, 3), 50, np.uint8)), Framing(SIZE))
    white = PictureStore(as_pictures(np.full((1, *SIZE, 3), 255, np.uint8)), Framing(SIZE))
    batch = Synthesis(store, PictureTextures(white), 40).batch(0)
    changed = (batch.corrupted - batch.clean).abs() > 1e-5
    assert torch.equal(changed, batch.masks.bool().expand_as(changed))
    assert 0 < batch.masks.float().mean() < 0.2


def test_batches_do_not_depend_on_the_order_they_are_asked_in():
    first, second = synthesis(), synthesis()
    ahead = [first.batch(step) for step in range(4)]
    for step in (2, 0, 3, 1):
        assert_equal(second.batch(step), ahead[step])


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_batches_do_not_depend_on_the_number_of_workers(workers):
    expected = [synthesis().batch(step) for step in range(2, 9)]
    found = list(synthesis().batches(range(2, 9), workers))
    for first, second in zip(expected, found, strict=True):
        assert_equal(first, second)


def test_batches_do_not_depend_on_the_memory_for_pictures():
    assert_equal(synthesis(memory=0).batch(3), synthesis().batch(3))


def test_samples_do_not_depend_on_those_beside_them():
    few, many = synthesis(count=7, batch_size=2).batch(0), synthesis(count=7, batch_size=5).batch(0)
    assert few.indices == many.indices[:2]
    assert torch.equal(few.corrupted, many.corrupted[:2])


def test_steps_and_seeds_change_everything():
    batch = synthesis(count=1, seed=0).batch(0)
    assert differ(batch, synthesis(count=1, seed=0).batch(1))
    assert differ(batch, synthesis(count=1, seed=1).batch(0))
    assert not torch.equal(batch.masks[0], batch.masks[1])  # one picture three times: three anomalies


@pytest.mark.parametrize(("count", "batch_size"), [(7, 3), (5, 5), (2, 7), (1, 4)])
def test_every_picture_comes_once_an_epoch(count, batch_size):
    batches = synthesis(count, batch_size)
    sequence = [index for step in range(3 * count) for index in batches.batch(step).indices]
    epochs = [sequence[first : first + count] for first in range(0, len(sequence), count)]
    assert all(sorted(epoch) == list(range(count)) for epoch in epochs)
    assert count == 1 or len({tuple(epoch) for epoch in epochs}) > 1  # each in an order of its own


def test_clean_pictures_as_they_are():
    found = synthesis().clean(range(1, 3))
    assert torch.equal(found, normalise(np.stack([store_of(5)[1], store_of(5)[2]])))


@pytest.mark.parametrize(
    ("arguments", "changes"),
    [
        ({}, False),
        ({"rotate": "0"}, False),
        ({"rotate": 5}, True),
        ({"rotate": "90"}, True),
        ({"flip": "both"}, True),
        ({"augment": "light"}, True),
    ],
)
def test_whether_clean_pictures_are_changed(arguments, changes):
    batches = synthesis(**arguments)
    assert batches.changes_pictures is changes
    batch = batches.batch(0)
    assert torch.equal(batch.clean, batches.clean(batch.indices)) is not changes


@pytest.mark.parametrize("rotate", ["around", -1, 181, float("nan"), "inf", None, [5]])
def test_words_about_wrong_rotations(rotate):
    words = r'rotate must be "auto", "90" \(quarter turns\) or degrees from 0 to 180, got '
    with pytest.raises(ValueError, match=words):
        Schedule((1, 1), 1, rotate=rotate)
    with pytest.raises(ValueError, match=words):
        synthesis(rotate=rotate)


@pytest.mark.parametrize("flip", ["sideways", None, True])
def test_words_about_wrong_flips(flip):
    with pytest.raises(
        ValueError, match=rf"flip must be one of '', horizontal, vertical, both, got {flip!r}"
    ):
        synthesis(flip=flip)


@pytest.mark.parametrize("augment", ["strong", None, True])
def test_words_about_wrong_augmentations(augment):
    with pytest.raises(ValueError, match=rf"augment must be one of '', light, got {augment!r}"):
        synthesis(augment=augment)


CHECKSUMS = {  # of the version before there was `augment`
    (0, ""): 1635572372,
    (0, "both"): 3624966300,
    (5, "horizontal"): 3375787115,
    ("90", ""): 820054508,
}


@pytest.mark.parametrize(("rotate", "flip"), CHECKSUMS)
def test_without_augment_the_draws_are_those_they_were(rotate, flip):
    """Pictures that are not rotated, and all numbers drawn after the changes."""
    some = Synthesis(store_of(5), PictureTextures(store_of(5, seed=4)), 4, 1, rotate, flip)
    checksum = 0
    for step in range(3):
        drawn = some.drawn(step, some.input, some.draw_texture.index)
        for k, (angles, turn, share) in enumerate(drawn.corruptions):
            if rotate == 0:
                checksum = zlib.crc32(np.ascontiguousarray(drawn.pictures[k]), checksum)
            numbers = (angles.shape, drawn.textures[k], drawn.indices[k], round(turn, 9), round(share, 9))
            checksum = zlib.crc32(repr(numbers).encode(), checksum)
    assert checksum == CHECKSUMS[rotate, flip]


@pytest.mark.parametrize("roi", [None, [(3, 4), (28, 4), (10, 20)]], ids=["whole", "region"])
def test_clean_picture_corrupted_picture_and_region_change_alike(roi):
    arguments = {"rotate": 5, "flip": "both", "augment": "light"}
    store = store_of(5, roi=roi)
    black = PictureStore(as_pictures(np.zeros((1, *SIZE, 3), np.uint8)), Framing(SIZE))
    batch = Synthesis(store, PictureTextures(black), 4, seed=1, **arguments).batch(2)
    for k, index in enumerate(batch.indices):
        changes = draw_augmentation(np.random.default_rng([1, 2, k]), SIZE, **arguments)
        picture, region = store.input(index)
        changed = normalise(augment_picture(picture, changes)[None])[0]
        assert torch.equal(batch.clean[k], changed)
        normal = ~batch.masks[k].bool().expand_as(changed)
        torch.testing.assert_close(batch.corrupted[k][normal], changed[normal])
        if roi is not None:
            assert np.array_equal(batch.rois[k, 0], augment_roi(region, changes))
    assert (batch.rois is None) == (roi is None)


def test_an_epochs_order_is_drawn_once(monkeypatch):
    drawn, real = [], np.random.default_rng
    monkeypatch.setattr(np.random, "default_rng", lambda seed: drawn.append(list(seed)) or real(seed))
    some = Synthesis(range(100), None, 8, seed=87)
    indices = [some._index(k) for k in range(300)]
    assert drawn == [[87, epoch, 0, 1] for epoch in range(3)]
    assert all(sorted(indices[first : first + 100]) == list(range(100)) for first in (0, 100, 200))


@pytest.mark.parametrize("rotate", [0, "0", "0.0", 0.0])
def test_no_rotation_changes_nothing_however_it_is_written(rotate):
    some = Synthesis(range(3), None, 2, rotate=rotate)
    assert some.rotate == 0.0 and not some.changes_pictures
    assert Synthesis(range(3), None, 2, rotate="5").rotate == 5.0
    assert Synthesis(range(3), None, 2, rotate="90").rotate == "90"  # quarter turns
    assert Synthesis(range(3), None, 2, rotate=90).rotate == 90.0


def padded_synthesis(**arguments):
    """Pictures of 24 x 16 pixels in inputs of 24 x 32: padding left and right."""
    pictures = np.random.default_rng(3).integers(0, 256, (3, 24, 16, 3), dtype=np.uint8)
    store = PictureStore(as_pictures(pictures), Framing(SIZE, keep_aspect=True))
    return Synthesis(store, from_normals(store), 4, **arguments)


def test_batches_tell_what_counts():
    assert synthesis().batch(0).rois is None
    rois = padded_synthesis().batch(0).rois
    assert rois.shape == (4, 1, *SIZE) and rois.dtype == torch.uint8
    assert rois[..., 8:24].min() == 1 and rois[..., :8].max() == rois[..., 24:].max() == 0


def test_regions_turn_and_mirror_with_their_pictures():
    picture = np.zeros((40, 40, 3), np.uint8)
    picture[5:15, 20:38] = 255
    region = picture[..., 0] > 127
    store = PictureStore(as_pictures(picture[None]), Framing((40, 40), roi=RegionOfInterest(region)))
    batch = Synthesis(store, from_normals(store), 8, rotate="90", flip="both").batch(0)
    white = normalise(np.full((1, 1, 1, 3), 128, np.uint8)).flatten()[0]
    shown = batch.clean[:, :1] > white
    assert torch.equal(shown, batch.rois.bool())
    assert len({tuple(region.flatten().tolist()) for region in batch.rois}) > 3


def test_what_a_rotation_brings_in_does_not_count():
    store = PictureStore(
        as_pictures(np.full((1, 40, 40, 3), 255, np.uint8)),
        Framing((40, 40), roi=RegionOfInterest(np.ones((2, 3)))),
    )
    rois = Synthesis(store, from_normals(store), 8, rotate=45).batch(0).rois
    assert rois[..., 20, 20].min() == 1 and rois[..., 0, 0].min() == 0
