"""What tests of exported models share: the packages they take, pictures, and how others run such files."""

import pathlib

import numpy as np
import pytest

from destseg.artifacts.artifact import INPUT, OUTPUTS

PACKAGES = {".onnx": ("onnx", "onnxscript", "onnxruntime"), ".xml": ("openvino",)}  # beside nncf for INT8
NAMES = {".onnx": "onnx", ".xml": "openvino"}


def needs(ending: str, precision: str = "float32") -> None:
    """Skip the test where a package is missing that exports or runs files of this ending."""
    for name in (*PACKAGES[ending], *(("nncf",) if precision == "int8" else ())):
        pytest.importorskip(name)


def pictures(size: tuple[int, int], count: int = 1, seed: int = 0) -> np.ndarray:
    """Return pictures of noise, (count, h, w, 3) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (count, *size, 3), dtype=np.uint8)


def run_whole(path: pathlib.Path, pixels: np.ndarray) -> dict[str, np.ndarray]:
    """Run an exported file as somebody without this package does, and return its outputs by name."""
    if path.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        assert [entry.name for entry in session.get_outputs()] == list(OUTPUTS)
        return dict(zip(OUTPUTS, session.run(None, {INPUT: pixels}), strict=True))
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.compile_model(openvino.Core().read_model(path), "CPU", settings)
    assert len(compiled.outputs) == len(OUTPUTS)
    results = compiled({INPUT: openvino.Tensor(pixels)})  # which is not converted to uint8, but refused
    return {name: results[name] for name in OUTPUTS}
