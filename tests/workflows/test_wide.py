"""Large, wide and masked pictures through the whole detector: fit, predict, evaluate, files, command line."""

import json
import logging

import numpy as np
import PIL.Image
import pytest

import destseg
from destseg.artifacts import destseg_file
from destseg.cli import main
from destseg.model.tensorfile import read_tensors, write_tensors
from destseg.training import trainer
from destseg.training.trainer import Trainer

LEFT = [(0, 0), (59, 0), (59, 79), (0, 79)]  # 60 of the 160 columns


@pytest.fixture(scope="module")
def wide_parts(tmp_path_factory):
    """A data set of the MVTec layout: brushed plates of 80 x 160 pixels, defects on the right of two."""
    root = tmp_path_factory.mktemp("wide")
    for k in range(16):
        generator = np.random.default_rng([9, k])
        columns = np.arange(160) + generator.uniform(0, 20)
        plate = 120 + 40 * np.sin(0.4 * columns) + generator.normal(0, 6, (80, 160))
        kind = "train/good" if k < 12 else "test/good" if k < 14 else "test/hole"
        if kind == "test/hole":
            plate[20:40, 110:140] = 5
            mask = np.zeros((80, 160), np.uint8)
            mask[20:40, 110:140] = 255
            save(root / "ground_truth/hole" / f"{k}_mask.png", mask)
        save(root / kind / f"{k}.png", plate.clip(0, 255).astype(np.uint8))
    return root


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(pixels).save(path)


def fit(parts, weights, steps=(1, 1), flip="", **settings):
    settings = {"image_size": 64, "precision": "float32", "teacher_weights": weights} | settings
    model = destseg.DeSTSeg("fast", **settings)
    return model.fit(parts / "train/good", steps, 2, progress=False, false_positive_rate=0.2, flip=flip)


def settings_of(model, names):
    """The settings of these names, the region as the points it was given as."""
    return {name: model.roi.points if name == "roi" else getattr(model, name) for name in names}


@pytest.mark.parametrize(
    "settings",
    [
        {"image_size": (64, 128)},
        {"keep_aspect": True},
        {"tile": 64, "overlap": 0.5},
        {"image_size": (64, 96), "tile": (80, 120), "keep_aspect": True, "roi": LEFT},
    ],
    ids=lambda settings: " ".join(settings),
)
def test_fit_predict_evaluate_save_and_load(wide_parts, teacher_weights, tmp_path, settings):
    model = fit(wide_parts, teacher_weights, **settings)
    assert settings_of(model, settings) == settings
    path = wide_parts / "test/hole/14.png"
    found = model.predict(path)
    assert found.anomaly_map.shape == (80, 160) and found.anomaly_map.min() >= 0
    assert len(model.calibration_.scores) == 6  # pictures, not tiles
    report = model.evaluate(wide_parts, progress=False)
    assert len(report.rows) == 4 and report.instances == (0 if "roi" in settings else 2)
    model.save(tmp_path / "m")
    loaded = destseg.load(tmp_path / "m")
    assert loaded.predict(path).to_dict() == found.to_dict()
    assert np.array_equal(loaded.predict(path).anomaly_map, found.anomaly_map)
    assert settings_of(loaded, settings) == settings and loaded.settings == model.settings


def test_no_tile_of_a_calibration_picture_is_trained_on(wide_parts, teacher_weights, monkeypatch):
    seen, real_batch = [], Trainer.step

    def step(self, number, batch):
        seen.append(self.synthesis.normals)
        return real_batch(self, number, batch)

    monkeypatch.setattr(Trainer, "step", step)
    model = fit(wide_parts, teacher_weights, tile=64)
    (normals,) = {id(store): store for store in seen}.values()
    assert normals.pictures == 6 and len(normals) == 6 * 2 * 4  # starts 0, 16 and 0, 32, 64, 96
    trained = [normals.picture(source).view.pixels.tobytes() for source in normals.sources]
    paths = sorted((wide_parts / "train/good").iterdir())
    held = [
        path for path in paths if np.asarray(PIL.Image.open(path).convert("RGB")).tobytes() not in trained
    ]
    assert len(held) == 6
    assert sorted(p.score for p in model.predict(held)) == sorted(model.calibration_.scores)


def test_a_region_of_the_model_and_of_one_call(wide_parts, teacher_weights, tmp_path):
    path = wide_parts / "test/hole/14.png"
    everywhere = fit(wide_parts, teacher_weights)
    mask = np.zeros((80, 160), np.uint8)
    mask[:, :60] = 255
    save(tmp_path / "mask.png", mask)
    for roi in (LEFT, mask, tmp_path / "mask.png"):
        found = everywhere.predict(path, roi=roi)
        assert found.anomaly_map[:, 60:].max() == 0 and found.anomaly_map[:, :60].min() > 0
        assert found.score <= everywhere.predict(path).score
        assert not found.mask[:, 60:].any()
        assert all(region.bbox[2] <= 60 for region in found.regions)
    ours = everywhere.predict(path).anomaly_map
    assert np.array_equal(found.anomaly_map[:, :60], ours[:, :60])
    ((_, first),) = everywhere.predict_each(path, roi=LEFT)
    assert first.score == found.score
    everywhere.calibrate(wide_parts / "train/good", 0.2, roi=LEFT)
    within = [p.score for p in everywhere.predict(wide_parts / "train/good", roi=LEFT)]
    assert sorted(within) == sorted(everywhere.calibration_.scores)
    with pytest.raises(ValueError, match="roi goes with normal pictures"):
        everywhere.calibrate(roi=LEFT)


def test_a_defect_outside_of_the_region_is_none(wide_parts, teacher_weights):
    model = fit(wide_parts, teacher_weights, (0, 0))
    assert model.evaluate(wide_parts, progress=False).instances == 2
    for protocol in ("full", "paper"):
        left = model.evaluate(wide_parts, protocol, progress=False, roi=LEFT)
        assert left.instances == 0 and np.isnan(left.image_auroc)
        right = model.evaluate(
            wide_parts, protocol, progress=False, roi=[(100, 0), (159, 0), (159, 79), (100, 79)]
        )
        assert right.instances == 2 and 0 <= right.image_auroc <= 1


@pytest.mark.parametrize("flip", ["", "vertical"])
def test_nothing_outside_of_the_region_is_learnt(wide_parts, teacher_weights, monkeypatch, flip):
    regions = []  # of every step's loss, with the teacher's features remembered (without flips) or not

    def spied(loss):
        return lambda *arguments: regions.append(arguments[-1]) or loss(*arguments)

    for name in ("cosine_loss", "segmentation_loss"):
        monkeypatch.setattr(trainer, name, spied(getattr(trainer, name)))
    fit(wide_parts, teacher_weights, (3, 1), roi=LEFT, flip=flip)
    assert len(regions) == 4
    for region in regions:  # 60 of 160 columns are 24 of the input's 64
        assert region.shape == (2, 1, 64, 64)
        assert region[..., :24].min() == 1 and region.sum() == 2 * 64 * 24


def test_a_picture_without_the_region_is_reported_like_a_broken_one(wide_parts, teacher_weights, caplog):
    model = fit(wide_parts, teacher_weights, (0, 0))
    path, right = wide_parts / "test/hole/14.png", [(100, 0), (159, 0), (159, 79)]
    small = np.zeros((70, 90, 3), np.uint8)
    with caplog.at_level(logging.WARNING, "destseg"):
        first, second = model.predict([path, small], roi=right)
    assert first.score > 0 and second is None
    assert "left out: picture 1: roi must hold at least one pixel" in caplog.text
    with pytest.raises(ValueError, match="none in a picture of 70 x 90 pixels"):
        model.predict(small, roi=right)


def test_files_of_models_before_there_were_tiles_still_load(wide_parts, teacher_weights, tmp_path):
    model = fit(wide_parts, teacher_weights, (0, 0))
    model.save(tmp_path / "m")
    content = read_tensors(tmp_path / "m")
    assert destseg_file.read(tmp_path / "m").settings == model.settings
    assert set(content["settings"]) >= {"tile", "overlap", "keep_aspect", "roi"}
    for name in ("tile", "overlap", "keep_aspect", "roi"):
        del content["settings"][name]
    write_tensors(tmp_path / "old", content)
    old = destseg.load(tmp_path / "old")
    path = wide_parts / "test/hole/14.png"
    assert (old.tile, old.keep_aspect, old.roi) == (None, False, None)
    assert old.predict(path).to_dict() == model.predict(path).to_dict()


def test_a_run_is_not_resumed_with_other_tiles(wide_parts, teacher_weights, tmp_path):
    settings = {"image_size": 64, "teacher_weights": teacher_weights, "precision": "float32", "tile": 64}
    model = destseg.DeSTSeg("fast", **settings)
    checkpoint = {"progress": False, "checkpoint": tmp_path / "c"}
    model.fit(wide_parts / "train/good", (1, 0), 2, **checkpoint)
    other = destseg.DeSTSeg("fast", **settings, roi=[(0, 0), (159, 0), (159, 79), (0, 79)])
    with pytest.raises(ValueError, match=r"belongs to another run: framing was \d+, now \d+"):
        other.fit(wide_parts / "train/good", (1, 0), 2, progress=False, resume=tmp_path / "c")


def test_the_command_line(wide_parts, teacher_weights, tmp_path, capsys):
    output, good = str(tmp_path / "part.destseg"), str(wide_parts / "train/good")
    command = ["fit", good, "-o", output, "--preset", "fast", "--size", "64x96", "--steps", "1", "0"]
    command += ["--teacher-weights", str(teacher_weights), "--batch-size", "2", "--precision", "float32"]
    assert (
        main([*command, "--tile", "64x96", "--overlap", "0.5", "--keep-aspect", "--roi", "0,0 99,0 99,79"])
        == 0
    )
    model = destseg.load(output)
    assert (model.image_size, model.tile, model.overlap, model.keep_aspect) == ((64, 96), (64, 96), 0.5, True)
    assert main(["info", output]) == 0
    printed = capsys.readouterr().out
    assert "tile: [64, 96]" in printed and "roi: polygon of 3 points" in printed
    mask = np.zeros((80, 160), np.uint8)
    mask[:, :60] = 255
    save(tmp_path / "mask.png", mask)
    picture, roi = str(wide_parts / "test/hole/14.png"), ["--roi", str(tmp_path / "mask.png")]
    assert main(["predict", output, picture, *roi, "-o", str(tmp_path / "out"), "--maps", "npy"]) == 0
    line = json.loads(capsys.readouterr().out)
    assert np.load(line["map"])[:, 60:].max() == 0 and np.load(line["map"])[:, :60].max() > 0
    assert main(["evaluate", output, str(wide_parts), *roi]) == 0
    assert "0 instances" in capsys.readouterr().out
    assert main(["calibrate", output, good, *roi]) == 0
    assert "calibration pictures: 12" in capsys.readouterr().out
    assert main(["calibrate", output, *roi]) == 1
    assert "roi goes with normal pictures" in capsys.readouterr().err
