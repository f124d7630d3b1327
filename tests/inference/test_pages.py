"""What stands on the report page, and the thresholds that calibration can set."""

import dataclasses
import json
import re
import sys

import numpy as np
import pytest

from destseg.inference.calibration import Calibration
from destseg.inference.pages import PredictionsPage, report_values
from destseg.inference.prediction import Prediction
from destseg.inference.report import Report, Row

UNDEFINED = dict.fromkeys(("image_auroc", "pixel_auroc", "pixel_ap", "pro", "iap", "iap90"), float("nan"))
SCORES = (0.4, 0.1, 0.3, 0.3, 0.2, 0.7)


def data_of(path):
    """The values that a page's script reads."""
    return json.loads(re.search(r'<script id="data".*?>(.*?)</script>', path.read_text())[1])


def report_of(calibration, **others):
    rows = (Row("test/good/1.png", "good", 0.25, False), Row("test/hole/2.png", "hole", 0.9, True))
    options = {"protocol": "full", "threshold": 0.5, "defects": {}, "rows": rows, "instances": 0}
    return Report(**UNDEFINED | options | others, calibration=calibration)


@pytest.mark.parametrize("groups", [None, (0, 0, 1, 1, 1, 2)])
def test_each_attainable_threshold_is_set_by_its_rate(groups):
    calibration = Calibration(SCORES, SCORES[::-1], 0.3, groups=groups)
    found = calibration.attainable()
    assert [round(threshold, 4) for threshold, _, _ in found] == [0.1, 0.2, 0.3, 0.4, 0.7]
    for threshold, rate, pixel_threshold in found:
        again = dataclasses.replace(calibration, false_positive_rate=rate)
        assert (again.threshold, again.pixel_threshold) == (threshold, pixel_threshold)
        assert again.guaranteed_rate == rate
    assert calibration.threshold in [threshold for threshold, _, _ in found]
    if groups is None:
        np.testing.assert_allclose([rate for _, rate, _ in found], np.array([6, 5, 3, 2, 1]) / 7, atol=1e-6)
    else:  # of the scores above 0.3 one is in the first group of two, one in the third of one
        assert found[2][1] == pytest.approx((1 + 1 / 2 + 1) / 4, abs=1e-6)


def test_many_attainable_thresholds_are_set_by_the_rates_as_written():
    scores = tuple(np.random.default_rng(0).random(5000).tolist())
    found = Calibration(scores, scores, 0.01).attainable()
    assert len(found) == 5000
    for threshold, rate, pixel_threshold in found[::500]:
        assert rate == round(rate, 6) and threshold == pixel_threshold
        assert Calibration(scores, scores, rate).threshold == threshold


def test_nothing_is_attainable_where_training_saw_the_pictures():
    calibration = Calibration((0.1,), (0.1,), 0.5, trained_on=True)
    assert calibration.attainable() == []
    assert report_values(report_of(calibration), "part")["few"].startswith(
        "No false-positive rate is promised"
    )


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        (None, "6 held-out normal pictures: no rate below 14 %"),
        ((0, 0, 1, 1, 1, 2), "3 held-out normal groups"),
    ],
)
def test_the_page_says_how_little_few_pictures_promise(groups, words):
    assert words in report_values(report_of(Calibration(SCORES, SCORES, 0.3, groups=groups)), "part")["few"]


def test_a_report_without_thresholds_curves_and_pictures_makes_a_page(tmp_path):
    report_of(None, threshold=None).to_html(tmp_path / "page.html")
    data = data_of(tmp_path / "page.html")
    assert (data["threshold"], data["attainable"], data["plots"]) == (None, [], [])
    assert data["rows"][0] == {
        "name": "test/good/1.png", "path": "test/good/1.png", "defect": "good", "score": 0.25, "p": None
    }  # fmt: skip
    assert data["command"] == "destseg calibrate MODEL --false-positive-rate"


def test_a_page_of_predictions_holds_pictures_and_p_values(tmp_path):
    calibration = Calibration(SCORES, SCORES, 0.3)
    page = PredictionsPage(calibration, {"promise": "a lot"}, "my part.destseg")
    heat, pixels = np.full((4, 6), 0.6, np.float32), np.zeros((4, 6, 3), np.uint8)
    page.add("a.png", Prediction(0.5, 0.4, True, 0.3, heat, 0.4, pixels, "a.png"))
    page.add("b.png", ValueError("b.png cannot be read"))
    page.to_html(tmp_path / "page.html")
    data, text = data_of(tmp_path / "page.html"), (tmp_path / "page.html").read_text()
    (row,) = data["rows"]
    assert (row["defect"], row["score"], row["p"]) == (None, 0.5, pytest.approx(2 / 7))
    assert row["path"].endswith("/a.png") and row["size"] == [6, 4] and row["picture"] and row["layers"]
    assert data["command"] == "destseg calibrate 'my part.destseg' --false-positive-rate"
    assert "left out, as it cannot be read: b.png" in text and "a lot" in text and "Metrics" not in text


def test_names_can_neither_break_nor_fill_the_page_with_markup(tmp_path):
    name = "test/hole/</script><img src=x onerror=alert(1)>\udcff.png"
    rows = (Row(name, "<i>", 0.5, True),)
    report = report_of(None, rows=rows, left_out={"<b>": "broken"}, facts={"roi": "<u>"})
    report.to_html(tmp_path / "page.html", "<s>")
    text = (tmp_path / "page.html").read_text()
    assert not re.search("<(img|i|b|u|s)>|<img", text.partition('<script>\n"use strict"')[0])
    assert data_of(tmp_path / "page.html")["rows"][0]["name"] == name


def test_a_page_needs_jinja2_and_names_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ImportError, match=r"jinja2 is missing.*pip install 'destseg\[report\]'"):
        report_of(None).to_html(tmp_path / "page.html")
    assert not list(tmp_path.iterdir())


def test_a_page_names_nothing_of_the_network(tmp_path):
    report_of(Calibration(SCORES, SCORES, 0.3)).to_html(tmp_path / "page.html")
    addresses = set(re.findall(r"(?:https?:)?//[\w.]+/[\w./]*", (tmp_path / "page.html").read_text()))
    assert addresses <= {"http://www.w3.org/2000/svg"}


def test_columns_and_notebooks():
    report = report_of(None)
    assert report.to_dataframe() == {
        "name": ["test/good/1.png", "test/hole/2.png"],
        "defect": ["good", "hole"],
        "score": [0.25, 0.9],
        "is_anomalous": [False, True],
    }
    shown = report._repr_html_()
    assert "<th>good</th><td>1</td><td>0.0</td>" in shown and "<p>0 of 1 good picture flagged" in shown
