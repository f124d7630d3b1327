"""How the stages descend: whose rates rise and fall, which parameters they move, averages of weights."""

import math

import pytest
import torch
from torch.optim.swa_utils import AveragedModel

from destseg.model.networks import DeSTSegNet
from destseg.settings import Settings
from destseg.training.muon import Muon
from destseg.training.optimizers import (
    segmentation_optimizer,
    set_rates,
    settles,
    student_optimizer,
    update_average,
)


def rates(optimizer):
    return [group["lr"] for group in optimizer.param_groups]


def network(preset):
    return DeSTSegNet(**Settings(preset).parts)


def test_rates_of_the_published_network_stay():
    net = network("paper")
    student, segmentation = student_optimizer(net), segmentation_optimizer(net)
    for done in (0.0, 0.05, 0.5, 1.0):
        set_rates(student, done)
        set_rates(segmentation, done)
        assert rates(student) == [0.4] and rates(segmentation) == [0.1, 0.01]
    for optimizer in (student, segmentation):
        assert isinstance(optimizer, torch.optim.SGD) and not settles(optimizer)
        assert all(g["momentum"] == 0.9 and g["weight_decay"] == 1e-4 for g in optimizer.param_groups)


def test_rates_of_the_light_network_rise_and_fall_to_nothing():
    net = network("fast")
    for optimizer in (student_optimizer(net), segmentation_optimizer(net)):
        assert isinstance(optimizer, Muon) and settles(optimizer)
        for done, expected in (
            (0.0, 0.0),
            (0.05, 2e-3 * 0.5 * 0.5 * (1 + math.cos(0.05 * math.pi))),  # half of the way up
            (0.1, 2e-3 * 0.5 * (1 + math.cos(0.1 * math.pi))),
            (0.5, 1e-3),
            (1.0, 0.0),
        ):
            set_rates(optimizer, done)
            assert rates(optimizer) == [pytest.approx(expected)]


@pytest.mark.parametrize("preset", ["paper", "fast"])
def test_each_optimizer_moves_all_of_its_own_network_and_nothing_else(preset):
    net = network(preset)
    pairs = ((student_optimizer, net.student_net), (segmentation_optimizer, net.segmentation_net))
    for make, part in pairs:
        moved = [parameter for group in make(net).param_groups for parameter in group["params"]]
        assert len(moved) == len(set(moved)) and set(moved) == set(part.parameters())


def test_averages_are_those_of_torch():
    torch.manual_seed(0)
    part = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    ours, theirs = (AveragedModel(part, use_buffers=True) for _ in range(2))
    for _ in range(3):
        with torch.no_grad():
            for parameter in part.parameters():
                parameter.copy_(torch.randn_like(parameter))
        part(torch.randn(2, 3, 8, 8))  # moves the running statistics and counts a batch
        update_average(ours, part)
        theirs.update_parameters(part)
        found, expected = ours.module.state_dict(), theirs.module.state_dict()
        for name, value in found.items():
            if name.endswith("num_batches_tracked"):
                assert value == part.state_dict()[name]  # a count is taken over, not averaged
            else:
                torch.testing.assert_close(value, expected[name])
