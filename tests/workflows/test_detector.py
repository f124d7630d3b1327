"""The detector: arguments, prediction of every kind of input, calibration, and the order of calls."""

import dataclasses
import shutil
import socket
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest
import torch

import destseg
from destseg.artifacts.artifact import Artifact
from destseg.inference.calibration import TOLERANCE, Calibration
from destseg.inference.robustness import CHANGES, PLAIN
from destseg.settings import Settings
from destseg.training.trainer import Trainer

FIELDS = [field.name for field in dataclasses.fields(Settings)]


def test_arguments_are_stored_as_given(teacher_weights):
    model = destseg.DeSTSeg("stpm", "resnet18", (64, 96), 3, "cpu", teacher_weights=teacher_weights)
    assert (model.preset, model.teacher, model.image_size, model.seed) == ("stpm", "resnet18", (64, 96), 3)
    assert (model.device, model.teacher_weights, model.precision) == ("cpu", teacher_weights, "auto")


def test_by_default_a_light_network_is_fitted_with_the_network_closed(few_parts, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise socket.gaierror("the network is closed")

    monkeypatch.delenv("DESTSEG_TEACHER_WEIGHTS", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    model = destseg.DeSTSeg()
    assert (model.preset, model.teacher, model.image_size, model.seed) == ("fast", "embedded", 256, 0)
    model.fit(few_parts, steps=(0, 0), progress=False, false_positive_rate=0.1)
    assert model.network_.light and 0 < model.threshold_ < 1
    published = destseg.DeSTSeg("paper")
    assert (published.preset, published.teacher) == ("paper", "resnet18")
    with pytest.raises(OSError, match="no teacher weights"):
        published.fit(few_parts)


def test_weights_are_those_of_resnet18_unless_their_teacher_is_named(picture, teacher_weights):
    for named, teacher in (({}, "resnet18"), ({"teacher": "embedded"}, "embedded")):
        model = destseg.DeSTSeg(image_size=64, teacher_weights=teacher_weights, **named)
        assert (model.preset, model.teacher) == ("fast", teacher)
        model.fit([picture], (0, 0), progress=False)
        given = torch.load(teacher_weights, weights_only=True)["conv1.weight"]
        assert torch.equal(model.network_.state_dict()["teacher_net.encoder.conv1.weight"], given)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"preset": "quick"}, r"preset must be one of paper, fast, stpm, got 'quick'"),
        ({"image_size": 32}, r"image_size must be .* at least 64, got 32"),
        ({"image_size": (64, 64, 3)}, r"image_size must be .* got \(64, 64, 3\)"),
        ({"image_size": 256.0}, r"image_size must be .* got 256.0"),
        ({"precision": "int8"}, r"precision must be one of auto, float32, bfloat16, got 'int8'"),
        ({"inference_precision": "int8"}, r"inference_precision must be one of float32, .*, got 'int8'"),
        ({"inference_precision": "float16", "device": "cpu"}, r"float32 on device 'cpu', .* got 'float16'"),
        ({"seed": -1}, r"seed must be a whole number of at least 0, got -1"),
        ({"seed": 0.5}, r"seed must be a whole number of at least 0, got 0\.5"),
    ],
)
def test_bad_arguments_are_refused_at_once(arguments, words):
    with pytest.raises(ValueError, match=words):
        destseg.DeSTSeg(**arguments)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"steps": (1, 2, 3)}, r"steps must be two whole numbers"),
        ({"steps": (-1, 2)}, r"steps must be two whole numbers.*got \(-1, 2\)"),
        ({"batch_size": 0}, r"batch_size must be a whole number of at least 1, got 0"),
        ({"false_positive_rate": 1.5}, r"false_positive_rate must lie between 0 and 1"),
        ({"rotate": "lots"}, r"rotate must be .* got 'lots'"),
        ({"flip": "diagonal"}, r"flip must be one of"),
        ({"augment": "strong"}, r"augment must be one of '', light, got 'strong'"),
        ({"held_out": -0.1}, r"held_out must be a share between 0 and 0.5, got -0\.1"),
        ({"held_out": 0.6}, r"held_out must be a share between 0 and 0.5, got 0\.6"),
        ({"held_out": float("nan")}, r"held_out must be a share between 0 and 0.5, got nan"),
        ({"memory": "2 GB"}, r"memory must be a number of at least 0, got '2 GB'"),
        ({"checkpoint_minutes": "10"}, r"checkpoint_minutes must be a number of at least 0, got '10'"),
        ({"drop_outliers": "no"}, r"drop_outliers must be True or False, got 'no'"),
        ({"workers": -1}, r"workers must be a whole number of at least 0, got -1"),
    ],
)
def test_bad_schedules_are_refused_before_anything_is_read(arguments, words):
    model = destseg.DeSTSeg(image_size=64, teacher_weights="missing")
    with pytest.raises(ValueError, match=words):
        model.fit("missing", **({"steps": (1, 1)} | arguments))


def test_fit_refuses_what_it_cannot_learn_from(tmp_path):
    model = destseg.DeSTSeg(image_size=64)
    with pytest.raises(ValueError, match="holds no pictures"):
        model.fit(tmp_path)
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(ValueError, match=r"1 file .*notes\.txt"):
        model.fit(tmp_path)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG nothing more")
    with pytest.raises(ValueError, match=r"none of 1 pictures can be read; the first: .*broken\.png"):
        model.fit(tmp_path)
    with pytest.raises(ValueError, match=r"NaN|nan"):
        model.fit([np.full((80, 80, 3), np.nan, np.float32)])
    with pytest.raises(ValueError, match="one dtype and one size"):
        model.fit(np.array([np.zeros((8, 8, 3)), np.zeros((9, 8, 3))], dtype=object))
    with pytest.raises(FileNotFoundError):
        model.fit(tmp_path / "missing")


def test_one_broken_picture_is_named_and_left_out(few_parts, tmp_path, caplog):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"not a picture")
    pictures = [*sorted(few_parts.iterdir())[:12], broken]
    model = destseg.DeSTSeg(image_size=64)
    model.fit(pictures, steps=(0, 0), progress=False)
    assert "broken.png" in caplog.text
    assert len(model.calibration_.scores) == 6
    with pytest.raises(ValueError, match=r"broken\.png"):
        model.fit(pictures, steps=(0, 0), progress=False, strict=True)


def test_calling_out_of_order_names_the_missing_step(picture, tmp_path):
    model = destseg.DeSTSeg(image_size=64)
    for call in (
        lambda: model.predict(picture),
        lambda: model.evaluate(tmp_path),
        lambda: model.save(tmp_path / "a"),
        lambda: model.calibrate([picture]),
    ):
        with pytest.raises(RuntimeError, match=r"call fit\(normal\)"):
            call()


def test_prediction_has_the_pictures_own_size(fitted, picture):
    large = np.asarray(PIL.Image.fromarray(picture).resize((300, 170)))
    prediction = fitted.predict(large)
    assert prediction.anomaly_map.shape == (170, 300)
    assert prediction.anomaly_map.dtype == np.float32
    assert prediction.mask.shape == (170, 300) and prediction.mask.dtype == bool
    assert np.array_equal(prediction.image, large)
    assert prediction.is_anomalous == (prediction.score > prediction.threshold)
    assert 0 < prediction.p_value <= 1


def test_every_way_to_hand_over_a_picture_gives_the_same(fitted, picture, tmp_path):
    path = tmp_path / "part.png"
    PIL.Image.fromarray(picture).save(path)
    ways = [path, str(path), path.read_bytes(), PIL.Image.open(path), torch.from_numpy(picture)]
    ways += [torch.from_numpy(picture).permute(2, 0, 1), np.dstack([picture, picture[..., :1]])]
    expected = fitted.predict(picture)
    for way in ways:
        prediction = fitted.predict(way)
        assert prediction.score == expected.score
        assert np.array_equal(prediction.anomaly_map, expected.anomaly_map)
    assert fitted.predict(path).source == str(path)


def test_the_map_follows_the_exif_orientation(fitted, picture, tmp_path):
    turned = PIL.Image.fromarray(np.rot90(picture).copy())
    exif = turned.getexif()
    exif[0x0112] = 6  # shown after a quarter turn clockwise
    turned.save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(
        fitted.predict(tmp_path / "turned.png").anomaly_map, fitted.predict(picture).anomaly_map
    )


def test_several_pictures_give_a_list_in_their_order(fitted, picture, few_parts, tmp_path, caplog):
    paths = sorted(few_parts.iterdir())
    assert [p.source for p in fitted.predict(few_parts)] == [str(path) for path in paths]
    assert len(fitted.predict(np.stack([picture, picture]))) == 2
    assert len(fitted.predict([picture])) == 1
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    results = fitted.predict([paths[0], broken, paths[1]])
    assert results[1] is None and results[0].source == str(paths[0]) and results[2].source == str(paths[1])
    assert "broken.jpg" in caplog.text
    with pytest.raises(ValueError, match=r"broken\.jpg"):
        fitted.predict([paths[0], broken], strict=True)
    with pytest.raises(ValueError, match=r"broken\.jpg"):
        fitted.predict(broken)


def test_an_anomalous_picture_always_has_a_mask(fitted, few_parts, tmp_path):
    fitted.save(tmp_path / "m")
    model = destseg.load(tmp_path / "m").calibrate(false_positive_rate=0.7)
    predictions = model.predict(few_parts)
    assert 0 < sum(prediction.is_anomalous for prediction in predictions) < 24
    for prediction in predictions:
        assert prediction.mask.any() or not prediction.is_anomalous
        assert sum(region.area for region in prediction.regions) == prediction.mask.sum()


def test_calibration_sets_thresholds_from_the_pictures_given(fitted, few_parts, tmp_path, caplog):
    fitted.save(tmp_path / "m")
    model = destseg.load(tmp_path / "m")
    model.calibrate(few_parts, false_positive_rate=0.25)
    found = model.predict(few_parts)
    scores = sorted(prediction.score for prediction in found)
    assert (
        model.threshold_ == scores[18] + TOLERANCE
    )  # of 24: the 19th smallest, 25 * 0.75 = 18.75 rounded up
    flagged = sorted(prediction.score for prediction in found if prediction.is_anomalous)
    assert flagged == [score for score in scores if score > scores[18] + TOLERANCE]  # 5, or fewer near ties
    model.calibrate(false_positive_rate=0.04)
    assert model.threshold_ == scores[-1] + TOLERANCE
    assert not caplog.records
    model.calibrate(false_positive_rate=0.01)
    assert "24 calibration pictures guarantee a false-positive rate of 0.04, not of 0.01" in caplog.text


def test_a_copy_scores_that_has_its_normalisations_merged(light, picture, tmp_path):
    def normalisations(network):
        return [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]

    light.save(tmp_path / "m")
    model = destseg.load(tmp_path / "m", "cpu")
    assert normalisations(model.network_) and not normalisations(model.scorer.network)
    seen = []
    model.scorer.network.student_net.register_forward_hook(lambda *_: seen.append(1))
    model.predict(picture)
    assert seen


def test_a_network_that_gives_nan_is_no_detector_without_anomalies(fitted, picture, tmp_path):
    fitted.save(tmp_path / "m")
    model = destseg.load(tmp_path / "m")
    model.scorer.network.student_net.state_dict()["decoder_layer1.0.conv1.weight"].fill_(np.nan)
    for call in (lambda: model.predict(picture), lambda: model.calibrate([picture])):
        with pytest.raises(RuntimeError, match="the network gives NaN: its training has diverged"):
            call()


def test_a_new_network_does_not_keep_the_thresholds_of_the_last(picture, monkeypatch):
    model = destseg.DeSTSeg(image_size=64)
    model.fit([picture], (0, 0), progress=False)

    def diverged(*_, **__):
        raise RuntimeError("diverged")

    monkeypatch.setattr("destseg.detector.calibrate", diverged)
    with pytest.raises(RuntimeError, match="diverged"):
        model.fit([picture], (0, 0), progress=False)
    assert model.calibration_ is None and model.threshold_ is None


def test_one_picture_alone_guarantees_nothing_and_says_so_once(picture, tmp_path, caplog):
    model = destseg.DeSTSeg(image_size=64)
    model.fit([picture], (0, 0), progress=False)
    words = "the only picture was trained on and calibrated with: no rate is guaranteed"
    assert caplog.messages.count(words) == 1 and caplog.messages[0].startswith("only 1 normal picture:")
    model.save(tmp_path / "m")
    destseg.load(tmp_path / "m").calibrate(false_positive_rate=0.6)
    assert caplog.messages.count(words) == 2


def test_evaluate_gives_the_six_metrics(fitted, few_parts, tmp_path):
    good, bad, truth = (tmp_path / part for part in ("test/good", "test/hole", "ground_truth/hole"))
    for folder in (good, bad, truth):
        folder.mkdir(parents=True)
    for number, path in enumerate(sorted(few_parts.iterdir())[:4]):
        picture = PIL.Image.open(path).convert("RGB")
        picture.save((good if number < 2 else bad) / path.name)
        mask = np.zeros((picture.height, picture.width), np.uint8)
        mask[5:20, 7:30] = 255
        if number >= 2:
            PIL.Image.fromarray(mask).save(truth / f"{path.stem}_mask.png")
    for protocol in ("full", "paper"):
        report = fitted.evaluate(tmp_path, protocol=protocol, progress=False)
        assert report.instances == 2 and len(report.rows) == 4
        for name in ("image_auroc", "pixel_auroc", "pixel_ap", "pro", "iap", "iap90"):
            assert 0 <= getattr(report, name) <= 1
        robust = fitted.evaluate(tmp_path, protocol, progress=False, robustness=True)
        assert dataclasses.replace(robust, robustness=None) == report
        assert list(robust.robustness) == [PLAIN, *CHANGES] and robust.robustness[PLAIN] == report.outcome()
        assert len({outcome.pixel_ap for outcome in robust.robustness.values()}) == 5


def test_checkpoints_that_cannot_be_written_are_refused_before_anything_is_read(tmp_path):
    model = destseg.DeSTSeg(image_size=64, teacher_weights="missing")
    with pytest.raises(IsADirectoryError, match="is a folder; a file to write is wanted"):
        model.fit("missing", checkpoint=tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="checkpoint cannot be written: "):
        model.fit("missing", checkpoint=tmp_path / "file" / "checkpoint")


OTHER = {"roi": [(0, 0), (9, 0), (9, 9)], "tile": 64, "image_size": 128, "overlap": 0.5, "seed": 7} | {
    **{
        "bit_depth": 12,
        "preset": "paper",
        "teacher": "resnet18",
        "precision": "bfloat16",
        "inference_precision": "float16",
    },
    **{"keep_aspect": True, "denoising": False, "encoder_decoder": False, "segmentation": False},
    **{"memory_bank": False, "bounded": True, "student_encoder": False},
}


@pytest.mark.parametrize("name", FIELDS)
def test_settings_can_be_read_from_the_model_and_not_be_changed(name):
    model = destseg.DeSTSeg(image_size=64)
    before = getattr(model.settings, name)
    assert before != OTHER[name]
    with pytest.raises(AttributeError, match=f"^{name} of a model cannot be changed: make another one with"):
        setattr(model, name, OTHER[name])
    with pytest.raises(AttributeError):
        setattr(model.settings, name, OTHER[name])
    assert getattr(model, name) is getattr(model.settings, name) is before


def test_settings_are_those_that_the_model_was_made_with():
    others = {name: value for name, value in OTHER.items() if name != "inference_precision"}
    model = destseg.DeSTSeg(device="cpu", **others)
    assert model.roi.points == others.pop("roi")
    for name, value in others.items():
        assert getattr(model, name) == value, name
    assert model.inference_precision == "float32" and not model.settings.parts["light"]


def test_unknown_settings_are_refused_by_name():
    with pytest.raises(TypeError, match="unexpected keyword argument 'tiles'"):
        destseg.DeSTSeg(tiles=64)


def test_sides_may_be_numbers_of_numpy():
    model = destseg.DeSTSeg(image_size=np.int64(128), tile=(np.int32(64), np.int64(96)))
    settings = model.settings.stored()
    assert (settings["image_size"], settings["tile"]) == ([128, 128], [64, 96])
    assert all(type(side) is int for side in settings["image_size"] + settings["tile"])
    assert destseg.DeSTSeg(tile=np.int64(64)).settings.stored()["tile"] == [64, 64]


class Grey:
    """Stands in for an engine: the map of an input is how bright it is."""

    size, batch = (64, 64), 1

    def maps(self, pixels):
        return pixels.mean(axis=3, dtype=np.float32) / 255


@pytest.fixture
def exported(monkeypatch):
    """A model as it is loaded from an exported file, whose engine is not needed."""
    settings, calibration = Settings("fast", image_size=64), Calibration((0.2, 0.4), (0.1, 0.3), 0.5)
    artifact = Artifact(settings, calibration, {"destseg": "0"}, engine="onnx", start=Grey)
    monkeypatch.setattr("destseg.detector.read", lambda path: artifact)
    return destseg.load("part.onnx")


def grey(level):
    return np.full((30, 40, 3), 255 * level, np.uint8)


def test_an_exported_model_has_no_network_and_predicts(exported, tmp_path):
    assert exported.network_ is None and exported.losses_ == [] and isinstance(exported.scorer, Grey)
    assert (exported.preset, exported.image_size, exported.threshold_) == ("fast", 64, 0.4 + TOLERANCE)
    found = exported.predict(grey(0.6))
    assert found.score == pytest.approx(0.6) and found.is_anomalous
    assert found.anomaly_map.shape == (30, 40) and found.mask.all()
    assert not exported.predict(grey(0.2)).is_anomalous
    with pytest.raises(RuntimeError, match="this is an exported model: export the one that it was made from"):
        exported.export(tmp_path / "part.onnx")


def test_an_exported_model_can_be_calibrated(exported):
    region = [(0, 0), (19, 0), (19, 29), (0, 29)]
    exported.calibrate([grey(0.2), grey(0.6), grey(0.8)], 0.25, roi=region)
    assert exported.threshold_ == pytest.approx(0.8 + TOLERANCE) and exported.roi.points == region
    assert not exported.predict(grey(0.6)).anomaly_map[:, 21:].any()


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "mps"])
def test_an_exported_model_runs_on_the_cpu(exported, device):
    with pytest.raises(ValueError, match=rf'exported models run on device "cpu" .*got \'{device}\''):
        destseg.load("part.onnx", device)
    with pytest.raises(ValueError, match=r"inference_precision of part\.onnx was chosen by export"):
        destseg.load("part.onnx", inference_precision="float16")
    assert destseg.load("part.onnx", "cpu").device == "cpu"


REGION = [(0, 0), (9, 0), (9, 9), (0, 9)]
THIN = np.zeros((300, 400), np.uint8)
THIN[:, 201] = 1  # a column, which no picture of a tenth of the size has


@pytest.mark.parametrize(
    ("pictures", "arguments", "words"),
    [
        ([grey(0.5), b"no picture"], {"strict": True, "roi": REGION}, "picture 1"),
        (
            [b"no picture", b"nor this"],
            {"roi": REGION},
            "none of 2 pictures can be read; the first: picture 0",
        ),
        ([grey(0.5)], {"roi": THIN}, "roi must hold at least one pixel"),
        ([grey(0.5)], {"roi": [(0, 0), (1, 1)]}, "roi"),
        ([grey(0.5)], {"false_positive_rate": 0, "roi": REGION}, "false_positive_rate must lie between"),
        ([], {"roi": REGION}, "picture"),
        (None, {"roi": REGION}, "roi goes with normal pictures"),
        (None, {"false_positive_rate": 1}, "false_positive_rate must lie between"),
    ],
)
def test_a_failed_calibration_keeps_thresholds_and_settings(exported, pictures, arguments, words):
    before = exported.settings, exported.roi, exported.calibration_
    with pytest.raises(ValueError, match=words):
        exported.calibrate(pictures, **arguments)
    assert exported.settings is before[0] and exported.calibration_ is before[2]
    assert exported.roi is before[1] is None
    assert exported.predict(grey(0.6)).anomaly_map[20:].all()  # the region is nowhere else, either


def test_a_calibration_with_nan_keeps_thresholds_and_settings(exported, monkeypatch):
    settings, calibration = exported.settings, exported.calibration_
    monkeypatch.setattr(Grey, "maps", lambda self, pixels: np.full(pixels.shape[:3], np.nan, np.float32))
    with pytest.raises(RuntimeError, match="the network gives NaN"):
        exported.calibrate([grey(0.5)], roi=REGION)
    assert exported.settings is settings and exported.calibration_ is calibration


def test_pictures_held_out_are_kept_while_others_train(few_parts, tmp_path, monkeypatch):
    folder = tmp_path / "parts"
    shutil.copytree(few_parts, folder)
    real = Trainer.step

    def step(trainer, number, batch):
        shutil.rmtree(folder, ignore_errors=True)  # a share that goes away, a camera's folder that is emptied
        return real(trainer, number, batch)

    monkeypatch.setattr(Trainer, "step", step)
    model = destseg.DeSTSeg(image_size=64)
    model.fit(folder, steps=(1, 1), batch_size=2, progress=False, false_positive_rate=0.1)
    assert len(model.calibration_.scores) == 10 and not folder.exists()


def test_a_device_may_be_torchs_own():
    assert destseg.DeSTSeg(image_size=64, device=torch.device("cpu")).device == "cpu"


def test_all_settings_together_cannot_be_replaced():
    with pytest.raises(AttributeError):
        destseg.DeSTSeg(image_size=64).settings = None


def test_the_first_prediction_starts_no_thread(fitted, picture, tmp_path):
    fitted.save(tmp_path / "m")
    code = (
        "import sys, threading, numpy, destseg\n"
        "model = destseg.load(sys.argv[1], 'cpu')\n"
        "model.predict(numpy.zeros((64, 64, 3), numpy.uint8))\n"
        "print([thread.name for thread in threading.enumerate()])"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "m")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['MainThread']"
