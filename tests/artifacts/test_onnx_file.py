"""ONNX files: damaged ones, crafted ones, those of others, and what is needed to use them."""

import re
import sys
import time

import numpy as np
import pytest
from engines import pictures, run_whole

import destseg
from destseg.artifacts import onnx_file
from destseg.artifacts.digest import BLANK, sealed
from destseg.artifacts.protobuf import Field, Message


def without(content, number):
    """Return a message without one of its fields."""
    return Message(field for field in Message.decode(content).fields if field.number != number).encode()


def sealed_again(content):
    """Return an exported model's content, changed on purpose, with a checksum that holds."""
    checksum = re.search(rb'"sha256": "([0-9a-f]{64})"', content)[1]
    return sealed(content.replace(checksum, BLANK.encode()))


def test_what_is_not_ours_is_refused_before_anything_runs(exported, tmp_path):
    path = tmp_path / "x.onnx"
    for content, words in (
        (b"GIF89a nothing of ours", r"x\.onnx is damaged, or no exported model \(no protocol buffer"),
        (b"", r"x\.onnx was not exported by this version of destseg"),
        (without(exported(".onnx").read_bytes(), onnx_file.METADATA), r"x\.onnx was not exported by this"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=words):
            onnx_file.read(path)


def test_a_graph_that_the_engine_refuses_is_called_damaged(exported, tmp_path):
    path = tmp_path / "x.onnx"
    whole = exported(".onnx").read_bytes()
    for graph in (b"", b"\x0a\x02\x08\x01"):
        content = Message.decode(without(whole, onnx_file.GRAPH))
        content.fields.append(Field(onnx_file.GRAPH, graph))
        path.write_bytes(sealed_again(content.encode()))
        with pytest.raises(ValueError, match=r"x\.onnx is damaged, or no exported model"):
            destseg.load(path)


def test_thresholds_change_without_the_package_onnx(exported, tmp_path, monkeypatch):
    source, copy, normal = exported(".onnx"), tmp_path / "other.onnx", pictures((64, 96), 9, seed=5)
    for name in ("onnx", "onnxscript", "nncf"):
        monkeypatch.setitem(sys.modules, name, None)
    destseg.load(source).calibrate(normal, 0.5).save(copy)
    found = run_whole(copy, normal)
    flags = found["score"] > np.float32(destseg.load(copy).threshold_)
    assert found["is_anomalous"].tolist() == flags.tolist() and 3 <= flags.sum() <= 5


def crafted(source, path, change):
    """Write an exported model whose graph was changed on purpose."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load(source)
    change(onnx, model)
    path.write_bytes(sealed_again(model.SerializeToString()))
    return path


def outside(onnx, tensor):
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "secrets"


def body(onnx):
    """Return a loop's body that never ends it."""
    numbers = [("step", onnx.TensorProto.INT64), ("wanted", onnx.TensorProto.BOOL)]
    inputs = [onnx.helper.make_tensor_value_info(name, kind, []) for name, kind in numbers]
    output = onnx.helper.make_tensor_value_info("on", onnx.TensorProto.BOOL, [])
    node = onnx.helper.make_node("Identity", ["wanted"], ["on"])
    return onnx.helper.make_graph([node], "body", inputs, [output])


def node(onnx, model, kind, **attributes):
    """Add an operator to a graph."""
    domain = attributes.pop("domain", None)
    model.graph.node.append(onnx.helper.make_node(kind, ["pixels"], ["more"], domain=domain, **attributes))


def in_another_file(onnx, model):
    outside(onnx, model.graph.initializer[3])


def in_another_file_by_location_alone(onnx, model):
    model.graph.initializer[3].data_location = onnx.TensorProto.EXTERNAL


def constant_in_another_file(onnx, model):
    value = onnx.TensorProto(dims=[1], data_type=1, name="v")
    outside(onnx, value)
    node(onnx, model, "Constant", value=value)


def sparse_in_another_file(onnx, model):
    outside(onnx, model.graph.sparse_initializer.add().values)


def loop(onnx, model):
    node(onnx, model, "Loop", body=body(onnx))


def branches(onnx, model):
    node(onnx, model, "If", then_branch=body(onnx), else_branch=body(onnx))


def several_graphs(onnx, model):
    node(onnx, model, "Scan", bodies=[body(onnx), body(onnx)])


def cached_engine(onnx, model):
    node(onnx, model, "EPContext", domain="com.microsoft", ep_cache_context="/dev/zero")


def function(onnx, model):
    model.functions.add().name = "anything"


def training(onnx, model):
    model.training_info.add()


CRAFTED = {
    in_another_file: r"values in another file: tensor .* has a field 1[34]",
    in_another_file_by_location_alone: r"values in another file: tensor .* has a field 14",
    constant_in_another_file: "values in another file: tensor v has a field 1[34]",
    sparse_in_another_file: "its graph has a field 15",
    loop: "control flow or the like: an operator Loop has a field 6",
    branches: "control flow or the like: an operator If has a field 6",
    several_graphs: "control flow or the like: an operator Scan has a field 11",
    cached_engine: r"an operator EPContext is of com\.microsoft, not of ONNX",
    function: "it has a field 25",
    training: "it has a field 20",
}


@pytest.mark.parametrize("change", CRAFTED, ids=lambda change: change.__name__)
def test_graphs_that_export_never_writes_are_refused(exported, tmp_path, change):
    """Control flow need not end, and data in other files would be read from the current folder."""
    path = crafted(exported(".onnx"), tmp_path / "x.onnx", change)
    with pytest.raises(ValueError, match=rf"x\.onnx is damaged, or no exported model \({CRAFTED[change]}"):
        onnx_file.read(path)


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_what_export_writes_is_not_refused_when_it_is_sealed_again(exported, tmp_path, precision):
    path = crafted(exported(".onnx", precision), tmp_path / "x.onnx", lambda onnx, model: None)
    assert onnx_file.read(path).precision == precision


def test_a_field_that_comes_twice_is_looked_at_twice(exported, tmp_path):
    """Of a string that comes twice readers take the last; of a graph that comes twice, both together."""
    path = tmp_path / "x.onnx"
    hidden = Message([Field(4, b"EPContext"), Field(7, b""), Field(7, b"com.microsoft")]).encode()
    graph = Message([Field(onnx_file.GRAPH, Message([Field(onnx_file.NODE, hidden)]).encode())]).encode()
    path.write_bytes(sealed_again(exported(".onnx").read_bytes() + graph))
    with pytest.raises(ValueError, match=r"an operator EPContext is of com\.microsoft"):
        onnx_file.read(path)


def test_a_description_that_takes_all_recursion_is_refused(exported, tmp_path):
    path = tmp_path / "x.onnx"
    model = pytest.importorskip("onnx").load(exported(".onnx"))
    model.metadata_props[0].value = "[" * 200_000
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match=r"x\.onnx was not exported by this version of destseg"):
        onnx_file.read(path)


def test_few_bytes_that_hold_many_fields_are_refused_at_once(tmp_path):
    path, started = tmp_path / "x.onnx", time.monotonic()
    node = Message([Field(onnx_file.NODE_OUTPUT, b"")] * 50_000).encode()
    graph = Message([Field(onnx_file.NODE, node)] * 100).encode()
    path.write_bytes(Message([Field(onnx_file.GRAPH, graph)]).encode())
    with pytest.raises(ValueError, match=r"x\.onnx is damaged, .*it has more than 100000 fields"):
        onnx_file.read(path)
    assert time.monotonic() - started < 4  # five million fields would take far longer
