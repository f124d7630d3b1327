"""Textures of noise and waves: what they look like, over many draws."""

import math
from collections import Counter

import numpy as np
import pytest

from destseg.ops.perlin import perlin_ref
from destseg.training import procedural
from destseg.training.procedural import procedural_texture

DRAWS = 400
MARGIN = 0.1  # four standard deviations of a share of one half over so many draws


def generators(count=DRAWS):
    return (np.random.default_rng([5, k]) for k in range(count))


@pytest.fixture(scope="module")
def drawn():
    return [procedural_texture((64, 64), generator) for generator in generators()]


@pytest.mark.parametrize("size", [(16, 16), (64, 96), (65, 71), (1, 3)], ids=str)
def test_size_and_type(size):
    for generator in generators(40):
        texture = procedural_texture(size, generator)
        assert texture.shape == (*size, 3) and texture.dtype == np.uint8


def test_textures_are_neither_flat_nor_alike(drawn):
    assert len({texture.tobytes() for texture in drawn}) == DRAWS
    assert np.mean([texture.std(axis=(0, 1)).max() > 3 for texture in drawn]) > 0.9
    again = [procedural_texture((64, 64), generator) for generator in generators(20)]
    assert all(np.array_equal(a, b) for a, b in zip(again, drawn, strict=False))


def test_all_levels_occur_and_none_prevails(drawn):
    means = np.array([texture.mean() for texture in drawn])
    assert means.min() < 40 and means.max() > 215 and 90 < means.mean() < 165
    assert np.histogram(means, 4, (0, 256))[0].min() > DRAWS * 0.05


def test_half_of_them_are_grey(drawn):
    grey = np.mean([np.ptp(texture.astype(int), axis=-1).max() == 0 for texture in drawn])
    assert grey == pytest.approx(1 / 2, abs=MARGIN)


def test_some_are_coarse_and_some_are_fine(drawn):
    """Measured by how much of a texture's contrast is left once it is a quarter as large."""

    def left(texture):
        grey = texture.mean(axis=-1)
        return grey.reshape(16, 4, 16, 4).mean(axis=(1, 3)).std() / max(grey.std(), 1e-6)

    shares = np.array([left(texture) for texture in drawn])
    assert (shares < 0.4).mean() > 0.25 and (shares > 0.6).mean() > 0.25


@pytest.mark.parametrize("size", [(40, 40), (24, 70)], ids=str)
def test_noise_is_a_weighted_sum_of_turned_octaves(size):
    noise = procedural._noise(size, np.random.default_rng(3))
    generator, side = np.random.default_rng(3), math.ceil(math.hypot(*size))
    first, rotation = generator.integers(0, 6, 2), generator.uniform(-math.pi / 2, math.pi / 2)
    share, expected = generator.uniform(0.4, 1), np.zeros((side, side))
    for octave in range(4):
        rows, columns = np.minimum(2 ** (first + octave), 128)
        angles = generator.uniform(0, 2 * math.pi, (rows + 1, columns + 1)).astype(np.float32)
        expected += share**octave * perlin_ref(angles, (side, side), rotation)
    top, left = (side - size[0]) // 2, (side - size[1]) // 2
    expected = expected[top : top + size[0], left : left + size[1]]
    np.testing.assert_allclose(noise, expected / expected.std() / 2, atol=1e-4)


def test_noise_has_a_deviation_of_one_half_and_no_empty_corners():
    for generator in generators(100):
        noise = procedural._noise((64, 64), generator)
        assert noise.std() == pytest.approx(0.5, abs=1e-3) and (noise == 0).sum() <= 1


def test_noise_of_long_pictures_is_not_larger_than_they_are(monkeypatch):
    sizes = set()

    def recorded(angles, size, rotation):
        sizes.add((*size, rotation))
        return perlin_ref(angles, size, rotation)

    monkeypatch.setattr(procedural, "perlin", recorded)
    assert procedural._noise((16, 512), np.random.default_rng(0)).std() == pytest.approx(0.5, abs=1e-3)
    assert sizes == {(16, 512, 0.0)}


@pytest.mark.parametrize(("warped", "crossed"), [(False, False), (True, False), (False, True), (True, True)])
def test_waves_are_what_was_drawn(warped, crossed, monkeypatch):
    """Compared with their formula, in double precision."""
    noise, exponents = np.random.default_rng(0).normal(0, 0.5, (24, 40)).astype(np.float32), iter([2.5, 0.5])
    chances = iter([0.69 if warped else 0.71, 0.49 if crossed else 0.51])
    drawn = {(0, math.pi): lambda: 0.6, (2, 6.5): lambda: next(exponents), (-1, 1): lambda: next(exponents)}
    drawn[0, 3] = lambda: 2.0

    class Fixed:
        uniform = staticmethod(lambda low, high: drawn[low, high]())
        random = staticmethod(lambda: next(chances))

    monkeypatch.setattr(procedural, "_noise", lambda size, generator: noise)
    y, x = np.mgrid[:24, :40] * 2 * math.pi / 2**2.5
    phase = 2.0 * noise if warped else 0
    expected = np.sin(math.cos(0.6) * x + math.sin(0.6) * y + phase)
    if crossed:
        expected *= np.sin((math.cos(0.6) * y - math.sin(0.6) * x) * 2**0.5 + phase)
    np.testing.assert_allclose(procedural._waves((24, 40), Fixed), expected, atol=1e-4)


def test_half_are_noise_and_half_are_waves(monkeypatch):
    for name, level in (("_noise", -1), ("_waves", 1)):
        monkeypatch.setattr(procedural, name, lambda size, g, level=level: np.full(size, level, np.float32))
    black_to_white = np.linspace(0, 255, 256, dtype=np.float32)[:, None].repeat(3, 1)
    monkeypatch.setattr(procedural, "_palette", lambda generator: black_to_white)
    found = [procedural_texture((32, 32), generator) for generator in generators()]
    waves = np.mean([texture.mean() > 127 for texture in found])
    assert waves == pytest.approx(0.5, abs=MARGIN)
    grain = np.array([texture.std() for texture in found])
    assert np.percentile(grain, 10) < 3 and 12 < grain.max() < 16  # half of it is clipped: 25 becomes 15


def test_palettes_fade_or_have_edges_and_are_grey_half_of_the_time():
    found, spreads = Counter(), []
    for generator in generators():
        palette = procedural._palette(generator)
        assert palette.shape == (256, 3) and palette.dtype == np.float32
        colours = len(np.unique(palette, axis=0))
        found["edges", colours] += colours <= 6
        spreads.append(np.ptp(palette, axis=1).max())
    edges = {colours: count for (_, colours), count in found.items() if count}
    assert sum(edges.values()) == pytest.approx(DRAWS / 2, abs=DRAWS * MARGIN)
    assert all(edges[colours] > 0.1 * DRAWS / 2 for colours in range(2, 7))  # of five numbers of colours
    assert np.mean(np.array(spreads) < 1e-3) == pytest.approx(0.5, abs=MARGIN)
    assert np.mean(np.array(spreads) > 60) > 0.1
