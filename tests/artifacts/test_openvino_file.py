"""OpenVINO's two files: names in capitals, weights that are missing, files of others, crafted ones."""

import errno
import json
import os
import shutil

import pytest
from engines import needs

import destseg
from destseg.artifacts import openvino_file
from destseg.artifacts.digest import BLANK, sealed


def test_names_in_capitals_are_found_again(light, picture, tmp_path):
    needs(".xml")
    path = tmp_path / "PART.XML"
    light.export(path)
    assert sorted(part.name for part in tmp_path.iterdir()) == ["PART.XML", "PART.bin"]
    assert destseg.load(path).predict(picture).score == pytest.approx(light.predict(picture).score, abs=1e-3)
    destseg.load(path).calibrate(false_positive_rate=0.5).save(path)
    assert sorted(part.name for part in tmp_path.iterdir()) == ["PART.XML", "PART.bin"]
    assert destseg.load(path).threshold_ == light.calibration_.at_rate(0.5).threshold


@pytest.mark.parametrize("fine", [0, 1])
def test_on_a_full_disk_an_older_model_stays_whole(light, fitted, tmp_path, monkeypatch, fine):
    """Whichever of its two files it is that cannot be written."""

    def fsync(number):
        synced.append(number)
        if len(synced) > fine:
            raise OSError(errno.ENOSPC, "No space left on device")

    needs(".xml")
    path, synced = tmp_path / "part.xml", []
    light.export(path)
    before = {part.name: part.read_bytes() for part in tmp_path.iterdir()}
    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match=r"part\.(bin|xml) cannot be written: .*No space left"):
        fitted.export(path)  # other weights, so that both files change
    assert {part.name: part.read_bytes() for part in tmp_path.iterdir()} == before


def test_a_graph_without_our_description_is_refused(exported, tmp_path):
    openvino = pytest.importorskip("openvino")
    opset, path = openvino.opset13, tmp_path / "x.xml"
    parameter = opset.parameter([1, 3])
    model = openvino.Model([opset.relu(parameter)], [parameter])
    openvino.serialize(model, path)
    with pytest.raises(ValueError, match=r"x\.xml is damaged, or no exported model \(it holds no descript"):
        openvino_file.read(path)
    shutil.copy(exported(".xml"), path)  # whose weights are longer than those that lie there
    with pytest.raises(ValueError, match=r"x\.xml is damaged, or does not belong to x\.bin"):
        destseg.load(path)


def crafted(source, path, change):
    """Write an exported model whose graph was changed on purpose: its checksum holds."""
    openvino = pytest.importorskip("openvino")
    model = openvino.Core().read_model(source)
    content = json.loads(model.get_rt_info("destseg").astype(str)) | {"sha256": BLANK}
    model = change(openvino.opset13, model) or model
    model.set_rt_info(json.dumps(content), ["destseg"])
    openvino.serialize(model, path)
    path.write_bytes(sealed(path.read_bytes(), path.with_suffix(".bin").read_bytes()))
    return path


def instead(opset, model, make):
    """Put what `make` returns for the network's input between it and what takes it."""
    (images,) = [out for node in model.get_ops() for out in node.outputs() if "images" in out.get_names()]
    targets = images.get_target_inputs()
    made = make(images)
    for target in targets:
        target.replace_source_output(made)


def nested():
    openvino = pytest.importorskip("openvino")
    opset = openvino.opset13
    values = opset.parameter([-1, 3, -1, -1])
    wanted = opset.constant(True)
    return values, opset.relu(values), wanted, openvino.Model


def loop(opset, model):
    def make(images):
        values, more, wanted, build = nested()
        made = opset.loop(opset.constant(-1), opset.constant(True))
        inner = build([wanted, more], [values])
        made.set_function(inner)
        made.set_special_body_ports([-1, 0])
        made.set_merged_input(values, images, more.output(0))
        return made.get_iter_value(more.output(0), -1)

    instead(opset, model, make)


def branch(opset, model):
    def make(images):
        made = opset.if_op(opset.constant(True))
        values, more, _, build = nested()
        other_values, other, _, _ = nested()
        made.set_then_body(build([more], [values]))
        made.set_else_body(build([other], [other_values]))
        made.set_input(images, values, other_values)
        return made.set_output(made.get_then_body().results[0], made.get_else_body().results[0])

    instead(opset, model, make)


def memory(opset, model):
    openvino = pytest.importorskip("openvino")
    shape = openvino.PartialShape([-1, 3, -1, -1])
    made = []

    def make(images):
        made.append(opset.read_value(images, "before", openvino.Type.f32, shape))
        return made[0].output(0)

    instead(opset, model, make)
    return openvino.Model(model.get_results(), [opset.assign(made[0], "before")], model.get_parameters())


@pytest.mark.parametrize(
    ("change", "kind"),
    [(loop, "Loop"), (branch, "If"), (memory, "Assign")],
    ids=["loop", "branch", "memory"],
)
def test_graphs_that_export_never_writes_are_refused(exported, tmp_path, change, kind):
    """Control flow need not end, and what remembers pictures judges a part by those before it."""
    path = crafted(exported(".xml"), tmp_path / "x.xml", change)
    assert f'type="{kind}"'.encode() in path.read_bytes()
    words = rf"x\.xml is damaged, or no exported model \(it has a layer {kind} of"
    with pytest.raises(ValueError, match=words):
        destseg.load(path)


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_what_export_writes_is_not_refused_when_it_is_sealed_again(exported, tmp_path, precision):
    path = crafted(exported(".xml", precision), tmp_path / "x.xml", lambda opset, model: None)
    assert destseg.load(path).calibration_ is not None


def test_a_graph_of_another_kind_in_an_xml_file_is_refused(exported, tmp_path):
    """OpenVINO tells kinds of files by their content, too, and reads many."""
    content = exported(".onnx").read_bytes()
    path = tmp_path / "x.xml"
    path.with_suffix(".bin").write_bytes(b"")
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.xml is damaged, or no exported model"):
        openvino_file.read(path)
