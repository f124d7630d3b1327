"""Predictions: masks, regions, overlay pictures, one-line summaries, maps as files."""

import json
import math
import time

import numpy as np
import PIL.Image
import pytest

from destseg.inference.prediction import Prediction, Region, write_map
from destseg.pictures.decoding import to_rgb

# Two regions above 0.5: an L that touches itself only at a corner, and a single pixel that is the strongest.
DRAWN = """
    . . . . . 9
    . 6 . . . .
    . . 7 7 . .
    . . . 8 . .
"""


def map_of(drawing):
    """(h, w) float32 map from a drawing in tenths, with 0 for dots."""
    rows = [line.split() for line in drawing.strip().splitlines()]
    return np.array([[0 if cell == "." else int(cell) / 10 for cell in row] for row in rows], np.float32)


def prediction_of(anomaly_map, image=None, **changes):
    if image is None:
        image = np.full((*anomaly_map.shape, 3), 100, np.uint8)
    values = {
        "score": 0.75,
        "threshold": 0.5,
        "is_anomalous": True,
        "p_value": 0.02,
        "anomaly_map": anomaly_map,
        "pixel_threshold": 0.5,
        "image": image,
        "source": "part.png",
    }
    return Prediction(**(values | changes))


def spot(h, w, centre, radius, peak=1.0):
    """(h, w) float32 map: a cone at centre = (row, column)."""
    rows, columns = np.mgrid[:h, :w]
    distance = np.hypot(rows - centre[0], columns - centre[1])
    return (peak * np.clip(1 - distance / radius, 0, 1)).astype(np.float32)


def test_the_mask_reaches_from_what_exceeds_the_threshold_down_to_three_quarters_of_it():
    heat = """
        4 . 4 3 .
        . . . 7 .
        4 4 5 . 4
        . 3 . . .
    """  # in the middle a corner connects; 0.5 at the threshold of 0.5 does not exceed it
    prediction = prediction_of(map_of(heat))
    assert prediction.mask.dtype == np.bool_
    assert prediction.mask.astype(int).tolist() == [
        [0, 0, 1, 0, 0],
        [0, 0, 0, 1, 0],
        [1, 1, 1, 0, 1],
        [0, 0, 0, 0, 0],
    ]


@pytest.mark.parametrize("threshold", [0.7, math.nan])
def test_no_mask_where_nothing_exceeds_the_threshold(threshold):
    heat = np.full((2, 3), 0.7, np.float32)
    assert not prediction_of(heat, pixel_threshold=threshold).mask.any()


def test_regions_of_a_drawn_map():
    # the L covers (x, y) = (1, 1), (2, 2), (3, 2), (3, 3)
    single, ell = prediction_of(map_of(DRAWN)).regions
    assert single == Region((5, 0, 6, 1), 1, pytest.approx(0.9), (5.0, 0.0))
    assert ell == Region((1, 1, 4, 4), 4, pytest.approx(0.8), (2.25, 2.0))
    assert isinstance(ell.area, int)
    assert all(isinstance(value, int) for value in ell.bbox)
    assert all(isinstance(value, float) for value in (ell.score, *ell.centroid))


def test_no_region():
    assert prediction_of(np.zeros((3, 4), np.float32)).regions == ()


def test_regions_agree_with_a_scan_of_each():
    anomaly_map = np.random.default_rng(3).random((40, 50)).astype(np.float32)
    prediction = prediction_of(anomaly_map, pixel_threshold=0.8)
    assert sum(region.area for region in prediction.regions) == prediction.mask.sum()
    scores = [region.score for region in prediction.regions]
    assert scores == sorted(scores, reverse=True)
    for region in prediction.regions:
        left, top, right, bottom = region.bbox
        box = np.where(prediction.mask, anomaly_map, 0)[top:bottom, left:right]
        assert np.any(box == np.float32(region.score)) and region.score > 0.8
        for edge in (box[0], box[-1], box[:, 0], box[:, -1]):
            assert edge.max() > 0.6
        assert left <= region.centroid[0] < right
        assert top <= region.centroid[1] < bottom


def test_thousands_of_regions_take_little_time():
    anomaly_map = np.zeros((1000, 1000), np.float32)
    anomaly_map[::4, ::4] = 1
    started = time.perf_counter()
    assert len(prediction_of(anomaly_map).regions) == 62500
    assert time.perf_counter() - started < 10  # a scan per region would take minutes


def test_to_dict_is_plain():
    values = {"score": np.float32(0.75), "is_anomalous": np.bool_(True), "p_value": math.nan}
    answer = prediction_of(map_of(". 6\n. 7"), **values).to_dict()
    assert json.loads(json.dumps(answer, allow_nan=False)) == {
        "source": "part.png",
        "score": 0.75,
        "threshold": 0.5,
        "is_anomalous": True,
        "p_value": None,
        "regions": [
            {"bbox": [1, 0, 2, 2], "area": 2, "score": pytest.approx(0.7), "centroid": [1.0, 0.5]},
        ],
    }


@pytest.mark.parametrize("size", [(1, 1), (5, 400), (400, 5), (32, 32), (256, 256), (1500, 2500)])
@pytest.mark.parametrize("is_anomalous", [True, False])
def test_overlay_of_any_size(size, is_anomalous):
    h, w = size
    anomaly_map = spot(h, w, (h / 2, w / 2), max(1, min(h, w) / 4))
    prediction = prediction_of(anomaly_map, is_anomalous=is_anomalous)
    before = prediction.image.copy()
    overlay = prediction.overlay()
    assert overlay.mode == "RGB"
    assert overlay.size == (w, h)
    np.testing.assert_array_equal(prediction.image, before)


def test_overlay_leaves_quiet_parts_alone():
    image = np.random.default_rng(0).integers(0, 256, (100, 120, 3), np.uint8)
    anomaly_map = spot(100, 120, (50, 60), 30)
    overlay = np.asarray(prediction_of(anomaly_map, image).overlay(caption=False))
    quiet = anomaly_map < 0.25  # below three quarters of the threshold, and away from the outline
    np.testing.assert_array_equal(overlay[quiet], image[quiet])
    assert (overlay[anomaly_map > 0.6] != image[anomaly_map > 0.6]).any(axis=1).all()


def test_overlay_heat_of_one_pixel():
    # where the map is 1 the heat is (250, 220, 80): half of it and half of the grey 100
    anomaly_map = np.zeros((9, 9), np.float32)
    anomaly_map[4, 4] = 1
    overlay = np.asarray(prediction_of(anomaly_map).overlay(opacity=0.5, caption=False))
    assert overlay[4, 4].tolist() == [175, 160, 90]
    # around it the outline in cyan, then a dark casing, then the picture
    assert overlay[4, 1:4].tolist() == [[100, 100, 100], [33, 33, 33], [0, 240, 255]]


def test_overlay_opacity():
    prediction = prediction_of(np.full((9, 9), 0.4, np.float32))
    np.testing.assert_array_equal(np.asarray(prediction.overlay(opacity=0, caption=False)), prediction.image)
    with pytest.raises(ValueError, match=r"opacity must lie in \[0, 1\], got 45"):
        prediction.overlay(opacity=45)


@pytest.mark.parametrize("defect_at_top", [True, False])
def test_caption_keeps_off_the_defect(defect_at_top):
    anomaly_map = np.zeros((300, 300), np.float32)
    anomaly_map[: 40 if defect_at_top else None] = 1 if defect_at_top else 0
    prediction = prediction_of(anomaly_map)
    drawn = np.asarray(prediction.overlay()) != np.asarray(prediction.overlay(caption=False))
    rows = np.nonzero(drawn.any(axis=(1, 2)))[0]
    assert (rows.min() > 250) if defect_at_top else (rows.max() < 50)


@pytest.mark.parametrize(("threshold", "values"), [(0.0, 0.5), (1.0, 1.0), (math.inf, 1.0)])
def test_overlay_with_extreme_thresholds(threshold, values):
    prediction = prediction_of(np.full((64, 64), values, np.float32), pixel_threshold=threshold)
    assert prediction.overlay().size == (64, 64)


def test_overlay_of_a_real_picture(shared):
    path = next((shared / "data" / "magnetic_tile" / "test" / "crack").glob("*.jpg"))
    image = to_rgb(path)
    h, w, _ = image.shape
    overlay = prediction_of(spot(h, w, (h / 2, w / 2), h / 4), image).overlay()
    assert overlay.size == (w, h)


@pytest.mark.parametrize("name", ["map.png", "map.PNG"])
def test_write_map_as_16_bit_grey(tmp_path, name):
    # 0.5 * 65535 = 32767.5, to even 32768; 0.25 * 65535 = 16383.75
    write_map(tmp_path / name, np.array([[0, 0.25, 0.5, 1]], np.float32))
    with PIL.Image.open(tmp_path / name) as picture:
        assert np.asarray(picture, np.int32).tolist() == [[0, 16384, 32768, 65535]]


def test_write_map_as_array(tmp_path):
    path = tmp_path / "map.npy"
    path.write_bytes(b"an older file")
    write_map(str(path), map_of(DRAWN))
    np.testing.assert_array_equal(np.load(path), map_of(DRAWN))
    assert [file.name for file in tmp_path.iterdir()] == ["map.npy"]


@pytest.mark.parametrize(
    ("name", "anomaly_map", "words"),
    [
        ("map.jpg", np.zeros((2, 2)), r"written as \.png or \.npy, got map\.jpg"),
        ("map.png", np.zeros((2, 2, 1)), r"\(h, w\) float .*got float64 of shape \(2, 2, 1\)"),
        ("map.png", np.zeros((2, 2), np.uint8), r"\(h, w\) float .*got uint8 of shape \(2, 2\)"),
        ("map.png", np.zeros((0, 2)), r"got float64 of shape \(0, 2\)"),
        ("map.png", np.array([[0, 1.5]]), r"must lie in \[0, 1\], got values from 0 to 1\.5"),
        ("map.png", np.array([[0, np.nan]]), r"must lie in \[0, 1\], got values from nan"),
    ],
)
def test_write_map_refuses(tmp_path, name, anomaly_map, words):
    with pytest.raises(ValueError, match=words):
        write_map(tmp_path / name, anomaly_map)
    assert list(tmp_path.iterdir()) == []


def test_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "map.npy"
    path.write_bytes(b"an older file")

    def full_disk(*_):
        raise OSError("no space left")

    monkeypatch.setattr(np, "save", full_disk)
    with pytest.raises(OSError, match="no space left"):
        write_map(path, np.zeros((2, 2)))
    assert path.read_bytes() == b"an older file"
    assert [file.name for file in tmp_path.iterdir()] == ["map.npy"]
