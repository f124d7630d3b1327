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
        dtype: dtype of the iterations towards orthogonality; bfloat16 is enough where it is faster. By
            default the gradient's.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
        lr: float,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(params, {"lr": lr})
        self.dtype = dtype

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
                parameter.sub_(group["lr"] * direction(ahead, self.dtype))


def direction(values: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Return the nearly orthogonal matrix nearest to a tensor, in its shape; root mean square about 1."""
    matrix = values.flatten(1) if values.ndim > 1 else values[None]
    nearest = orthogonal(matrix if dtype is None else matrix.to(dtype)).to(values.dtype)
    return nearest.mul_(max(matrix.shape) ** 0.5).view_as(values)


def orthogonal(matrix: Tensor) -> Tensor:
    """Return about U V^T for a matrix U S V^T: singular values between 0.7 and 1.2 instead of 1.

    Newton-Schulz iterations of a polynomial drive them there; singular values near 0 may stay below 0.7.
    """
    upright = len(matrix) > matrix.shape[1]
    x = matrix.T if upright else matrix
    x = x / x.norm().clamp(min=SMALLEST_NORM)  # no singular value is above 1 then
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if upright else x
