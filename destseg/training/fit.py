"""Fits a network to normal pictures: everything between the pictures and the trained weights."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from destseg.model.memory_bank import Normal
from destseg.model.networks import DeSTSegNet
from destseg.model.normalisation import normalise
from destseg.model.process import plain_torch
from destseg.pictures.store import MEMORY, PictureStore
from destseg.settings import Schedule, Settings
from destseg.training.estimate import announce
from destseg.training.synthesis import Synthesis
from destseg.training.textures import PictureTextures, from_normals
from destseg.training.trainer import new_trainer

VIEWS, MOST_VIEWS = 200, 8  # draws that the memory bank sees, in all and of each input, where inputs change


@dataclass(frozen=True)
class Run:
    """Options of training that do not change its result; see `destseg.DeSTSeg.fit`."""

    workers: int = 2
    memory: int = MEMORY
    progress: bool = True
    checkpoint: Path | None = None
    checkpoint_minutes: float = 10.0
    resume: Path | None = None


@plain_torch()
@torch.inference_mode(False)  # a user may have switched gradients off around `fit`
@torch.enable_grad()
def train(
    network: DeSTSegNet,
    settings: Settings,
    schedule: Schedule,
    normals: PictureStore,
    textures: PictureStore | None,
    run: Run,
) -> list[float]:
    """Train a network in place and return the loss of every step.

    Args:
        network: as `destseg.model.construction.new_network` makes it, on its device.
        settings: the model's.
        schedule: steps, batch size and augmentation.
        normals: pictures of normal parts.
        textures: pictures that lend their texture to the anomalies; None: textures are made from `normals`.
        run: options that do not change the result.
    """
    draw = from_normals(normals) if textures is None else PictureTextures(textures)
    batch = Synthesis(
        normals,
        draw,
        schedule.batch_size,
        settings.seed,
        rotate=schedule.rotate,
        flip=schedule.flip,
        augment=schedule.augment,
    )
    if network.memory_bank is not None:
        views = min(MOST_VIEWS, -(-VIEWS // len(normals))) if batch.changes_pictures else 1
        network.memory_bank.fill(_features(network, batch, views), views * len(normals), settings.seed)
    trainer = new_trainer(
        network, batch, schedule.steps, settings.precision, settings.parts, run.memory, run.resume
    )
    announce(trainer, run.checkpoint, run.checkpoint_minutes, run.progress)
    return trainer.run(run.workers, run.progress, run.checkpoint, run.checkpoint_minutes)


def _features(network: DeSTSegNet, synthesis: Synthesis, views: int) -> Iterator[Normal]:
    """Yield the teacher's features of every input, of several draws of it if inputs change at each draw."""
    device = next(network.parameters()).device
    for index in range(len(synthesis.normals)):
        for view in range(views):
            generator = np.random.default_rng([synthesis.seed, index, view, 2])
            found, pixels, counts = synthesis.view(index, generator)
            levels = network.teacher_net(normalise(np.ascontiguousarray(pixels)[None]).to(device))
            inside = None if counts is None else torch.from_numpy(counts.copy())  # it may be read-only
            yield Normal(levels, synthesis.normals.picture_of(found), inside)
