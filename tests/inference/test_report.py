"""Evaluation on a small set of the MVTec layout with made-up scores: both protocols, table, JSON, CSV."""

import csv
import dataclasses
import json
import math

import numpy as np
import PIL.Image
import pytest
import torch

from destseg import metrics
from destseg.inference.evaluation import evaluate
from destseg.inference.report import COLUMNS, Report, Row
from destseg.inference.scoring import Scored
from destseg.metrics.accumulator import MEMORY, Metrics
from destseg.metrics.intervals import share_interval
from destseg.ops.components import mask_of
from destseg.pictures.dataset import read_mvtec
from destseg.pictures.folders import Source
from destseg.pictures.roi import RegionOfInterest

# Pictures are 12 x 16, their masks twice as large; the network sees 6 x 8, so a mask shrinks by four.
PICTURE, MASK, NETWORK = (12, 16), (24, 32), (6, 8)
DEFECTS = {  # rows and columns of the mask
    "block/0": (slice(0, 12), slice(0, 16)),
    "dot/0": (slice(10, 12), slice(10, 12)),  # of 2 x 2 pixels: gone at the network's size
}
SCORES = {"block/0": 0.9, "dot/0": 0.5, "good/0": 0.1, "good/1": 0.6}


@pytest.fixture
def dataset(tmp_path):
    """Two normal pictures, a block and a dot."""
    for name in SCORES:
        save(tmp_path / "test" / f"{name}.png", np.full((*PICTURE, 3), 90, np.uint8))
    for name, where in DEFECTS.items():
        mask = np.zeros(MASK, np.uint8)
        mask[where] = 255
        save(tmp_path / "ground_truth" / f"{name}_mask.png", mask)
    return tmp_path


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(pixels).save(path)


def name_of(path):
    return f"{path.parent.name}/{path.stem}"


def anomaly_map(name):
    """A map of random heat, a little hotter in the defect."""
    heat = torch.rand(NETWORK, generator=torch.Generator().manual_seed(sorted(SCORES).index(name)))
    if name in DEFECTS:
        rows, columns = ((part.start // 4, -(-part.stop // 4)) for part in DEFECTS[name])
        heat[slice(*rows), slice(*columns)] += 0.3
    return heat


def results_of(samples, roi=None):
    """The samples scored, as a stream yields them."""
    for sample in samples:
        name, pixels = name_of(sample.path), np.zeros((*PICTURE, 3), np.uint8)
        yield (
            Source(name, sample.path),
            Scored(pixels, pixels.shape[:2], anomaly_map(name).numpy(), SCORES[name], 0.0, roi),
        )


def evaluated(samples, protocol="full", threshold=None, roi=None, promised_rate=None):
    results = results_of(samples, roi)
    return evaluate(samples, results, protocol, threshold, progress=False, promised_rate=promised_rate)


def report_of(dataset, protocol="full", threshold=None):
    return evaluated(read_mvtec(dataset), protocol, threshold)


def expected_metrics(names, protocol):
    """`metrics.evaluate` on maps and masks at the size of the protocol, drawn here."""
    maps, masks, labels = [], [], []
    for name in names:
        mask = np.zeros(MASK if protocol == "full" else NETWORK, bool)
        if protocol == "full" and name in DEFECTS:
            mask[DEFECTS[name]] = True
        elif name == "block/0":
            mask[0:3, 0:4] = True
        heat = anomaly_map(name)[None, None]
        if protocol == "full":
            heat = torch.nn.functional.interpolate(heat, MASK, mode="bilinear", align_corners=False)
        maps.append(heat[0, 0].numpy())
        masks.append(mask)
        labels.append(name in DEFECTS if protocol == "full" else name == "block/0")
    scores = [SCORES[name] for name in names]
    return metrics.evaluate(maps, masks, image_scores=scores, image_labels=labels)


def assert_same_metrics(found, expected):
    for name in ("image_auroc", "pixel_auroc", "pixel_ap", "pro", "iap", "iap90", "instances"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), abs=1e-9, nan_ok=True), name


@pytest.mark.parametrize("protocol", ["full", "paper"])
def test_metrics_of_all_pictures_and_of_each_defect(dataset, protocol):
    report = report_of(dataset, protocol)
    assert report.protocol == protocol
    assert_same_metrics(report, expected_metrics(sorted(SCORES), protocol))
    assert list(report.defects) == ["block", "dot"]
    for defect, found in report.defects.items():
        assert_same_metrics(found, expected_metrics([f"{defect}/0", "good/0", "good/1"], protocol))


def test_a_defect_that_vanishes_counts_as_good_in_the_paper_only(dataset):
    full, paper = report_of(dataset, "full"), report_of(dataset, "paper")
    assert (full.instances, paper.instances) == (2, 1)
    # Defects 0.9 and 0.5 against 0.1 and 0.6: three of four pairs in order. The dot among the good: all.
    assert (full.image_auroc, paper.image_auroc) == (0.75, 1.0)
    assert full.defects["dot"].image_auroc == 0.5
    assert math.isnan(paper.defects["dot"].image_auroc) and math.isnan(paper.defects["dot"].pixel_ap)


def test_an_empty_mask_beside_a_defect_picture_is_no_reason_to_call_it_good(dataset):
    save(dataset / "ground_truth" / "dot" / "0_mask.png", np.zeros(MASK, np.uint8))
    report = report_of(dataset)
    assert report.instances == 1
    assert report.image_auroc == 0.75


def test_masks_already_of_the_networks_size_are_taken_as_they_are(dataset):
    mask = np.zeros(NETWORK, np.uint8)
    mask[2, 3] = 1
    save(dataset / "ground_truth" / "dot" / "0_mask.png", mask)
    assert report_of(dataset, "paper").instances == 2


def test_rows_and_verdicts(dataset):
    report = report_of(dataset, threshold=0.55)
    assert report.rows == (
        Row("test/block/0.png", "block", 0.9, True),
        Row("test/dot/0.png", "dot", 0.5, False),
        Row("test/good/0.png", "good", 0.1, False),
        Row("test/good/1.png", "good", 0.6, True),
    )
    assert [report.flagged(defect) for defect in ("block", "dot", "good")] == [1.0, 0.0, 0.5]
    assert math.isnan(report.flagged("unknown"))


def test_a_score_at_the_threshold_is_normal(dataset):
    assert not report_of(dataset, threshold=0.9).rows[0].is_anomalous


def test_without_a_threshold_there_are_no_verdicts(dataset):
    report = report_of(dataset)
    assert report.threshold is None
    assert [row.is_anomalous for row in report.rows] == [None] * 4
    assert math.isnan(report.flagged("block"))


def test_table(dataset):
    lines = report_of(dataset, "paper", threshold=0.55).table().splitlines()
    about_false_alarms = lines.pop()
    cells = [line.split("  ") for line in lines[:-1]]
    table = [[cell.strip() for cell in row if cell.strip()] for row in cells]
    assert table[0] == [
        "defect",
        "pictures",
        "flagged",
        "image auroc",
        "pixel auroc",
        "pixel ap",
        "pro",
        "iap",
        "iap90",
    ]
    assert table[1][:4] == ["block", "1", "100.0", "100.0"]
    assert table[2] == ["dot", "1", "0.0", "-", "-", "-", "-", "-", "-"]
    assert table[3] == ["good", "2", "50.0"]
    assert table[4][:3] == ["all", "4", "100.0"]
    assert len({len(line) for line in lines[:-1]}) == 1
    assert lines[-1].startswith("percent; protocol paper: masks resized to the network's input")
    assert lines[-1].endswith("; 1 instances")
    assert about_false_alarms.startswith("1 of 2 good pictures flagged: 50.0 % (95 % interval ")


def test_table_without_threshold(dataset):
    assert report_of(dataset).table().splitlines()[1].split()[:3] == ["block", "1", "-"]


@pytest.mark.parametrize("roi", [None, "left half"])
def test_masks_at_the_pixel_threshold_beside_the_truth(dataset, roi):
    samples = read_mvtec(dataset)
    region = None if roi is None else RegionOfInterest([(0, 0), (7, 0), (7, 12), (0, 12)])
    results = list(results_of(samples, region))
    found = evaluate(samples, results, "full", 0.5, progress=False, pixel_threshold=0.6)
    both = marked = defective = 0
    for sample, (_, scored) in zip(samples, results, strict=True):
        truth = np.zeros(MASK, bool)
        truth[DEFECTS.get(name_of(sample.path), (slice(0), slice(0)))] = True
        counts = np.ones(MASK, bool) if region is None else region.mask(PICTURE, MASK)
        above = mask_of(np.where(counts, scored.resized_map(MASK), 0), 0.6)
        both, marked, defective = (
            both + (above & truth).sum(),
            marked + above.sum(),
            defective + (truth & counts).sum(),
        )
    assert both > 0 and (roi is None or not counts.all())
    expected = (both / marked, both / defective, 2 * both / (marked + defective))
    assert found.marked == pytest.approx(expected)
    assert found.to_dict()["marked"] == found.marked._asdict()
    f1, precision, recall = (f"{100 * value:.1f}" for value in (expected[2], *expected[:2]))
    words = f"masks at the pixel threshold: F1 {f1} %, precision {precision}, recall {recall}"
    assert words in found.table().splitlines()
    assert evaluate(samples, results, "full", 0.5, progress=False).marked is None


def test_masks_that_mark_nothing_have_no_precision(dataset):
    samples = read_mvtec(dataset)
    found = evaluate(samples, results_of(samples), progress=False, pixel_threshold=2.0)
    assert math.isnan(found.marked.precision) and found.marked[1:] == (0, 0)
    assert found.to_dict()["marked"] == {"precision": None, "recall": 0, "f1": 0}


def test_robustness_is_told_only_if_it_was_asked_for(dataset):
    report = report_of(dataset)
    assert report.robustness is None and report.to_dict()["robustness"] is None
    assert "" not in report.table().splitlines()


def test_the_outcome_is_that_of_all_pictures(dataset):
    report = report_of(dataset, threshold=0.55)
    assert dataclasses.astuple(report.outcome()) == (
        *(report.image_auroc, report.pixel_ap, report.iap),
        *(0.5, 0.5),  # one of two normal ones, one of two others
    )


@pytest.mark.parametrize("protocol", ["full", "paper"])
def test_curves_are_those_behind_the_metrics(dataset, protocol):
    report = report_of(dataset, protocol)
    area = {name: (np.diff(x) * (y[1:] + y[:-1]) / 2).sum() for name, (x, y, _) in report.curves.items()}
    assert area["image_roc"] == pytest.approx(report.image_auroc)
    assert area["pixel_roc"] == pytest.approx(report.pixel_auroc, abs=1e-3)
    assert report.curves["instance_precision"].y.mean() == pytest.approx(report.iap)
    assert report == report_of(dataset, protocol) and "curves" not in report.to_dict()


def with_verdicts(flagged, pictures, promised_rate):
    """A report with this many good pictures, and one of a defect, which does not count."""
    verdicts = [(f"good/{k}.png", "good", k < flagged) for k in range(pictures)] + [
        ("hole/0.png", "hole", True)
    ]
    rows = tuple(Row(name, defect, 0.5, verdict) for name, defect, verdict in verdicts)
    undefined = dict.fromkeys([field.name for field in dataclasses.fields(Metrics)], math.nan)
    return Report(
        **undefined, protocol="full", threshold=0.5, defects={}, rows=rows, promised_rate=promised_rate
    )


@pytest.mark.parametrize(
    ("flagged", "pictures", "promised", "words"),
    [
        (
            3,
            20,
            1 / 13,
            "3 of 20 good pictures flagged: 15.0 % (95 % interval 3.2 to 37.9); promised at most 7.7 %",
        ),
        (0, 1, None, "0 of 1 good picture flagged: 0.0 % (95 % interval 0.0 to 97.5); no rate is promised"),
    ],
)
def test_flagged_good_pictures_stand_beside_the_promised_rate(flagged, pictures, promised, words):
    report = with_verdicts(flagged, pictures, promised)
    assert report.table().splitlines()[-1] == words
    stored = report.to_dict()
    assert stored["promised_rate"] == promised
    low, high = share_interval(flagged, pictures)
    assert stored["false_alarms"] == {"flagged": flagged, "pictures": pictures, "low": low, "high": high}


def test_more_false_alarms_than_promised_are_told_with_the_remedy():
    *_, line, advice = with_verdicts(5, 20, 1 / 13).table().splitlines()
    assert line == "5 of 20 good pictures flagged: 25.0 % (95 % interval 8.7 to 49.1); promised at most 7.7 %"
    assert advice.startswith("That is more than promised: ") and "groups= (--group)" in advice
    assert with_verdicts(5, 20, 0.088).table().splitlines()[-1].startswith("5 of 20")  # within the interval


def test_without_verdicts_or_good_pictures_there_are_no_false_alarms(dataset):
    assert report_of(dataset).false_alarms is None and report_of(dataset).to_dict()["false_alarms"] is None
    defective = [sample for sample in read_mvtec(dataset) if sample.is_anomalous]
    assert evaluated(defective, threshold=0.5, promised_rate=0.1).false_alarms is None


def refuse(constant):
    raise AssertionError(f"{constant} is not JSON")


def test_json(dataset, tmp_path):
    path = tmp_path / "out" / "report.json"
    report_of(dataset, "paper", threshold=0.55).to_json(path)
    content = json.loads(path.read_text(), parse_constant=refuse)
    assert content["image_auroc"] == 1.0 and content["instances"] == 1
    assert content["protocol"] == "paper" and content["threshold"] == 0.55
    assert content["defects"]["dot"]["iap"] is None and content["defects"]["dot"]["instances"] == 0
    assert content["rows"][1] == {
        "name": "test/dot/0.png",
        "defect": "dot",
        "score": 0.5,
        "is_anomalous": False,
    }


@pytest.mark.parametrize(
    ("threshold", "verdicts"), [(0.55, ["True", "False", "False", "True"]), (None, [""] * 4)]
)
def test_csv(dataset, tmp_path, threshold, verdicts):
    path = tmp_path / "rows.csv"
    report_of(dataset, threshold=threshold).to_csv(path)
    with open(path, newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["name", "defect", "score", "is_anomalous"]
    assert [row[:3] for row in rows[:2]] == [
        ["test/block/0.png", "block", "0.9"],
        ["test/dot/0.png", "dot", "0.5"],
    ]
    assert [row[3] for row in rows] == verdicts


def test_csv_of_defects(dataset, tmp_path):
    path, report = tmp_path / "defects.csv", report_of(dataset, "paper", threshold=0.55)
    report.defects_to_csv(path)
    with open(path, newline="") as file:
        block, dot, good, everything = csv.DictReader(file)
    assert list(block) == ["defect", "pictures", "flagged", *COLUMNS, "instances"]
    assert (block["defect"], block["pictures"], block["flagged"]) == ("block", "1", "1.0")
    assert float(block["iap"]) == report.defects["block"].iap and block["instances"] == "1"
    assert [dot[name] for name in COLUMNS] == [""] * 6 and dot["instances"] == "0"
    assert list(good.values()) == ["good", "2", "0.5", *[""] * 7]
    assert (everything["defect"], everything["pictures"], everything["flagged"]) == ("all", "4", "")
    assert float(everything["pro"]) == report.pro


def test_a_set_without_defects_has_undefined_metrics(dataset):
    samples = [sample for sample in read_mvtec(dataset) if not sample.is_anomalous]
    report = evaluated(samples)
    assert math.isnan(report.image_auroc) and report.instances == 0 and report.defects == {}
    assert report.to_dict()["pixel_ap"] is None
    assert report.table().splitlines()[-2].split() == ["all", "2", *["-"] * 6]


def test_a_set_without_normal_pictures_still_has_pixel_metrics(dataset):
    samples = [sample for sample in read_mvtec(dataset) if sample.is_anomalous]
    report = evaluated(samples)
    assert math.isnan(report.image_auroc) and 0 < report.pixel_auroc < 1
    assert "good" not in report.table()


def test_folders_share_one_bound_of_memory(dataset, monkeypatch):
    bounds, real = [], metrics.Accumulator

    def noted(**arguments):
        bounds.append(arguments.get("memory"))
        return real(**arguments)

    monkeypatch.setattr("destseg.inference.evaluation.Accumulator", noted)
    expected = report_of(dataset)
    assert bounds[:4] == [MEMORY // 3] * 4 and set(bounds[4:]) == {None}  # what is joined is shared
    monkeypatch.setattr("destseg.inference.evaluation.MEMORY", 0)  # on disk
    assert report_of(dataset).to_dict() == expected.to_dict()


def test_unknown_protocol(dataset):
    with pytest.raises(ValueError, match=r"protocol must be one of full, paper, got 'quick'"):
        report_of(dataset, "quick")


def test_results_must_be_as_many_as_samples(dataset):
    samples = read_mvtec(dataset)
    for results in (list(results_of(samples))[:-1], [*results_of(samples), *results_of(samples)]):
        with pytest.raises(ValueError, match="zip"):
            evaluate(samples, results, progress=False)


def test_a_defect_outside_of_the_region_of_interest_is_none(dataset):
    """Both defects lie in the left half of their pictures."""
    samples = read_mvtec(dataset)
    right = RegionOfInterest([(9, 0), (15, 0), (15, 11), (9, 11)])
    for protocol in ("full", "paper"):
        found = evaluated(samples, protocol, roi=right)
        assert found.instances == 0 and math.isnan(found.image_auroc)
    left = RegionOfInterest([(0, 0), (8, 0), (8, 11), (0, 11)])
    assert evaluated(samples, roi=left).instances == 2
    assert evaluated(samples, "paper", roi=left).instances == 1


def evaluated_alike(dataset, protocol="full", move=None):
    """The report of any data set, whose pictures all score the same."""
    samples, pixels = read_mvtec(dataset), np.zeros((*PICTURE, 3), np.uint8)
    scored = Scored(pixels, PICTURE, np.zeros(NETWORK, np.float32), 0.5, 0.0, None)
    results = ((Source(str(sample.path), sample.path), scored) for sample in samples)
    return evaluate(samples, results, protocol, progress=False, move=move)


def test_masks_that_are_likely_to_be_wrong_are_named_once_for_each_kind(dataset, caplog):
    full = np.full(MASK, 255, np.uint8)
    inverted = full.copy()
    inverted[4:16, 6:24] = 0  # more than a quarter of it, but nothing of its edge
    masks = {"empty": np.zeros(MASK, np.uint8), "full": full, "inverted": inverted}
    for name, mask in masks.items():
        for k in range(2):
            save(dataset / f"test/{name}/{k}.png", np.full((*PICTURE, 3), 90, np.uint8))
            save(dataset / f"ground_truth/{name}/{k}_mask.png", mask)
    for protocol in ("full", "paper"):
        caplog.clear()
        assert len(evaluated_alike(dataset, protocol).rows) == 10
        empty, covering = caplog.messages
        assert empty.startswith("2 of 8 masks are empty") and "empty/0_mask.png" in empty
        assert "test/good" in empty
        assert covering.startswith("4 of 8 masks mark ") and "full/0_mask.png" in covering
        assert "inverted" in covering and "and 1 more" in covering
    caplog.clear()
    evaluated_alike(dataset, move=lambda mask, size: mask)
    assert not caplog.messages  # they were told when the pictures were evaluated as they are


def test_large_defects_are_not_doubted(dataset, caplog):
    large = np.zeros(MASK, np.uint8)
    large[:, 2:] = 255  # nine tenths, but not all around
    save(dataset / "ground_truth/block/0_mask.png", large)
    report_of(dataset)
    assert not caplog.messages


@pytest.mark.parametrize("shape", [(32, 24), (24, 24), (24, 40), (1, 5)])
def test_masks_of_another_aspect_than_their_picture_end_it_before_anything_is_scored(dataset, shape):
    save(dataset / "ground_truth/dot/0_mask.png", np.full(shape, 255, np.uint8))

    def results():
        raise AssertionError("scored")
        yield

    height, width = shape
    words = rf"dot/0_mask\.png is {height} x {width} pixels \(height x width\), its picture 12 x 16"
    with pytest.raises(ValueError, match=words):
        evaluate(read_mvtec(dataset), results(), progress=False)


@pytest.mark.parametrize("shape", [(12, 16), (6, 8), (5, 7), (13, 17), (48, 64)])
def test_masks_may_have_another_size_but_for_rounding(dataset, shape):
    save(dataset / "ground_truth/dot/0_mask.png", np.eye(*shape, dtype=np.uint8))
    assert report_of(dataset).instances > 1


def test_a_turned_picture_has_the_aspect_it_is_seen_in(dataset):
    picture, exif = PIL.Image.new("RGB", PICTURE), PIL.Image.Exif()
    exif[0x0112] = 6  # 12 wide and 16 high as stored, turned by a quarter when it is seen
    picture.save(dataset / "test/dot/0.png", exif=exif)
    assert report_of(dataset).instances == 2


def test_classes_are_defects_as_white_is(dataset):
    white = report_of(dataset)
    for number, name in enumerate(DEFECTS, 1):
        mask = np.zeros(MASK, np.uint8)
        mask[DEFECTS[name]] = number
        save(dataset / f"ground_truth/{name}_mask.png", mask)
    assert report_of(dataset) == white
