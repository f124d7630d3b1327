"""Evaluation of test sets of which something cannot be read, or that have no masks."""

import csv
import dataclasses
import json
import math

import numpy as np
import PIL.Image
import pytest

from destseg.inference.evaluation import evaluate
from destseg.inference.report import COLUMNS
from destseg.inference.robustness import with_robustness
from destseg.inference.scoring import Scored
from destseg.inference.stream import stream
from destseg.metrics.accumulator import Metrics
from destseg.pictures.dataset import read_mvtec
from destseg.pictures.framing import Framing

SIZE = (64, 96)
METRICS = [field.name for field in dataclasses.fields(Metrics)]


class Grey:
    """Stands in for a network: the map of an input is how bright it is."""

    size, batch = SIZE, 1

    def maps(self, pixels):
        return pixels.mean(axis=3, dtype=np.float32) / 255


@pytest.fixture
def dataset(tmp_path):
    """Three normal pictures, three with a spot, and three with a scratch."""
    for k in range(3):
        pixels = np.random.default_rng(k).integers(90, 110, SIZE).astype(np.uint8)
        save(tmp_path / f"test/good/{k}.png", pixels)
        for defect, where in (("scratch", np.s_[9:12, 20:60]), ("spot", np.s_[30:44, 9:23])):
            mask = np.zeros(SIZE, np.uint8)
            mask[where] = 255
            save(tmp_path / f"test/{defect}/{k}.png", np.where(mask, pixels + 12, pixels))
            save(tmp_path / f"ground_truth/{defect}/{k}_mask.png", mask)
    return tmp_path


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(pixels).save(path)


def report_of(dataset, **options):
    samples = read_mvtec(dataset)
    results = stream(Grey(), Framing(SIZE), [sample.source for sample in samples])
    return evaluate(samples, results, progress=False, threshold=0.42, **options)


def metrics_of(report):
    return [getattr(report, name) for name in METRICS]


def break_file(path):
    path.write_bytes(path.read_bytes()[:50])


BROKEN = ["test/good/1.png", "test/spot/0.png", "ground_truth/spot/0_mask.png"]


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_picture_or_mask_is_left_out_and_named(dataset, caplog, broken):
    whole = report_of(dataset)
    name = broken if broken.startswith("test") else "test/spot/0.png"
    break_file(dataset / broken)
    report = report_of(dataset)
    (left_out,) = report.left_out
    assert left_out == name and f"{dataset / broken} cannot be read as a picture" in report.left_out[name]
    assert [row for row in whole.rows if row.name != name] == list(report.rows)
    first, last = caplog.messages
    assert first == f"left out: {report.left_out[name]}" and last == "left out 1 of 9 pictures"
    assert report.to_dict()["left_out"] == report.left_out
    assert report.table().splitlines()[-1] == f"left out 1 of 9 pictures, which cannot be read: {name}"


@pytest.mark.parametrize("broken", BROKEN)
def test_the_rest_is_measured_as_if_it_had_never_been_there(dataset, broken):
    break_file(dataset / broken)
    report = report_of(dataset)
    (name,) = report.left_out
    (dataset / name).unlink()
    if "spot" in name:
        (dataset / "ground_truth/spot/0_mask.png").unlink()
    expected = report_of(dataset)
    assert not expected.left_out
    assert report == dataclasses.replace(expected, left_out=report.left_out)


def test_a_mask_that_is_damaged_only_further_in_is_found_when_it_is_read(dataset):
    path = dataset / "ground_truth/spot/0_mask.png"
    save(path, np.random.default_rng(0).integers(0, 2, SIZE).astype(np.uint8) * 255)
    path.write_bytes(path.read_bytes()[:-60])  # its header is whole
    assert list(report_of(dataset).left_out) == ["test/spot/0.png"]


def test_a_map_too_large_for_memory_leaves_its_picture_out(dataset, monkeypatch):
    def resized_map(scored, size):
        if len(asked) == 4:
            asked.append(None)
            raise MemoryError
        asked.append(size)
        return real(scored, size)

    asked, real = [], Scored.resized_map
    monkeypatch.setattr(Scored, "resized_map", resized_map)
    ((name, error),) = report_of(dataset).left_out.items()
    assert name == "test/scratch/1.png"
    assert error == f"{dataset / name}: there is not enough memory for this picture"


@pytest.mark.parametrize("broken", BROKEN)
def test_strict_evaluations_raise_at_the_first(dataset, broken):
    break_file(dataset / broken)
    with pytest.raises(ValueError, match=f"{broken} cannot be read as a picture"):
        report_of(dataset, strict=True)


def test_a_defect_of_which_nothing_can_be_read_is_none(dataset):
    for k in range(3):
        break_file(dataset / f"test/spot/{k}.png")
    report = report_of(dataset)
    assert list(report.defects) == ["scratch"] and len(report.left_out) == 3


def test_nothing_readable_at_all(dataset):
    for path in (dataset / "test").rglob("*.png"):
        break_file(path)
    with pytest.raises(ValueError, match=r"none of 9 pictures can be read; the first: .*good/0\.png"):
        report_of(dataset)


def test_under_changes_a_broken_picture_is_left_out_and_not_named_again(dataset, caplog):
    break_file(dataset / "test/spot/0.png")
    break_file(dataset / "ground_truth/scratch/2_mask.png")
    plain = report_of(dataset)
    caplog.clear()
    report = with_robustness(plain, Grey(), Framing(SIZE), read_mvtec(dataset), progress=False)
    assert len(report.robustness) == 5 and not caplog.messages
    assert report.left_out == plain.left_out


@pytest.fixture
def unmasked(dataset):
    """The same data set without any masks."""
    (dataset / "ground_truth").rename(dataset / "elsewhere")
    return dataset


@pytest.mark.parametrize("protocol", ["full", "paper"])
def test_without_masks_there_are_image_metrics_and_verdicts(dataset, protocol, caplog):
    masked = report_of(dataset, protocol=protocol)
    (dataset / "ground_truth").rename(dataset / "elsewhere")
    report = report_of(dataset, protocol=protocol)
    assert report.rows == masked.rows and report.image_auroc == masked.image_auroc
    assert report.false_alarms == masked.false_alarms
    assert not caplog.messages
    for found, expected in zip(
        [report, *report.defects.values()], [masked, *masked.defects.values()], strict=True
    ):
        assert found.image_auroc == expected.image_auroc
        assert all(math.isnan(value) for value in metrics_of(found)[1:-1]) and found.instances == 0


def test_without_masks_it_is_told_why_there_are_no_pixel_metrics(unmasked, tmp_path):
    report = report_of(unmasked)
    lines = report.table().splitlines()
    assert "no pixel metrics: the test set has no masks, there is no folder ground_truth" in lines
    assert lines[1].split()[:4] == ["scratch", "3", "100.0", "100.0"] and lines[1].split()[4:] == ["-"] * 5
    assert lines[5].startswith("percent; protocol full: ")
    report.to_json(tmp_path / "r.json")
    stored = json.loads((tmp_path / "r.json").read_text())
    assert stored["has_masks"] is False and stored["image_auroc"] == report.image_auroc
    assert [stored[name] for name in COLUMNS[1:]] == [None] * 5
    report.defects_to_csv(tmp_path / "d.csv")
    with open(tmp_path / "d.csv", newline="") as file:
        assert [row["pixel_ap"] for row in csv.DictReader(file)] == [""] * 4


def test_with_masks_nothing_is_told_about_them(dataset):
    report = report_of(dataset)
    assert report.has_masks and "no pixel metrics" not in report.table()
    for folder in ("test/scratch", "test/spot", "ground_truth"):
        (dataset / folder).rename(dataset / f"{folder.replace('/', '_')}_elsewhere")
    report = report_of(dataset)  # of normal pictures, which need none
    assert report.has_masks and "no pixel metrics" not in report.table()


def test_under_changes_pictures_without_masks_keep_their_labels(unmasked):
    report = with_robustness(report_of(unmasked), Grey(), Framing(SIZE), read_mvtec(unmasked), progress=False)
    for outcome in report.robustness.values():
        assert outcome.image_auroc > 0.5 and math.isnan(outcome.pixel_ap)


@pytest.mark.parametrize("remaining", ["one mask", "no mask"])
def test_some_masks_missing_stay_an_error(dataset, remaining):
    masks = sorted((dataset / "ground_truth").rglob("*.png"))
    for path in masks[1:] if remaining == "one mask" else masks:
        path.unlink()
    words = r"has no mask: expected .*_mask\.png; without a folder ground_truth .* no pixel metrics"
    with pytest.raises(FileNotFoundError, match=words):
        report_of(dataset)
