"""How the stages of training descend: their optimizers, their rates, and the average of their weights.

The published network descends as published, by SGD at constant rates. The light one takes Muon's orthogonal
steps, whose size rises and falls: it learns more from the same pictures, see docs/quality.md.
"""

import math
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, Optimizer
from torch.optim.swa_utils import AveragedModel

from destseg.model.networks import DeSTSegNet
from destseg.training.muon import Muon

STUDENT_RATE = 0.4
RESIDUAL_RATE, HEAD_RATE = 0.1, 0.01  # of the segmentation network
LIGHT_RATE = 2e-3  # of both parts of the light network, at its highest
WARM_UP = 0.1  # share of a stage in which the light network's rate rises


def student_optimizer(network: DeSTSegNet, precision: str = "float32") -> Optimizer:
    if network.light:
        return _orthogonal_descent(network.student_net, precision)
    return _descent([(network.student_net, STUDENT_RATE)])


def segmentation_optimizer(network: DeSTSegNet, precision: str = "float32") -> Optimizer:
    net = network.segmentation_net
    assert net is not None  # the trainer skips the stage without it
    if network.light:
        return _orthogonal_descent(net, precision)
    return _descent([(net.res, RESIDUAL_RATE), (net.head, HEAD_RATE)])


def set_rates(optimizer: Optimizer, done: float) -> None:
    """Set the rates of a step; `done` is the share of its stage that lies before it. Published ones stay."""
    if isinstance(optimizer, Muon):
        for group in optimizer.param_groups:
            group["lr"] = LIGHT_RATE * min(1, done / WARM_UP) * 0.5 * (1 + math.cos(math.pi * done))


def settles(optimizer: Optimizer) -> bool:
    """Whether the rate falls to nothing in the end; at a constant one the weights keep swinging."""
    return isinstance(optimizer, Muon)


def _orthogonal_descent(part: nn.Module, precision: str) -> Muon:
    return Muon(part.parameters(), LIGHT_RATE, torch.bfloat16 if precision == "bfloat16" else None)


def _descent(parts: list[tuple[nn.Module, float]]) -> Optimizer:
    """Return the optimizer of some parts of a network, each at a rate of its own."""
    groups: list[dict[str, Any]] = [{"params": list(part.parameters()), "lr": rate} for part, rate in parts]
    on_gpu = groups[0]["params"][0].is_cuda
    return SGD(groups, momentum=0.9, weight_decay=1e-4, fused=on_gpu or None)


@torch.no_grad()
def count_in(average: AveragedModel, network: nn.Module) -> None:
    """Count a network's weights and buffers in, as `update_parameters` does, which would wait for a GPU."""
    average.n_averaged += 1  # in CPU memory
    kept, new = average.module.state_dict(keep_vars=True), network.state_dict(keep_vars=True)
    floats = [name for name, value in kept.items() if value.is_floating_point()]
    share = 1 / int(average.n_averaged)
    torch._foreach_lerp_([kept[name] for name in floats], [new[name] for name in floats], share)
    for name in kept.keys() - set(floats):  # how many batches there were
        kept[name].copy_(new[name])
