"""Protocol buffers: a message worked by hand, whole ONNX files byte for byte, what is none."""

import json

import pytest
from engines import pictures

import destseg
from destseg.artifacts import onnx_file
from destseg.artifacts.digest import BLANK
from destseg.artifacts.protobuf import BYTES, FIXED32, FIXED64, MOST_FIELDS, VARINT, Field, Message

# Numbers 1, a varint: 150 = 22 + 128 * 1; 2, a string; 3, four bytes; 4, eight bytes; and 2 again.
TINY = bytes.fromhex("08 9601  12 02 6869  1d 0000803f  21 0102030405060708  12 00")
FIELDS = [
    Field(1, 150, VARINT),
    Field(2, b"hi", BYTES),
    Field(3, b"\x00\x00\x80\x3f", FIXED32),
    Field(4, bytes(range(1, 9)), FIXED64),
    Field(2, b"", BYTES),
]
ENDS = (0, 3, 7, 12, 21, 23)  # of its fields


def test_a_message_worked_by_hand():
    message = Message.decode(TINY)
    assert message.fields == FIELDS
    assert message.encode() == Message(FIELDS).encode() == TINY
    assert message.all(2) == [b"hi", b""] and message.first(2) == b"hi"
    assert message.all(1) == [] and message.first(9) == b""  # a number is no string
    assert Message.decode(b"").fields == [] and Message().encode() == b""


@pytest.mark.parametrize("number", [0, 1, 127, 128, 300, 2**31, 2**63, 2**64 - 1])
def test_numbers_of_every_length(number):
    content = Message([Field(number % 1000 + 1, number, VARINT)]).encode()
    assert Message.decode(content).fields == [(number % 1000 + 1, number, VARINT)]


def test_cut_short_it_is_refused():
    for length in range(len(TINY)):
        if length in ENDS:
            assert Message.decode(TINY[:length]).fields == FIELDS[: ENDS.index(length)]
        else:
            with pytest.raises(ValueError, match="no protocol buffer, or cut short"):
                Message.decode(TINY[:length])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"GIF89a nothing of ours", "unknown way 7"),
        (bytes.fromhex("0b"), "unknown way 3"),  # a group, which ONNX has none of
        (b"\x08" + b"\xff" * 11, "more than ten bytes"),
        (b"\xff" * 30, "more than ten bytes"),
        (b"\x12\xff\xff\xff\xff\x7f", "cut short"),  # a string of 32 GB
    ],
    ids=["text", "group", "long number", "long tag", "long string"],
)
def test_what_is_no_message_is_refused(content, words):
    with pytest.raises(ValueError, match=f"no protocol buffer.*{words}"):
        Message.decode(content)


def test_a_message_of_very_many_fields_is_refused():
    """Written in two bytes, a field takes a hundred in memory."""
    assert len(Message.decode(b"\x08\x00" * MOST_FIELDS).fields) == MOST_FIELDS
    with pytest.raises(ValueError, match=f"a message has more than {MOST_FIELDS} fields"):
        Message.decode(b"\x08\x00" * (MOST_FIELDS + 1))


def test_messages_within_a_message():
    inner = Message([Field(1, 5, VARINT)])
    outer = Message([Field(3, inner.encode()), Field(2, b"hi"), Field(3, 7, VARINT), Field(3, b"")])
    assert [message.fields for message in outer.messages(3)] == [inner.fields, [], []]


def test_an_onnx_file_comes_back_byte_for_byte(exported):
    content = exported(".onnx").read_bytes()
    model = Message.decode(content)
    assert model.encode() == content
    (graph,) = model.all(onnx_file.GRAPH)
    assert Message.decode(graph).encode() == graph
    nodes = Message.decode(graph).all(onnx_file.NODE)
    assert len(nodes) > 50 and all(Message.decode(node).encode() == node for node in nodes)


def test_onnx_reads_a_message_alike(exported):
    """Another reader, written by the makers of the format, finds the same values at the same numbers."""
    onnx = pytest.importorskip("onnx")
    content = exported(".onnx").read_bytes()
    model, found = onnx.load_from_string(content), Message.decode(content)
    (entry,) = [Message.decode(one) for one in found.all(onnx_file.METADATA)]
    (expected,) = model.metadata_props
    assert entry.first(onnx_file.ENTRY_KEY).decode() == expected.key == "destseg"
    assert entry.first(onnx_file.ENTRY_VALUE).decode() == expected.value
    graph = Message.decode(found.first(onnx_file.GRAPH))
    tensors = [Message.decode(one).first(onnx_file.TENSOR_NAME) for one in graph.all(onnx_file.INITIALIZER)]
    assert [name.decode() for name in tensors] == [one.name for one in model.graph.initializer]
    for node, own in zip(graph.all(onnx_file.NODE), model.graph.node, strict=True):
        message = Message.decode(node)
        assert [name.decode() for name in message.all(onnx_file.NODE_INPUT)] == list(own.input)
        assert [name.decode() for name in message.all(onnx_file.NODE_OUTPUT)] == list(own.output)


def without_checksum(description):
    return description.replace(json.loads(description)["sha256"], BLANK)


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_a_new_threshold_leaves_the_rest_of_the_graph_as_it_was(exported, precision, tmp_path):
    onnx = pytest.importorskip("onnx")
    source, copy = exported(".onnx", precision), tmp_path / "other.onnx"
    model = destseg.load(source).calibrate(pictures((64, 96), 9, seed=5), 0.5)
    before = onnx.load(source)
    for path in (copy, tmp_path / "again.onnx"):  # the second of the first: its tensor is replaced
        model.save(path)
        model = destseg.load(path).calibrate(false_positive_rate=0.2)
        after = onnx.load(path)
        onnx.checker.check_model(after)
        (entry,) = after.metadata_props
        artifact = onnx_file.read(path)
        assert entry.key == "destseg" and without_checksum(entry.value) == artifact.description()
        (tensor,) = [one for one in after.graph.initializer if one.name == "threshold"]
        value = onnx.numpy_helper.to_array(tensor)
        assert value.shape == () and value == value.dtype.type(artifact.calibration.threshold)
        (node,) = [one for one in after.graph.node if "is_anomalous" in one.output]
        (own,) = [one for one in before.graph.node if "is_anomalous" in one.output]
        assert node.input[1] == "threshold" and node.op_type == "Greater"
        node.input[1] = own.input[1]  # all else is equal
        after.graph.initializer.remove(tensor)
        del after.metadata_props[:]
        expected = onnx.ModelProto.FromString(before.SerializeToString())
        del expected.metadata_props[:]
        assert after == expected
