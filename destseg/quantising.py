"""INT8: convolutions in whole numbers, their ranges learnt from normal pictures and synthetic anomalies."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from destseg.engines import imported
from destseg.graph import INPUT
from destseg.images import IMAGENET_MEAN, IMAGENET_STD
from destseg.metrics import Accumulator, Metrics
from destseg.networks import CHANNELS
from destseg.scoring import Network, anomaly_maps, scores
from destseg.store import PictureStore
from destseg.synthesis import Synthesis
from destseg.textures import from_normals

BATCH = 8
BATCHES = 16  # at most, of normal pictures, and as many with synthetic anomalies
COLOURS = 3  # channels of a picture
STUDENT = "student_net."  # in the names of its parameters
FLOAT = [  # kinds of operations that stay in float32, by the names of OpenVINO and of ONNX
    *("Add", "Subtract", "Multiply", "Divide", "Interpolate", "MatMul", "ReduceL2"),
    *("Sub", "Mul", "Div", "Resize"),
]
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


def synthetic_metrics(network: Network, store: PictureStore, seed: int) -> Metrics:
    """Return the metrics on normal pictures and on the same with anomalies, other ones than `samples` has."""
    metrics = Accumulator()
    for clean, pixels, masks in corrupted(store, seed + 1):
        for pictures, truth in ((clean, np.zeros_like(masks)), (pixels, masks)):
            maps = anomaly_maps(network, pictures)
            image_scores = [scores(anomaly_map, store.size)[0] for anomaly_map in maps]
            metrics.update(maps.numpy(), truth, image_scores, truth.any(axis=(1, 2)))
    return metrics.compute()


def kept_weights(program: torch.export.ExportedProgram) -> set[bytes]:
    """Return the weights, as bytes, of the convolutions that stay in float32: all of the student's.

    What it gives is compared with the teacher's features, so small errors count. In 8 bits it cost nothing
    with some models of the light network, and up to 5 points of pixel AP and 3 of IAP with others.
    """
    weights = [v for name, v in program.state_dict.items() if STUDENT in name and v.ndim == 4]
    return {one.detach().numpy().tobytes() for one in weights}


def stays(weights: np.ndarray, kept: set[bytes]) -> bool:
    """Whether a convolution stays in float32: if its weights are among those kept, if it sees the picture
    itself, or if it squeezes the similarities.

    In 8 bits the second costs up to a point of IAP, the third 0.4 points of it, where it was measured.

    Args:
        weights: (channels out, channels in, height, width).
    """
    sees = weights.shape[1] == COLOURS or weights.shape[1:] == (sum(CHANNELS[:3]), 1, 1)
    return sees or weights.tobytes() in kept


def quantised_openvino(model: Any, pictures: np.ndarray, kept: set[bytes]) -> Any:
    """Return an OpenVINO model in INT8, see `quantised` and `stays`."""
    nodes = [node for node in model.get_ordered_ops() if node.get_type_name() == "Convolution"]
    weights = {node.get_friendly_name(): node.input_value(1).get_node().get_data() for node in nodes}
    return quantised(model, pictures, [name for name, values in weights.items() if stays(values, kept)])


def quantised_onnx(model: Any, pictures: np.ndarray, kept: set[bytes]) -> Any:
    """Return an ONNX model in INT8, see `quantised` and `stays`."""
    to_array = imported("onnx").numpy_helper.to_array
    tensors = {one.name: one for one in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.op_type == "Conv"]
    weights = {node.name: to_array(tensors[node.input[1]]) for node in nodes}
    return quantised(model, pictures, [name for name, values in weights.items() if stays(values, kept)])


def quantised(model: Any, pictures: np.ndarray, kept: list[str]) -> Any:
    """Return an exported model whose convolutions are in INT8, but for those `kept`, by name.

    The sums of residual blocks stay in float32: with both their terms in 8 bits, block after block, 12 points
    of AP were lost. A range is the median of single pictures' ranges: there are normal ones that drive the
    student's numbers up a thousandfold, which no average withstands.
    """
    nncf, ranges = imported("nncf"), imported("nncf.quantization.range_estimator")
    least, largest = (
        ranges.StatisticsCollectorParameters(ranges.StatisticsType(end), ranges.AggregatorType.MEDIAN)
        for end in ("min", "max")
    )
    return nncf.quantize(
        model,
        nncf.Dataset([{INPUT: picture[None]} for picture in pictures]),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(pictures),
        ignored_scope=nncf.IgnoredScope(names=kept, types=FLOAT, validate=False),
        advanced_parameters=nncf.AdvancedQuantizationParameters(
            activations_range_estimator_params=ranges.RangeEstimatorParameters(least, largest)
        ),
    )
