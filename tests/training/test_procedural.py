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
        assert noise.std() == pytest.approx(0.5, abs=1e-3) and (noise == 0).mean() < 0.01


def test_waves_have_the_length_and_direction_that_were_drawn():
    """The strongest frequency of waves that are neither warped nor crossed."""

    class Fixed:
        def __init__(self, direction, exponent):
            self.values = iter([direction, exponent])

        def uniform(self, low, high):
            return next(self.values)

        random = staticmethod(lambda: 1.0)

    for direction, frequency in ((0, (0, 8)), (math.pi / 2, (8, 0))):
        waves = procedural._waves((64, 64), Fixed(direction, 3))
        spectrum = np.abs(np.fft.rfft2(waves))
        assert np.unravel_index(spectrum.argmax(), spectrum.shape) == frequency


def test_palettes_fade_or_have_edges_and_are_grey_half_of_the_time():
    found = Counter()
    for generator in generators():
        palette = procedural._palette(generator)
        assert palette.shape == (256, 3) and palette.dtype == np.float32
        colours = len(np.unique(palette, axis=0))
        found["edges"] += colours <= 6
        found["grey"] += bool(np.ptp(palette, axis=1).max() < 1e-3)
    assert found["edges"] == pytest.approx(DRAWS / 2, abs=DRAWS * MARGIN)
    assert found["grey"] == pytest.approx(DRAWS / 2, abs=DRAWS * MARGIN)
