"""Perlin noise: by hand, recorded, turned, the kernel beside the reference, the errors' words."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from destseg.ops import kernels
from destseg.ops.perlin import perlin, perlin_ref

QUARTER = math.pi / 2
# One cell over 2 x 2 pixels, which lie at fractions 0 and 1/2 of it. The gradients point down and right in
# the upper corners, up and left in the lower ones. Dot products at pixel (1, 1): 1/2 and -1/2 above, 1/2 and
# 1/2 below; fade(1/2) = 1/2 mixes them to 0 above, 1/2 below, 1/4 in all. Times sqrt(2):
ONE_CELL = np.array([[0.0, QUARTER], [math.pi, -QUARTER]])
ONE_CELL_NOISE = math.sqrt(2) * np.array([[0.0, -0.25], [0.5, 0.25]])

KINDS = [pytest.param(perlin, id="fast"), pytest.param(perlin_ref, id="reference")]


def lattice(points_y, points_x, seed=0, dtype=np.float32):
    angles = np.random.default_rng(seed).uniform(0, 2 * math.pi, (points_y, points_x))
    return angles.astype(dtype)


def assert_close(found, expected, tolerance):
    """Compare noise of one dtype, to that dtype's tolerance."""
    assert found.dtype == expected.dtype and found.shape == expected.shape
    atol = tolerance[torch.float64 if found.dtype == np.float64 else torch.float32]
    np.testing.assert_allclose(found, expected, rtol=0, atol=atol)


def assert_close_to_double(angles, size, rotation):
    """Assert that noise in float32, of kernel and reference, is that of the reference in double precision."""
    expected = perlin_ref(angles.astype(np.float64), size, rotation)
    for function in (perlin, perlin_ref):
        found = function(angles, size, rotation)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=0, atol=5e-6)


@pytest.mark.parametrize("function", KINDS)
@pytest.mark.parametrize("case", range(4))
def test_recorded_noise(golden, tolerance, function, case):
    recorded = np.load(golden / "perlin.npz")
    angles, expected = recorded[f"case{case}_angles"].astype(np.float32), recorded[f"case{case}_noise"]
    assert_close(function(angles, expected.shape), expected, tolerance)


@pytest.mark.parametrize("function", KINDS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_one_cell_by_hand(tolerance, function, dtype):
    noise = function(ONE_CELL.astype(dtype), (2, 2))
    assert noise.dtype == dtype
    assert_close(noise, ONE_CELL_NOISE.astype(dtype), tolerance)


@pytest.mark.parametrize("function", KINDS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_quarter_turn_by_hand(tolerance, function, dtype):
    turned = math.sqrt(2) * np.array([[-0.25, 0.25], [0.0, 0.5]], dtype)
    assert_close(function(ONE_CELL.astype(dtype), (2, 2), QUARTER), turned.astype(dtype), tolerance)


@pytest.mark.parametrize("function", KINDS)
@pytest.mark.parametrize("quarters", [-3, -2, -1, 1, 2, 3, 4])
def test_quarter_turns_of_a_square_lose_nothing(tolerance, function, quarters):
    angles = lattice(5, 9)
    expected = np.rot90(function(angles, (31, 31)), quarters)
    assert_close(function(angles, (31, 31), quarters * QUARTER), expected, tolerance)


@pytest.mark.parametrize("function", KINDS)
def test_half_turn_of_an_oblong(tolerance, function):
    angles = lattice(3, 5)
    expected = function(angles, (12, 20))[::-1, ::-1]
    assert_close(function(angles, (12, 20), math.pi), expected, tolerance)


@pytest.mark.parametrize("function", KINDS)
def test_what_turns_in_from_outside_is_zero(function):
    # By an eighth a 9 x 9 square turns to |row| + |column| <= 4 sqrt(2) = 5.66 about its centre.
    drawn = """
        . . . # # # . . .
        . . # # # # # . .
        . # # # # # # # .
        # # # # # # # # #
        # # # # # # # # #
        # # # # # # # # #
        . # # # # # # # .
        . . # # # # # . .
        . . . # # # . . .
    """
    inside = np.array([[cell == "#" for cell in line.split()] for line in drawn.strip().splitlines()])
    noise = function(lattice(2, 2), (9, 9), QUARTER / 2)
    assert np.array_equal(noise != 0, inside)


@pytest.mark.parametrize("function", KINDS)
def test_a_row_on_end_keeps_its_centre_alone(tolerance, function):
    angles = lattice(2, 3)
    level, on_end = function(angles, (1, 7)), function(angles, (1, 7), QUARTER)
    assert_close(on_end[0, 3], level[0, 3], tolerance)
    assert on_end[0, [0, 1, 2, 4, 5, 6]].tolist() == [0] * 6


@pytest.mark.parametrize("function", KINDS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_noise_vanishes_at_lattice_points(function, dtype):
    noise = function(lattice(5, 5, dtype=dtype), (16, 16))
    assert np.abs(noise[::4, ::4]).max() < (1e-15 if dtype == np.float64 else 1e-6)
    assert np.abs(noise).max() > 0.3


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (2, 3), (37, 53), (64, 17), (96, 96)])
@pytest.mark.parametrize("points", [(2, 2), (2, 33), (33, 5), (4, 7)])
def test_kernel_agrees_with_reference(size, points):
    angles = lattice(*points, seed=size[0])
    for rotation in (0.0, 0.3, -1.2, QUARTER, -QUARTER, 100.0):
        assert_close_to_double(angles, size, rotation)


@given(
    st.tuples(st.integers(2, 40), st.integers(2, 40)),
    st.tuples(st.integers(1, 70), st.integers(1, 90)),
    st.floats(-7, 7) | st.sampled_from([1e-300, -1e-17, 1e-9, QUARTER + 1e-12, -math.pi, math.pi / 4]),
    st.integers(0, 1000),
)
@settings(deadline=None, max_examples=300)
def test_kernel_agrees_with_reference_on_anything(points, size, rotation, seed):
    assert_close_to_double(lattice(*points, seed=seed), size, rotation)


def test_angles_with_gaps_in_memory(tolerance):
    wide = lattice(10, 14)
    for angles in (wide[::2, 1::3], wide.T, wide[3:, 5:][::-1]):
        found, expected = perlin(angles, (20, 30), 0.5), perlin_ref(angles.copy(), (20, 30), 0.5)
        assert_close(found, expected, tolerance)


def test_without_the_kernel_the_reference_answers(monkeypatch):
    monkeypatch.setattr(kernels, "cpu", None)
    assert np.array_equal(perlin(lattice(3, 5), (8, 6), 0.5), perlin_ref(lattice(3, 5), (8, 6), 0.5))


@pytest.mark.parametrize(
    ("angles", "size", "rotation", "words"),
    [
        (np.zeros((2, 2), np.int64), (4, 4), 0, r"float32 or float64 .*, got int64 of shape \(2, 2\)"),
        (np.zeros((2, 2), np.float16), (4, 4), 0, r"float32 or float64 .*, got float16 of shape \(2, 2\)"),
        (np.zeros((1, 3)), (4, 4), 0, r"at least one cell a side, got float64 of shape \(1, 3\)"),
        (np.zeros(4), (4, 4), 0, r"angles must be \(cells_y \+ 1, cells_x \+ 1\) .* of shape \(4,\)"),
        (np.zeros((2, 2)), (0, 4), 0, r"size must be \(height, width\), each at least 1, got \(0, 4\)"),
        (np.zeros((2, 2)), (4,), 0, r"size must be \(height, width\), each at least 1, got \(4,\)"),
        (np.zeros((2, 2)), (4, 4), math.nan, "rotation must be a finite angle in radians, got nan"),
    ],
)
def test_words_about_wrong_arguments(angles, size, rotation, words):
    with pytest.raises(ValueError, match=words):
        perlin(angles, size, rotation)
