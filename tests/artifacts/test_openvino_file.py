"""OpenVINO's two files: names in capitals, weights that are missing, files of others."""

import shutil

import pytest
from engines import needs

import destseg
from destseg.artifacts import openvino_file


def test_names_in_capitals_are_found_again(light, picture, tmp_path):
    needs(".xml")
    path = tmp_path / "PART.XML"
    light.export(path)
    assert sorted(part.name for part in tmp_path.iterdir()) == ["PART.XML", "PART.bin"]
    assert destseg.load(path).predict(picture).score == pytest.approx(light.predict(picture).score, abs=1e-3)
    destseg.load(path).calibrate(false_positive_rate=0.5).save(path)
    assert sorted(part.name for part in tmp_path.iterdir()) == ["PART.XML", "PART.bin"]
    assert destseg.load(path).threshold_ == light.calibration_.at_rate(0.5).threshold


def test_a_graph_without_our_description_is_refused(exported, tmp_path):
    openvino = pytest.importorskip("openvino")
    opset, path = openvino.opset13, tmp_path / "x.xml"
    parameter = opset.parameter([1, 3])
    model = openvino.Model([opset.relu(parameter)], [parameter])
    openvino.serialize(model, path)
    with pytest.raises(ValueError, match=r"x\.xml was not exported by this version of destseg"):
        openvino_file.read(path)
    shutil.copy(exported(".xml"), path)  # whose weights are longer than those that lie there
    with pytest.raises(ValueError, match=r"x\.xml is damaged, or no exported model"):
        destseg.load(path)
