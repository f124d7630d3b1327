"""Decides before training which pictures are trained on, which are held out, and whether parts are turned."""

import logging
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from destseg.inference.calibration import split
from destseg.model.networks import Teacher
from destseg.pictures.advice import advice_on_outliers
from destseg.pictures.store import PictureStore
from destseg.settings import Schedule
from destseg.training.outliers import outliers_of
from destseg.training.poses import settle_rotation

logger = logging.getLogger("destseg")


@dataclass(frozen=True)
class Preparation:
    """Normal pictures, ready for training."""

    training: PictureStore
    held_out: PictureStore  # for calibration; those of training, where none can be spared
    held_out_units: list[int]  # of each: pictures with the same number belong together
    outliers: tuple[str, ...]  # the names of those that stand far out, whether left out or not
    schedule: Schedule  # as wanted, but for "auto"

    @property
    def none_held_out(self) -> bool:
        """Whether calibration has to do with the pictures of training."""
        return self.training.sources == self.held_out.sources


def prepare(
    store: PictureStore,
    units: Sequence[int],
    teacher: Teacher,
    schedule: Schedule,
    seed: int,
    progress: bool = True,
) -> Preparation:
    """Divide normal pictures into those to train on and those to calibrate with.

    Args:
        store: all that can be read.
        units: one for each; pictures with the same number belong together, and stay together.
        teacher: in evaluation mode, on its device.
        schedule: as the user wants it.
        seed: decides what is held out.
        progress: tell what is found out. Outliers are always warned of.
    """
    outliers = outliers_of(teacher, store, units, seed, progress)
    names, dropped = tuple(source.name for source in outliers), schedule.drop_outliers and bool(outliers)
    if outliers:
        logger.warning(advice_on_outliers(names, schedule.drop_outliers))
    if dropped:
        kept = [picture for picture, source in enumerate(store.sources) if source not in outliers]
        store, units = store.subset(kept), [units[picture] for picture in kept]
    schedule = settle_rotation(schedule, teacher, store, units, seed, progress)
    training, held_out = split(store.pictures, seed, schedule.held_out, units)
    normals = store.subset(training)
    if dropped or len(set(units)) < store.pictures:
        # A checkpoint belongs to this split only.
        normals.checksum = zlib.crc32(repr(training).encode(), normals.checksum)
    held_out_units = [units[picture] for picture in held_out]
    return Preparation(normals, store.subset(held_out), held_out_units, names, schedule)
