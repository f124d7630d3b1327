"""Quantises convolutions to 8-bit whole numbers with NNCF, for ONNX and OpenVINO alike."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from destseg.artifacts.artifact import INPUT
from destseg.packages import import_package

FLOAT = [  # operations that stay in float32, by their names in OpenVINO and in ONNX
    *("Add", "Subtract", "Multiply", "Divide", "Interpolate", "MatMul", "ReduceL2"),
    *("Sub", "Mul", "Div", "Resize"),
]


def quantise_convolutions(
    model: Any, pictures: np.ndarray, weights: Mapping[str, np.ndarray], kept: set[bytes]
) -> Any:
    """Return an exported model with its convolutions in INT8.

    The sums of residual blocks stay in float32: with both their terms in 8 bits, block after block, 12 points
    of AP were lost. The range of a number is the widest of all inputs: a narrower one would cut off what
    anomalies give. So wild numbers of a single input would spoil it; what has them must be among those kept.

    Args:
        model: of OpenVINO or ONNX.
        pictures: from which ranges are learnt, (n, h, w, 3) uint8.
        weights: those of each convolution by its name in the graph.
        kept: weights, as bytes, of the convolutions that stay in float32.

    Raises RuntimeError where the graph lacks one of those kept, because its converter has rewritten it.
    """
    names = [name for name, values in weights.items() if values.tobytes() in kept]
    if len(names) < len(kept):
        raise RuntimeError(
            f"{len(kept)} convolutions must stay in float32, the graph has {len(names)} of them"
        )
    nncf, ranges = import_package("nncf"), import_package("nncf.quantization.range_estimator")
    least, largest = (
        ranges.StatisticsCollectorParameters(ranges.StatisticsType(end), ranges.AggregatorType(end))
        for end in ("min", "max")
    )
    return nncf.quantize(
        model,
        nncf.Dataset([{INPUT: picture[None]} for picture in pictures]),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(pictures),
        ignored_scope=nncf.IgnoredScope(names=names, types=FLOAT, validate=False),
        advanced_parameters=nncf.AdvancedQuantizationParameters(
            activations_range_estimator_params=ranges.RangeEstimatorParameters(least, largest)
        ),
    )
