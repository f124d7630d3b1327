"""OpenVINO's two files: names in capitals, weights that are missing, files of others."""

import errno
import os
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


@pytest.mark.parametrize("fine", [0, 1])
def test_on_a_full_disk_an_older_model_stays_whole(light, tmp_path, monkeypatch, fine):
    """Whichever of its two files it is that cannot be written."""

    def fsync(number):
        synced.append(number)
        if len(synced) > fine:
            raise OSError(errno.ENOSPC, "No space left on device")

    needs(".xml")
    path, synced = tmp_path / "part.xml", []
    light.export(path)
    before = {part.name: part.read_bytes() for part in tmp_path.iterdir()}
    model = destseg.load(path).calibrate(false_positive_rate=0.5)
    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match=r"part\.(bin|xml) cannot be written: .*No space left"):
        model.save(path)
    assert {part.name: part.read_bytes() for part in tmp_path.iterdir()} == before


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
