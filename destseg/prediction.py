"""Prediction of many pictures, none kept: decoded ahead, scored one after the other, on a GPU in batches."""

import contextlib
import itertools
import logging
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from destseg.calibration import Calibration
from destseg.cuda_graph import GpuNetwork, GraphScorer
from destseg.folders import Source
from destseg.framing import Framing, View
from destseg.images import to_rgb
from destseg.result import Prediction
from destseg.scoring import Network, Scored, scored, scored_map
from destseg.store import attempt, decode, viewed
from destseg.synthesis import prefetched

logger = logging.getLogger("destseg")

DECODERS = 2  # threads that decode and scale ahead of prediction
MOST_DECODERS = 16  # of a GPU, one for each processor
JUDGES = 4  # threads that make predictions of what a GPU has scored
BATCH = 32  # pictures that a GPU scores at once
BATCH_BYTES = 256 << 20  # of decoded pictures, at which a batch is closed before it is full


class Picture(NamedTuple):
    """A picture that was read."""

    name: str
    pixels: np.ndarray  # (h, w, 3) uint8
    view: View


def scorer(network: Network, framing: Framing) -> Callable[[Path], Scored]:
    """Return what scores a picture file, and names it in ValueError or OSError where it cannot."""
    return lambda path: scored(network, framing, decode(Source(str(path), path), framing))


def predictions(
    network: Network, framing: Framing, calibration: Calibration, sources: Sequence[Source], strict: bool
) -> Iterator[tuple[Source, Prediction | Exception]]:
    """Yield every picture with its Prediction, or with the error that kept it from being read.

    Such an error is reported in a warning, which names the picture; with `strict` it is raised. On a GPU many
    pictures of one frame each are scored in batches; fewer than BATCH, and those in tiles, one by one.
    """

    def read(source: Source) -> Picture:
        pixels = to_rgb(source.image, source.name)
        return Picture(source.name, pixels, viewed(pixels, source, framing))

    def pictures(ahead: int) -> Iterator[Picture | Exception]:
        return prefetched(lambda k: attempt(lambda: read(sources[k])), range(len(sources)), ahead)

    def judged(picture: Picture | Exception) -> Prediction | Exception:
        if isinstance(picture, Exception):
            return picture
        return calibration.judge(scored(network, framing, picture.view), picture.pixels, picture.name)

    one_frame_each = framing.tile is None and len(sources) >= BATCH
    gpu = network if isinstance(network, GpuNetwork) and one_frame_each else None
    ahead = min(MOST_DECODERS, os.cpu_count() or 1) if gpu else min(DECODERS, len(sources) - 1)
    if gpu:
        results = judged_in_batches(gpu, framing, calibration, pictures(ahead))
    else:
        results = (judged(picture) for picture in pictures(ahead))
    with contextlib.closing(results):  # and what it takes pictures from: an error would keep threads alive
        for source, result in zip(sources, results, strict=True):
            if isinstance(result, Exception):
                if strict:
                    raise result
                logger.warning("left out: %s", result)  # the message names it
            yield source, result


def judged_in_batches(
    network: GpuNetwork,
    framing: Framing,
    calibration: Calibration,
    pictures: Iterable[Picture | Exception],
) -> Generator[Prediction | Exception, None, None]:
    """Yield the predictions of pictures of one frame each, and the errors among them, in their order.

    While the GPU scores a batch, the last one is judged and handed over and the next one collected.
    """

    def started(scorer: GraphScorer, batch: list[Picture | Exception]) -> Iterator[Prediction | Exception]:
        readable = [picture for picture in batch if not isinstance(picture, Exception)]
        if not readable:
            return (item for item in batch if isinstance(item, Exception))
        frames = [framing.frames(picture.view)[0] for picture in readable]
        inputs = [framing.cut(picture.view, frame) for picture, frame in zip(readable, frames, strict=True)]
        maps = scorer.start(inputs).anomaly_maps

        def judged(place: int) -> Prediction:
            scorer.wait()
            own = maps[place][frames[place].inside].clone()  # the next batch but one overwrites it
            picture = readable[place]
            return calibration.judge(scored_map(own, framing, picture.view), picture.pixels, picture.name)

        results = judges.map(judged, range(len(readable)))
        return (item if isinstance(item, Exception) else next(results) for item in batch)

    with network.scorer(BATCH) as one, network.scorer(BATCH) as other:
        judges = ThreadPoolExecutor(JUDGES)
        try:
            before: Iterator[Prediction | Exception] = iter(())
            for scorer, batch in zip(itertools.cycle((one, other)), batches(pictures), strict=False):
                results = started(scorer, batch)
                yield from before
                before = results
            yield from before
        finally:
            judges.shutdown(wait=True, cancel_futures=True)


def batches(pictures: Iterable[Picture | Exception]) -> Iterator[list[Picture | Exception]]:
    """Yield pictures, and errors, in lists of BATCH; in shorter ones where pictures are large."""
    batch: list[Picture | Exception] = []
    for picture in pictures:
        batch.append(picture)
        held = sum(item.pixels.nbytes for item in batch if isinstance(item, Picture))
        if len(batch) == BATCH or held >= BATCH_BYTES:
            yield batch
            batch = []
    if batch:
        yield batch
