"""What a file says beside its graph, files of others, and engines that are missing."""

import dataclasses
import pathlib
import sys

import numpy as np
import pytest

from destseg.artifacts.artifact import Artifact, artifact_from, import_package, stored_settings
from destseg.inference.calibration import Calibration
from destseg.pictures.roi import RegionOfInterest
from destseg.settings import Settings

PATH = pathlib.Path("x.onnx").absolute()
REGION = [[0.0, 0.0], [40.0, 0.0], [40.0, 30.0]]


def started(settings):
    return settings


def test_a_description_comes_back_whole():
    settings = Settings("fast", image_size=(64, 96), seed=3, roi=RegionOfInterest(REGION))
    calibration = Calibration((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), 0.25)
    artifact = Artifact(settings, calibration, {"destseg": "1", "torch": "2"}, "onnx", "int8")
    found = artifact_from(artifact.description(), PATH, "onnx", started)
    assert found.start() == found.settings == settings
    assert found.settings.roi.stored() == settings.roi.stored()
    assert (found.network, found.losses, found.path) == (None, [], PATH)
    expected = dataclasses.replace(artifact, path=PATH, start=found.start)
    assert found == expected and found.description() == artifact.description()
    other = dataclasses.replace(found, calibration=calibration.at_rate(0.5))
    assert other.calibration.threshold == 0.2 and found.calibration == calibration


def test_files_of_others_are_told_from_ours():
    for text, words in (("null", "not exported"), ("{}", "format"), ('{"format": "destseg export 9"}', "9")):
        with pytest.raises(ValueError, match=f"by this version.*{words}|{words}"):
            artifact_from(text, PATH, "onnx", started)


def test_a_region_in_a_file_is_never_a_path(tmp_path):
    """Who loads a file does not want it to name others that are opened."""
    stored = Settings("fast").stored()
    for region in (str(tmp_path / "mask.png"), b"mask.png"):
        with pytest.raises(ValueError, match="roi must be points or a mask in a file, got a path"):
            stored_settings(stored | {"roi": region})
    mask = np.eye(8, dtype=bool)
    np.testing.assert_array_equal(stored_settings(stored | {"roi": mask}).roi.stored(), mask)
    assert stored_settings(stored).roi is None


@pytest.mark.parametrize(
    ("name", "extra"),
    [("openvino", "openvino"), ("onnxruntime", "onnx"), ("onnx", "export"), ("nncf", "export")],
)
def test_a_missing_engine_names_what_to_install(monkeypatch, name, extra):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=rf"{name} is missing.*pip install 'destseg\[{extra}\]'"):
        import_package(name)
