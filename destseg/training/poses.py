"""Whether parts lie in any direction, so that turned pictures of them are normal, too.

The teacher's features of turned pictures are compared with those of other pictures as they are. Where parts
lie in any direction, turned pictures are as near to the others as before; where they lie alike, or where a
surface has a direction, they are farther. The mean distance of pictures turned by random angles was 0.98 to
1.08 times that before on MVTec transistor with each picture turned anyhow; 3.9 to 4.9 times on transistor as
it is, 1.7 to 1.9 on magnetic tile, 1.9 to 2.0 on KolektorSDD, 1.2 in its tiles of 512, and 5.6 to 6.8 in
tiles of AITEX fabric 2, with all pictures or with 24. Fewer than FEWEST pictures do not tell.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import PIL.Image
import torch
from torch import Tensor

from destseg.model.networks import Teacher
from destseg.model.process import plain_torch
from destseg.pictures.store import PictureStore
from destseg.progress import say
from destseg.settings import Schedule
from destseg.training.outliers import teacher_features

FEWEST = 10  # pictures
MOST = 60  # inputs that are compared with
TURNED = 24  # inputs that are turned, of those
NEAR = 1.15  # times as far from the others turned pictures may be


@plain_torch()
def lie_anyhow(teacher: Teacher, store: PictureStore, units: Sequence[int], seed: int) -> bool:
    """Return whether parts lie in any direction.

    Args:
        teacher: in evaluation mode, on its device.
        store: normal pictures.
        units: pictures with the same number belong together, and are not compared with one another.
        seed: decides which inputs are compared, and by how much they are turned.
    """
    if len(set(units)) < FEWEST:
        return False
    generator = np.random.default_rng([seed, len(store), 4])
    inputs = generator.permutation(len(store))[:MOST].tolist()
    parts = [teacher_features(teacher, store[index]) for index in inputs]
    owners = [units[store.picture_of(index)] for index in inputs]
    bank = torch.cat([part.flatten(1).T for part in parts])
    owner = torch.tensor(owners).repeat_interleave(parts[0][0].numel())
    apart = turned = 0.0
    for index, part, unit in zip(inputs[:TURNED], parts, owners, strict=False):
        others = bank[owner != unit]
        other = teacher_features(teacher, turn(store[index], generator.uniform(20, 340)))
        apart += _distance(part, others)
        turned += _distance(other, others)
    return turned < NEAR * apart


def settle_rotation(
    schedule: Schedule,
    teacher: Teacher,
    store: PictureStore,
    units: Sequence[int],
    seed: int,
    progress: bool = True,
) -> Schedule:
    """Return a schedule whose rotation is a number or "90" in place of "auto", and tell where parts turn."""
    if schedule.rotate != "auto":
        return schedule
    anyhow = lie_anyhow(teacher, store, units, seed)
    if anyhow:
        say(
            "the parts seem to lie in any direction, so they are turned in training (rotate=0: never)",
            progress,
        )
    return dataclasses.replace(schedule, rotate=180.0 if anyhow else 0.0)


def turn(pixels: np.ndarray, degrees: float) -> np.ndarray:
    """Turn a picture (h, w, 3) uint8 about its centre, against the clock; beyond its edges it is mirrored."""
    margins = [side // 2 for side in pixels.shape[:2]]
    padded = np.pad(pixels, [(margin, margin) for margin in margins] + [(0, 0)], "reflect")
    image = PIL.Image.fromarray(padded).rotate(degrees, PIL.Image.Resampling.BILINEAR)
    top, left = margins
    return np.asarray(image)[top : top + pixels.shape[0], left : left + pixels.shape[1]]


def _distance(features: Tensor, others: Tensor) -> float:
    """Return the mean distance (c, h, w) to the nearest of (m, c), inside the circle that turning keeps."""
    height, width = features.shape[1:]
    rows, columns = np.ogrid[:height, :width]
    distance = ((rows + 0.5) / height - 0.5) ** 2 + ((columns + 0.5) / width - 0.5) ** 2
    inside = torch.from_numpy(distance <= 0.25).flatten()
    near = features.flatten(1).T[inside] @ others.T
    return float((1 - near.amax(1)).mean())
