"""Exported models as ONNX files, run by onnxruntime. Only making one takes the package onnx."""

from pathlib import Path
from typing import Any

import numpy as np

from destseg.artifacts.artifact import (
    IMAGES,
    INPUT,
    KEY,
    MAPS,
    OUTPUTS,
    Artifact,
    Format,
    damaged,
    described,
    imported,
)
from destseg.artifacts.int8 import quantised, stays
from destseg.artifacts.protobuf import VARINT, Field, Message
from destseg.files import write_whole
from destseg.inference.scorer import Scorer
from destseg.ops.kernels import thread_count
from destseg.settings import Settings

OPSET = 18
# Numbers of fields in ONNX's messages, https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
GRAPH, METADATA, ENTRY_KEY, ENTRY_VALUE = 7, 14, 1, 2
NODE, INITIALIZER, NODE_INPUT, NODE_OUTPUT = 1, 5, 1, 2
TENSOR_TYPE, TENSOR_NAME, TENSOR_BYTES, FLOAT = 2, 8, 9, 1
THRESHOLD = b"threshold"  # the name of the tensor above which a score counts as anomalous


class OnnxScorer:
    """An exported network on onnxruntime. Threads may use it at the same time.

    The whole graph runs. On pictures of the input's size the resizing around the network changes nothing.

    Args:
        graph: the content of an .onnx file.
        size: height and width of the network's input.
    """

    batch = 1

    def __init__(self, graph: bytes, size: tuple[int, int]) -> None:
        onnxruntime = imported("onnxruntime")
        self.size = size
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = thread_count()
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def maps(self, pixels: np.ndarray) -> np.ndarray:
        """See `destseg.inference.scorer.Scorer.maps`."""
        return self._session.run(OUTPUTS[:1], {INPUT: pixels})[0]


def read(path: Path) -> Artifact:
    """Read an exported model; its session starts when it is asked for."""
    imported("onnxruntime")
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    graph = path.read_bytes()  # given as bytes, so no file is opened that the graph names
    try:
        entries = [Message.decoded(entry) for entry in Message.decoded(graph).all(METADATA)]
        texts = {entry.first(ENTRY_KEY): entry.first(ENTRY_VALUE) for entry in entries}
        text = texts.get(KEY.encode(), b"null").decode()
    except ValueError as error:
        raise damaged(path, error) from error

    def start(settings: Settings) -> Scorer:
        try:
            return OnnxScorer(graph, settings.size)
        except Exception as error:
            raise damaged(path, error) from error

    return described(text, path, "onnx", start)


def build(program: Any) -> Any:
    """Make an ONNX model, a ModelProto, of a program; its last two outputs are the network's own ends."""
    imported("onnxscript")
    imported("onnx")
    from destseg.model.graph import to_onnx

    model = to_onnx(program, OPSET, INPUT, (*OUTPUTS, IMAGES, MAPS))
    for thing in (model.graph, *model.graph.node, *model.graph.value_info):
        del thing.metadata_props[:]  # where in the source each came from
    return model


def quantise(model: Any, pictures: np.ndarray, kept: set[bytes]) -> Any:
    """Return an ONNX model in INT8, see `destseg.artifacts.int8`."""
    to_array = imported("onnx").numpy_helper.to_array
    tensors = {one.name: one for one in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.op_type == "Conv"]
    weights = {node.name: to_array(tensors[node.input[1]]) for node in nodes}
    return quantised(model, pictures, [name for name, values in weights.items() if stays(values, kept)])


def write(path: Path, model: Any, artifact: Artifact) -> None:
    """Write an ONNX model."""
    del model.graph.output[len(OUTPUTS) :]
    imported("onnx").helper.set_model_props(model, {KEY: artifact.description()})
    write_whole(path, lambda file: file.write(model.SerializeToString()))


def set_threshold(source: Path, target: Path, artifact: Artifact) -> None:
    """Write a copy of an exported model with other thresholds."""
    assert artifact.calibration is not None  # it has thresholds
    model = Message.decoded(source.read_bytes())
    value = np.array(artifact.calibration.threshold, "<f4").tobytes()
    entry = [Field(ENTRY_KEY, KEY.encode()), Field(ENTRY_VALUE, artifact.description().encode())]
    fields = [Field(METADATA, Message(entry).encoded())]
    for field in model.fields:
        if field.number == GRAPH:
            fields.append(Field(GRAPH, _with_threshold(field.message(), value).encoded()))
        elif field.number != METADATA or field.message().first(ENTRY_KEY) != KEY.encode():
            fields.append(field)
    write_whole(target, lambda file: file.write(Message(fields).encoded()))


def _with_threshold(graph: Message, value: bytes) -> Message:
    """Return a graph that compares scores with a float32, given as its four bytes."""
    tensor = [Field(TENSOR_TYPE, FLOAT, VARINT), Field(TENSOR_NAME, THRESHOLD), Field(TENSOR_BYTES, value)]
    fields = [Field(INITIALIZER, Message(tensor).encoded())]
    for field in graph.fields:
        message = field.message() if field.number in (NODE, INITIALIZER) else Message()
        if field.number == NODE and OUTPUTS[2].encode() in message.all(NODE_OUTPUT):
            inputs = [Field(NODE_INPUT, message.first(NODE_INPUT)), Field(NODE_INPUT, THRESHOLD)]
            others = [one for one in message.fields if one.number != NODE_INPUT]
            fields.append(Field(NODE, Message(inputs + others).encoded()))
        elif field.number != INITIALIZER or message.first(TENSOR_NAME) != THRESHOLD:
            fields.append(field)
    return Message(fields)


FORMAT = Format("onnx", ".onnx", read, write, set_threshold, build, quantise)
