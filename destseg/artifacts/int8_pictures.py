"""The inputs from which INT8 learns ranges and on which its cost is measured: normal and with anomalies."""

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
BATCHES = 16  # at most, of normal inputs; as many come with synthetic anomalies
STUDENT = "student_net."  # part of the names of its weights
SENSITIVE = (  # parts of the names of weights that always stay in float32
    *("encoder.conv1.", "teacher_net.encoder.layer1.", "projections."),
    *("reductions.", "segmentation_net.res.0.downsample."),  # of the light and of the published network
)
LARGEST_COST = 0.5  # points of pixel AP and IAP that INT8 should cost at most


def draw_batches(store: PictureStore, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield batches of normal inputs, the same inputs with synthetic anomalies, and the anomalies' masks.

    Inputs are (n, h, w, 3) uint8, masks (n, h, w) bool; textures are made from the inputs.
    """
    synthesis = Synthesis(store, from_normals(store), BATCH, seed)
    for step in range(min(BATCHES, math.ceil(len(store) / BATCH))):
        batch = synthesis.batch(step)
        clean = np.stack([store[index] for index in batch.indices])
        values = batch.corrupted.permute(0, 2, 3, 1).numpy() * np.array(IMAGENET_STD, np.float32)
        pixels = np.rint(255 * (values + np.array(IMAGENET_MEAN, np.float32))).clip(0, 255).astype(np.uint8)
        yield clean, pixels, batch.masks[:, 0].numpy().astype(bool)


def range_inputs(store: PictureStore, seed: int) -> np.ndarray:
    """Return the inputs from which ranges are learnt, (n, h, w, 3) uint8."""
    return np.concatenate([np.concatenate(batch[:2]) for batch in draw_batches(store, seed)])


def cost_table(metrics: Mapping[str, tuple[Metrics, Metrics]]) -> str:
    """Return lines that tell what INT8 costs in pixel AP and IAP.

    Args:
        metrics: for the name of each test set, the metrics in float32 and in INT8.
    """
    lines = [f"{'percent':20}      float32   int8   cost"]
    for source, (before, after) in metrics.items():
        for name, label in (("pixel_ap", "AP"), ("iap", "IAP")):
            float32, int8 = 100 * getattr(before, name), 100 * getattr(after, name)
            cost = float32 - int8
            mark = f"  more than {LARGEST_COST}" if cost > LARGEST_COST else ""
            lines.append(f"{source:20} {label:>4} {float32:7.2f} {int8:6.2f} {cost:+6.2f}{mark}")
    return "\n".join(lines)


def synthetic_metrics(scorer: Scorer, store: PictureStore, seed: int) -> Metrics:
    """Return the metrics on normal inputs and the same with anomalies, other ones than in `range_inputs`."""
    metrics = Accumulator()
    for clean, pixels, masks in draw_batches(store, seed + 1):
        for pictures, truth in ((clean, np.zeros_like(masks)), (pixels, masks)):
            parts = [pictures[k : k + scorer.batch] for k in range(0, len(pictures), scorer.batch)]
            maps = np.concatenate([scorer.maps(part) for part in parts])
            image_scores = [scores(anomaly_map, store.size)[0] for anomaly_map in maps]
            metrics.update(maps, truth, image_scores, truth.any(axis=(1, 2)))
    return metrics.compute()


def float32_weights(program: Any, bounded: bool) -> set[bytes]:
    """Return the weights, as bytes, of the convolutions that stay in float32.

    They take the picture, are the teacher's first stage, give the light student's features, or reduce the
    channels of similarities, and in 8 bits cost up to 2 points of AP. Unless the student is bounded, all of
    it stays in float32: in 8 bits it cost some models nothing, others 5 points of pixel AP and 3 of IAP, or 8
    of image AUROC. See docs/quality_log.md.
    """
    names = SENSITIVE if bounded else (*SENSITIVE, STUDENT)
    weights = program.state_dict.items()
    kept = [value for name, value in weights if value.ndim == 4 and any(part in name for part in names)]
    return {weight.detach().numpy().tobytes() for weight in kept}
