"""A test set under changes: fakes that see what a picture shows, and what is then told of them."""

import json
import math
import re

import numpy as np
import PIL.Image
import pytest

from destseg.inference.evaluation import evaluate
from destseg.inference.report import Outcome
from destseg.inference.robustness import CHANGES, PLAIN, Change, with_robustness
from destseg.inference.stream import stream
from destseg.pictures.dataset import read_mvtec
from destseg.pictures.folders import Source
from destseg.pictures.framing import Framing

SIZE = (64, 96)  # shifted by 4 %: 3 rows down, 4 columns to the right
NAMES = [PLAIN, "darkened by 20 %", "brightened by 20 %", "shifted by 4 %", "rotated by 3 degrees"]
BLOCK = (slice(20, 40), slice(30, 50))
CORNER = (slice(0, 9), slice(80, 96))
EDGE = (slice(10, 30), slice(93, 96))  # leaves the picture when it is shifted


class Grey:
    """Stands in for a network: the map of an input is how bright it is. With defects white, it is perfect."""

    size, batch = SIZE, 2

    def maps(self, pixels):
        return pixels.mean(axis=3, dtype=np.float32) / 255


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(pixels).save(path)


@pytest.fixture
def dataset(tmp_path):
    """Writes two normal pictures, all of 50, and one for each defect, of 250."""

    def write(*defects, mask_scale=1):
        for k in range(2):
            save(tmp_path / f"test/good/{k}.png", np.full((*SIZE, 3), 50, np.uint8))
        for k, where in enumerate(defects):
            mask = np.zeros(SIZE, np.uint8)
            mask[where] = 255
            picture = np.where(mask[..., None], 250, 50).repeat(3, axis=2).astype(np.uint8)
            save(tmp_path / f"test/spot/{k}.png", picture)
            large = mask.repeat(mask_scale, axis=0).repeat(mask_scale, axis=1)
            save(tmp_path / f"ground_truth/spot/{k}_mask.png", large)
        return tmp_path

    return write


def report_of(folder, threshold=0.5, protocol="full", framing=None):
    samples, framing = read_mvtec(folder), framing or Framing(SIZE)
    sources = [Source(str(sample.path), sample.path) for sample in samples]
    plain = evaluate(samples, stream(Grey(), framing, sources), protocol, threshold, progress=False)
    return with_robustness(plain, Grey(), framing, samples, progress=False)


@pytest.mark.parametrize("protocol", ["full", "paper"])
@pytest.mark.parametrize("mask_scale", [1, 2])
def test_a_perfect_model_stays_perfect(dataset, protocol, mask_scale):
    report = report_of(dataset(BLOCK, CORNER, mask_scale=mask_scale), protocol=protocol)
    assert list(report.robustness) == NAMES
    for name, outcome in report.robustness.items():
        assert (outcome.image_auroc, outcome.good_flagged, outcome.defective_flagged) == (1, 0, 1)
        least = 0.97 if name == "rotated by 3 degrees" else 1  # pixels of the outline mix inside and outside
        assert outcome.pixel_ap >= least and outcome.iap >= least


@pytest.mark.parametrize("name", ["shifted by 4 %", "rotated by 3 degrees"])
def test_masks_that_stay_behind_are_worse(dataset, monkeypatch, name):
    folder = dataset(BLOCK, CORNER)
    found = report_of(folder).robustness[name].pixel_ap
    monkeypatch.setattr(
        "destseg.inference.robustness.evaluate", lambda *arguments, move: evaluate(*arguments)
    )
    assert report_of(folder).robustness[name].pixel_ap < found - 0.02


def test_each_change_of_a_picture():
    picture = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    darker, brighter, shifted, rotated = (change.picture(picture) for change in CHANGES.values())
    assert np.array_equal(darker, np.rint(picture * 0.8))
    assert np.array_equal(brighter, np.rint(picture * 1.2).clip(0, 255))
    assert np.array_equal(shifted[3:, 4:], picture[:-3, :-4])
    image = PIL.Image.fromarray(picture).rotate(3, PIL.Image.Resampling.BILINEAR)
    assert np.array_equal(rotated[6:-6, 6:-6], np.asarray(image)[6:-6, 6:-6])


def test_masks_move_and_do_not_change_in_light():
    mask = np.random.default_rng(0).random(SIZE) < 0.5
    darker, brighter, shifted, rotated = (change.move(mask, SIZE) for change in CHANGES.values())
    assert darker is mask and brighter is mask
    assert np.array_equal(shifted[3:, 4:], mask[:-3, :-4])
    assert rotated.dtype == bool and not np.array_equal(rotated, mask)


def test_masks_of_another_size_move_by_as_much_of_the_picture():
    mask = np.zeros((128, 192), bool)  # twice as large: 2 * 3 rows and 2 * 4 columns, not 5 and 8
    mask[50, 60] = True
    assert np.argwhere(Change(shift=0.04).move(mask, SIZE)).tolist() == [[56, 68]]


def test_light_that_passes_a_threshold_shows_as_false_alarms(dataset):
    found = report_of(dataset(BLOCK), threshold=0.21).robustness  # 50 / 255 = 0.196
    assert {name: outcome.good_flagged for name, outcome in found.items()} == {
        name: float(name == "brightened by 20 %") for name in NAMES
    }
    missed = report_of(dataset(BLOCK), threshold=0.8).robustness
    assert missed["darkened by 20 %"].defective_flagged == 0 == missed[PLAIN].good_flagged
    assert missed[PLAIN].defective_flagged == 1


@pytest.mark.parametrize("protocol", ["full", "paper"])
def test_a_defect_that_leaves_the_picture_counts_no_longer(dataset, protocol):
    found = report_of(dataset(BLOCK, EDGE), protocol=protocol).robustness["shifted by 4 %"]
    assert (found.image_auroc, found.pixel_ap, found.iap) == (1, 1, 1)
    assert found.defective_flagged == 0.5  # by folder: one of them is not seen


def test_the_region_of_interest_stays_where_it_is(dataset):
    framing = Framing(SIZE).within([(0, 0), (49, 0), (49, 63), (0, 63)])
    found = report_of(dataset((slice(20, 40), slice(47, 50))), framing=framing).robustness
    assert found[PLAIN].image_auroc == found["darkened by 20 %"].image_auroc == 1
    assert math.isnan(found["shifted by 4 %"].image_auroc)  # there is no defect inside


def test_an_empty_mask_is_no_reason_to_call_a_picture_good(dataset):
    folder = dataset(BLOCK, CORNER)
    save(folder / "ground_truth/spot/0_mask.png", np.zeros(SIZE, np.uint8))
    save(folder / "test/spot/0.png", np.full((*SIZE, 3), 40, np.uint8))  # and it looks the best of all
    assert [outcome.image_auroc for outcome in report_of(folder).robustness.values()] == [0.5] * 5


def test_table_and_json(dataset, tmp_path):
    report = report_of(dataset(BLOCK), threshold=0.21)
    lines = report.table().splitlines()
    empty = lines.index("")
    assert lines[empty - 2].startswith("percent; protocol full") and len(lines) == empty + 7
    columns = ["pictures", "image auroc", "pixel ap", "iap", "good flagged", "defective flagged"]
    assert re.split(r" {2,}", lines[empty + 1].strip()) == columns
    assert [line.strip().split("  ")[0] for line in lines[empty + 2 :]] == NAMES
    assert lines[empty + 4].split()[-5:] == ["100.0"] * 5
    assert lines[empty + 5].split()[-5:] == ["100.0", "100.0", "100.0", "0.0", "100.0"]
    assert len({len(line) for line in lines[empty + 1 :]}) == 1
    report.to_json(tmp_path / "report.json")
    stored = json.loads((tmp_path / "report.json").read_text())["robustness"]
    assert list(stored) == NAMES
    assert {name: Outcome(**values) for name, values in stored.items()} == report.robustness


def test_what_is_not_defined_is_told_as_such(dataset):
    report = report_of(dataset(), threshold=None)
    assert report.table().splitlines()[-1].split()[-5:] == ["-"] * 5
    assert set(report.to_dict()["robustness"][PLAIN].values()) == {None}
