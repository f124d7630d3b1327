"""Similarity of teacher and student features: by hand, kernels against references, gradients, layouts."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from destseg.ops import kernels
from destseg.ops.features import unit_vectors
from destseg.ops.similarity import (
    cosine_distances,
    cosine_distances_ref,
    similarity_input,
    similarity_input_ref,
)
from destseg.training.losses import cosine_loss

TOLERANCE = 1e-5  # in float32, of resized products: weights of neighbours are off by 1e-6 on the widest sides
TIGHT = 2e-6  # in float32, of sums over channels
DTYPES = [torch.float32, torch.float64]  # the kernels take the former, the references both
SHAPES = {  # (c, h, w) of each level
    "network": [(64, 16, 16), (128, 8, 8), (256, 4, 4)],
    "odd": [(17, 13, 21), (3, 7, 11), (1, 4, 6)],
    "not halves": [(3, 5, 7), (17, 3, 2), (64, 2, 6)],
    "one position": [(64, 1, 1), (1, 1, 1), (3, 1, 1)],
    "coarse first": [(3, 2, 3), (17, 9, 11), (1, 1, 1)],
    "one level": [(5, 33, 31)],
    "many blocks": [(3, 40, 50), (2, 20, 25)],
    "many channels": [(520, 3, 5), (264, 2, 2)],
    "five levels": [(4, 9, 9), (8, 5, 5), (4, 9, 9), (12, 3, 3), (4, 2, 2)],
}
ORDERS = {"channels first": torch.contiguous_format, "channels last": torch.channels_last}

needs_kernels = pytest.mark.skipif(kernels.cpu is None, reason="the compiled kernels are not there")


def vectors(*rows, dtype=torch.float64):
    """One image of one row: a feature vector per position, (1, c, 1, w)."""
    return torch.tensor(rows, dtype=dtype).T[None, :, None, :]


def features(shapes, n=2, dtype=torch.float32, order=torch.contiguous_format, seed=0, device="cpu"):
    """Teacher and student features as after a ReLU, with a position of zeros in each."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [shape for shape in shapes for _ in range(2)]
    levels = [torch.randn(n, *shape, generator=generator).relu().to(device, dtype) for shape in shapes]
    for level in levels[1:]:
        level[:1, :, 0, 0] = 0
    levels = [level.contiguous(memory_format=order) for level in levels]
    return levels[::2], levels[1::2]


def doubled(levels):
    return [level.double() for level in levels]


def assert_close(found, expected, tolerance=TOLERANCE):
    """Assert that tensors in float32 are those expected, which are in double precision."""
    found, expected = ([x] if isinstance(x, torch.Tensor) else x for x in (found, expected))
    for a, b in zip(found, expected, strict=True):
        assert (a.dtype, b.dtype) == (torch.float32, torch.float64)
        torch.testing.assert_close(a.double(), b, rtol=tolerance, atol=tolerance)


def assert_close_to_double(taught, learnt):
    """Assert that both operations, kernels and references, agree with the references in double precision."""
    expected = similarity_input_ref(doubled(taught), doubled(learnt))
    assert_close(similarity_input(taught, learnt), expected)
    assert_close(similarity_input_ref(taught, learnt), expected)
    expected = cosine_distances_ref(doubled(taught), doubled(learnt))
    assert_close(cosine_distances(taught, learnt), expected, TIGHT)
    assert_close(cosine_distances_ref(taught, learnt), expected, TIGHT)


def assert_gradients_close_to_double(taught, learnt):
    """Assert the same of the gradient with respect to the student, for random slopes of the distances.

    It falls as the student's vector gets longer; times that length, every one is of the order of 1.
    """
    generator = torch.Generator().manual_seed(1)
    shapes = [(level.shape[0], 1, *level.shape[2:]) for level in learnt]
    slopes = [torch.randn(shape, generator=generator).to(learnt[0].device) for shape in shapes]
    lengths = [torch.linalg.vector_norm(level, dim=1, keepdim=True) + 1e-12 for level in doubled(learnt)]

    def gradients(distances_of, dtype):
        levels = [level.detach().to(dtype).requires_grad_() for level in learnt]
        distances = distances_of([level.to(dtype) for level in taught], levels)
        torch.autograd.backward(distances, [slope.to(dtype) for slope in slopes])
        return [level.grad * length.to(dtype) for level, length in zip(levels, lengths, strict=True)]

    expected = gradients(cosine_distances_ref, torch.float64)
    assert_close(gradients(cosine_distances, torch.float32), expected, TIGHT)
    assert_close(gradients(cosine_distances_ref, torch.float32), expected, TIGHT)


@pytest.fixture(params=["fast", "reference"])
def either(request):
    """(similarity_input, cosine_distances), as called and as defined."""
    if request.param == "fast":
        return similarity_input, cosine_distances
    return similarity_input_ref, cosine_distances_ref


def test_feature_vectors_get_unit_length():
    found = unit_vectors(vectors([3, 4], [0, -2], [0, 0]))
    torch.testing.assert_close(found, vectors([0.6, 0.8], [0, -1], [0, 0]), rtol=0, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_with_in_single(dtype):
    level = vectors([300, 400], [0, 100]).to(dtype)  # whose squares overflow float16
    assert unit_vectors(level).dtype == torch.float32
    torch.testing.assert_close(unit_vectors(level).double(), vectors([0.6, 0.8], [0, 1]), rtol=0, atol=2e-3)
    (distance,) = cosine_distances([level], [level])
    assert distance.dtype == torch.float32
    torch.testing.assert_close(distance, torch.zeros(1, 1, 1, 2), rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_cosine_distances_by_hand(either, dtype):
    level = vectors([1, 0], [2, 0], [3, 0], [3, 4], [0, 0], dtype=dtype)
    other = vectors([7, 0], [0, 1], [-1, 0], [8, 6], [1, 1], dtype=dtype)
    first, second, third = either[1]([level] * 3, [level, other, -level])
    torch.testing.assert_close(first, vectors([0], [0], [0], [0], [1], dtype=dtype))
    torch.testing.assert_close(second, vectors([0], [1], [2], [0.04], [1], dtype=dtype))
    torch.testing.assert_close(third, vectors([2], [2], [2], [2], [1], dtype=dtype))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_similarity_input_by_hand(either, dtype):
    fine, coarse = vectors([1, 0], [3, 4], [1, 0], [0, 2], dtype=dtype), vectors([3, 4], [4, 3], dtype=dtype)
    found = either[0]([fine, coarse], [fine, coarse])
    # Two columns stretched to four: a quarter and three quarters of the way between the middles.
    expected = vectors([1, 0, 0.36, 0.64], [0.36, 0.64, 0.43, 0.57], [1, 0, 0.57, 0.43], [0, 1, 0.64, 0.36])
    torch.testing.assert_close(found, -expected.to(dtype))


@pytest.mark.parametrize("length", [1, 1e-11])  # beside the latter the offset of 1e-12 counts
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("shapes", SHAPES)
def test_agrees_with_the_reference(shapes, order, length, device):
    levels = features(SHAPES[shapes], order=ORDERS[order], device=device)
    taught, learnt = ([level * length for level in levels_of_one] for levels_of_one in levels)
    assert_close_to_double(taught, learnt)
    assert_gradients_close_to_double(taught, learnt)
    if shapes == "network":  # where the order of each level is not in doubt
        for operation in (similarity_input, similarity_input_ref):
            assert operation(taught, learnt).is_contiguous(memory_format=ORDERS[order])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("shapes", ["network", "odd", "one level", "many channels"])
def test_half_precision_agrees_with_the_reference(shapes, order, dtype, device, tolerance):
    taught, learnt = features(SHAPES[shapes], dtype=dtype, order=ORDERS[order], device=device)
    assert_close_to_double(taught, learnt)
    found, expected = similarity_input(taught, learnt, dtype), similarity_input_ref(taught, learnt, dtype)
    assert found.dtype == dtype
    torch.testing.assert_close(found, expected, rtol=tolerance[dtype], atol=1e-4)
    gradients = []
    for distances_of in (cosine_distances, cosine_distances_ref):
        levels = [(level + 0.01).requires_grad_() for level in learnt]
        cosine_loss(distances_of(taught, levels)).backward()
        gradients.append([level.grad for level in levels])
    for ours, theirs in zip(*gradients, strict=True):
        assert ours.dtype == dtype
        torch.testing.assert_close(ours, theirs, rtol=tolerance[dtype], atol=1e-4)


@given(
    st.integers(0, 3),
    st.lists(st.tuples(st.integers(1, 70), st.integers(1, 20), st.integers(1, 40)), min_size=1, max_size=4),
    st.sampled_from([*ORDERS.values()]),
    st.integers(0, 1000),
)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_agrees_with_the_reference_on_any_shapes(device, n, shapes, order, seed):
    taught, learnt = features(shapes, n, torch.float32, order, seed, device)
    assert_close_to_double(taught, learnt)
    assert_gradients_close_to_double(taught, learnt)


@pytest.mark.parametrize(
    "strided",
    [
        lambda level: level.repeat_interleave(2, dim=3)[..., ::2],
        lambda level: level.repeat_interleave(2, dim=1)[:, ::2],
        lambda level: level.transpose(2, 3).contiguous().transpose(2, 3),
        lambda level: level[:1].expand(2, -1, -1, -1),
    ],
    ids=["every other column", "every other channel", "transposed", "expanded"],
)
def test_features_of_any_strides(strided, device):
    taught, learnt = features(SHAPES["odd"], device=device)
    assert_close_to_double([strided(level) for level in taught], [strided(level) for level in learnt])


def test_orders_may_be_mixed(device):
    taught, _ = features(SHAPES["odd"], device=device)
    _, learnt = features(SHAPES["odd"], order=torch.channels_last, device=device)
    assert_close_to_double(taught, learnt)


@pytest.mark.parametrize("order", ORDERS)
def test_no_images(either, order, device):
    taught, learnt = features(SHAPES["odd"], n=0, order=ORDERS[order], device=device)
    assert either[0](taught, learnt).shape == (0, 21, 13, 21)
    distances = either[1](taught, [level.requires_grad_() for level in learnt])
    assert [tuple(d.shape) for d in distances] == [(0, 1, 13, 21), (0, 1, 7, 11), (0, 1, 4, 6)]
    cosine_loss(distances).backward()
    assert learnt[0].grad.shape == learnt[0].shape


@pytest.mark.parametrize("order", ORDERS)
def test_gradient_of_the_distances(order):
    taught, learnt = features([(3, 4, 5), (7, 2, 3)], dtype=torch.float64, order=ORDERS[order])
    learnt = [(level + 0.1).requires_grad_() for level in learnt]
    assert torch.autograd.gradcheck(lambda *levels: cosine_distances_ref(taught, levels), learnt)
    assert torch.autograd.gradcheck(lambda *levels: cosine_loss(cosine_distances_ref(taught, levels)), learnt)
    # In single precision the kernel's, at the same places.
    assert_gradients_close_to_double([level.float() for level in taught], [level.float() for level in learnt])


def test_similarity_input_is_differentiable():
    taught, learnt = features(SHAPES["one position"], dtype=torch.float64)
    learnt = [(level + 0.1).requires_grad_() for level in learnt]
    assert torch.autograd.gradcheck(lambda *levels: similarity_input(taught, levels), learnt)


def test_the_teacher_may_want_a_gradient():
    taught, learnt = features([(3, 2, 2)], dtype=torch.float64)
    taught = [(level + 0.1).requires_grad_() for level in taught]
    assert torch.autograd.gradcheck(lambda level: cosine_distances([level], learnt), taught)


def test_positions_without_any_feature_do_not_poison_training(either, device):
    raw = torch.tensor([[-1.0, 2.0], [-3.0, 1.0]], device=device)[None, :, None, :].requires_grad_()
    learnt = torch.relu(raw)  # the first position's features are all 0
    (distance,) = either[1]([torch.ones_like(learnt)], [learnt])
    distance.sum().backward()
    assert torch.isfinite(raw.grad).all()


@pytest.mark.parametrize("order", ORDERS)
def test_results_do_not_depend_on_the_number_of_threads(order, monkeypatch):
    monkeypatch.setattr("destseg.ops.features.VALUES_PER_THREAD", 1)
    taught, learnt = features([(5, 40, 30), (7, 20, 15), (3, 9, 7)], n=3, order=ORDERS[order])
    before = torch.get_num_threads()

    def everything(threads):
        torch.set_num_threads(threads)
        levels = [level.detach().requires_grad_() for level in learnt]
        distances = cosine_distances(taught, levels)
        cosine_loss(distances).backward()
        return [similarity_input(taught, learnt), *distances, *(level.grad for level in levels)]

    try:
        for one, many in zip(everything(1), everything(5), strict=True):
            assert torch.equal(one, many)
    finally:
        torch.set_num_threads(before)


@needs_kernels
def test_a_thousand_repeats_give_the_same_bits(monkeypatch):
    monkeypatch.setattr("destseg.ops.features.VALUES_PER_THREAD", 1)
    taught, learnt = features([(3, 17, 3), (2, 9, 2)], order=torch.channels_last)
    before = torch.get_num_threads()
    torch.set_num_threads(3)  # bands and blocks of the same rows side by side
    try:
        first_input, first_distances = similarity_input(taught, learnt), cosine_distances(taught, learnt)
        for _ in range(1_000):
            assert torch.equal(similarity_input(taught, learnt), first_input)
            assert all(map(torch.equal, cosine_distances(taught, learnt), first_distances))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("taught", "learnt", "words"),
    [
        ([], [], "features of the same levels, got 0 and 0"),
        ([(1, 2, 3, 3)], [], "features of the same levels, got 1 and 0"),
        ([(1, 2, 3, 3)], [(1, 3, 3, 3)], r"got \(1, 2, 3, 3\) and \(1, 3, 3, 3\)"),
        ([(2, 3, 3)], [(2, 3, 3)], r"must be \(n, c, h, w\) .* got \(2, 3, 3\)"),
        ([(1, 2, 3, 3), (2, 2, 3, 3)], [(1, 2, 3, 3), (2, 2, 3, 3)], "one n for all levels"),
        ([(1, 2, 0, 3)], [(1, 2, 0, 3)], "c, h and w of at least 1"),
    ],
)
def test_shapes_that_do_not_fit(either, taught, learnt, words):
    for operation in either:
        with pytest.raises(ValueError, match=words):
            operation([torch.ones(shape) for shape in taught], [torch.ones(shape) for shape in learnt])


def test_dtypes_that_do_not_fit(either):
    level = torch.ones(1, 2, 3, 3)
    for operation in either:
        with pytest.raises(ValueError, match=r"floating point of one precision, got .*float32.*float64"):
            operation([level], [level.double()])
        with pytest.raises(ValueError, match=r"floating point of one precision, got .*int64"):
            operation([level.long()], [level.long()])
