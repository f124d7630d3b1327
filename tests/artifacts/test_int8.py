"""INT8: ranges are wide enough for every picture, and what must stay in float32 does."""

import numpy as np
import pytest

from destseg.artifacts.artifact import INPUT
from destseg.artifacts.int8 import quantise_convolutions


def test_no_picture_is_cut_off_by_the_ranges_of_others():
    openvino, _ = pytest.importorskip("openvino"), pytest.importorskip("nncf")
    generator, operations = np.random.default_rng(0), openvino.opset13
    parameter = operations.parameter([1, 4, 16, 16], np.float32)
    parameter.output(0).get_tensor().set_names({INPUT})
    weights = generator.normal(size=(8, 4, 3, 3)).astype(np.float32)
    convolution = operations.convolution(parameter, weights, [1, 1], [1, 1], [1, 1], [1, 1])
    model = openvino.Model([convolution], [parameter])
    pictures = generator.random((9, 4, 16, 16), np.float32)
    pictures[3] *= 4  # as an anomaly may; one in nine
    pictures[4] *= -1
    expected, found = (
        np.stack([compiled([picture[None]])[0] for picture in pictures])
        for compiled in (
            openvino.Core().compile_model(one, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
            for one in (model, quantise_convolutions(model, pictures, {}, set()))
        )
    )
    largest = np.abs(expected).max()
    assert 0 < np.abs(found - expected).max() < 0.03 * largest  # by medians 0.73, by averages 0.66


def test_a_graph_that_lacks_what_must_stay_in_float32_is_refused():
    pytest.importorskip("nncf")
    weights = np.ones((8, 4, 3, 3), np.float32)
    message = "2 convolutions must stay in float32, the graph has 1 of them"
    with pytest.raises(RuntimeError, match=message):
        quantise_convolutions(None, np.zeros(0), {"a": weights, "b": 2 * weights}, {weights.tobytes(), b"c"})
