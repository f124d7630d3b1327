"""Files of models: what is saved can be loaded, what cannot be is refused by name; published checkpoints."""

import pathlib
from fractions import Fraction

import numpy as np
import pytest
import torch

import destseg
from destseg import engines, modelfile
from destseg.files import read_tensors, write_tensors


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


def test_settings_made_with_numpy_can_be_loaded_again(picture, teacher_weights, tmp_path):
    switches = {"segmentation": np.bool_(False), "teacher_weights": teacher_weights}
    model = destseg.DeSTSeg(image_size=64, seed=np.int64(3), precision=np.str_("float32"), **switches)
    rate = {"false_positive_rate": np.float64(0.1)}
    model.fit([picture], (1, 0), 1, progress=False, checkpoint=tmp_path / "c", **rate)
    model.save(tmp_path / "m")
    loaded = destseg.load(tmp_path / "m")
    assert (loaded.seed, loaded.precision, loaded.segmentation) == (3, "float32", False)
    assert loaded.calibration_ == model.calibration_
    assert read_tensors(tmp_path / "c")["plan"]["seed"] == 3


@pytest.mark.parametrize("value", [np.zeros(2), pathlib.PurePosixPath("a"), Fraction(1, 2)])
def test_what_could_not_be_read_again_is_not_written(tmp_path, value):
    words = rf"content\['a'\]\[1\] must be a tensor, number, string, .* got .*{type(value).__name__}$"
    with pytest.raises(TypeError, match=words):
        write_tensors(tmp_path / "file", {"a": [0, value]})
    assert not list(tmp_path.iterdir())


def test_a_failed_save_leaves_the_old_file(fitted, tmp_path, monkeypatch):
    path = tmp_path / "part.destseg"
    fitted.save(path)
    before = path.read_bytes()
    monkeypatch.setattr(torch, "save", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        fitted.save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_published_checkpoints_load_by_name(fitted, picture, tmp_path):
    path = tmp_path / "published.pckl"
    state = fitted.network_.state_dict()
    torch.save(state, path)
    model = destseg.DeSTSeg.from_checkpoint(path, image_size=64)
    with pytest.raises(RuntimeError, match=r"call calibrate\(normal\)"):
        model.predict(picture)
    with pytest.raises(RuntimeError, match=r"call calibrate\(normal\)"):
        model.calibrate()
    model.calibrate([picture, picture[:, ::-1]])
    assert model.predict(picture).score == fitted.predict(picture).score
    torch.save({key: value.half() for key, value in state.items()}, path)
    in_half = destseg.DeSTSeg.from_checkpoint(path, image_size=64).calibrate([picture])
    assert in_half.predict(picture).score == pytest.approx(fitted.predict(picture).score, abs=1e-2)
    name = "segmentation_net.head.4.bias"
    torch.save({key: value for key, value in state.items() if key != name}, path)
    with pytest.raises(ValueError, match=r"lacks the tensor segmentation_net\.head\.4\.bias of shape \(1,\)"):
        destseg.DeSTSeg.from_checkpoint(path)
    destseg.DeSTSeg.from_checkpoint(path, segmentation=False)
    torch.save(state | {name: torch.zeros(7)}, path)
    with pytest.raises(ValueError, match=r"bias must have shape \(1,\), got \(7,\)"):
        destseg.DeSTSeg.from_checkpoint(path)


def test_a_model_file_holds_its_metadata(fitted, tmp_path):
    fitted.save(tmp_path / "m")
    content = modelfile.read(tmp_path / "m")
    assert content.versions["destseg"] == destseg.__version__
    assert content.settings["preset"] == "paper" and content.settings["image_size"] == [64, 64]
    assert content.settings["seed"] == 0
    thresholds = read_tensors(tmp_path / "m")["calibration"]
    assert thresholds["threshold"] == fitted.threshold_ == content.calibration.threshold
    assert thresholds["pixel_threshold"] == fitted.pixel_threshold_
    assert len(content.losses) == len(fitted.losses_)
    assert any(name.startswith("teacher_net.") for name in content.network)


def test_thresholds_belong_to_the_precision_they_were_made_in(fitted, picture, tmp_path, caplog):
    path = tmp_path / "part.destseg"
    settings = fitted._settings() | {"inference_precision": "float16"}
    modelfile.write(path, fitted.network_, settings, fitted.calibration_, [])
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
    with pytest.raises(ValueError, match=r"inference_precision of part\.xml was chosen by export"):
        destseg.load("part.xml", inference_precision="float16")


def test_models_that_do_not_tell_their_precision_predict_in_float32(fitted, picture, tmp_path):
    path = tmp_path / "part.destseg"
    settings = {name: value for name, value in fitted._settings().items() if name != "inference_precision"}
    modelfile.write(path, fitted.network_, settings, fitted.calibration_, [])
    model = destseg.load(path, inference_precision="float32")
    assert model.predict(picture).to_dict() == fitted.predict(picture).to_dict()


@pytest.mark.parametrize("ending", [".onnx", ".xml", ".bin", ".pt2", ".ONNX"])
def test_names_of_exported_models_are_refused(fitted, tmp_path, ending):
    words = rf"part{ending}: names that end in .onnx, .xml, .bin, .pt2 are .* as part\.destseg, and then exp"
    with pytest.raises(ValueError, match=words):
        fitted.save(tmp_path / f"part{ending}")
    assert not list(tmp_path.iterdir()) and engines.is_exported(f"part{ending}")
    assert set(engines.ENDINGS.values()) < set(modelfile.EXPORTED)


def test_a_region_that_was_calibrated_with_belongs_to_the_model(fitted, few_parts, tmp_path):
    fitted.save(tmp_path / "m")
    model, region = destseg.load(tmp_path / "m"), [(0, 0), (40, 0), (40, 30), (0, 30)]
    model.calibrate(few_parts, 0.5, roi=region)
    assert model.roi == region
    model.save(tmp_path / "m")
    loaded = destseg.load(tmp_path / "m")
    for found in (model.predict(few_parts), loaded.predict(few_parts)):
        assert [one.score for one in found] == list(model.calibration_.scores)
        assert not any(one.anomaly_map[31:].any() for one in found)
    assert fitted.roi is None
