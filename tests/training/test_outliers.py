"""Outliers among normal pictures: the rule, what becomes of them, and where they are named."""

import numpy as np
import PIL.Image
import PIL.ImageDraw
import pytest

import destseg
from destseg.pictures.folders import as_pictures
from destseg.pictures.framing import Framing
from destseg.pictures.roi import RegionOfInterest
from destseg.pictures.store import PictureStore
from destseg.training import outliers
from destseg.training.outliers import far_out, outliers_of

FIT = {"steps": (1, 1), "batch_size": 2, "progress": False}


def parts(count, scratched=()):
    """Grey parts with a round hole somewhere near the middle; some have a white cross beside it."""
    generator, pictures = np.random.default_rng(0), []
    for number in range(count):
        picture = PIL.Image.fromarray(generator.integers(90, 110, (64, 64, 3), np.uint8))
        draw = PIL.ImageDraw.Draw(picture)
        x, y = generator.integers(22, 27, 2)
        draw.ellipse((x, y, x + 16, y + 16), (30, 30, 30))
        if number in scratched:
            draw.line((8, 8, 20, 20), (255, 255, 255), 3)
            draw.line((20, 8, 8, 20), (255, 255, 255), 3)
        pictures.append(np.asarray(picture))
    return np.stack(pictures)


def found_in(pictures, units=None, **framing):
    network = destseg.DeSTSeg(image_size=64, device="cpu").fit(pictures[:2], **FIT).network_
    store = PictureStore(as_pictures(pictures), Framing((64, 64), **framing), progress=False)
    units = range(len(pictures)) if units is None else units
    return [source.name for source in outliers_of(network.teacher_net, store, units, 0, False)]


def test_a_defective_picture_among_good_ones_is_found():
    assert found_in(parts(40, scratched=[7])) == ["picture 7"]
    assert found_in(parts(40)) == []


def test_two_views_of_one_defective_part_do_not_hide_each_other():
    pictures = parts(40, scratched=[7])
    pictures[8] = pictures[7]
    assert found_in(pictures) == []  # each has its like
    assert found_in(pictures, [min(k, 7) if k == 8 else k for k in range(40)]) == ["picture 7", "picture 8"]


def test_what_lies_outside_the_region_of_interest_does_not_count():
    pictures = parts(40, scratched=[7])
    assert found_in(pictures, roi=RegionOfInterest([(0, 0), (64, 0), (64, 64), (0, 64)])) == ["picture 7"]
    assert found_in(pictures, roi=RegionOfInterest([(40, 40), (64, 40), (64, 64), (40, 64)])) == []


def test_scores_far_above_the_others_are_found():
    scores = np.random.default_rng(0).lognormal(-3, 0.3, 100)
    assert far_out(scores) == []
    scores[[7, 41]] = 60 * np.median(scores)
    assert far_out(scores) == [7, 41]


@pytest.mark.parametrize("count", [20, 60, 400])
def test_one_folder_in_twenty_without_defects_has_one(count):
    generator = np.random.default_rng(0)
    folders = [bool(far_out(generator.lognormal(-2, 0.2, count))) for _ in range(1000)]
    assert 0.03 < np.mean(folders) < 0.07


def test_low_scores_and_equal_scores_are_none():
    scores = np.random.default_rng(0).lognormal(-3, 0.3, 100)
    scores[7] = 1e-9
    assert far_out(scores) == far_out(np.full(50, 0.2)) == far_out(np.zeros(50)) == []


def test_few_scores_do_not_tell():
    assert far_out([0.01] * 18 + [0.9]) == []
    assert far_out([0.01] * 19 + [0.9]) == [19]


@pytest.mark.parametrize("drop", [False, True])
def test_they_are_named_and_left_out_if_that_is_wanted(caplog, tmp_path, drop):
    model = destseg.DeSTSeg(image_size=64, device="cpu")
    model.fit(parts(40, scratched=[7]), drop_outliers=drop, **FIT)
    record = model.record_
    assert record.outliers == ("picture 7",) and record.drop_outliers is drop
    assert (record.trained_on + record.calibrated_on, record.pictures) == (39 if drop else 40, 40)
    words = "1 normal picture left out that may be defective" if drop else "1 normal picture may be defective"
    assert any(message.startswith(f"{words}: picture 7") for message in caplog.messages)
    model.save(tmp_path / "part.destseg")
    assert destseg.load(tmp_path / "part.destseg").record_ == record


def test_a_run_that_drops_them_is_another_run(tmp_path):
    pictures, path = parts(40, scratched=[7]), tmp_path / "checkpoint"
    whole = destseg.DeSTSeg(image_size=64, device="cpu").fit(pictures, **FIT)
    destseg.DeSTSeg(image_size=64, device="cpu").fit(pictures, checkpoint=path, **FIT)
    resumed = destseg.DeSTSeg(image_size=64, device="cpu").fit(pictures, resume=path, **FIT)
    assert resumed.calibration_ == whole.calibration_
    with pytest.raises(ValueError, match="another run"):
        destseg.DeSTSeg(image_size=64, device="cpu").fit(pictures, drop_outliers=False, resume=path, **FIT)


def test_of_very_many_inputs_some_are_looked_at(monkeypatch):
    read, real_input = set(), PictureStore.input

    def look(self, index):
        read.add(index)
        return real_input(self, index)

    monkeypatch.setattr(outliers, "MOST_INPUTS", 30)
    monkeypatch.setattr(PictureStore, "input", look)
    found_in(parts(40, scratched=[7]))
    assert len(read) == 30
