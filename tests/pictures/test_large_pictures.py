"""Pictures beyond Pillow's limits: read without a warning, or refused with the way to allow them."""

import re
import threading
import time
import warnings

import numpy as np
import PIL.Image
import pytest
from threads import in_threads

from destseg.pictures import decoding
from destseg.pictures.decoding import UnreadableImage, highest_value, read_size, to_rgb
from destseg.pictures.folders import as_pictures, picture_paths
from destseg.pictures.framing import Framing
from destseg.pictures.limit import Budget
from destseg.pictures.masks import read_mask
from destseg.pictures.store import read

ENDINGS = ("png", "jpg", "tif", "bmp", "webp")
READERS = (to_rgb, read_size, highest_value, read_mask)


@pytest.fixture(autouse=True)
def low_limit(monkeypatch):
    """Pillow warns of more than 1000 pixels and refuses more than 2000; every warning is an error."""
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 1000)
    monkeypatch.delenv("DESTSEG_MAX_MEGAPIXELS", raising=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def saved(path, size, dtype=np.uint8):
    pixels = np.random.default_rng(0).integers(0, 200, (*size, 3)[: 3 if dtype == np.uint8 else 2], dtype)
    PIL.Image.fromarray(pixels).save(path)
    return path


each_reader = pytest.mark.parametrize("read", READERS, ids=lambda read: read.__name__)
each_ending = pytest.mark.parametrize("ending", ENDINGS)


@each_reader
@each_ending
def test_up_to_twice_pillows_limit_is_read_without_a_warning(tmp_path, ending, read):
    read(saved(tmp_path / f"a.{ending}", (30, 50)))
    read(saved(tmp_path / f"b.{ending}", (40, 50)))
    assert PIL.Image.MAX_IMAGE_PIXELS == 1000


def test_also_16_bits(tmp_path):
    path = saved(tmp_path / "a.tif", (30, 50), np.uint16)
    assert to_rgb(path, bit_depth=8).shape == (30, 50, 3) and highest_value(path) == 199


@each_reader
@each_ending
def test_more_is_refused_and_the_remedy_told(tmp_path, ending, read, monkeypatch):
    path = saved(tmp_path / f"a.{ending}", (41, 50))
    words = (
        f"{path} cannot be read as a picture: it has 0.00205 megapixels (41 x 50, height x width), and 0.002 "
        "are allowed: set the environment variable DESTSEG_MAX_MEGAPIXELS to allow more"
    )
    with pytest.raises(UnreadableImage, match=f"^{re.escape(words)}$"):
        read(path)
    assert PIL.Image.MAX_IMAGE_PIXELS == 1000
    monkeypatch.setenv("DESTSEG_MAX_MEGAPIXELS", "0.00205")
    read(path)
    assert PIL.Image.MAX_IMAGE_PIXELS == 1000


def test_the_variable_may_also_allow_less(tmp_path, monkeypatch):
    monkeypatch.setenv("DESTSEG_MAX_MEGAPIXELS", "0.0005")
    with pytest.raises(UnreadableImage, match=r"it has 0\.0006 megapixels .* 0\.0005 are allowed"):
        to_rgb(saved(tmp_path / "a.png", (20, 30)))


def test_without_a_limit_of_pillow_there_is_none(tmp_path, monkeypatch):
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", None)
    assert to_rgb(saved(tmp_path / "a.tif", (50, 60))).shape == (50, 60, 3)


@pytest.mark.parametrize("value", ["many", "0", "-1", "nan"])
def test_words_about_a_wrong_value_of_the_variable(tmp_path, monkeypatch, value):
    monkeypatch.setenv("DESTSEG_MAX_MEGAPIXELS", value)
    words = f"DESTSEG_MAX_MEGAPIXELS must be a number above 0, got '{value}'"
    with pytest.raises(UnreadableImage, match=words):
        to_rgb(saved(tmp_path / "a.png", (20, 30)))


def test_looking_for_pictures_of_other_kinds_warns_of_no_size(tmp_path, caplog):
    saved(tmp_path / "a.png", (4, 4))
    saved(tmp_path / "b.ppm", (30, 50))
    saved(tmp_path / "c.gif", (50, 60))
    assert picture_paths(tmp_path) == [tmp_path / "a.png"]
    assert "left out: 2 pictures of another kind" in caplog.text
    assert PIL.Image.MAX_IMAGE_PIXELS == 1000


def test_threads_leave_pillows_limit_as_it_was(tmp_path):
    paths = [saved(tmp_path / f"{k}.{ENDINGS[k % 5]}", (30, 50)) for k in range(20)]
    found = []
    threads = [threading.Thread(target=lambda path=path: found.append(to_rgb(path).shape)) for path in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [(30, 50, 3)] * 20 and PIL.Image.MAX_IMAGE_PIXELS == 1000


def read_in_threads(folder, monkeypatch, sizes, look):
    """Read pictures with 1600 pixels at a time, each in a thread, and call `look` before each is scaled."""
    monkeypatch.setattr(decoding, "budget", Budget(1600))
    sources = as_pictures([saved(folder / f"{k}.png", size) for k, size in enumerate(sizes)])
    in_threads(len(sizes), lambda k: read(sources[k], Framing((8, 8)), look))


def test_large_pictures_are_decoded_and_scaled_one_after_the_other(tmp_path, monkeypatch):
    now, most = [], []

    def look(pixels):
        now.append(pixels.shape)
        most.append(len(now))
        time.sleep(0.01)
        now.remove(pixels.shape)
        return pixels

    read_in_threads(tmp_path, monkeypatch, [(30, 50), (20, 41), (40, 49), (30, 50), (20, 42)], look)
    assert most == [1] * 5  # 1960 pixels are more than there are: it gets its turn all the same


def test_small_pictures_are_decoded_at_the_same_time(tmp_path, monkeypatch):
    both = threading.Barrier(2)

    def look(pixels):
        both.wait(10)
        return pixels

    read_in_threads(tmp_path, monkeypatch, [(20, 40)] * 4, look)


def test_a_picture_that_cannot_be_decoded_gives_back_its_share(tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "budget", Budget(1600))
    path = saved(tmp_path / "a.png", (30, 50))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    for _ in range(3):
        with pytest.raises(UnreadableImage):
            to_rgb(path)
    assert to_rgb(whole).shape == (30, 50, 3)
