"""Exported models as OpenVINO's two files: a graph in .xml, and its weights beside it in .bin."""

import html
import re
import tempfile
import threading
from pathlib import Path
from typing import Any

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
from destseg.artifacts.digest import sealed
from destseg.artifacts.int8 import quantise_convolutions
from destseg.files import write_together
from destseg.inference.scorer import Scorer
from destseg.ops.kernels import thread_count
from destseg.packages import import_package
from destseg.settings import Settings

DESCRIBED = re.compile(f'<{KEY} value="([^"]*)"'.encode())  # the description, in the .xml
FOREIGN = {"If", "Loop", "TensorIterator", "ReadValue", "Assign"}  # layers of control flow, and with a memory


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
    """Read an exported model; OpenVINO reads and compiles its graph when its scorer is asked for."""
    openvino = import_package("openvino")
    for part in _files(path):
        if not part.is_file():
            raise FileNotFoundError(f"no such file: {part}" + (", the weights" if part != path else ""))
    contents = {part: part.read_bytes() for part in _files(path)}
    graph, weights = contents.values()
    described = DESCRIBED.search(graph)
    if described is None:
        raise damage_error(path, ValueError("it holds no description of a model"))

    def start(settings: Settings) -> Scorer:
        core = openvino.Core()
        try:
            model = core.read_model(graph, weights)  # the bytes that were checked
            check_layers(model)
            return OpenVinoScorer(core, model, settings.size)
        except Exception as error:
            raise damage_error(path, error) from error

    text = html.unescape(described[1].decode(errors="replace"))
    return artifact_from(text, path, "openvino", start, contents)


def check_layers(model: Any) -> None:
    """Raise ValueError if an OpenVINO model has a layer that `write` never writes.

    Loops need not end, layers with a memory judge a picture by those before it, and layers of extensions may
    do anything.
    """
    for node in model.get_ops():
        kind = node.get_type_info()
        if kind.name in FOREIGN or not kind.version_id.startswith("opset"):
            raise ValueError(f"it has a layer {kind.name} of {kind.version_id}")


def build(program: Any) -> Any:
    """Make an OpenVINO model from a program; the network's input and output get names, but are no outputs."""
    import_package("openvino")
    frontend = import_package("openvino.frontend").FrontEndManager().load_by_framework("pytorch")
    decoder = import_package("openvino.frontend.pytorch.fx_decoder").TorchFXPythonDecoder
    decoded = decoder.from_exported_program(program)  # must live until it is converted
    model = frontend.convert(frontend.load(decoded))
    model.reshape([-1, -1, -1, 3])  # colours: the frontend forgets that, and grey pictures would be taken
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
    return quantise_convolutions(model, pictures, weights, kept)


def write(path: Path, model: Any, artifact: Artifact) -> None:
    """Write an OpenVINO model with the thresholds of an artifact.

    The graph is written first: until the weights are, its checksum does not hold. Weights that lie there
    already stay, so that other thresholds change one file only: a crash leaves the old ones or the new.
    """
    openvino = import_package("openvino")
    _set_threshold(openvino, model, artifact)
    model.set_rt_info(artifact.description(), [KEY])
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder, "model.xml")
        openvino.serialize(model, whole)
        graph, weights = (part.read_bytes() for part in _files(whole))
    graph, beside = sealed(graph, weights), path.with_suffix(".bin")
    files = {path: lambda file: file.write(graph)}  # under exactly the given name
    if not beside.is_file() or beside.read_bytes() != weights:
        files[beside] = lambda file: file.write(weights)
    write_together(files)


def set_threshold(source: Path, target: Path, artifact: Artifact) -> None:
    """Write a copy of an exported model with other thresholds."""
    write(target, import_package("openvino").Core().read_model(source), artifact)


def _set_threshold(openvino: Any, model: Any, artifact: Artifact) -> None:
    """Compare the score with itself, cut off at the threshold: a constant would lie among the weights."""
    assert artifact.calibration is not None  # exported models always have thresholds
    comparison = model.output(OUTPUTS[2]).get_node().input_value(0).get_node()
    least, threshold = np.finfo(np.float32).min, np.float32(artifact.calibration.threshold)
    limited = openvino.opset13.clamp(comparison.input_value(0), float(least), float(threshold))
    comparison.input(1).replace_source_output(limited.output(0))


def _files(path: Path) -> list[Path]:
    return [path, path.with_suffix(".bin")]


FORMAT = Format("openvino", "openvino", ".xml", read, write, set_threshold, _files, build, quantise)
