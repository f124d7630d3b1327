"""Muon: steps are orthogonal, of the wanted size whatever the shape, and lead downhill."""

import pytest
import torch
from torch import nn

from destseg.training.muon import Muon, directions, orthogonal


@pytest.mark.parametrize("shape", [(8, 8), (16, 144), (64, 27), (3, 500)], ids=str)
def test_orthogonal_keeps_singular_vectors_and_evens_out_their_values(shape):
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    rotated = u.T @ orthogonal([matrix])[0] @ v.T
    values = rotated.diagonal()
    assert values.min() > 0.6 and values.max() < 1.3
    torch.testing.assert_close(rotated, torch.diag(values), rtol=0, atol=2e-4)


@pytest.mark.parametrize("shape", [(32, 32), (16, 144), (64, 27)], ids=str)
def test_orthogonal_iterates_on_the_matrix_as_defined(shape):
    """Singular values from 1 down to 1e-6, in float32 against the definition in float64."""
    torch.manual_seed(0)
    matrix = torch.randn(shape) @ torch.diag(torch.logspace(0, -6, shape[1]))
    x = matrix.double() / matrix.double().norm()
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x - 4.775 * gram @ x + 2.0315 * gram @ gram @ x
    torch.testing.assert_close(orthogonal([matrix])[0].double(), x, rtol=0, atol=1e-3)


@pytest.mark.parametrize("shape", [(16, 8, 3, 3), (64, 3, 7, 7), (8, 64, 1, 1)], ids=str)
@pytest.mark.parametrize("scale", [1e-6, 1e4])
def test_a_step_has_the_same_size_whatever_the_gradient(shape, scale):
    torch.manual_seed(0)
    gradient = scale * torch.randn(shape)
    step = directions([gradient])[0]
    assert step.shape == shape and step.dtype == torch.float32
    assert step.square().mean().sqrt().item() == pytest.approx(1, abs=0.15)
    assert (step * gradient).sum() > 0
    last = gradient.to(memory_format=torch.channels_last)
    torch.testing.assert_close(directions([last])[0], step)


def length_of_one():
    """Return what the polynomial makes of a singular value of 1, five times over."""
    length = 1.0
    for _ in range(5):
        length = 3.4445 * length - 4.775 * length**3 + 2.0315 * length**5
    return length


def test_vectors_keep_their_direction():
    values = torch.tensor([3.0, -4.0, 0.0])
    found = directions([values])[0]
    torch.testing.assert_close(found / found.norm(), values / 5)
    assert found.norm().item() == pytest.approx(3**0.5 * length_of_one(), rel=1e-5)
    assert torch.equal(directions([values.view(1, 3, 1, 1)])[0].flatten(), found)
    for nothing in (torch.zeros(4), torch.zeros(4, 2)):
        assert directions([nothing])[0].abs().max() == 0  # no gradient, no step, no NaN


def test_two_steps_by_hand():
    weight, gradients = nn.Parameter(torch.tensor([1.0])), (3.0, -0.2)
    optimizer = Muon([{"params": [weight], "lr": 0.5}], lr=0.1)
    momentum, expected = 0.0, 1.0
    for gradient in gradients:
        weight.grad = torch.tensor([gradient])
        optimizer.step()
        momentum = 0.95 * momentum + 0.05 * gradient
        ahead = 0.05 * gradient + 0.95 * momentum
        expected -= 0.5 * length_of_one() * (1 if ahead > 0 else -1)
        assert weight.item() == pytest.approx(expected, rel=1e-5)


def test_it_learns_and_goes_on_from_its_state():
    torch.manual_seed(0)
    images, wanted = torch.randn(16, 3, 8, 8), torch.randn(16, 4, 8, 8)

    def network():
        torch.manual_seed(1)
        return nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 4, 1))

    def steps(net, optimizer, count):
        losses = []
        for _ in range(count):
            loss = (net(images) - wanted).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    whole = network()
    straight = steps(whole, Muon(whole.parameters(), 0.01), 20)
    assert straight[-1] < 0.95 * straight[0]
    first = network()
    optimizer = Muon(first.parameters(), 0.01)
    begun = steps(first, optimizer, 10)
    second = network()
    second.load_state_dict(first.state_dict())
    resumed = Muon(second.parameters(), 0.01)
    resumed.load_state_dict(optimizer.state_dict())
    assert begun + steps(second, resumed, 10) == straight
