"""Fits a network to normal pictures: everything between the pictures and the trained weights."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

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
        network.memory_bank.fill(_features(network, normals), len(normals), settings.seed)
    trainer = new_trainer(
        network, batch, schedule.steps, settings.precision, settings.parts, run.memory, run.resume
    )
    announce(trainer, run.checkpoint, run.checkpoint_minutes, run.progress)
    return trainer.run(run.workers, run.progress, run.checkpoint, run.checkpoint_minutes)


def _features(network: DeSTSegNet, normals: PictureStore) -> Iterator[Normal]:
    """Yield the teacher's features of every input."""
    device = next(network.parameters()).device
    for index in range(len(normals)):
        images = normalise(normals[index][None]).to(device)
        yield Normal(network.teacher_net(images), normals.picture_of(index))
