"""Normal pictures that stand far out: real folders of good parts hold a few defective ones.

Each position of a picture is compared with positions of the other pictures by the teacher's features. A
picture's score is the mean distance to the nearest, over the positions for which it is largest. Scores of
normal pictures are about log-normal. So a picture stands far out if the logarithm of its score exceeds the
median by so many robust standard deviations that, were they exactly log-normal, one folder in twenty without
defects had such a picture, whatever its size. Half of the defective pictures are found, or fewer where they
are many or where normal pictures differ much; docs/quality_log.md has the figures.

This needs no training. The student cannot serve: while it learns, its maps are highest on normal pictures.
Source of the comparison: Roth et al., "Towards Total Recall in Industrial Anomaly Detection" (2106.08265).
"""

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike
from torch import Tensor

from destseg.model.networks import Teacher
from destseg.model.normalisation import normalise
from destseg.model.process import plain_torch
from destseg.pictures.folders import Source
from destseg.pictures.store import PictureStore
from destseg.progress import bar

FEWEST = 20  # scores from which their spread can be told
FALSE_ALARM = 0.05  # the share of folders without defects in which a picture stands far out
LEAST_SPREAD = 0.05  # of the logarithms: among nearly equal pictures the least difference would stand out
BANK, BANK_INPUTS = 4000, 500  # positions to compare with, and inputs that they come from, at most
MOST_INPUTS = 5000  # that are looked at: about 60 ms each on two cores
TOP_SHARE = 1 / 32  # of the positions of an input


@plain_torch()
def outliers_of(
    teacher: Teacher, store: PictureStore, units: Sequence[int], seed: int, progress: bool = True
) -> list[Source]:
    """Return the pictures that stand far out, in order. Of more than MOST_INPUTS inputs some are looked at.

    Args:
        teacher: in evaluation mode, on its device.
        store: normal pictures.
        units: pictures with the same number belong together, and are not compared with one another.
        seed: decides which positions are compared with.
        progress: show a progress bar, see `destseg.progress.Bar`.
    """
    if store.pictures < FEWEST:
        return []
    generator = np.random.default_rng([seed, len(store), 2])
    inputs = sorted(generator.permutation(len(store))[:MOST_INPUTS].tolist())
    shown = sorted(generator.permutation(inputs)[:BANK_INPUTS].tolist())
    parts, owners = [], []
    for index in shown:
        features = _features(teacher, store, index)
        several = generator.permutation(len(features))[: -(-BANK // len(shown))]
        parts.append(features[torch.from_numpy(several)])
        owners += [units[store.picture_of(index)]] * len(several)
    bank, owner = torch.cat(parts), torch.tensor(owners)
    scores: dict[int, float] = {}
    for index in bar(inputs, "outliers", leave=False, wanted=progress):
        picture = store.picture_of(index)
        features = _features(teacher, store, index)
        others = bank[owner != units[picture]]
        if len(features) and len(others):
            distances = 1 - (features @ others.T).amax(1)
            top = distances.topk(max(1, round(TOP_SHARE * len(distances)))).values
            scores[picture] = max(scores.get(picture, 0.0), float(top.mean()))
    pictures = list(scores)
    return [store.sources[pictures[k]] for k in far_out([scores[picture] for picture in pictures])]


def far_out(scores: ArrayLike) -> list[int]:
    """Return the indices of the scores that lie far above the others, as the head of this file says.

    Args:
        scores: (n,) at least 0; of fewer than FEWEST none stands out.
    """
    logarithms = np.log(np.asarray(scores, np.float64).clip(1e-12))
    if logarithms.size < FEWEST:
        return []
    middle = np.median(logarithms)
    spread = max(1.4826 * np.median(np.abs(logarithms - middle)), LEAST_SPREAD)
    return np.flatnonzero(logarithms > middle + _limit(logarithms.size) * spread).tolist()


def _limit(count: int) -> float:
    """Return how many robust standard deviations the largest of so many normal scores rarely exceeds.

    The spread is estimated, too: as well as from half as many scores by their squares. So this is Student's
    quantile with half as many degrees of freedom, by its expansion around the normal one (Abramowitz and
    Stegun, 26.7.5). In 4,000 simulated folders of 20 to 800 pictures it was exceeded in 4.5 to 5.2 %.
    """
    z, freedom = NormalDist().inv_cdf(1 - FALSE_ALARM / count), count / 2
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)


@torch.inference_mode()
def teacher_features(teacher: Teacher, pixels: np.ndarray) -> Tensor:
    """Return unit features of levels 2 and 3 of (h, w, 3) uint8 pixels, (c, h_3, w_3) float32 on the CPU."""
    images = normalise(pixels[None]).to(next(teacher.parameters()).device)
    _, second, third = teacher(images)
    levels = [F.normalize(F.adaptive_avg_pool2d(second, third.shape[-2:])), F.normalize(third)]
    return torch.cat(levels, 1)[0].cpu() * 0.5**0.5


def _features(teacher: Teacher, store: PictureStore, index: int) -> Tensor:
    """Return unit features of an input's positions that count, (positions, c) on the CPU."""
    pixels, counts = store.input(index)
    features = teacher_features(teacher, pixels)
    if counts is None:
        return features.flatten(1).T
    inside = F.adaptive_max_pool2d(torch.from_numpy(counts.astype(np.float32))[None], features.shape[1:])
    return features.flatten(1).T[inside.flatten() > 0]
