"""Muon, an optimizer with orthogonal steps; these networks need far fewer of them than of SGD's or Adam's."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

MOMENTUM = 0.95
ITERATIONS = 5
COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of x, x^3 and x^5
SMALLEST_NORM = 1e-12  # keeps a gradient of zeros from being divided by zero


class Muon(Optimizer):
    """Changes every weight matrix by the orthogonal matrix nearest to its momentum.

    A convolution's weights count as a matrix with one row per output channel. A vector of gains or biases
    counts as a matrix of a single row, so its step keeps the momentum's direction.

    Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024), with Nesterov's
    momentum. torch.optim.Muon takes matrices only.

    Args:
        params: tensors, or groups of them.
        lr: root mean square of the change to a tensor in one step, whatever its shape.
    """

    def __init__(self, params: Iterable[nn.Parameter] | Iterable[dict[str, Any]], lr: float) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not parameters:
                continue
            gradients = [parameter.grad for parameter in parameters]
            for parameter, gradient in zip(parameters, gradients, strict=True):
                if not self.state[parameter]:
                    self.state[parameter]["momentum"] = torch.zeros_like(gradient)
            momenta = [self.state[parameter]["momentum"] for parameter in parameters]
            torch._foreach_lerp_(momenta, gradients, 1 - MOMENTUM)
            ahead = torch._foreach_lerp(gradients, momenta, MOMENTUM)
            torch._foreach_add_(parameters, directions(ahead), alpha=-group["lr"])


def directions(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return the nearly orthogonal matrix nearest to each tensor, in its shape; root mean square about 1."""
    found: list[Tensor] = list(tensors)
    vectors: list[int] = []
    matrices: list[int] = []
    for place, values in enumerate(tensors):
        (vectors if values.ndim < 2 or len(values) == 1 else matrices).append(place)
    for place, unit in zip(vectors, units([tensors[place] for place in vectors]), strict=True):
        found[place] = unit.mul_(LENGTH * unit.numel() ** 0.5)
    # The order of a matrix's columns does not matter: channels last, this one costs no copy.
    moved = [tensors[place].movedim(1, -1) for place in matrices]
    steps = orthogonal([values.flatten(1) for values in moved])
    for place, values, step in zip(matrices, moved, steps, strict=True):
        found[place] = step.mul_(max(step.shape) ** 0.5).view(values.shape).movedim(-1, 1)
    return found


def orthogonal(matrices: Sequence[Tensor]) -> list[Tensor]:
    """Return about U V^T for each matrix U S V^T: singular values between 0.7 and 1.2 instead of 1.

    Newton-Schulz iterations of a polynomial drive them there; singular values near 0 may stay below 0.7.
    Every iterate is the matrix times a polynomial of its Gram matrix, so the iterations run on the latter:
    most convolutions have at least nine times as many columns as rows, and only two products take them all.
    Gram matrices of one size go through them together, because on a GPU launching a product takes longer
    than the product.
    """
    upright = [len(matrix) > matrix.shape[1] for matrix in matrices]
    lying = [matrix.T if turned else matrix for matrix, turned in zip(matrices, upright, strict=True)]
    scaled = units(lying)  # no singular value is above 1 then
    alike = defaultdict(list)
    for place, x in enumerate(scaled):
        alike[len(x), x.dtype].append(place)
    for places in alike.values():
        polynomials = polynomial(torch.stack([scaled[place] @ scaled[place].T for place in places]))
        for place, factor in zip(places, polynomials, strict=True):
            scaled[place] = factor @ scaled[place]
    return [x.T if turned else x for x, turned in zip(scaled, upright, strict=True)]


def units(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return tensors of norm 1 in the same directions."""
    if not tensors:
        return []
    norms = torch._foreach_norm(list(tensors))
    torch._foreach_clamp_min_(norms, SMALLEST_NORM)
    return list(torch._foreach_div(list(tensors), norms))


def polynomial(gram: Tensor) -> Tensor:
    """Return what the iterations multiply matrices by, for their Gram matrices, (n, r, r).

    Half precision is not enough for that: errors of the Gram matrix grow tenfold in each iteration.
    """
    a, b, c = COEFFICIENTS
    product: Tensor | None = None
    for k in range(ITERATIONS):
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal(dim1=1, dim2=2).add_(a)
        product = factor if product is None else factor @ product
        if k < ITERATIONS - 1:
            gram = factor @ gram @ factor
    assert product is not None  # there are iterations
    return product


# What the iterations make of a singular value of 1, the only one that a vector has.
LENGTH = polynomial(torch.ones((1, 1, 1), dtype=torch.float64, device="cpu")).item()
