"""Exported models as OpenVINO's two files: a graph in .xml, and its weights beside it in .bin."""

import shutil
import tempfile
import threading
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from destseg.artifacts.artifact import (
    IMAGES,
    KEY,
    MAPS,
    OUTPUTS,
    Artifact,
    Format,
    artifact_from,
    damage_error,
)
from destseg.artifacts.int8 import quantise_convolutions, stays_float32
from destseg.files import write_whole
from destseg.inference.scorer import Scorer
from destseg.ops.kernels import thread_count
from destseg.packages import import_package
from destseg.settings import Settings


class OpenVinoScorer:
    """An exported network on OpenVINO. Threads may use it at the same time.

    Only the network of the graph runs, without its resizing: Pillow resizes pictures faster. Its input is
    fixed at one picture, so that OpenVINO can decide more when it compiles.

    Args:
        core: OpenVINO's Core.
        model: as `core` has read it; it is changed.
        size: height and width of the network's input.
    """

    batch = 1

    def __init__(self, core: Any, model: Any, size: tuple[int, int]) -> None:
        openvino = import_package("openvino")
        opset = openvino.opset13
        self.size = size
        parameter = model.get_parameters()[0]
        named = {name: out for node in model.get_ops() for out in node.outputs() for name in out.get_names()}
        pictures = opset.convert(opset.transpose(parameter, [0, 3, 1, 2]), "f32")
        named[IMAGES].replace(pictures.output(0))
        network = openvino.Model([named[MAPS]], [parameter], KEY)
        network.reshape([1, *size, 3])
        settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": thread_count()}
        self._compiled = core.compile_model(network, "CPU", settings)
        self._requests = threading.local()

    def __deepcopy__(self, memo: object) -> Any:
        return self  # it never changes, and its engine cannot be copied

    def maps(self, pixels: np.ndarray) -> np.ndarray:
        """See `destseg.inference.scorer.Scorer.maps`."""
        if not hasattr(self._requests, "own"):
            self._requests.own = self._compiled.create_infer_request()
        alone = np.ascontiguousarray(pixels)[:, None]
        return np.concatenate([self._requests.own.infer([picture])[0] for picture in alone])


def read(path: Path) -> Artifact:
    """Read an exported model; OpenVINO compiles it when its scorer is asked for."""
    core = import_package("openvino").Core()
    for part in _files(path):
        if not part.is_file():
            raise FileNotFoundError(f"no such file: {part}" + (", the weights" if part != path else ""))
    try:
        model = core.read_model(path)
        text = model.get_rt_info(KEY).astype(str) if model.has_rt_info(KEY) else "null"
    except Exception as error:
        raise damage_error(path, error) from error

    def start(settings: Settings) -> Scorer:
        try:
            return OpenVinoScorer(core, model.clone(), settings.size)
        except Exception as error:
            raise damage_error(path, error) from error

    return artifact_from(text, path, "openvino", start)


def build(program: Any) -> Any:
    """Make an OpenVINO model from a program; the network's input and output get names, but are no outputs."""
    import_package("openvino")
    frontend = import_package("openvino.frontend").FrontEndManager().load_by_framework("pytorch")
    decoder = import_package("openvino.frontend.pytorch.fx_decoder").TorchFXPythonDecoder
    decoded = decoder.from_exported_program(program)  # must live until it is converted
    model = frontend.convert(frontend.load(decoded))
    for output, name in zip(model.outputs, OUTPUTS, strict=False):
        output.get_tensor().set_names({name})
    for result, name in zip(model.get_results()[len(OUTPUTS) :], (IMAGES, MAPS), strict=True):
        result.input_value(0).get_tensor().add_names({name})
        model.remove_result(result)
    return model


def quantise(model: Any, pictures: np.ndarray, kept: set[bytes]) -> Any:
    """Return an OpenVINO model in INT8, see `destseg.artifacts.int8`."""
    nodes = [node for node in model.get_ordered_ops() if node.get_type_name() == "Convolution"]
    weights = {node.get_friendly_name(): node.input_value(1).get_node().get_data() for node in nodes}
    return quantise_convolutions(
        model, pictures, [name for name, values in weights.items() if stays_float32(values, kept)]
    )


def write(path: Path, model: Any, artifact: Artifact) -> None:
    """Write an OpenVINO model."""
    model.set_rt_info(artifact.description(), [KEY])
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder, "model.xml")
        import_package("openvino").serialize(model, whole)
        write_whole(path.with_suffix(".bin"), partial(_copy, whole.with_suffix(".bin")))
        write_whole(path, partial(_copy, whole))  # under exactly the given name


def set_threshold(source: Path, target: Path, artifact: Artifact) -> None:
    """Write a copy of an exported model with other thresholds."""
    assert artifact.calibration is not None  # exported models always have thresholds
    openvino = import_package("openvino")
    model = openvino.Core().read_model(source)
    comparison = model.output(OUTPUTS[2]).get_node().input_value(0).get_node()
    value = openvino.opset13.constant(np.float32(artifact.calibration.threshold))
    comparison.input(1).replace_source_output(value.output(0))
    write(target, model, artifact)


def _copy(source: Path, target: BinaryIO) -> None:
    with open(source, "rb") as file:
        shutil.copyfileobj(file, target)


def _files(path: Path) -> list[Path]:
    return [path, path.with_suffix(".bin")]


FORMAT = Format("openvino", "openvino", ".xml", read, write, set_threshold, _files, build, quantise)
