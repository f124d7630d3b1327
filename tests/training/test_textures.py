"""Textures for synthetic anomalies: from pictures, and from shuffled and displaced normal pictures."""

from collections import Counter

import numpy as np
import pytest

from destseg.pictures.folders import as_pictures
from destseg.pictures.framing import Framing
from destseg.pictures.store import PictureStore
from destseg.training import textures
from destseg.training.textures import (
    PictureTextures,
    displace,
    from_normals,
    recolour,
    shuffle_patches,
)

DRAWS = 400
MARGIN = 0.1  # four standard deviations of a share of one half over so many draws


def generators(count=DRAWS):
    return (np.random.default_rng([9, k]) for k in range(count))


@pytest.fixture
def store():
    """Three pictures of noise in dark, middle and bright levels."""
    noise = np.random.default_rng(0).integers(0, 60, (3, 16, 16, 3), dtype=np.uint8)
    return PictureStore(
        as_pictures(noise + np.array([0, 90, 180], np.uint8)[:, None, None, None]), Framing((16, 16))
    )


def test_pictures_of_a_source_are_equally_likely(store):
    draw = PictureTextures(store)
    found = Counter(draw(generator).tobytes() for generator in generators())
    assert set(found) == {store[k].tobytes() for k in range(3)}
    assert min(found.values()) > DRAWS * (1 / 3 - MARGIN)


@pytest.mark.parametrize(("alike", "displaced"), [(True, 0.25), (False, 0)])
def test_shares_of_textures_without_a_source(store, monkeypatch, alike, displaced):
    for name in ("shuffle_patches", "displace"):
        monkeypatch.setattr(textures, name, lambda picture, _, name=name: (name, picture.max() // 90))
    monkeypatch.setattr(textures, "procedural_texture", lambda size, generator: ("noise", size))
    monkeypatch.setattr(textures, "lie_alike", lambda store: alike)
    draw = from_normals(store)
    found = Counter(draw(generator) for generator in generators())
    kinds = ("shuffle_patches", "displace") if alike else ("shuffle_patches",)
    assert set(found) == {("noise", (16, 16))} | {(name, k) for name in kinds for k in range(3)}
    shares = {"noise": (1 - displaced) / 2, "shuffle_patches": (1 - displaced) / 2, "displace": displaced}
    for name, share in shares.items():
        count = sum(found[kind] for kind in found if kind[0] == name)
        assert count == pytest.approx(DRAWS * share, abs=DRAWS * MARGIN)


def stored(pictures):
    return PictureStore(as_pictures(np.stack(pictures)), Framing(pictures[0].shape[:2]))


def test_parts_that_lie_alike_are_told_from_surfaces_and_from_parts_that_lie_anyhow():
    generator = np.random.default_rng(0)
    surface = [generator.integers(0, 90, (32, 48, 3), np.uint8) for _ in range(20)]
    parts = [picture.copy() for picture in surface]
    for picture in parts:
        picture[8:20, 16:36] += 120
    anyhow = [displace(picture, generator) for picture in parts]
    assert textures.lie_alike(stored(parts))
    assert not textures.lie_alike(stored(surface)) and not textures.lie_alike(stored(anyhow))
    assert not textures.lie_alike(stored(parts[:1]))


@pytest.mark.parametrize("size", [(16, 24), (64, 64), (5, 9)], ids=str)
def test_displaced_pictures_are_shifted_and_mirrored(size):
    """Every pixel has values of its own, so the place of one tells the shift."""
    height, width = size
    picture = np.zeros((*size, 3), np.uint8)
    picture[..., 0], picture[..., 1] = np.mgrid[0:height, 0:width]
    shifts, mirrors = set(), Counter()
    for generator in generators():
        moved = displace(picture, generator)
        rows, columns = (moved[..., k].astype(int) for k in (0, 1))
        steps = (rows[1, 0] - rows[0, 0]) % height, (columns[0, 1] - columns[0, 0]) % width
        mirrored = steps[0] == height - 1, steps[1] == width - 1
        mirrors[mirrored] += 1
        upright = np.flip(moved, [axis for axis in (0, 1) if mirrored[axis]])
        shift = (-upright[0, 0, 0].astype(int)) % height, (-upright[0, 0, 1].astype(int)) % width
        np.testing.assert_array_equal(upright, np.roll(picture, shift, (0, 1)))
        shifts.add(shift)
    for shift in shifts:
        assert all(side // 8 <= k <= side - side // 8 for k, side in zip(shift, size, strict=True))
    assert len(shifts) > 20 and min(mirrors.values()) > DRAWS * (0.25 - MARGIN) and len(mirrors) == 4


@pytest.mark.parametrize("make", [from_normals, PictureTextures])
def test_a_texture_depends_on_the_generator_alone(store, make):
    first, again = ([make(store)(generator) for generator in generators(20)] for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert len({texture.tobytes() for texture in first}) > 1


@pytest.mark.parametrize("size", [(16, 16), (64, 96), (65, 71)])
def test_size_and_type(size):
    picture = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    for generator in generators(20):
        texture = shuffle_patches(picture, generator)
        assert texture.shape == (*size, 3) and texture.dtype == np.uint8


def test_shuffling_keeps_all_pixels_and_leaves_the_picture_alone(monkeypatch):
    monkeypatch.setattr(textures, "recolour", lambda picture, generator: picture)
    picture = np.arange(16 * 16 * 3, dtype=np.uint16).reshape(16, 16, 3).astype(np.uint8)
    before, found = picture.copy(), set()
    for generator in generators(50):
        mosaic = shuffle_patches(picture, generator)
        assert sorted(map(tuple, mosaic.reshape(-1, 3))) == sorted(map(tuple, picture.reshape(-1, 3)))
        found.add(mosaic.tobytes())
    assert np.array_equal(picture, before)  # which belongs to the store
    assert len(found) > 40


def test_patches_stay_whole(monkeypatch):
    # Four quarters of one colour each: however they are shuffled and turned, they are 8 x 8 squares of one
    # colour, or smaller squares where there are more patches.
    monkeypatch.setattr(textures, "recolour", lambda picture, generator: picture)
    picture = np.zeros((16, 16, 3), np.uint8)
    picture[:8, 8:], picture[8:, :8], picture[8:, 8:] = 50, 100, 150
    for generator in generators(50):
        blocks = shuffle_patches(picture, generator)[..., 0].reshape(8, 2, 8, 2)
        assert np.array_equal(blocks.min(axis=(1, 3)), blocks.max(axis=(1, 3)))


@pytest.mark.parametrize(("size", "steps"), [((16, 16), {1, -1, 16, -16}), ((8, 16), {1, -1})])
def test_patches_are_mirrored_and_turned_where_they_are_square(monkeypatch, size, steps):
    monkeypatch.setattr(textures, "recolour", lambda picture, generator: picture)
    picture = np.zeros((*size, 3), np.uint8)
    picture[..., 0] = np.arange(size[0])[:, None] * 16 + np.arange(16)  # 1 along rows, 16 from row to row
    corners = [shuffle_patches(picture, generator)[0, :2, 0].astype(int) for generator in generators(100)]
    assert {right - left for left, right in corners} == steps  # patches are at least two pixels wide


def test_recolouring_changes_level_and_contrast_and_inverts_half_of_the_time():
    ramp = np.broadcast_to(np.arange(100, 120, dtype=np.uint8)[:, None, None], (20, 10, 3))
    inverted, grey = 0, 0
    for generator in generators():
        picture = recolour(ramp, generator).astype(int)
        assert (picture == picture[:, :1]).all()
        falls = picture[-1, 0, 0] < picture[0, 0, 0]
        spans = np.abs(picture[-1, 0] - picture[0, 0])
        assert (spans >= 8).all() and (spans <= 30).all()  # 19 times 0.5 to 1.5, rounded down at both ends
        assert (picture.mean(axis=(0, 1)) >= 63).all() and (picture.mean(axis=(0, 1)) <= 192).all()
        inverted += falls
        grey += (picture == picture[..., :1]).all()
    assert inverted == pytest.approx(DRAWS / 2, abs=DRAWS * MARGIN)
    assert grey == pytest.approx(DRAWS / 2, abs=DRAWS * MARGIN)


def test_recolouring_exchanges_channels():
    picture = np.zeros((4, 4, 3), np.uint8)
    picture[::2] = np.array([10, 20, 40])  # their contrasts tell the channels apart
    orders = set()
    for generator in generators(100):
        spans = np.ptp(recolour(picture, generator).astype(int), axis=(0, 1))
        orders.add(tuple(np.argsort(spans, kind="stable").tolist()))
    assert len(orders) == 6
