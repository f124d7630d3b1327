"""Convolutions in whole numbers of 8 bits, by NNCF, for ONNX and OpenVINO alike."""

from typing import Any

import numpy as np

from destseg.artifacts.artifact import INPUT, imported

COLOURS = 3  # channels of a picture
SIMILARITIES = 64 + 128 + 256  # channels of the segmentation network's input
FLOAT = [  # kinds of operations that stay in float32, by the names of OpenVINO and of ONNX
    *("Add", "Subtract", "Multiply", "Divide", "Interpolate", "MatMul", "ReduceL2"),
    *("Sub", "Mul", "Div", "Resize"),
]


def stays(weights: np.ndarray, kept: set[bytes]) -> bool:
    """Whether a convolution stays in float32: if its weights are among those kept, if it sees the picture
    itself, or if it squeezes the similarities.

    In 8 bits the second costs up to a point of IAP, the third 0.4 points of it, where it was measured.

    Args:
        weights: (channels out, channels in, height, width).
    """
    sees = weights.shape[1] == COLOURS or weights.shape[1:] == (SIMILARITIES, 1, 1)
    return sees or weights.tobytes() in kept


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
