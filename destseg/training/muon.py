"""Muon, an optimizer with orthogonal steps; these networks need far fewer of them than of SGD's or Adam's."""

from collections.abc import Iterable
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
            for parameter in group["params"]:
                if (gradient := parameter.grad) is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(gradient)
                momentum = state["momentum"].lerp_(gradient, 1 - MOMENTUM)
                ahead = gradient.lerp(momentum, MOMENTUM)
                parameter.sub_(group["lr"] * direction(ahead))


def direction(values: Tensor) -> Tensor:
    """Return the nearly orthogonal matrix nearest to a tensor, in its shape; root mean square about 1."""
    matrix = values.flatten(1) if values.ndim > 1 else values[None]
    return orthogonal(matrix).mul_(max(matrix.shape) ** 0.5).view_as(values)


def orthogonal(matrix: Tensor) -> Tensor:
    """Return about U V^T for a matrix U S V^T: singular values between 0.7 and 1.2 instead of 1.

    Newton-Schulz iterations of a polynomial drive them there; singular values near 0 may stay below 0.7.
    Every iterate is the matrix times a polynomial of its Gram matrix, so the iterations run on the latter:
    most convolutions have at least nine times as many columns as rows, and only two products take them all.
    Half precision is not enough for that: errors of the Gram matrix grow tenfold in each iteration.
    """
    upright = len(matrix) > matrix.shape[1]
    x = matrix.T if upright else matrix
    x = x / x.norm().clamp(min=SMALLEST_NORM)  # no singular value is above 1 then
    a, b, c = COEFFICIENTS
    gram = x @ x.T  # of the iterate
    product = torch.eye(len(x), dtype=x.dtype, device=x.device)  # what the iterate is x times of
    for k in range(ITERATIONS):
        factor = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal().add_(a)
        product = factor @ product
        if k < ITERATIONS - 1:
            gram = factor @ gram @ factor
    x = product @ x
    return x.T if upright else x
