"""What notebooks show of a model, a prediction and a report."""

import io

import numpy as np
import PIL.Image

import destseg


def test_a_prediction_shows_its_overlay(fitted, picture):
    result = fitted.predict(picture)
    shown = np.asarray(PIL.Image.open(io.BytesIO(result._repr_png_())))
    np.testing.assert_array_equal(shown, np.asarray(result.overlay()))


def test_a_model_shows_what_is_known_about_it(fitted):
    shown = fitted._repr_html_()
    assert "<th>method</th><td>preset fast, teacher embedded, on torch</td>" in shown
    assert "<th>training</th><td>2 + 2 steps of 2 on cpu</td>" in shown
    assert f"<th>promise</th><td>{fitted.calibration_.promise()}</td>" in shown
    assert "<td>no thresholds yet</td>" in destseg.DeSTSeg(image_size=(64, 96))._repr_html_()


def test_an_evaluation_keeps_small_pictures_if_asked_to(fitted, few_parts, tmp_path):
    folder = tmp_path / "test" / "good"
    folder.parent.mkdir()
    folder.symlink_to(few_parts)
    plain, report = (fitted.evaluate(tmp_path, progress=False, gallery=wanted) for wanted in (False, True))
    assert plain == report and plain.gallery is None and len(report.gallery.thumbnails) == 24
    assert report.gallery.paths["test/good/00.png"] == str(folder / "00.png")
    assert report.facts["test set"] == str(tmp_path) and report.calibration == fitted.calibration_
    assert np.float32(fitted.pixel_threshold_) in report.gallery.edges
