"""Fits a network to normal pictures: everything between the pictures and the trained weights."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from destseg.model.networks import DeSTSegNet
from destseg.pictures.folders import Source
from destseg.pictures.store import MEMORY, PictureStore
from destseg.settings import Schedule, Settings
from destseg.training.estimate import announce
from destseg.training.outliers import outliers_of
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


class Fitted(NamedTuple):
    """The result of training beside the network's weights."""

    losses: list[float]  # one per step
    outliers: list[Source]  # normal pictures that stand far out, see `destseg.training.outliers`


def train(
    network: DeSTSegNet,
    settings: Settings,
    schedule: Schedule,
    normals: PictureStore,
    held_out: PictureStore,
    textures: PictureStore | None,
    run: Run,
) -> Fitted:
    """Train a network in place, and find outliers between its two stages.

    Args:
        network: as `destseg.model.construction.new_network` makes it, on its device.
        settings: the model's.
        schedule: steps, batch size and augmentation.
        normals: pictures of normal parts.
        held_out: others, looked at for outliers only.
        textures: pictures that lend their texture to the anomalies; None: textures are made from `normals`.
        run: options that do not change the result.
    """

    def synthesis(store: PictureStore) -> Synthesis:
        draw = from_normals(store) if textures is None else PictureTextures(textures)
        changes: dict[str, Any] = {
            "rotate": schedule.rotate,
            "flip": schedule.flip,
            "augment": schedule.augment,
        }
        return Synthesis(store, draw, schedule.batch_size, settings.seed, **changes)

    trainer = new_trainer(
        network,
        synthesis(normals),
        schedule.steps,
        settings.precision,
        settings.parts,
        run.memory,
        run.resume,
        schedule.drop_outliers,
    )
    announce(trainer, run.checkpoint, run.checkpoint_minutes, run.progress)
    options = (run.workers, run.progress, run.checkpoint, run.checkpoint_minutes)
    trainer.run(*options, until=schedule.steps[0])
    outliers = outliers_of(network, [normals, held_out], run.progress)  # the same in a run that is resumed
    if schedule.drop_outliers:
        trainer.synthesis = synthesis(normals.without(outliers))
    return Fitted(trainer.run(*options), outliers)
