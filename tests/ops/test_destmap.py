"""The DeST map: by hand, the kernel against its reference and torch, gradients, the errors' words."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import interpolate

from destseg.ops.destmap import destmap, destmap_of_features, destmap_of_features_ref, destmap_ref
from destseg.ops.similarity import cosine_distances

SIZES = st.tuples(st.integers(1, 30), st.integers(1, 40))

either = pytest.mark.parametrize("compute", [destmap, destmap_ref])


in_single_and_double = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


def row(*values, dtype=torch.float64):
    """One image of one row, (1, 1, 1, w)."""
    return torch.tensor(values, dtype=dtype)[None, None, None]


def random_distances(n, sizes, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return [2 * torch.rand(n, 1, *size, generator=generator).to(dtype) for size in sizes]


@either
@in_single_and_double
def test_the_map_is_the_product_of_the_stretched_distances(compute, dtype):
    distances = row(1, 2, 1, 2, dtype=dtype), row(0, 4, dtype=dtype), row(3, dtype=dtype)
    expected = row(0, 6, 9, 24, dtype=dtype)
    # Four columns from two: a quarter and three quarters of the way between their middles.
    torch.testing.assert_close(compute(distances), expected)
    torch.testing.assert_close(compute(distances, (1, 2)), row(3, 16.5, dtype=dtype))
    torch.testing.assert_close(compute(distances, (2, 4)), expected.expand(1, 1, 2, 4))


@either
@in_single_and_double
def test_other_sizes_are_the_finest_map_resized(compute, dtype):
    distances = random_distances(2, [(16, 12), (8, 6), (4, 3)], dtype)
    for size in [(5, 7), (64, 48), (16, 13), [32, 24]]:
        expected = interpolate(compute(distances), size=tuple(size), mode="bilinear", align_corners=False)
        torch.testing.assert_close(compute(distances, size), expected)


DTYPES = st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16])


@given(st.integers(0, 3), st.lists(SIZES, min_size=1, max_size=6), st.none() | SIZES, DTYPES)
@settings(deadline=None)
def test_agrees_with_the_reference(tolerance, n, sizes, size, dtype):
    distances = random_distances(n, sizes, dtype)
    expected = destmap_ref([level.double() for level in distances], size)
    # Products of distances up to 2; in half precision the reference rounds after each of them.
    slack = 4 if dtype in (torch.float16, torch.bfloat16) else 1
    close = {"rtol": slack * tolerance[dtype], "atol": slack * 16 * tolerance[dtype]}
    for compute in (destmap, destmap_ref):
        found = compute(distances, size)
        assert found.dtype == dtype
        assert found.shape == (n, 1, *(size or sizes[0]))
        torch.testing.assert_close(found.double(), expected, **close)


def random_features(n, shapes, dtype, channels_last):
    layout = torch.channels_last if channels_last else torch.contiguous_format
    generator = torch.Generator().manual_seed(0)

    def level(shape):
        features = torch.rand(n, *shape, dtype=torch.float64, generator=generator).to(dtype)
        return features.contiguous(memory_format=layout)

    return [[level(shape) for shape in shapes] for _ in range(2)]


@given(
    st.integers(0, 3),
    st.lists(st.tuples(st.integers(1, 70), st.integers(1, 20), st.integers(1, 20)), min_size=1, max_size=4),
    st.none() | SIZES,
    DTYPES,
    st.booleans(),
)
@settings(deadline=None)
def test_from_features_it_agrees_with_the_reference(tolerance, n, shapes, size, kind, channels_last):
    features = random_features(n, shapes, kind, channels_last)
    in_double = ([level.double() for level in levels] for levels in features)
    expected = destmap_of_features_ref(*in_double, size)
    dtype = torch.float64 if kind == torch.float64 else torch.float32  # computed in at least single
    found = destmap_of_features(*features, size)
    others = destmap_of_features_ref(*features, size), destmap(cosine_distances(*features), size)
    for result in (found, *others):
        assert result.dtype == dtype
        assert result.shape == (n, 1, *(size or shapes[0][1:]))
        close = {"rtol": tolerance[dtype], "atol": 16 * tolerance[dtype]}
        torch.testing.assert_close(result.double(), expected, **close)


@pytest.mark.parametrize("compute", [destmap_of_features, destmap_of_features_ref])
@in_single_and_double
def test_from_features_by_hand(compute, dtype):
    # One level of two positions: parallel vectors, then orthogonal ones; then a length of zero.
    taught, learnt = torch.tensor([[3.0, 0.0], [4.0, 2.0]]), torch.tensor([[6.0, 5.0], [8.0, 0.0]])
    features = [part[None, :, None].to(dtype) for part in (taught, learnt)]
    torch.testing.assert_close(compute([features[0]], [features[1]]), row(0, 1, dtype=dtype))
    stretched = row(0, 0.25, 0.75, 1, dtype=dtype)
    torch.testing.assert_close(compute([features[0]], [features[1]], (1, 4)), stretched)
    torch.testing.assert_close(compute([features[0]], [0 * features[1]]), row(1, 1, dtype=dtype))


@pytest.mark.parametrize("compute", [destmap_of_features, destmap_of_features_ref])
def test_from_features_it_is_differentiable(compute):
    taught, learnt = random_features(2, [(3, 4, 5), (2, 2, 3)], torch.float64, False)
    learnt = [level.requires_grad_() for level in learnt]
    assert torch.autograd.gradcheck(lambda *s: compute(taught, s, (7, 6)), learnt)


@pytest.mark.parametrize("compute", [destmap_of_features, destmap_of_features_ref])
@pytest.mark.parametrize(
    ("taught", "learnt", "size", "words"),
    [
        ([], [], None, "same levels, got 0 and 0"),
        ([torch.ones(1, 2, 3, 3)], [torch.ones(1, 3, 3, 3)], None, r"got \(1, 2, 3, 3\) and \(1, 3, 3, 3\)"),
        ([torch.ones(1, 2, 3, 3)], [torch.ones(1, 2, 3, 3)], (0, 5), r"at least 1 each, got \(0, 5\)"),
    ],
)
def test_features_that_do_not_fit(compute, taught, learnt, size, words):
    with pytest.raises(ValueError, match=words):
        compute(taught, learnt, size)


def test_distances_of_any_strides():
    distances = [level.transpose(2, 3) for level in random_distances(2, [(9, 16), (5, 8)])]
    torch.testing.assert_close(destmap(distances, (20, 11)), destmap_ref(distances, (20, 11)))


@either
def test_gradients(compute):
    taught, learnt = (
        [torch.rand(2, 3, *size, dtype=torch.float64) + 0.1 for size in [(4, 5), (2, 3)]] for _ in range(2)
    )
    learnt = [level.requires_grad_() for level in learnt]
    assert torch.autograd.gradcheck(lambda *s: compute(cosine_distances(taught, s), (7, 6)), learnt)


def test_results_do_not_depend_on_the_number_of_threads():
    distances, before = random_distances(5, [(20, 30), (7, 9)]), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        features = random_features(3, [(64, 64, 64), (128, 32, 32)], torch.float32, True)
        alone, at_once = destmap(distances, (50, 40)), destmap_of_features(*features, (50, 40))
        torch.set_num_threads(4)
        assert torch.equal(destmap(distances, (50, 40)), alone)
        assert torch.equal(destmap_of_features(*features, (50, 40)), at_once)
    finally:
        torch.set_num_threads(before)


@either
@pytest.mark.parametrize(
    ("distances", "size", "words"),
    [
        ([], None, "at least one level, got none"),
        ([torch.ones(1, 2, 3, 3)], None, r"must be \(n, 1, h, w\) .* got \(1, 2, 3, 3\)"),
        ([torch.ones(1, 3, 3)], None, r"got \(1, 3, 3\)"),
        ([torch.ones(1, 1, 3, 3), torch.ones(2, 1, 3, 3)], None, r"one n for all levels, got \(2, 1, 3, 3\)"),
        ([torch.ones(1, 1, 0, 3)], None, "h and w of at least 1"),
        ([torch.ones(1, 1, 3, 3), torch.ones(1, 1, 3, 3).double()], None, "float32 and torch.float64"),
        ([torch.ones(1, 1, 3, 3, dtype=torch.int32)], None, "floating point"),
        ([torch.ones(1, 1, 3, 3)], (0, 5), r"at least 1 each, got \(0, 5\)"),
    ],
)
def test_what_does_not_fit(compute, distances, size, words):
    with pytest.raises(ValueError, match=words):
        compute(distances, size)
