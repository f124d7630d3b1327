"""Exported models as ONNX files, run by onnxruntime. Only export needs the package onnx."""

from collections.abc import Iterator
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
    artifact_from,
    damage_error,
)
from destseg.artifacts.digest import sealed
from destseg.artifacts.int8 import quantise_convolutions
from destseg.artifacts.protobuf import MOST_FIELDS, VARINT, Field, Message
from destseg.files import write_whole
from destseg.inference.scorer import Scorer
from destseg.ops.kernels import thread_count
from destseg.packages import import_package
from destseg.settings import Settings

OPSET = 18
# Field numbers in ONNX's messages, see https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
GRAPH, METADATA, ENTRY_KEY, ENTRY_VALUE = 7, 14, 1, 2
NODE, INITIALIZER, NODE_INPUT, NODE_OUTPUT = 1, 5, 1, 2
OPERATOR, ATTRIBUTE, DOMAIN, ATTRIBUTE_TENSOR = 4, 5, 7, 5
TENSOR_TYPE, TENSOR_NAME, TENSOR_BYTES, FLOAT = 2, 8, 9, 1
# The fields that an exported model may have. Not among them: functions and training; sparse tensors; values
# in other files (13 and 14 of a tensor); graphs within an operator (6 and 11), which all control flow has.
MODEL_FIELDS = {1, 2, 3, 4, 5, 6, 7, 8, 14}
GRAPH_FIELDS = {1, 2, 5, 10, 11, 12, 13, 14, 16}
NODE_FIELDS = {1, 2, 3, 4, 5, 6, 7, 9}
ATTRIBUTE_FIELDS = {1, 2, 3, 4, 5, 7, 8, 9, 13, 20}
TENSOR_FIELDS = {1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 16}
THRESHOLD = b"threshold"  # the name of the tensor that holds the threshold


class OnnxScorer:
    """An exported network on onnxruntime. Threads may use it at the same time.

    The whole graph runs. Its resizing does not change pictures of the input's size.

    Args:
        graph: the content of an .onnx file.
        size: height and width of the network's input.
    """

    batch = 1

    def __init__(self, graph: bytes, size: tuple[int, int]) -> None:
        onnxruntime = import_package("onnxruntime")
        self.size = size
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = thread_count()
        options.log_severity_level = 3
        options.add_session_config_entry("session.load_model_format", "ONNX")  # the one that was looked into
        self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def __deepcopy__(self, memo: object) -> Any:
        return self  # it never changes, and its engine cannot be copied

    def maps(self, pixels: np.ndarray) -> np.ndarray:
        """See `destseg.inference.scorer.Scorer.maps`."""
        return self._session.run(OUTPUTS[:1], {INPUT: pixels})[0]


def read(path: Path) -> Artifact:
    """Read an exported model; its session starts when its scorer is asked for."""
    import_package("onnxruntime")
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    graph = path.read_bytes()
    try:
        model = Message.decode(graph)
        check_graph(model)
        entries = model.messages(METADATA)
        texts = {entry.first(ENTRY_KEY): entry.first(ENTRY_VALUE) for entry in entries}
        text = texts.get(KEY.encode(), b"null").decode()
    except ValueError as error:
        raise damage_error(path, error) from error

    def start(settings: Settings) -> Scorer:
        try:
            return OnnxScorer(graph, settings.size)
        except Exception as error:
            raise damage_error(path, error) from error

    return artifact_from(text, path, "onnx", start, {path: graph})


def check_graph(model: Message) -> None:
    """Raise ValueError if a model holds what `write` never writes, above all control flow and external data.

    A loop need not end, and onnxruntime would look for external data in the current folder. A field may come
    several times, and readers differ in which they take, so all are looked at, one after the other: few bytes
    may hold many.
    """
    left = MOST_FIELDS
    for message, allowed, name in _parts(model):
        left -= len(message.fields)
        if left < 0:
            raise ValueError(f"it has more than {MOST_FIELDS} fields")
        for field in message.fields:
            if field.number not in allowed:
                raise ValueError(f"{name} has a field {field.number}")


def _parts(model: Message) -> Iterator[tuple[Message, set[int], str]]:
    """Yield all messages of a model with the fields that they may have and their names."""
    yield model, MODEL_FIELDS, "it"
    for entry in model.messages(METADATA):
        yield entry, {ENTRY_KEY, ENTRY_VALUE}, "its metadata"
    for graph in model.messages(GRAPH):
        yield graph, GRAPH_FIELDS, "its graph"
        for node in graph.messages(NODE):
            yield from _parts_of_node(node)
        yield from map(_tensor, graph.messages(INITIALIZER))


def _parts_of_node(node: Message) -> Iterator[tuple[Message, set[int], str]]:
    operator = f"an operator {_name(node, OPERATOR)}"
    yield node, NODE_FIELDS, operator
    for domain in node.all(DOMAIN):
        if domain not in (b"", b"ai.onnx"):
            raise ValueError(f"{operator} is of {domain.decode(errors='replace')}, not of ONNX")
    for attribute in node.messages(ATTRIBUTE):
        yield attribute, ATTRIBUTE_FIELDS, f"control flow or the like: {operator}"
        yield from map(_tensor, attribute.messages(ATTRIBUTE_TENSOR))


def _tensor(tensor: Message) -> tuple[Message, set[int], str]:
    return tensor, TENSOR_FIELDS, f"values in another file: tensor {_name(tensor, TENSOR_NAME)}"


def _name(message: Message, number: int) -> str:
    return message.first(number).decode(errors="replace")


def build(program: Any) -> Any:
    """Make an ONNX model, a ModelProto, from a program; its last outputs are the network's input and maps."""
    import_package("onnxscript")
    import_package("onnx")
    from destseg.model.graph import to_onnx

    model = to_onnx(program, OPSET, INPUT, (*OUTPUTS, IMAGES, MAPS))
    for element in (model.graph, *model.graph.node, *model.graph.value_info):
        del element.metadata_props[:]  # they tell where in the source it came from
    return model


def quantise(model: Any, pictures: np.ndarray, kept: set[bytes]) -> Any:
    """Return an ONNX model in INT8, see `destseg.artifacts.int8`."""
    to_array = import_package("onnx").numpy_helper.to_array
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.op_type == "Conv"]
    weights = {node.name: to_array(tensors[node.input[1]]) for node in nodes}
    return quantise_convolutions(model, pictures, weights, kept)


def write(path: Path, model: Any, artifact: Artifact) -> None:
    """Write an ONNX model."""
    del model.graph.output[len(OUTPUTS) :]
    import_package("onnx").helper.set_model_props(model, {KEY: artifact.description()})
    content = sealed(model.SerializeToString())
    write_whole(path, lambda file: file.write(content))


def set_threshold(source: Path, target: Path, artifact: Artifact) -> None:
    """Write a copy of an exported model with other thresholds."""
    assert artifact.calibration is not None  # exported models always have thresholds
    model = Message.decode(source.read_bytes())
    value = np.array(artifact.calibration.threshold, "<f4").tobytes()
    entry = [Field(ENTRY_KEY, KEY.encode()), Field(ENTRY_VALUE, artifact.description().encode())]
    fields = [Field(METADATA, Message(entry).encode())]
    for field in model.fields:
        if field.number == GRAPH:
            fields.append(Field(GRAPH, _with_threshold(field.message(), value).encode()))
        elif field.number != METADATA or field.message().first(ENTRY_KEY) != KEY.encode():
            fields.append(field)
    content = sealed(Message(fields).encode())
    write_whole(target, lambda file: file.write(content))


def _with_threshold(graph: Message, value: bytes) -> Message:
    """Return a graph that compares scores with a float32 threshold, given as its four bytes."""
    tensor = [Field(TENSOR_TYPE, FLOAT, VARINT), Field(TENSOR_NAME, THRESHOLD), Field(TENSOR_BYTES, value)]
    fields = [Field(INITIALIZER, Message(tensor).encode())]
    for field in graph.fields:
        message = field.message() if field.number in (NODE, INITIALIZER) else Message()
        if field.number == NODE and OUTPUTS[2].encode() in message.all(NODE_OUTPUT):
            inputs = [Field(NODE_INPUT, message.first(NODE_INPUT)), Field(NODE_INPUT, THRESHOLD)]
            others = [other for other in message.fields if other.number != NODE_INPUT]
            fields.append(Field(NODE, Message(inputs + others).encode()))
        elif field.number != INITIALIZER or message.first(TENSOR_NAME) != THRESHOLD:
            fields.append(field)
    return Message(fields)


FORMAT = Format("onnx", "onnxruntime", ".onnx", read, write, set_threshold, build=build, quantise=quantise)
