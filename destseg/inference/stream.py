"""The one road from pictures to scores: decoded ahead, scored in batches, in order, errors in place."""

import os
from collections.abc import Callable, Generator, Iterable, Sequence

from destseg.inference.calibration import Calibration
from destseg.inference.prediction import Prediction
from destseg.inference.scorer import Scorer
from destseg.inference.scoring import Scored, score
from destseg.pictures.decoding import UnreadableImage
from destseg.pictures.folders import Source
from destseg.pictures.framing import Framing
from destseg.pictures.prefetch import prefetch, taken_ahead
from destseg.pictures.store import TOO_LARGE, Picture, attempt, read

DECODERS = 2  # threads that decode and scale ahead, if the scorer takes one input at a time
MOST_DECODERS = 16  # the same if it takes batches; at most one per processor
SCORERS = 2  # threads that score batches: while one waits for its results, the other collects
JUDGES = 4  # threads that resize the maps of batches to their pictures' own sizes
BATCH_BYTES = 256 << 20  # a batch with so many bytes of decoded pictures is closed before it is full

Read = tuple[Source, Picture | Exception]
Result = tuple[Source, Scored | Exception]


def stream(
    scorer: Scorer,
    framing: Framing,
    sources: Iterable[Source],
    take: Callable[[Source], Picture] | None = None,
    progress: bool = True,
) -> Generator[Result, None, None]:
    """Yield every picture with its scores, or with the error that kept it from being read, in order.

    A scorer that takes batches gets whole pictures in batches. Pictures in tiles go one by one, their tiles
    in batches. Five batches of pictures at most are in memory, beside those decoded ahead. However the
    generator ends, its threads end with it.

    Args:
        scorer: makes the maps.
        framing: how pictures become inputs.
        sources: the pictures.
        take: gives the pictures that a store keeps; by default each is decoded.
        progress: show a progress bar for a picture of many tiles.

    Raises RuntimeError where the network gives no maps in [0, 1].
    """
    in_batches, alone = scorer.batch > 1, _is_alone(sources)
    decoders = min(MOST_DECODERS, os.cpu_count() or 1) if in_batches else DECODERS

    def decode(source: Source) -> Read:
        return source, attempt(lambda: take(source) if take else read(source, framing), source.name)

    def score_all(batch: list[Read]) -> list[Result]:
        readable = [picture for _, picture in batch if not isinstance(picture, Exception)]
        try:
            scored = iter(score(scorer, framing, readable, progress))
        except MemoryError:  # for one of them, which alone is left out
            if len(batch) > 1:
                return [result for item in batch for result in score_all([item])]
            name = batch[0][0].name
            return [(batch[0][0], UnreadableImage(f"{name}: {TOO_LARGE}"))]
        return [
            (source, picture if isinstance(picture, Exception) else next(scored)) for source, picture in batch
        ]

    pictures = prefetch(decode, sources, 0 if alone else decoders)
    batches = _batches(pictures, scorer.batch if framing.tile is None else 1)
    if in_batches and not alone and isinstance(sources, Sequence):
        batches = taken_ahead(batches)  # not of a camera, whose next picture may never come
    results = prefetch(score_all, batches, SCORERS if in_batches and not alone else 0)
    try:
        for batch in results:
            yield from batch
    finally:
        results.close()


def predictions(
    scorer: Scorer,
    framing: Framing,
    calibration: Calibration,
    sources: Iterable[Source],
    progress: bool = True,
) -> Generator[tuple[Source, Prediction | Exception], None, None]:
    """Yield every picture with its prediction, or with the error that kept it from being read."""

    def judge(result: Result) -> tuple[Source, Prediction | Exception]:
        source, scored = result
        if isinstance(scored, Exception):
            return source, scored
        return source, attempt(lambda: calibration.judge(scored, source.name), source.name)

    results = stream(scorer, framing, sources, progress=progress)
    return prefetch(judge, results, JUDGES if scorer.batch > 1 and not _is_alone(sources) else 0)


def _is_alone(sources: Iterable[Source]) -> bool:
    """Whether there is only one picture, for which starting threads does not pay."""
    return isinstance(sources, Sequence) and len(sources) == 1


def _batches(pictures: Generator[Read, None, None], most: int) -> Generator[list[Read], None, None]:
    """Yield lists of `most` pictures and errors; shorter ones where pictures are large, and at the end."""
    batch: list[Read] = []
    held = 0
    try:
        for source, picture in pictures:
            batch.append((source, picture))
            held += 0 if isinstance(picture, Exception) else picture.pixels.nbytes
            if len(batch) == most or held >= BATCH_BYTES:
                yield batch
                batch, held = [], 0
        if batch:
            yield batch
    except Exception:  # of what gives the pictures
        if batch:
            yield batch
        raise
    finally:
        pictures.close()
