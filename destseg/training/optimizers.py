"""The optimizers of the two training stages, their learning rates, and the average of weights.

The published network is trained as published, by SGD at constant rates. The light one is trained by Muon, at
a rate that rises and falls: so it learns more from the same pictures, see docs/quality_log.md.
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
LIGHT_RATE = 2e-3  # the highest rate of both parts of the light network
WARM_UP = 0.1  # the share of a stage during which the light network's rate rises


def student_optimizer(network: DeSTSegNet) -> Optimizer:
    if network.light:
        return Muon(network.student_net.parameters(), LIGHT_RATE)
    return _sgd([(network.student_net, STUDENT_RATE)])


def segmentation_optimizer(network: DeSTSegNet) -> Optimizer:
    net = network.segmentation_net
    assert net is not None  # the trainer skips the stage without it
    if network.light:
        return Muon(net.parameters(), LIGHT_RATE)
    return _sgd([(net.res, RESIDUAL_RATE), (net.head, HEAD_RATE)])


def set_rates(optimizer: Optimizer, done: float) -> None:
    """Set Muon's rate for a step; `done` is the share of the stage before it. SGD's rates stay constant."""
    if isinstance(optimizer, Muon):
        for group in optimizer.param_groups:
            group["lr"] = LIGHT_RATE * min(1, done / WARM_UP) * 0.5 * (1 + math.cos(math.pi * done))


def settles(optimizer: Optimizer) -> bool:
    """Whether the rate falls to zero in the end; at a constant rate the weights keep swinging."""
    return isinstance(optimizer, Muon)


def _sgd(parts: list[tuple[nn.Module, float]]) -> Optimizer:
    """Return the optimizer for some parts of a network, each at its own rate."""
    groups: list[dict[str, Any]] = [{"params": list(part.parameters()), "lr": rate} for part, rate in parts]
    on_gpu = groups[0]["params"][0].is_cuda
    return SGD(groups, momentum=0.9, weight_decay=1e-4, fused=on_gpu or None)


@torch.no_grad()
def update_average(average: AveragedModel, network: nn.Module) -> None:
    """Add a network's weights and buffers to their average.

    `AveragedModel.update_parameters` computes the same, but waits for a GPU.
    """
    average.n_averaged += 1  # in CPU memory
    kept, new = average.module.state_dict(keep_vars=True), network.state_dict(keep_vars=True)
    floats = [name for name, value in kept.items() if value.is_floating_point()]
    share = 1 / int(average.n_averaged)
    torch._foreach_lerp_([kept[name] for name in floats], [new[name] for name in floats], share)
    for name in kept.keys() - set(floats):  # counters of batches
        kept[name].copy_(new[name])
