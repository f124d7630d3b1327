"""Outliers among normal pictures: the rule, and what becomes of them."""

import numpy as np
import pytest

import destseg
from destseg.training import outliers
from destseg.training.outliers import far_out
from destseg.training.synthesis import Synthesis
from destseg.training.trainer import Trainer

FEW_STEPS = {"steps": (1, 2), "batch_size": 2, "progress": False}


@pytest.fixture
def noise():
    return np.random.default_rng(0).integers(0, 256, (24, 64, 64, 3), np.uint8)


def test_scores_far_above_the_others_are_found():
    scores = np.random.default_rng(0).lognormal(-3, 0.3, 100)
    assert far_out(scores) == []
    scores[[7, 41]] = 60 * np.median(scores)
    assert far_out(scores) == [7, 41]


def test_low_scores_and_equal_scores_are_none():
    scores = np.random.default_rng(0).lognormal(-3, 0.3, 100)
    scores[7] = 1e-9
    assert far_out(scores) == far_out(np.full(50, 0.2)) == far_out(np.zeros(50)) == []


def test_few_scores_do_not_tell():
    assert far_out([0.01] * 18 + [0.9]) == []
    assert far_out([0.01] * 19 + [0.9]) == [19]


@pytest.fixture
def first_is_far_out(monkeypatch):
    """The first picture of each store counts as an outlier, whatever the scores."""
    monkeypatch.setattr(outliers, "far_out", lambda scores: [0])


@pytest.mark.parametrize("drop", [False, True])
def test_they_are_named_and_left_out_if_that_is_wanted(noise, first_is_far_out, monkeypatch, caplog, drop):
    trained, real_batch = [], Synthesis.batch

    def batch(self, step):
        if step >= FEW_STEPS["steps"][0]:
            trained.append(len(self.normals))
        return real_batch(self, step)

    monkeypatch.setattr(Synthesis, "batch", batch)
    model = destseg.DeSTSeg(image_size=64, device="cpu").fit(
        noise, drop_outliers=drop, workers=0, **FEW_STEPS
    )
    assert set(trained) == {13 if drop else 14}  # of 24, ten calibrate
    assert len(model.calibration_.scores) == (9 if drop else 10)
    assert len(model.record_.outliers) == 2 and model.record_.drop_outliers is drop
    words = (
        "2 normal pictures left out that may be defective" if drop else "2 normal pictures may be defective"
    )
    assert any(words in message and model.record_.outliers[0] in message for message in caplog.messages)


def test_a_resumed_run_finds_the_same(noise, first_is_far_out, monkeypatch, tmp_path):
    options = FEW_STEPS | {"drop_outliers": True, "workers": 0}
    whole = destseg.DeSTSeg(image_size=64, device="cpu").fit(noise, **options)
    path, real_step = tmp_path / "checkpoint", Trainer.step

    def step(self, number, batch):
        if number == 2:
            raise KeyboardInterrupt
        return real_step(self, number, batch)

    monkeypatch.setattr(Trainer, "step", step)
    with pytest.raises(KeyboardInterrupt):
        destseg.DeSTSeg(image_size=64, device="cpu").fit(
            noise, checkpoint=path, checkpoint_minutes=0, **options
        )
    monkeypatch.setattr(Trainer, "step", real_step)
    resumed = destseg.DeSTSeg(image_size=64, device="cpu").fit(noise, resume=path, **options)
    assert resumed.losses_ == whole.losses_ and resumed.calibration_ == whole.calibration_
    with pytest.raises(ValueError, match="drop_outliers was True, now False"):
        destseg.DeSTSeg(image_size=64, device="cpu").fit(noise, resume=path, **FEW_STEPS)


def test_the_file_and_the_report_name_them(noise, first_is_far_out, tmp_path):
    model = destseg.DeSTSeg(image_size=64, device="cpu").fit(noise, **FEW_STEPS)
    model.save(tmp_path / "part.destseg")
    assert destseg.load(tmp_path / "part.destseg").record_ == model.record_
