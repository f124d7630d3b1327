"""Six steps of either stage, against the losses recorded from the published recipe."""

import json

import pytest
import torch

from destseg.model.networks import DeSTSegNet
from destseg.training.optimizers import segmentation_optimizer, student_optimizer
from destseg.training.trainer import fusion_loss, student_loss

CLOSE_STEPS = 4  # rounding grows from step to step; further on only the course must be the same


@pytest.fixture
def batch(golden):
    """The recorded batch: corrupted and clean pictures, masks."""
    import recipe

    shape = (4, 3, 64, 64)
    pictures = [torch.from_numpy(recipe.golden_input(shape, seed)) for seed in (70, 71)]
    return *pictures, torch.from_numpy(recipe.golden_mask((4, 1, 64, 64), 70))


def six_losses(optimizer, compute_loss):
    losses = []
    for _ in range(6):
        loss = compute_loss()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def check(found, recorded):
    assert found[:CLOSE_STEPS] == pytest.approx(recorded[:CLOSE_STEPS], rel=1e-3)
    assert found[CLOSE_STEPS:] == pytest.approx(recorded[CLOSE_STEPS:], rel=2e-2)


@pytest.mark.parametrize(
    ("denoising", "name"), [(True, "student_stage_cosine_loss"), (False, "student_stage_without_denoising")]
)
def test_student_stage(golden, golden_state, batch, denoising, name):
    corrupted, clean, _ = batch
    network = DeSTSegNet(denoising=denoising).eval()
    network.load_state_dict(golden_state)
    network.student_net.train()
    found = six_losses(student_optimizer(network), lambda: student_loss(network, corrupted, clean))
    check(found, json.loads((golden / "training.json").read_text())[name])


def test_segmentation_stage(golden, golden_state, batch):
    corrupted, _, masks = batch
    network = DeSTSegNet().eval()
    network.load_state_dict(golden_state)
    network.segmentation_net.train()
    student = {name: value.clone() for name, value in network.student_net.state_dict().items()}
    found = six_losses(segmentation_optimizer(network), lambda: fusion_loss(network, corrupted, masks))
    check(found, json.loads((golden / "training.json").read_text())["segmentation_stage_focal_plus_l1"])
    for name, value in network.student_net.state_dict().items():
        assert torch.equal(value, student[name]), name
