"""Maps at another size: by hand, the kernel against its reference and torch, the errors' words."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from destseg.ops import kernels
from destseg.ops.resizing import resize_maps, resize_maps_ref

SIZES = [
    ((5, 7), (9, 4)),  # odd sides, one of them grows
    ((64, 64), (31, 97)),
    ((32, 48), (256, 192)),  # upscaling
    ((250, 130), (17, 3)),  # downscaling: no antialiasing
    ((1, 1), (6, 5)),
    ((7, 9), (1, 1)),
    ((1, 12), (4, 1)),
    ((13, 1), (13, 8)),  # one side stays
    ((3, 4), (6, 8)),
]

SIDES = st.tuples(st.integers(1, 20), st.integers(1, 20))

either = pytest.mark.parametrize("resize", [resize_maps, resize_maps_ref])
sizes = pytest.mark.parametrize(("given_size", "size"), SIZES)


def random_maps(n, height, width, seed=0):
    """Maps of values between -1 and 1."""
    return np.random.default_rng(seed).uniform(-1, 1, (n, height, width)).astype(np.float32)


def by_torch(maps, size):
    stack = torch.from_numpy(np.ascontiguousarray(maps))[:, None]
    resized = torch.nn.functional.interpolate(stack, size=size, mode="bilinear", align_corners=False)
    return resized[:, 0].numpy()


def assert_close(found, expected, atol=1e-6):
    assert found.dtype == np.float32 and found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=atol)


@either
def test_two_columns_stretched_to_four_by_hand(resize):
    # New pixels lie a quarter and three quarters of the way between the old centres; the ends are held.
    maps = np.array([[[0, 4]], [[8, 0]]], np.float32)
    assert resize(maps, (1, 4)).tolist() == [[[0, 1, 3, 4]], [[8, 6, 2, 0]]]


@either
def test_both_sides_halved_by_hand(resize):
    # Every new pixel lies between four old ones and is their mean.
    maps = np.array([[[0, 2, 1, 1], [4, 2, 5, 1], [8, 8, 0, 0], [8, 8, 0, 4]]], np.float32)
    assert resize(maps, (2, 2)).tolist() == [[[2, 2], [8, 1]]]


@either
def test_downscaling_takes_no_pixel_beyond_the_two_beside_it(resize):
    # Eight columns to two: new centres lie between columns 1 and 2, and between 5 and 6.
    maps = np.array([[[9, 1, 3, 9, 9, 0, 1, 9]]], np.float32)
    assert resize(maps, (1, 2)).tolist() == [[[2, 0.5]]]


@pytest.mark.parametrize(
    ("given_size", "size"), [*SIZES, ((256, 256), (333, 1000)), ((900, 700), (256, 256))]
)
def test_the_kernel_agrees_with_the_reference(given_size, size):
    maps = random_maps(3, *given_size)
    assert_close(resize_maps(maps, size), resize_maps_ref(maps, size))


@either
@sizes
def test_torch_resizes_alike(resize, given_size, size):
    maps = random_maps(3, *given_size, seed=1)
    assert_close(resize(maps, size), by_torch(maps, size))


@given(st.integers(0, 3), SIDES, SIDES, st.integers(0, 1000))
@settings(deadline=None)
def test_kernel_reference_and_torch_agree_on_any_sizes(tolerance, n, given_size, size, seed):
    maps = random_maps(n, *given_size, seed)
    found, expected = resize_maps(maps, size), resize_maps_ref(maps, size)
    assert_close(found, expected)
    # Torch may round places otherwise (fused multiply-add): by 2e-6 of a pixel where maps differ by up to 2.
    assert_close(found, by_torch(maps, size) if n else expected, tolerance[torch.float32])


@either
def test_one_pixel_fills_every_size(resize):
    assert (resize(np.full((2, 1, 1), 0.3, np.float32), (5, 6)) == np.float32(0.3)).all()


@either
def test_an_empty_stack_stays_empty(resize):
    resized = resize(np.empty((0, 4, 5), np.float32), (8, 3))
    assert resized.shape == (0, 8, 3) and resized.dtype == np.float32


@either
def test_maps_of_the_wanted_size_come_back_equal(resize):
    maps = random_maps(2, 5, 6)
    assert np.array_equal(resize(maps, (5, 6)), maps)
    assert resize_maps(maps, (5, 6)) is maps  # no copy


@either
@pytest.mark.parametrize(
    "sliced",
    [
        lambda maps: maps[::-1, ::2, ::3],
        lambda maps: maps.transpose(0, 2, 1),
        lambda maps: maps[:, 3:, 5:][:, ::-1],
        lambda maps: np.broadcast_to(maps[:1], maps.shape),
    ],
    ids=["every other", "transposed", "flipped", "broadcast"],
)
def test_sliced_maps_are_resized_like_their_copies(resize, sliced):
    maps = random_maps(4, 20, 30)
    kept = maps.copy()
    found = resize(sliced(maps), (13, 17))
    assert np.array_equal(found, resize(sliced(maps).copy(), (13, 17)))
    assert_close(found, by_torch(sliced(maps), (13, 17)))
    assert np.array_equal(maps, kept)


def test_the_map_does_not_depend_on_the_number_of_threads():
    maps, before = random_maps(5, 60, 50), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = resize_maps(maps, (97, 120))
        torch.set_num_threads(4)
        assert np.array_equal(resize_maps(maps, (97, 120)), alone)
    finally:
        torch.set_num_threads(before)


def test_without_the_kernel_the_reference_answers(monkeypatch):
    monkeypatch.setattr(kernels, "cpu", None)
    maps = random_maps(2, 9, 7)
    assert np.array_equal(resize_maps(maps, (20, 5)), resize_maps_ref(maps, (20, 5)))


@pytest.mark.parametrize(
    ("maps", "size", "words"),
    [
        (np.zeros((4, 5), np.float32), (2, 2), r"\(n, h, w\) float32, got float32 of shape \(4, 5\)"),
        (np.zeros((1, 1, 4, 5), np.float32), (2, 2), r"got float32 of shape \(1, 1, 4, 5\)"),
        (np.zeros((1, 4, 5)), (2, 2), r"maps must be \(n, h, w\) float32, got float64 of shape \(1, 4, 5\)"),
        (np.zeros((1, 4, 5), np.uint8), (2, 2), r"got uint8 of shape \(1, 4, 5\)"),
        (np.zeros((2, 0, 5), np.float32), (2, 2), r"got float32 of shape \(2, 0, 5\)"),
        (np.zeros((1, 4, 5), np.float32), (0, 2), r"height and width, at least 1 each, got \(0, 2\)"),
        (np.zeros((1, 4, 5), np.float32), [4, -1], r"size must be .* at least 1 each, got \(4, -1\)"),
    ],
)
def test_words_about_wrong_maps_and_sizes(monkeypatch, maps, size, words):
    with pytest.raises(ValueError, match=words):
        resize_maps(maps, size)
    monkeypatch.setattr(kernels, "cpu", None)
    with pytest.raises(ValueError, match=words):
        resize_maps(maps, size)
