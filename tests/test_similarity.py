"""Similarity of teacher and student features, by hand, and its gradients."""

import pytest
import torch

from destseg.ops.similarity import cosine_distances, destmap, normalised, similarity_input


def features(*vectors):
    """One image of one row: a feature vector per position, (1, c, 1, w)."""
    return torch.tensor(vectors, dtype=torch.float64).T[None, :, None, :]


def test_feature_vectors_get_unit_length():
    found = normalised(features([3, 4], [0, -2], [0, 0]))
    torch.testing.assert_close(found, features([0.6, 0.8], [0, -1], [0, 0]), rtol=0, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_features_are_normalised_in_single(dtype):
    found = normalised(features([300, 400]).to(dtype))  # whose squares overflow float16
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), features([0.6, 0.8]), rtol=0, atol=2e-3)


def test_cosine_distances_by_hand():
    level = features([1, 0], [1, 0], [1, 0], [0.6, 0.8])
    other = features([1, 0], [0, 1], [-1, 0], [0.8, 0.6])
    first, second, third = cosine_distances([level] * 3, [level, other, -level])
    torch.testing.assert_close(first, features([0], [0], [0], [0]))
    torch.testing.assert_close(second, features([0], [1], [2], [0.04]))
    torch.testing.assert_close(third, features([2], [2], [2], [2]))


def test_similarity_input_is_minus_the_products_on_the_finest_level():
    fine, coarse = features([1, 0], [0.6, 0.8], [1, 0], [0, 1]), features([3], [5])
    found = similarity_input([fine, coarse], [fine, coarse])
    # Two columns of 9 and 25 stretched to four: a quarter and three quarters of the way between the middles.
    expected = -features([1, 0, 9], [0.36, 0.64, 13], [1, 0, 21], [0, 1, 25])
    torch.testing.assert_close(found, expected)


def test_destmap_is_the_product_of_the_stretched_distances():
    found = destmap((features([1], [2], [1], [2]), features([0], [4]), features([3])))
    torch.testing.assert_close(found, features([0], [6], [9], [24]))


def test_positions_without_any_feature_do_not_poison_training():
    raw = torch.tensor([[-1.0, 2.0], [-3.0, 1.0]])[None, :, None, :].requires_grad_()
    learnt = normalised(torch.relu(raw))  # the first position's features are all 0
    (distance,) = cosine_distances([torch.ones_like(learnt)] * 3, [learnt] * 3)[:1]
    distance.sum().backward()
    assert torch.isfinite(raw.grad).all()


def test_gradients():
    generator = torch.Generator().manual_seed(0)

    def level(channels, side):
        return torch.randn(2, channels, side, side, dtype=torch.float64, generator=generator)

    taught = [normalised(level(channels, side)) for channels, side in ((3, 4), (4, 2), (5, 1))]
    learnt = [level(channels, side).requires_grad_() for channels, side in ((3, 4), (4, 2), (5, 1))]

    def outputs(*levels):
        levels = [normalised(features) for features in levels]
        distances = cosine_distances(taught, levels)
        return (*distances, destmap(distances), similarity_input(taught, levels))

    assert torch.autograd.gradcheck(outputs, learnt)
