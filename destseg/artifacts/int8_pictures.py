"""What INT8 learns its ranges from, and how its loss is told: normal pictures and synthetic anomalies."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from destseg.inference.scorer import Scorer
from destseg.inference.scoring import scores
from destseg.metrics.accumulator import Accumulator, Metrics
from destseg.model.normalisation import IMAGENET_MEAN, IMAGENET_STD
from destseg.pictures.store import PictureStore
from destseg.training.synthesis import Synthesis
from destseg.training.textures import from_normals

BATCH = 8
BATCHES = 16  # at most, of normal pictures, and as many with synthetic anomalies
STUDENT = "student_net."  # in the names of its parameters
LARGEST_LOSS = 0.5  # points of pixel AP and IAP that INT8 should cost


def corrupted(store: PictureStore, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield batches of normal pictures, the same with synthetic anomalies, and where these are.

    Pictures are (n, h, w, 3) uint8, masks (n, h, w) bool; textures are made from the pictures.
    """
    synthesis = Synthesis(store, from_normals(store), BATCH, seed)
    for step in range(min(BATCHES, math.ceil(len(store) / BATCH))):
        batch = synthesis.batch(step)
        clean = np.stack([store[index] for index in batch.indices])
        values = batch.corrupted.permute(0, 2, 3, 1).numpy() * np.array(IMAGENET_STD, np.float32)
        pixels = np.rint(255 * (values + np.array(IMAGENET_MEAN, np.float32))).clip(0, 255).astype(np.uint8)
        yield clean, pixels, batch.masks[:, 0].numpy().astype(bool)


def samples(store: PictureStore, seed: int) -> np.ndarray:
    """Return what ranges are learnt from, (n, h, w, 3) uint8."""
    return np.concatenate([np.concatenate(batch[:2]) for batch in corrupted(store, seed)])


def loss_table(measured: Mapping[str, tuple[Metrics, Metrics]]) -> str:
    """Return lines that say what INT8 costs in pixel AP and IAP.

    Args:
        measured: what was measured on, with the metrics in float32 and in INT8.
    """
    lines = [f"{'percent':20}      float32   int8   loss"]
    for source, (before, after) in measured.items():
        for name, label in (("pixel_ap", "AP"), ("iap", "IAP")):
            float32, int8 = 100 * getattr(before, name), 100 * getattr(after, name)
            loss = float32 - int8
            mark = f"  more than {LARGEST_LOSS}" if loss > LARGEST_LOSS else ""
            lines.append(f"{source:20} {label:>4} {float32:7.2f} {int8:6.2f} {loss:+6.2f}{mark}")
    return "\n".join(lines)


def synthetic_metrics(scorer: Scorer, store: PictureStore, seed: int) -> Metrics:
    """Return the metrics on normal pictures and on the same with anomalies, other ones than `samples` has."""
    metrics = Accumulator()
    for clean, pixels, masks in corrupted(store, seed + 1):
        for pictures, truth in ((clean, np.zeros_like(masks)), (pixels, masks)):
            parts = [pictures[k : k + scorer.batch] for k in range(0, len(pictures), scorer.batch)]
            maps = np.concatenate([scorer.maps(part) for part in parts])
            image_scores = [scores(anomaly_map, store.size)[0] for anomaly_map in maps]
            metrics.update(maps, truth, image_scores, truth.any(axis=(1, 2)))
    return metrics.compute()


def kept_weights(program: Any) -> set[bytes]:
    """Return the weights, as bytes, of the convolutions that stay in float32: all of the student's.

    What it gives is compared with the teacher's features, so small errors count. In 8 bits it cost nothing
    with some models of the light network, and up to 5 points of pixel AP and 3 of IAP with others.
    """
    weights = [v for name, v in program.state_dict.items() if STUDENT in name and v.ndim == 4]
    return {one.detach().numpy().tobytes() for one in weights}
