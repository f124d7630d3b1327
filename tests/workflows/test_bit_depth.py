"""Cameras of more than 8 bits: a model knows the depth of its pictures, in every kind of file."""

import logging
import re

import numpy as np
import PIL.Image
import pytest
from engines import PACKAGES, needs

import destseg
from destseg.cli import main
from destseg.pictures import decoding
from destseg.pictures.decoding import to_rgb

SCHEDULE = {"steps": (1, 1), "batch_size": 2, "workers": 0, "progress": False, "false_positive_rate": 0.2}
DEEP = np.random.default_rng(0).integers(800, 4096, (12, 64, 64)).astype(np.uint16)  # of a 12-bit camera
SHALLOW = np.stack([to_rgb(picture, bit_depth=12) for picture in DEEP])


@pytest.fixture(autouse=True)
def untold(monkeypatch):
    """Nothing has been warned of yet."""
    monkeypatch.setattr(decoding, "_told", set())


def fit(normal, **settings):
    return destseg.DeSTSeg(image_size=64, device="cpu", precision="float32", **settings).fit(
        normal, **SCHEDULE
    )


@pytest.fixture(scope="module")
def deep_model():
    return fit(DEEP)


def test_the_depth_is_learnt_and_all_levels_are_seen(deep_model):
    shallow = fit(SHALLOW)
    assert (deep_model.bit_depth, shallow.bit_depth) == (12, None)
    assert deep_model.losses_ == shallow.losses_
    assert deep_model.calibration_ == shallow.calibration_
    result = deep_model.predict(DEEP[0])
    np.testing.assert_array_equal(result.image, SHALLOW[0])
    assert result.score == shallow.predict(SHALLOW[0]).score


@pytest.mark.parametrize("highest", [1023, 1024, 4095, 4096, 16383, 16384, 65535])
def test_the_smallest_depth_that_no_value_exceeds(highest, tmp_path):
    from destseg.pictures.folders import as_pictures
    from destseg.pictures.store import learn_bit_depth

    pictures = np.zeros((3, 8, 9), np.uint16)
    pictures[1, 2, 3] = highest
    for number, picture in enumerate(pictures):
        PIL.Image.fromarray(picture).save(tmp_path / f"{number}.png")
    (tmp_path / "broken.png").write_bytes(b"")
    PIL.Image.new("L", (9, 8)).save(tmp_path / "eight.png")
    expected = next(depth for depth in (10, 12, 14, 16) if highest < 2**depth)
    assert learn_bit_depth(as_pictures(list(pictures))) == expected
    assert learn_bit_depth(as_pictures(tmp_path)) == expected


def test_a_second_fit_learns_anew(deep_model):
    model = destseg.DeSTSeg(image_size=64, device="cpu", precision="float32")
    assert model.fit(DEEP // 4, **SCHEDULE).bit_depth == 10
    assert model.fit(DEEP, **SCHEDULE).bit_depth == 12
    assert model.losses_ == deep_model.losses_
    fixed = fit(DEEP // 4, bit_depth=12)
    assert fixed.bit_depth == 12


def test_the_file_keeps_it_and_files_of_before_have_16(deep_model, tmp_path):
    path = tmp_path / "m"
    deep_model.save(path)
    loaded = destseg.load(path, "cpu")
    assert loaded.bit_depth == 12
    assert loaded.predict(DEEP[0]).score == deep_model.predict(DEEP[0]).score
    assert loaded.calibrate(DEEP, 0.2).bit_depth == 12
    assert destseg.DeSTSeg(image_size=64).settings.bit_depth is None


@pytest.mark.parametrize("ending", PACKAGES)
def test_exported_models_keep_it(deep_model, ending, tmp_path):
    needs(ending)
    deep_model.export(tmp_path / f"part{ending}")
    loaded = destseg.load(tmp_path / f"part{ending}")
    assert loaded.bit_depth == 12
    found, expected = loaded.predict(DEEP[0]), deep_model.predict(DEEP[0])
    np.testing.assert_array_equal(found.image, expected.image)
    assert found.score == pytest.approx(expected.score, abs=1e-5)


def test_brighter_pictures_are_said_to_be_clipped(deep_model, caplog):
    bright = DEEP[0].copy()
    bright[10:20, 10:20] = 60000
    for _ in range(3):
        assert (deep_model.predict(bright).image[10:20, 10:20] == 255).all()
    assert (
        len(caplog.messages) == 1
        and "values reach 60000, but the model's pictures have 12 bits" in caplog.text
    )


def test_pictures_that_use_a_fraction_of_their_range_are_reported(caplog):
    words = r"pictures use a fraction of their range: nearly all values lie in \d to 1[56] of"
    for dark in (DEEP // 256).astype(np.uint8), DEEP / 65535:
        caplog.clear()
        fit(dark)
        assert any(re.match(words, message) for message in caplog.messages)
    caplog.clear()
    fit(DEEP, bit_depth=16)
    assert any(message.startswith("pictures use a fraction of their range: ") for message in caplog.messages)


def test_the_command_line_takes_it(tmp_path, caplog):
    folder = tmp_path / "good"
    folder.mkdir()
    for number, picture in enumerate(DEEP):
        PIL.Image.fromarray(picture).save(folder / f"{number}.png")
    command = ["fit", str(folder), "--size", "64", "--steps", "1", "1", "--batch-size", "2"]
    with caplog.at_level(logging.INFO, "destseg"):
        assert main([*command, "-o", str(tmp_path / "a")]) == 0
    assert "16-bit pictures: the highest value is within 12 bits (bit_depth=12)" in caplog.messages
    assert main([*command, "-o", str(tmp_path / "b"), "--bit-depth", "14"]) == 0
    assert [destseg.load(tmp_path / name).bit_depth for name in "ab"] == [12, 14]
    assert main([*command, "-o", str(tmp_path / "c"), "--bit-depth", "20"]) == 2
