"""The detector: arguments, prediction of every kind of input, calibration, and the order of calls."""

import numpy as np
import PIL.Image
import pytest
import torch

import destseg
from destseg.presets import new_network, parts_of


def test_arguments_are_stored_as_given(teacher_weights):
    model = destseg.DeSTSeg("stpm", "resnet18", (64, 96), 3, "cpu", teacher_weights=teacher_weights)
    assert (model.preset, model.teacher, model.image_size, model.seed) == ("stpm", "resnet18", (64, 96), 3)
    assert (model.device, model.teacher_weights, model.precision) == ("cpu", teacher_weights, "auto")


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
        ({"workers": -1}, r"workers must be a whole number of at least 0, got -1"),
    ],
)
def test_bad_schedules_are_refused_before_anything_is_read(arguments, words):
    model = destseg.DeSTSeg(image_size=64, teacher_weights="missing")
    with pytest.raises(ValueError, match=words):
        model.fit("missing", **({"steps": (1, 1)} | arguments))


def test_fit_refuses_what_it_cannot_learn_from(teacher_weights, tmp_path):
    model = destseg.DeSTSeg(image_size=64, teacher_weights=teacher_weights)
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


def test_one_broken_picture_is_named_and_left_out(few_parts, teacher_weights, tmp_path, caplog):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"not a picture")
    pictures = [*sorted(few_parts.iterdir())[:12], broken]
    model = destseg.DeSTSeg(image_size=64, teacher_weights=teacher_weights)
    model.fit(pictures, steps=(0, 0), progress=False)
    assert "broken.png" in caplog.text
    assert len(model.calibration_.scores) == 6
    with pytest.raises(ValueError, match=r"broken\.png"):
        model.fit(pictures, steps=(0, 0), progress=False, strict=True)


def test_calling_out_of_order_names_the_missing_step(teacher_weights, picture, tmp_path):
    model = destseg.DeSTSeg(image_size=64, teacher_weights=teacher_weights)
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
    scores = sorted(prediction.score for prediction in model.predict(few_parts))
    assert model.threshold_ == scores[18]  # of 24: the 19th smallest, 25 * 0.75 = 18.75 rounded up
    assert sum(prediction.is_anomalous for prediction in model.predict(few_parts)) == 5
    model.calibrate(false_positive_rate=0.04)
    assert model.threshold_ == scores[-1]
    assert not caplog.records
    model.calibrate(false_positive_rate=0.01)
    assert "24 calibration pictures guarantee a false-positive rate of 0.04, not of 0.01" in caplog.text


def test_a_copy_scores_that_has_its_normalisations_merged(light, picture, tmp_path):
    def normalisations(network):
        return [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]

    light.save(tmp_path / "m")
    model = destseg.load(tmp_path / "m", "cpu")
    assert normalisations(model.network_) and not normalisations(model._network())
    seen = []
    model._network().register_forward_hook(lambda *_: seen.append(1))
    model.predict(picture)
    assert seen


def test_a_network_that_gives_nan_is_no_detector_without_anomalies(fitted, picture, tmp_path):
    fitted.save(tmp_path / "m")
    model = destseg.load(tmp_path / "m")
    model._network().student_net.state_dict()["decoder_layer1.0.conv1.weight"].fill_(np.nan)
    for call in (lambda: model.predict(picture), lambda: model.calibrate([picture])):
        with pytest.raises(RuntimeError, match="the network gives NaN: its training has diverged"):
            call()


def test_a_new_network_does_not_keep_the_thresholds_of_the_last(picture, teacher_weights, monkeypatch):
    model = destseg.DeSTSeg(image_size=64, teacher_weights=teacher_weights)
    model.fit([picture], (0, 0), progress=False)
    monkeypatch.setattr(
        "destseg.calibration.scored", lambda *_: (_ for _ in ()).throw(RuntimeError("diverged"))
    )
    with pytest.raises(RuntimeError, match="diverged"):
        model.fit([picture], (0, 0), progress=False)
    assert model.calibration_ is None and model.threshold_ is None


def test_one_picture_alone_guarantees_nothing_and_says_so_once(picture, teacher_weights, tmp_path, caplog):
    model = destseg.DeSTSeg(image_size=64, teacher_weights=teacher_weights)
    model.fit([picture], (0, 0), progress=False)
    words = "the only picture was trained on and calibrated with: no rate is guaranteed"
    assert caplog.messages == [words]
    model.save(tmp_path / "m")
    destseg.load(tmp_path / "m").calibrate(false_positive_rate=0.6)
    assert caplog.messages == [words] * 2


def test_a_new_network_leaves_the_random_state_of_gpus_alone(teacher_weights, monkeypatch):
    seeds = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeds.append)
    new_network(parts_of("paper"), "resnet18", teacher_weights, 3)
    assert not seeds


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


def test_checkpoints_that_cannot_be_written_are_refused_before_anything_is_read(tmp_path):
    model = destseg.DeSTSeg(image_size=64, teacher_weights="missing")
    with pytest.raises(IsADirectoryError, match="is a folder; a file to write is wanted"):
        model.fit("missing", checkpoint=tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="checkpoint cannot be written: "):
        model.fit("missing", checkpoint=tmp_path / "file" / "checkpoint")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("roi", [(0, 0), (9, 0), (9, 9)]), ("tile", 64), ("keep_aspect", True), ("image_size", 128)),
        *(("overlap", 0.5), ("preset", "fast"), ("teacher", "embedded"), ("segmentation", False)),
    ],
)
def test_what_would_go_unheeded_cannot_be_changed(name, value):
    model = destseg.DeSTSeg(image_size=64)
    before = getattr(model, name)
    with pytest.raises(AttributeError, match=f"^{name} of a model cannot be changed: make another one"):
        setattr(model, name, value)
    assert getattr(model, name) is before


def test_sides_may_be_numbers_of_numpy():
    model = destseg.DeSTSeg(image_size=np.int64(128), tile=(np.int32(64), np.int64(96)))
    settings = model._settings()
    assert (settings["image_size"], settings["tile"]) == ([128, 128], [64, 96])
    assert all(type(side) is int for side in settings["image_size"] + settings["tile"])
    assert destseg.DeSTSeg(tile=np.int64(64))._settings()["tile"] == [64, 64]
