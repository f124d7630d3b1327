"""Files of models: what is saved can be loaded, what cannot be is refused by name."""

import dataclasses

import numpy as np
import pytest
import torch

import destseg
from destseg.artifacts import destseg_file
from destseg.inference.calibration import Calibration
from destseg.model.tensorfile import read_tensors, write_tensors


def test_a_loaded_model_predicts_the_same(fitted, picture, tmp_path):
    fitted.save(tmp_path / "part.destseg")
    model = destseg.load(tmp_path / "part.destseg")
    assert model.predict(picture).to_dict() == fitted.predict(picture).to_dict()
    assert model.losses_ == pytest.approx(fitted.losses_)
    assert model.calibration_ == fitted.calibration_
    assert [path.name for path in tmp_path.iterdir()] == ["part.destseg"]


def test_damaged_truncated_and_foreign_files_are_refused(fitted, tmp_path):
    path = tmp_path / "part.destseg"
    fitted.save(path)
    whole = path.read_bytes()
    middle = len(whole) // 2
    damaged = (
        whole[:middle] + bytes(byte ^ 0xFF for byte in whole[middle : middle + 64]) + whole[middle + 64 :]
    )
    for content in (damaged, whole[:middle], b"", b"GIF89a nothing of ours"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"part\.destseg is damaged, truncated or not a file of tensors"):
            destseg.load(path)
    torch.save({"weight": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match="is not a destseg model: it holds other tensors"):
        destseg.load(path)
    torch.save({"format": "destseg model 99"}, path)
    with pytest.raises(ValueError, match='"destseg model 99" and this version reads a'):
        destseg.load(path)
    torch.save(fitted.network_.state_dict(), path)
    with pytest.raises(ValueError, match=r"use DeSTSeg\.from_checkpoint"):
        destseg.load(path)
    with pytest.raises(FileNotFoundError, match="no such file"):
        destseg.load(tmp_path / "missing")


def test_a_forbidden_file_is_not_called_damaged(fitted, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError("not yours")

    fitted.save(tmp_path / "m")
    monkeypatch.setattr("builtins.open", refuse)  # root may open everything
    with pytest.raises(PermissionError, match="not yours"):
        destseg.load(tmp_path / "m")


def test_settings_made_with_numpy_can_be_loaded_again(picture, tmp_path):
    switches = {"segmentation": np.bool_(False), "precision": np.str_("float32")}
    model = destseg.DeSTSeg(image_size=64, seed=np.int64(3), **switches)
    rate = {"false_positive_rate": np.float64(0.1)}
    model.fit([picture], (1, 0), 1, progress=False, checkpoint=tmp_path / "c", **rate)
    model.save(tmp_path / "m")
    loaded = destseg.load(tmp_path / "m")
    assert (loaded.seed, loaded.precision, loaded.segmentation) == (3, "float32", False)
    assert loaded.calibration_ == model.calibration_
    assert read_tensors(tmp_path / "c")["plan"]["seed"] == 3


def test_a_failed_save_leaves_the_old_file(fitted, tmp_path, monkeypatch):
    path = tmp_path / "part.destseg"
    fitted.save(path)
    before = path.read_bytes()
    monkeypatch.setattr(torch, "save", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        fitted.save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_model_file_holds_its_metadata(fitted, tmp_path):
    fitted.save(tmp_path / "m")
    content = destseg_file.read(tmp_path / "m")
    assert content.versions["destseg"] == destseg.__version__
    assert content.settings == fitted.settings and content.settings.roi is None
    assert (content.engine, content.precision, content.start) == ("torch", "float32", None)
    stored = read_tensors(tmp_path / "m")
    assert stored["settings"]["preset"] == "fast" and stored["settings"]["teacher"] == "embedded"
    assert stored["settings"]["image_size"] == [64, 64] and stored["settings"]["seed"] == 0
    thresholds = stored["calibration"]
    assert thresholds["threshold"] == fitted.threshold_ == content.calibration.threshold
    assert thresholds["pixel_threshold"] == fitted.pixel_threshold_
    assert len(content.losses) == len(fitted.losses_)
    assert any(name.startswith("teacher_net.") for name in content.network)


def test_a_model_calibrated_with_very_many_pictures_can_be_loaded_again(fitted, tmp_path):
    """Scores and groups as plain values would be more of them than a file may hold."""
    scores = tuple(np.random.default_rng(0).random(300_000).tolist())
    groups = tuple(k // 2 for k in range(len(scores)))
    calibration = Calibration(scores, scores[::-1], 0.1, groups=groups)
    fitted.save(tmp_path / "a")
    read = destseg_file.read(tmp_path / "a")
    destseg_file.write(tmp_path / "b", read.network, dataclasses.replace(read, calibration=calibration))
    found = destseg_file.read(tmp_path / "b").calibration
    assert found == calibration
    assert {type(found.scores[0]), type(found.pixel_scores[0])} == {float} and type(found.groups[0]) is int


def rewritten(model, path, **settings):
    """Save a model, and write other settings into its file; None takes one out."""
    model.save(path)
    content = read_tensors(path)
    content["settings"] |= settings
    for name in [name for name, value in settings.items() if value is None]:
        del content["settings"][name]
    write_tensors(path, content)


def test_settings_of_a_newer_version_are_refused(fitted, tmp_path):
    rewritten(fitted, tmp_path / "m", sharpness=3)
    with pytest.raises(
        ValueError, match=r"m is not a destseg model of this version: unknown settings sharpne"
    ):
        destseg.load(tmp_path / "m")


def test_settings_of_another_network_are_refused(fitted, tmp_path):
    rewritten(fitted, tmp_path / "m", segmentation=False)
    with pytest.raises(ValueError, match=r"m does not belong to this network: it has memory_bank\."):
        destseg.load(tmp_path / "m")


def test_a_region_that_is_a_path_is_refused(fitted, tmp_path):
    rewritten(fitted, tmp_path / "m", roi=str(tmp_path / "mask.png"))
    with pytest.raises(ValueError, match="roi must be points or a mask in a file, got str"):
        destseg.load(tmp_path / "m")


def test_a_copy_with_other_thresholds_has_all_else(fitted, tmp_path):
    source, copy = tmp_path / "a", tmp_path / "b"
    fitted.save(source)
    other = fitted.calibration_.at_rate(0.5)
    for path in (copy, source):  # also onto itself
        changed = dataclasses.replace(destseg_file.read(source), calibration=other)
        destseg_file.set_threshold(source, path, changed)
        found = destseg_file.read(path)
        assert found.calibration == other != fitted.calibration_
        assert (found.settings, found.losses) == (fitted.settings, pytest.approx(fitted.losses_))
        state = fitted.network_.state_dict()
        assert found.network.keys() == state.keys()
        assert all(torch.equal(value, state[name]) for name, value in found.network.items())


def test_thresholds_belong_to_the_precision_they_were_made_in(fitted, picture, tmp_path, caplog):
    path = tmp_path / "part.destseg"
    rewritten(fitted, path, inference_precision="float16")
    model = destseg.load(path, "cpu")
    assert model.inference_precision == "float32" and model.threshold_ == fitted.threshold_
    assert caplog.messages == [
        f"{path} was calibrated in float16 on a GPU; here it predicts in float32, and scores differ a little"
    ]
    model = destseg.load(path, "cpu", "float32")  # by wish: to be calibrated anew
    with pytest.raises(RuntimeError, match=r"no thresholds yet: call calibrate\(normal\)"):
        model.predict(picture)
    assert model.calibrate([picture], 0.5).threshold_ is not None
    with pytest.raises(ValueError, match="must be float32 on device 'cpu'"):
        destseg.load(path, "cpu", "float16")
    assert len(caplog.messages) == 1


def test_models_that_do_not_tell_their_precision_predict_in_float32(fitted, picture, tmp_path):
    path = tmp_path / "part.destseg"
    rewritten(fitted, path, inference_precision=None)
    model = destseg.load(path, inference_precision="float32")
    assert model.predict(picture).to_dict() == fitted.predict(picture).to_dict()


@pytest.mark.parametrize("ending", [".onnx", ".xml", ".bin", ".pt2", ".ONNX"])
def test_names_of_exported_models_are_refused(fitted, tmp_path, ending):
    words = rf"part{ending}: names that end in {ending.lower()} are .* as part\.destseg, and then exp"
    if ending in (".bin", ".pt2"):
        words = rf"part{ending} is no model: "
    with pytest.raises(ValueError, match=words):
        fitted.save(tmp_path / f"part{ending}")
    assert not list(tmp_path.iterdir())


def test_a_region_that_was_calibrated_with_belongs_to_the_model(fitted, few_parts, tmp_path):
    fitted.save(tmp_path / "m")
    model, region = destseg.load(tmp_path / "m"), [(0, 0), (40, 0), (40, 30), (0, 30)]
    model.calibrate(few_parts, 0.5, roi=region)
    assert [tuple(point) for point in model.roi.points] == region
    model.save(tmp_path / "m")
    loaded = destseg.load(tmp_path / "m")
    for found in (model.predict(few_parts), loaded.predict(few_parts)):
        assert [one.score for one in found] == list(model.calibration_.scores)
        assert not any(one.anomaly_map[31:].any() for one in found)
    assert fitted.roi is None
