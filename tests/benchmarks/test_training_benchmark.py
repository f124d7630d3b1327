"""A training step of either stage beside the published recipe's, and the synthesis of its batch.

The published step is eager float32 in torch's default layout, with the work it does for nothing: the
segmentation network in the student stage, gradients through the frozen student in the segmentation stage.
Ours is the trainer's, with the precision that "auto" takes on this machine; in float32 both must give the
same loss. The light network's step, with its own way of descending, stands beside them.
DESTSEG_BENCHMARK_SIDE and DESTSEG_BENCHMARK_BATCH set pixels and pictures (README: 128 and 16).
"""

import os

import numpy as np
import pytest
import torch

from destseg.model.networks import DeSTSegNet
from destseg.ops.similarity import cosine_distances_ref
from destseg.pictures.folders import Source
from destseg.pictures.framing import Framing
from destseg.pictures.store import PictureStore
from destseg.settings import Settings
from destseg.training.checkpoint import plan_of
from destseg.training.losses import cosine_loss, segmentation_loss
from destseg.training.optimizers import segmentation_optimizer, student_optimizer
from destseg.training.synthesis import Synthesis
from destseg.training.textures import from_normals
from destseg.training.trainer import PUBLISHED_BATCH, Trainer, training_precision

SIDE = int(os.environ.get("DESTSEG_BENCHMARK_SIDE", "64"))
BATCH = int(os.environ.get("DESTSEG_BENCHMARK_BATCH", "4"))
STAGES = {"student": 0, "segmentation": 10**6}  # number of the step that is done again and again


@pytest.fixture(scope="module")
def synthesis() -> Synthesis:
    random = np.random.default_rng(0)
    pictures = [random.integers(0, 256, (SIDE, SIDE, 3), np.uint8) for _ in range(BATCH)]
    store = PictureStore(
        [Source(str(k), p) for k, p in enumerate(pictures)], Framing((SIDE, SIDE)), progress=False
    )
    return Synthesis(store, from_normals(store), BATCH)


def network(preset: str = "paper") -> DeSTSegNet:
    torch.manual_seed(0)
    return DeSTSegNet(**Settings(preset).parts)


def published_step(net, optimizer, batch, stage: str) -> float:
    """Do what the published recipe does in one step."""
    net.student_net.train(stage == "student")
    images, seen = batch.corrupted.contiguous(), batch.clean if stage == "student" else batch.corrupted
    taught, learnt = net.features(images, seen.contiguous())
    logits = net.logits(taught, learnt)
    if stage == "student":
        loss = cosine_loss(cosine_distances_ref(taught, learnt))
        scaled = loss * (PUBLISHED_BATCH / len(images))
    else:
        loss = scaled = segmentation_loss(logits, batch.masks)
    optimizer.zero_grad()
    scaled.backward()
    optimizer.step()
    return loss.item()


def our_trainer(synthesis: Synthesis, stage: str, precision: str, preset: str = "paper") -> Trainer:
    steps = (1, 0) if stage == "student" else (0, 10**6 + 1)
    net = network(preset)
    plan = plan_of(net, synthesis, steps, precision, Settings(preset).parts)
    trainer = Trainer(net, synthesis, plan, 2 << 30)
    trainer.optimizer = trainer._enter(stage == "student")
    return trainer


@pytest.mark.parametrize("stage", STAGES)
class TestStep:
    @pytest.fixture(autouse=True)
    def group(self, benchmark, stage):
        benchmark.group = (
            f"{stage} step, {BATCH} pictures of {SIDE} x {SIDE}, {torch.get_num_threads()} threads"
        )

    def test_published(self, benchmark, synthesis, stage):
        batch, net = synthesis.batch(0), network()
        net.segmentation_net.train()
        make = student_optimizer if stage == "student" else segmentation_optimizer
        step = our_trainer(synthesis, stage, "float32").step
        expected = step(STAGES[stage], batch).item()
        optimizer = make(net)
        assert published_step(net, optimizer, batch, stage) == pytest.approx(expected, rel=1e-3)
        benchmark.pedantic(published_step, (net, optimizer, batch, stage), rounds=5, warmup_rounds=1)

    @pytest.mark.parametrize("precision", ["float32", "auto"])
    @pytest.mark.parametrize("preset", ["paper", "fast"])
    def test_ours(self, benchmark, synthesis, stage, preset, precision):
        chosen = training_precision(precision, torch.device("cpu"))
        trainer, batch = our_trainer(synthesis, stage, chosen, preset), synthesis.batch(0)
        benchmark.extra_info["precision"] = chosen

        def step() -> float:
            return trainer.step(STAGES[stage], batch).item()

        first = step()
        assert benchmark.pedantic(step, rounds=5, warmup_rounds=1) < 1.5 * first

    def test_synthesis_of_the_batch(self, benchmark, synthesis, stage):
        batch = benchmark(synthesis.batch, 1)
        assert batch.corrupted.shape == (BATCH, 3, SIDE, SIDE)
