"""INT8: convolutions in whole numbers, their ranges learnt from normal pictures and synthetic anomalies."""

import math
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from destseg.engines import imported
from destseg.graph import INPUT
from destseg.images import IMAGENET_MEAN, IMAGENET_STD
from destseg.metrics import Accumulator, Metrics
from destseg.scoring import Network, anomaly_maps, scores
from destseg.store import PictureStore
from destseg.synthesis import Synthesis
from destseg.textures import from_normals

BATCH = 8
BATCHES = 16  # at most, of normal pictures, and as many with synthetic anomalies
COLOURS = 3  # channels of a picture; rounded to 8 bits for the first convolution, it costs points of AP
STUDENT, PROJECTIONS = "student_net.", "student_net.projections."  # in the names of their parameters
FLOAT = ["Add", "ReduceL2", "MatMul", "Divide", "Interpolate", "Subtract"]  # OpenVINO's operations that stay
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


def kept_weights(program: torch.export.ExportedProgram, part: str) -> set[bytes]:
    """Return the weights, as bytes, of the convolutions in a part of the network, which stay in float32.

    What the student gives is compared with the teacher's features, so small errors count. OpenVINO needs
    only PROJECTIONS, the light student's last ones: in 8 bits they cost 0.9 points of pixel AP and save next
    to nothing (light network, MVTec's transistor). onnxruntime, which also rounds what convolutions add to
    residual blocks, needs STUDENT: in 8 bits it costs 1.5 points and saves a tenth of the time.
    """
    weights = [v for name, v in program.state_dict.items() if part in name and v.ndim == 4]
    return {one.detach().numpy().tobytes() for one in weights}


def quantised_openvino(model: Any, pictures: np.ndarray, kept: set[bytes]) -> Any:
    """Return an OpenVINO model whose convolutions are in INT8.

    In float32 stay those of the weights `kept`, those that see the picture itself, and the sums of residual
    blocks: rounding both their terms to 8 bits, block after block, cost 12 points of AP.
    """
    nncf = imported("nncf")
    nncf.set_log_level("ERROR")
    nodes = [node for node in model.get_ordered_ops() if node.get_type_name() == "Convolution"]
    weights = [node.input_value(1).get_node().get_data() for node in nodes]
    names = [node.get_friendly_name() for node, own in zip(nodes, weights, strict=True) if stays(own, kept)]
    return nncf.quantize(
        model,
        nncf.Dataset([picture[None] for picture in pictures]),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(pictures),
        ignored_scope=nncf.IgnoredScope(names=names, types=FLOAT),
    )


def stays(weights: np.ndarray, kept: set[bytes]) -> bool:
    return weights.shape[1] == COLOURS or weights.tobytes() in kept


def quantised_onnx(model: Any, pictures: np.ndarray, kept: set[bytes]) -> Any:
    """Return an ONNX model whose convolutions are in INT8.

    In float32 stay those of the weights `kept`, and those that see the picture itself.
    Ranges are averages over pictures: the widest of any picture is too wide for the others.
    """
    onnx, quantization = imported("onnx"), imported("onnxruntime.quantization")
    weights = {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.op_type == "Conv"]
    names = [node.name for node in nodes if stays(weights[node.input[1]], kept)]

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc,name-defined]
        left = iter(pictures)

        def get_next(self) -> dict[str, np.ndarray] | None:
            picture = next(self.left, None)
            return None if picture is None else {INPUT: picture[None]}

    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder, "float32.onnx"), Path(folder, "int8.onnx")
        onnx.save(model, before)
        quantization.quantize_static(
            before,
            after,
            Reader(),
            op_types_to_quantize=["Conv"],
            nodes_to_exclude=names,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            extra_options={"CalibMovingAverage": True},  # of all pictures the plain average, but for its name
        )
        return onnx.load(after)
