"""Exported models on their engines: OpenVINO or onnxruntime in place of torch, behind the same interface.

An exported file holds the whole way from pixels to a verdict. Prediction here takes the network alone out of
it: pictures are resized by Pillow, which is faster, and scored like everywhere else.
"""

import contextlib
import importlib
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from destseg.calibration import Calibration
from destseg.graph import IMAGES, INPUT, MAPS
from destseg.modelfile import EXPORTED, ModelFile

FORMAT = "destseg export 1"
KEY = "destseg"  # of the metadata in a file
ENDINGS = {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt2"}
EXTRAS = {
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "onnxscript": "onnx",
    "openvino": "openvino",
    "nncf": "openvino",
}

Run = Callable[[np.ndarray], np.ndarray]


class Engine:
    """An exported network: called with pictures (n, h, w, 3) uint8 of its input size, it returns their maps.

    The maps are (n, h, w) float32 in [0, 1]. Threads may call it at the same time.

    Args:
        name: of the engine.
        precision: "float32" or "int8".
        run: does it, on arrays.
    """

    def __init__(self, name: str, precision: str, run: Run) -> None:
        self.name, self.precision, self._run = name, precision, run

    def __call__(self, pixels: np.ndarray) -> Tensor:
        return torch.from_numpy(self._run(pixels))

    def __repr__(self) -> str:
        return f"Engine({self.name}, {self.precision})"


def is_exported(path: str | os.PathLike[str]) -> bool:
    """Whether a file's name ends like that of an exported model."""
    return Path(path).suffix.lower() in EXPORTED


def read(path: str | os.PathLike[str], device: str = "auto") -> tuple[Engine, ModelFile]:
    """Return the engine of an exported file, and what else it says; it uses as many threads as torch.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: the engine is not installed; the message names the command.
        ValueError: the file is damaged, was not exported by destseg, or should not be loaded.
    """
    path = Path(path)
    ending = path.suffix.lower()
    if ending == ENDINGS["torch"]:
        raise ValueError(
            f"{path} is a torch program, which torch unpickles: loading one can run any code, so destseg "
            "does not. Load the model it was exported from; torch.export.load is for files that you trust"
        )
    if ending == ".bin":
        raise ValueError(f"{path} holds weights only; load {path.with_suffix('.xml')} beside it")
    if device not in ("auto", "cpu"):
        raise ValueError(f'exported models run on device "cpu" (or "auto"), got {device!r}')
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    reader = _read_openvino if ending == ENDINGS["openvino"] else _read_onnx
    metadata, start = reader(path)
    content, precision = content_of(metadata, path)
    height, width = content.settings["image_size"]
    with _readable(path):
        run = start((height, width))
    return Engine(reader.__name__.removeprefix("_read_"), precision, run), content


def describe(
    settings: dict[str, Any], calibration: Calibration, *, precision: str, versions: dict[str, str]
) -> str:
    """Return what travels in an exported file beside the graph, as JSON."""
    content = {"format": FORMAT, "versions": versions, "precision": precision, "settings": settings}
    return json.dumps(content | {"calibration": calibration.stored()})


def content_of(metadata: str, path: Path) -> tuple[ModelFile, str]:
    """Return what `describe` wrote, and the precision; ValueError where it is something else."""
    try:
        description = json.loads(metadata)
        if description["format"] != FORMAT:
            raise ValueError(f'it is a "{description["format"]}" and this version reads a "{FORMAT}"')
        calibration, settings = Calibration.from_stored(description["calibration"]), description["settings"]
        content = ModelFile(dict(settings), calibration, [], {}, description["versions"])
        return content, str(description["precision"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} was not exported by this version of destseg: {error}") from error


def imported(name: str) -> Any:
    """Import an engine's package, or raise ImportError with the command that installs it."""
    # OpenVINO and NNCF report their use to their maker; without this module they cannot.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        return importlib.import_module(name)
    except ImportError as error:
        command = f"pip install 'destseg[{EXTRAS[name.split('.')[0]]}]'"
        raise ImportError(f"{name} is missing ({error}): install it with {command}", name=name) from error


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn whatever an engine raises on a file into ValueError; each engine has errors of its own."""
    try:
        yield
    except Exception as error:
        reason = str(error).strip().split("\n")[-1][:200]
        raise ValueError(f"{path} is damaged, or no exported model ({reason})") from error


def _read_openvino(path: Path) -> tuple[str, Callable[[tuple[int, int]], Run]]:
    openvino = imported("openvino")
    weights = path.with_suffix(".bin")
    if not weights.is_file():
        raise FileNotFoundError(f"no such file: {weights}, which holds the weights of {path.name}")
    core = openvino.Core()
    with _readable(path):
        model = core.read_model(path)
        metadata = model.get_rt_info(KEY).astype(str) if model.has_rt_info(KEY) else "null"

    def start(size: tuple[int, int]) -> Run:
        opset = openvino.opset13
        parameter = model.get_parameters()[0]
        named = {name: out for node in model.get_ops() for out in node.outputs() for name in out.get_names()}
        pictures = opset.convert(opset.transpose(parameter, [0, 3, 1, 2]), "f32")
        named[IMAGES].replace(pictures.output(0))
        part = openvino.Model([named[MAPS]], [parameter], KEY)
        part.reshape([1, *size, 3])  # a fixed number, for which more is settled beforehand
        settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
        compiled = core.compile_model(part, "CPU", settings)
        requests = threading.local()

        def run(pixels: np.ndarray) -> np.ndarray:
            if not hasattr(requests, "own"):
                requests.own = compiled.create_infer_request()
            alone = np.ascontiguousarray(pixels)[:, None]
            return np.concatenate([requests.own.infer([picture])[0] for picture in alone])

        return run

    return metadata, start


def _read_onnx(path: Path) -> tuple[str, Callable[[tuple[int, int]], Run]]:
    onnx, onnxruntime = imported("onnx"), imported("onnxruntime")
    with _readable(path):
        model = onnx.load_model_from_string(path.read_bytes())  # nor are other files opened that it names
    metadata = {entry.key: entry.value for entry in model.metadata_props}.get(KEY, "null")

    def start(size: tuple[int, int]) -> Run:
        graph, make = model.graph, onnx.helper
        for node in graph.node:
            node.output[:] = ["unused" if name == IMAGES else name for name in node.output]
        # first: nodes stand in the order in which they are computed
        graph.node.insert(0, make.make_node("Cast", [INPUT], ["float_pixels"], to=onnx.TensorProto.FLOAT))
        graph.node.insert(1, make.make_node("Transpose", ["float_pixels"], [IMAGES], perm=[0, 3, 1, 2]))
        del graph.output[:]
        shape = [None, *size]
        graph.output.append(make.make_tensor_value_info(MAPS, onnx.TensorProto.FLOAT, shape))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        return lambda pixels: session.run([MAPS], {INPUT: pixels})[0]

    return metadata, start
