"""ONNX files: damaged ones, those of others, and what is needed to use them."""

import sys

import numpy as np
import pytest
from engines import pictures, run_whole

import destseg
from destseg.artifacts import onnx_file
from destseg.artifacts.protobuf import Field, Message


def without(content, number):
    """Return a message without one of its fields."""
    return Message(field for field in Message.decode(content).fields if field.number != number).encode()


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
        path.write_bytes(content.encode())
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
