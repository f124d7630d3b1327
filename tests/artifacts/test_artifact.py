"""What a file says beside its graph, and files of others."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest
import torch

from destseg.artifacts import destseg_file
from destseg.artifacts.artifact import Artifact, artifact_from, stored_settings
from destseg.artifacts.record import FitRecord
from destseg.inference.calibration import Calibration
from destseg.model.tensorfile import write_tensors
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


def without(content, *names):
    """Return a nested dict without one entry, which is named by its path."""
    first, *rest = names
    if not rest:
        return {name: value for name, value in content.items() if name != first}
    return content | {first: without(content[first], *rest)}


def changed(content, value, *names):
    first, *rest = names
    return content | {first: changed(content[first], value, *rest) if rest else value}


RECORD = FitRecord(213, 3, 170, 40, (600, 800), 8, "", 5.0, "", "cpu")
WHOLE = json.loads(
    Artifact(
        Settings(), Calibration((0.1, 0.2), (0.4, 0.5), 0.25), {"destseg": "1", "torch": "2"}, record=RECORD
    ).description()
)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (without(WHOLE, "settings"), "it lacks settings"),
        (without(WHOLE, "calibration"), "it lacks calibration"),
        (without(WHOLE, "versions"), "it lacks versions"),
        (without(WHOLE, "calibration", "scores"), "it lacks scores"),
        (without(WHOLE, "record", "steps"), "it lacks steps"),
        (without(WHOLE, "record", "pictures"), "it lacks pictures"),
        (
            changed(WHOLE, 1, "record", "weather"),
            "unknown entries weather in its record: a newer version of destseg wrote them",
        ),
        (
            changed(WHOLE, 1, "settings", "weather"),
            "unknown settings weather: a newer version of destseg wro",
        ),
        (changed(WHOLE, None, "settings"), "its settings must be a mapping, got NoneType"),
        (changed(WHOLE, [1], "settings"), "its settings must be a mapping, got list"),
        (changed(WHOLE, 5, "calibration"), "its calibration must be a mapping, got int"),
        (changed(WHOLE, "x", "record"), "its record must be a mapping, got str"),
        (changed(WHOLE, 5, "calibration", "scores"), "an entry has another form than expected"),
        (changed(WHOLE, "much", "settings", "image_size"), "image_size must be"),
    ],
)
def test_what_is_missing_or_unknown_in_a_file_is_said_in_a_sentence(content, words, tmp_path):
    prefix = f"{PATH} was not exported by this version of destseg: "
    with pytest.raises(ValueError) as refused:
        artifact_from(json.dumps(content), PATH, "onnx", started)
    assert str(refused.value).startswith(prefix + words)
    stored = content | {"format": "destseg model 1", "losses": torch.zeros(1), "network": {}}
    write_tensors(tmp_path / "m", stored)
    if "calibration" not in content:  # a fitted model may have none
        assert destseg_file.read(tmp_path / "m").calibration is None
        return
    with pytest.raises(ValueError) as refused:
        destseg_file.read(tmp_path / "m")
    assert str(refused.value).startswith(f"{tmp_path / 'm'} is not a destseg model of this version: {words}")
