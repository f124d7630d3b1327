"""What a file says beside its graph, and files of others."""

import dataclasses
import json
import math
import pathlib

import numpy as np
import pytest
import torch

from destseg.artifacts import destseg_file
from destseg.artifacts.artifact import Artifact, artifact_from, stored_settings
from destseg.artifacts.digest import sealed
from destseg.artifacts.record import FitRecord
from destseg.inference.calibration import TOLERANCE, Calibration
from destseg.model.tensorfile import write_tensors
from destseg.pictures.roi import RegionOfInterest
from destseg.settings import EXPORT_PRECISIONS, Settings

PATH = pathlib.Path("x.onnx").absolute()
REGION = [[0.0, 0.0], [40.0, 0.0], [40.0, 30.0]]


def started(settings):
    return settings


def artifact_of(description):
    """Read a file that holds nothing but its description."""
    content = sealed(description.encode())
    return artifact_from(content.decode(), PATH, "onnx", started, {PATH: content})


def test_a_description_comes_back_whole():
    settings = Settings("fast", image_size=(64, 96), seed=3, roi=RegionOfInterest(REGION))
    calibration = Calibration((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), 0.25)
    artifact = Artifact(settings, calibration, {"destseg": "1", "torch": "2"}, "onnx", "int8")
    found = artifact_of(artifact.description())
    assert found.start() == found.settings == settings
    assert found.settings.roi.stored() == settings.roi.stored()
    assert (found.network, found.losses, found.path) == (None, [], PATH)
    expected = dataclasses.replace(artifact, path=PATH, start=found.start)
    assert found == expected and found.description() == artifact.description()
    other = dataclasses.replace(found, calibration=calibration.at_rate(0.5))
    assert other.calibration.threshold == 0.2 + TOLERANCE and found.calibration == calibration


def test_files_of_others_are_told_from_ours():
    for text, words in (("null", "not exported"), ("{}", "format"), ('{"format": "destseg export 9"}', "9")):
        with pytest.raises(ValueError, match=f"by this version.*{words}|{words}"):
            artifact_of(text)


def test_a_region_in_a_file_is_points_or_a_mask(tmp_path):
    """Who loads a file does not want it to name others that are opened: /dev/zero takes all memory."""
    stored = Settings("fast").stored()
    for region in ("/dev/zero", tmp_path / "mask.png", b"mask.png", {"a": 1}, 3, True):
        words = f"roi must be points or a mask in a file, got {type(region).__name__}"
        with pytest.raises(ValueError, match=words):
            stored_settings(stored | {"roi": region})
    mask = np.eye(8, dtype=bool)
    for region in (mask, torch.from_numpy(mask)):
        np.testing.assert_array_equal(stored_settings(stored | {"roi": region}).roi.stored(), mask)
    assert stored_settings(stored | {"roi": REGION}).roi.stored() == REGION
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
        (changed(WHOLE, 5, "calibration", "scores"), "its scores must be a list of numbers, got 5"),
        (changed(WHOLE, ["0.1", 0.2], "calibration", "scores"), "its scores must be a list of numbers"),
        (changed(WHOLE, "12", "calibration", "pixel_scores"), "its pixel_scores must be a list of numbers"),
        (changed(WHOLE, "high", "calibration", "threshold"), "its threshold must be a list of numbers"),
        (changed(WHOLE, "0.1", "calibration", "false_positive_rate"), "false_positive_rate must lie between"),
        (changed(WHOLE, [0, 2.5], "calibration", "groups"), "groups must be a whole number of at least 0"),
        (changed(WHOLE, 7, "calibration", "groups"), "an entry has another form"),
        (changed(WHOLE, True, "settings", "seed"), "seed must be a whole number of at least 0, got True"),
        (changed(WHOLE, 2**40, "settings", "tile"), "tile must have sides of at most 1048576 pixels, got"),
        (changed(WHOLE, True, "record", "rotate"), 'rotate must be "auto", "90" '),
        (changed(WHOLE, 2**70, "record", "pictures"), "pictures must be a whole number of at least 0, up"),
        (changed(WHOLE, "x" * 10**5, "settings", "preset"), "preset must be one of"),
        (changed(WHOLE, "much", "settings", "image_size"), "image_size must be"),
        (changed(WHOLE, [1], "versions"), "its versions must be a mapping, got list"),
        (changed(WHOLE, 2, "versions", "torch"), "its version of torch must be a text, got 2"),
        (
            changed(WHOLE, [], "calibration", "scores"),
            "calibration needs as many pixel scores as",
        ),
        (
            changed(WHOLE, [0.1, math.nan], "calibration", "scores"),
            "its scores must be finite",
        ),
        (
            changed(WHOLE, [math.inf] * 2, "calibration", "pixel_scores"),
            "its pixel_scores must be finite",
        ),
        (
            changed(WHOLE, [0.1], "calibration", "pixel_scores"),
            "calibration needs as many pixel scores as scores, got 1 and 2",
        ),
        (changed(WHOLE, [0], "calibration", "groups"), "there must be one group for each of 2 scores, got 1"),
        (
            changed(WHOLE, 1, "calibration", "false_positive_rate"),
            "false_positive_rate must lie between",
        ),
        (changed(WHOLE, "no", "calibration", "trained_on"), "trained_on must be True or False, got 'no'"),
    ],
)
def test_what_is_missing_or_unknown_in_a_file_is_said_in_a_sentence(content, words, tmp_path):
    prefix = f"{PATH} was not exported by this version of destseg: "
    with pytest.raises(ValueError) as refused:
        artifact_of(json.dumps(content))
    assert str(refused.value).startswith(prefix + words)
    assert len(str(refused.value)) < 1000
    stored = content | {"format": "destseg model 1", "losses": torch.zeros(1), "network": {}}
    write_tensors(tmp_path / "m", stored)
    if "calibration" not in content:  # a fitted model may have none
        assert destseg_file.read(tmp_path / "m").calibration is None
        return
    with pytest.raises(ValueError) as refused:
        destseg_file.read(tmp_path / "m")
    assert str(refused.value).startswith(f"{tmp_path / 'm'} is not a destseg model of this version: {words}")


def places(content, *names):
    """Yield the path of every entry in nested dicts."""
    for name, value in content.items():
        yield (*names, name)
        if isinstance(value, dict):
            yield from places(value, *names, name)


VALUES = [
    None,
    True,
    0,
    -1,
    2,
    10**18,
    10**400,
    0.5,
    math.nan,
    math.inf,
    "",
    "x",
    "/dev/zero",
    [],
    [1],
    [64, 96],
]
VALUES += [["a", "b"], [10**9, 10**9], {}, {"a": 1}, [[1, 2], [3]], "1" * 99]
TENSORS = [torch.tensor(1), torch.tensor([]), torch.zeros(3, 2), torch.tensor(math.nan), {1, 2}, (1, 2)]
TENSORS += [torch.float32, torch.zeros(2, dtype=torch.complex64)]
KINDS = {  # of settings
    **dict.fromkeys(("denoising", "encoder_decoder", "segmentation", "bounded", "keep_aspect"), bool),
    **dict.fromkeys(("preset", "teacher", "precision", "inference_precision"), str),
    **{"image_size": (int, tuple), "seed": int, "overlap": float, "tile": (int, tuple, type(None))},
    **{"memory_bank": bool, "student_encoder": bool, "bit_depth": (int, type(None))},
    **{"roi": (RegionOfInterest, type(None))},
}


def check_use(artifact):
    """A file that was read can be used: whatever is shown or compared is what it should be."""
    assert {name: type(value) for name, value in vars(artifact.settings).items()}.keys() == KINDS.keys()
    for name, kind in KINDS.items():
        assert isinstance(getattr(artifact.settings, name), kind), name
    assert artifact.settings.seed < 2**63 and math.prod(artifact.settings.size) <= 4096**2
    assert artifact.precision in EXPORT_PRECISIONS
    assert artifact.versions["destseg"] + artifact.versions["torch"]
    if artifact.calibration is not None:
        assert math.isfinite(artifact.calibration.threshold + artifact.calibration.pixel_threshold)
        assert type(artifact.calibration.trained_on) is bool and artifact.calibration.promise()
        json.loads(artifact.description())
    if artifact.record is not None:
        assert artifact.record.lines()


@pytest.mark.parametrize("name", list(places(WHOLE)), ids="-".join)
def test_whatever_an_entry_holds_it_is_refused_by_name_or_can_be_used(name, tmp_path):
    for value in VALUES:
        try:
            check_use(artifact_of(json.dumps(changed(WHOLE, value, *name))))
        except ValueError as error:
            assert str(error).startswith(str(PATH))
    path = tmp_path / "m"
    for value in VALUES[:6] + TENSORS:
        content = changed(WHOLE, value, *name) | {"losses": torch.zeros(1), "network": {}}
        torch.save({"format": "destseg model 1"} | without(content, "format"), path)
        try:
            check_use(destseg_file.read(path))
        except ValueError as error:
            assert str(error).startswith(str(path))


@pytest.mark.parametrize("name", ["losses", "network"])
def test_tensors_that_are_none_are_refused_by_name(name, tmp_path):
    for value in (None, 5, ["x"], "x", torch.zeros(2, 2, dtype=torch.complex64)):
        torch.save(
            WHOLE | {"format": "destseg model 1", "losses": torch.zeros(1), "network": {}, name: value},
            tmp_path / "m",
        )
        with pytest.raises(ValueError, match=r"m is not a destseg model of this version: "):
            destseg_file.read(tmp_path / "m")
