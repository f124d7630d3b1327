"""Normal pictures that stand far out: real folders of good parts hold a few defective ones."""

import copy
from collections.abc import Sequence
from contextlib import closing

import numpy as np
from numpy.typing import ArrayLike
from tqdm import tqdm

from destseg.inference.scoring import Scored
from destseg.inference.stream import stream
from destseg.model.networks import DeSTSegNet
from destseg.model.scorer import scorer_of
from destseg.pictures.folders import Source
from destseg.pictures.store import PictureStore

FEWEST = 20  # scores from which their spread can be told
FAR = 6.0
LEAST_SPREAD = 0.05  # of the logarithms: equal pictures are no reason to suspect those that differ a little


def outliers_of(network: DeSTSegNet, stores: Sequence[PictureStore], progress: bool = True) -> list[Source]:
    """Return the pictures whose DeST maps score far above those of the other pictures in their store.

    Pictures that the student was trained on score lower than others, so each store is looked at by itself.

    Args:
        network: after the student stage; it stays as it is.
        stores: normal pictures.
        progress: show a progress bar on a terminal.
    """
    student = copy.deepcopy(network).eval()
    student.segmentation_net = None  # its maps are DeST maps
    scorer = scorer_of(student, stores[0].size, "float32")
    found: list[Source] = []
    for store in stores:
        results = stream(scorer, store.framing, store.sources, store.picture)
        bar = tqdm(results, "outliers", len(store.sources), leave=False, disable=None if progress else True)
        with closing(results):
            scores = [result.score if isinstance(result, Scored) else 0.0 for _, result in bar]
        found += [store.sources[index] for index in far_out(scores)]
    return found


def far_out(scores: ArrayLike) -> list[int]:
    """Return the indices of scores that lie far above the others."""
    logarithms = np.log(np.asarray(scores, np.float64).clip(1e-12))
    if logarithms.size < FEWEST:
        return []
    middle = np.median(logarithms)
    spread = max(1.4826 * np.median(np.abs(logarithms - middle)), LEAST_SPREAD)
    return np.flatnonzero(logarithms > middle + FAR * spread).tolist()
