"""What the metrics keep of pictures: scores of normal pixels, instances, image scores."""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch

from destseg.ground_truth import Pair, Scores
from destseg.normal_scores import BLOCK
from destseg.ops.components import Instances, split


class Gathered(NamedTuple):
    """The scores of a group of pictures."""

    normals: Scores  # of all of them
    instances: list[Instances]  # of each picture
    image_scores: list[float]  # of each picture; empty if they are given


def gathered(pictures: Sequence[Pair], top: int | None) -> Gathered:
    """Take pictures apart; image scores are the mean of the `top` largest values, or none are made."""
    dtype = np.result_type(np.float32, *(picture.scores for picture in pictures))
    counts = [int(picture.mask.size - np.count_nonzero(picture.mask)) for picture in pictures]
    normals = np.empty(sum(counts), dtype)
    instances = [
        split(scores.astype(dtype, copy=False), mask, normals[end - count : end])
        for (scores, mask, _), count, end in zip(pictures, counts, itertools.accumulate(counts), strict=True)
    ]
    if any(region is not None for _, _, region in pictures):
        counting = [(~mask if region is None else region)[~mask] for _, mask, region in pictures]
        normals = normals[np.concatenate(counting)]
    image_scores = [] if top is None else [mean_of_largest(_counting(pair), top) for pair in pictures]
    return Gathered(normals, instances, image_scores)


def _counting(picture: Pair) -> Scores:
    return picture.scores if picture.region is None else picture.scores[picture.region]


def batches(pictures: Iterator[Pair]) -> Iterator[list[Pair]]:
    """Collect pictures until they fill a block for each thread."""
    batch: list[Pair] = []
    size = 0
    for picture in pictures:
        batch.append(picture)
        size += picture[0].size
        if size >= BLOCK * torch.get_num_threads():
            yield batch
            batch, size = [], 0
    yield batch


def mean_of_largest(scores: Scores, top: int) -> float:
    """Return the mean of the `top` largest of some scores, or of all if they are fewer."""
    values = scores.ravel()
    columns = values.size // 64
    if columns > top:
        # The top-th largest among the maxima of disjoint sets of pixels bounds the top-th largest pixel.
        maxima = values[: 64 * columns].reshape(64, columns).max(axis=0)
        values = values[values >= np.partition(maxima, -top)[-top]]
    largest = np.partition(values, -min(top, values.size))[-top:]
    with np.errstate(invalid="ignore"):  # the mean of both infinities is NaN, which is refused later
        return float(np.sort(largest).mean(dtype=np.float64))
