"""Files of destseg 0.1.0 load, predict what that version predicted, and can be worked with further.

They lie in tests/data/version_0_1_0, compressed, with what was recorded and the script that made them.
"""

import json
import lzma
import math
import pathlib

import numpy as np
import PIL.Image
import pytest
from engines import run_whole

import destseg
from destseg.inference.calibration import TOLERANCE
from destseg.model.tensorfile import read_tensors
from destseg.ops.perlin import perlin

FOLDER = pathlib.Path(__file__).parents[1] / "data" / "version_0_1_0"
EXPECTED = json.loads((FOLDER / "expected.json").read_text())
ENGINES = {".destseg": None, ".onnx": "onnxruntime", ".xml": "openvino"}
TEACHER = "teacher_net.encoder."


@pytest.fixture
def unpacked(tmp_path):
    """Writes files of that version out, to be changed at will, and returns the path of the first."""

    def write(*names):
        for name in names:
            (tmp_path / name).write_bytes(lzma.decompress((FOLDER / f"{name}.xz").read_bytes()))
        return tmp_path / names[0]

    return write


@pytest.fixture
def model_file(unpacked):
    """Writes out the model's file of an ending."""

    def write(ending):
        if ENGINES[ending]:
            pytest.importorskip(ENGINES[ending])
        return unpacked(f"model{ending}", *(["model.bin"] if ending == ".xml" else []))

    return write


@pytest.fixture(scope="module")
def normal():
    """The pictures that the script drew, (12, 64, 96, 3) uint8."""
    return np.stack(list(pictures()))


def pictures():
    for k in range(12):
        generator = np.random.default_rng([9, k])
        rows, columns = np.mgrid[0:64, 0:96]
        disc = np.hypot(rows - 32, columns - 48) < 20
        values = 90 + 40 * np.sin(rows / 9 + generator.uniform(0, 1)) + 30 * disc
        values = values[..., None] * [1.0, 0.9, 0.8] + generator.normal(0, 4, (64, 96, 1))
        yield values.clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def odd(normal):
    """The first of them with a white patch."""
    picture = normal[0].copy()
    picture[20:30, 40:60] = 255
    return picture


@pytest.mark.parametrize("ending", ENGINES)
def test_models_predict_what_was_recorded(model_file, normal, odd, ending):
    model = destseg.load(model_file(ending), "cpu")
    assert (model.preset, model.teacher, model.image_size, model.seed) == ("fast", "embedded", (64, 96), 3)
    assert (model.precision, model.inference_precision, model.roi) == ("float32", "float32", None)
    assert model.losses_ == ([0.5, 0.25] if ending == ".destseg" else [])
    threshold, pixel_threshold = (EXPECTED[name] + TOLERANCE for name in ("threshold", "pixel_threshold"))
    assert (model.threshold_, model.pixel_threshold_) == (threshold, pixel_threshold)
    found = model.predict(np.stack([odd, *normal[:3]]))
    assert [one.score for one in found] == pytest.approx(EXPECTED["scores"], abs=1e-5)
    assert found[0].p_value == EXPECTED["p_value"] and found[0].is_anomalous
    assert all(one.threshold == threshold for one in found)
    large = model.predict(np.asarray(PIL.Image.fromarray(odd).resize((120, 100))))
    assert large.score == pytest.approx(EXPECTED["large"]["score"], abs=1e-5)
    np.testing.assert_allclose(large.anomaly_map[::20, ::24], EXPECTED["large"]["map"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("ending", ENGINES)
def test_models_are_calibrated_and_saved(model_file, normal, ending, tmp_path):
    model = destseg.load(model_file(ending), "cpu").calibrate(normal, 0.5)
    for path in (tmp_path / f"other{ending}", tmp_path / f"model{ending}"):  # a new file, and the old one
        model.save(path)
        loaded = destseg.load(path, "cpu")
        assert loaded.calibration_ == model.calibration_ and loaded.settings == model.settings
        assert loaded.threshold_ == sorted(loaded.calibration_.scores)[6] + TOLERANCE < EXPECTED["threshold"]
        assert loaded.predict(normal[5]).score == model.predict(normal[5]).score
        if ending != ".destseg":
            whole = run_whole(path, normal)
            assert (whole["is_anomalous"] == (whole["score"] > np.float32(model.threshold_))).all()
            assert 4 <= whole["is_anomalous"].sum() <= 6


@pytest.mark.parametrize("ending", [".onnx", ".xml"])
def test_exported_models_without_a_checksum_load_with_a_warning(model_file, ending, caplog):
    path = model_file(ending)
    model = destseg.load(path)
    words = "was exported by an earlier version of destseg and has no checksum: damage would go unnoticed"
    assert caplog.messages == [f"{path} {words}; export it again"]
    caplog.clear()
    model.calibrate(false_positive_rate=0.5).save(path)
    assert destseg.load(path).calibration_ == model.calibration_
    assert not [message for message in caplog.messages if "checksum" in message]  # it has one now


def texture_of_that_version(size, generator):
    noise = np.zeros(size, np.float32)
    first_octave = int(generator.integers(1, 4))
    for octave in range(3):
        cells = 2 ** (first_octave + octave)
        angles = generator.uniform(0, 2 * math.pi, (cells + 1, cells + 1)).astype(np.float32)
        noise += 0.5**octave * perlin(angles, size)
    position = 0.5 + 0.5 * noise
    if generator.random() < 0.5:
        position = 0.5 + 0.5 * np.sin(generator.uniform(4, 40) * position)
    colours = generator.uniform(0, 255, (2, 3)).astype(np.float32)
    texture = colours[0] + position[..., None] * (colours[1] - colours[0])
    texture += generator.normal(0, generator.uniform(0, 20), (*size, 1))
    return texture.clip(0, 255).astype(np.uint8)


def test_a_fit_goes_on_from_its_checkpoint(unpacked, normal, monkeypatch):
    """By the textures of that version: later ones change what the fit goes on with, not how."""
    monkeypatch.setattr("destseg.training.textures.lie_alike", lambda store: False)  # newer than the file
    monkeypatch.setattr("destseg.training.textures.procedural_texture", texture_of_that_version)
    network = read_tensors(unpacked("model.destseg"))["network"]  # whose teacher is the one of that fit
    teacher = {k.removeprefix(TEACHER): value for k, value in network.items() if k.startswith(TEACHER)}
    checkpoint, recorded = unpacked("fit.checkpoint"), EXPECTED["resumed"]
    (first,) = read_tensors(checkpoint)["losses"].tolist()
    model = destseg.DeSTSeg(**recorded["settings"], teacher_weights=teacher, memory_bank=False)
    schedule = {"steps": (2, 1), "batch_size": 2, "workers": 0, "false_positive_rate": 0.2}
    model.fit(normal, resume=checkpoint, progress=False, **schedule)
    assert model.losses_[0] == recorded["losses"][0] == first
    assert model.losses_[1:] == pytest.approx(recorded["losses"][1:], rel=1e-3)
    assert model.calibration_.scores == pytest.approx(recorded["scores"], abs=1e-3)
    assert len(read_tensors(checkpoint)["losses"]) == 3  # it is written to at the end
