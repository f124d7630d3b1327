"""Stores of pictures: one size, a bound on memory, broken pictures left out by name."""

import logging
import re

import numpy as np
import PIL.Image
import pytest

from destseg.pictures.decoding import UnreadableImage, rgb_within_budget
from destseg.pictures.folders import as_pictures
from destseg.pictures.framing import Framing
from destseg.pictures.roi import RegionOfInterest
from destseg.pictures.store import PictureStore, attempt, read

SIZE = (4, 6)
BYTES = 4 * 6 * 3  # of one picture of that size


@pytest.fixture
def folder(tmp_path):
    """Four pictures of one grey each, 0.png of level 0 to 3.png of level 30."""
    for k in range(4):
        paint(tmp_path / f"{k}.png", 10 * k)
    return tmp_path


def paint(path, level):
    PIL.Image.new("RGB", (12, 8), (level, level, level)).save(path)


def levels(store):
    return [store[k].max().item() for k in range(len(store))]


def test_pictures_come_in_order_and_at_one_size(folder):
    store = PictureStore(as_pictures(folder), Framing(SIZE))
    assert len(store) == 4 and store.size == SIZE
    for k in range(4):
        assert store[k].dtype == np.uint8
        assert store[k].tolist() == np.full((4, 6, 3), 10 * k).tolist()


def test_arrays_are_pictures_too():
    stack = np.arange(2 * 4 * 6 * 3, dtype=np.uint8).reshape(2, 4, 6, 3)
    store = PictureStore(as_pictures(stack), Framing(SIZE))
    assert [store[k].tolist() for k in range(2)] == stack.tolist()


def test_a_change_comes_between_decoding_and_scaling(folder):
    seen = []

    def change(pixels):
        seen.append(pixels.shape)
        return pixels + np.uint8(7)

    picture = read(as_pictures(folder)[2], Framing(SIZE), change)
    assert seen == [(8, 12, 3)]
    assert (picture.pixels == 27).all() and (picture.view.pixels == 27).all()
    assert picture.view.pixels.shape == (4, 6, 3) and picture.view.size == (8, 12)


@pytest.mark.parametrize(
    ("memory", "kept"), [(0, 0), (BYTES - 1, 0), (BYTES, 1), (3 * BYTES + 5, 3), (4 * BYTES, 4), (1 << 40, 4)]
)
def test_as_many_are_kept_as_the_memory_holds_and_the_rest_is_read_again(folder, memory, kept, monkeypatch):
    store = PictureStore(as_pictures(folder), Framing(SIZE), memory=memory)
    again = []

    def counted(source, framing):
        again.append(source.name)
        return read(source, framing)

    monkeypatch.setattr("destseg.pictures.store.read", counted)
    assert levels(store) == [0, 10, 20, 30]
    assert again == [str(folder / f"{k}.png") for k in range(kept, 4)]


def test_a_picture_that_is_gone_later_is_named_once_and_the_next_one_drawn(folder, caplog):
    store = PictureStore(as_pictures(folder), Framing(SIZE), memory=BYTES)  # which keeps the first
    part = store.subset([0, 2, 3])
    (folder / "2.png").unlink()
    assert levels(part) == [0, 30, 30] and part.readable_input(1)[0] == 2
    assert levels(store) == [0, 10, 30, 30]
    assert caplog.messages == [f"left out from now on: there is no picture file {folder / '2.png'}"]
    (folder / "3.png").write_bytes(b"no picture")
    paint(folder / "1.png", 99)
    assert levels(store) == [0, 0, 0, 0]
    assert "1.png is another picture than at first" in caplog.messages[1] and "3.png" in caplog.messages[2]


def test_where_none_is_left_or_it_must_not_be_the_error_is_told(folder):
    stores = [PictureStore(as_pictures(folder), Framing(SIZE), 0, strict) for strict in (False, True)]
    for path in folder.iterdir():
        path.unlink()
    with pytest.raises(ValueError, match="none of the pictures can be read any more"):
        stores[0].input(0)
    with pytest.raises(FileNotFoundError, match=r"1\.png"):
        stores[1].input(1)


def test_subsets_keep_their_order_and_share_memory(folder):
    store = PictureStore(as_pictures(folder), Framing(SIZE))
    part = store.subset([3, 1])
    assert levels(part) == [30, 10] and len(store) == 4
    assert part[0] is store[3]


def test_broken_pictures_are_left_out_by_name(folder, caplog):
    (folder / "1.png").write_bytes((folder / "1.png").read_bytes()[:40])
    (folder / "2.png").write_text("no picture")
    with caplog.at_level(logging.WARNING, "destseg"):
        store = PictureStore(as_pictures(folder), Framing(SIZE))
    assert levels(store) == [0, 30]
    first, second, total = (record.getMessage() for record in caplog.records)
    assert first.startswith(f"left out: {folder / '1.png'} ")
    assert second.startswith(f"left out: {folder / '2.png'} ") and "no PNG" in second
    assert total == "left out 2 of 4 pictures"


def test_readable_pictures_are_not_reported(folder, caplog):
    PictureStore(as_pictures(folder), Framing(SIZE))
    assert not caplog.records


def test_strict_stores_raise_at_a_broken_picture(folder):
    (folder / "2.png").write_text("no picture")
    with pytest.raises(ValueError, match=r"2\.png cannot be read as a picture"):
        PictureStore(as_pictures(folder), Framing(SIZE), strict=True)


def test_nothing_readable_at_all(folder):
    for path in folder.iterdir():
        path.write_text("no picture")
    with pytest.raises(
        ValueError, match=r"none of 4 pictures can be read; the first: .*0\.png cannot be read"
    ):
        PictureStore(as_pictures(folder), Framing(SIZE))


def test_attempts_give_the_picture_or_the_error(folder):
    (source,) = as_pictures(folder / "3.png")
    picture = attempt(lambda: read(source, Framing(SIZE)), source.name)
    assert picture.pixels.tolist() == np.full((8, 12, 3), 30).tolist()
    assert picture.view.pixels.tolist() == np.full((*SIZE, 3), 30).tolist() and picture.view.size == (8, 12)
    (folder / "3.png").unlink()
    assert isinstance(attempt(lambda: read(source, Framing(SIZE)), source.name), FileNotFoundError)


def test_a_picture_too_large_for_memory_is_left_out_by_name(folder, monkeypatch, caplog):
    def decode(image, name, bit_depth):
        if name.endswith("2.png"):
            raise MemoryError
        return rgb_within_budget(image, name, bit_depth)

    monkeypatch.setattr("destseg.pictures.store.rgb_within_budget", decode)
    assert levels(PictureStore(as_pictures(folder), Framing(SIZE))) == [0, 10, 30]
    words = f"{folder / '2.png'}: there is not enough memory for this picture"
    assert caplog.messages[0] == f"left out: {words}"
    with pytest.raises(UnreadableImage, match=f"^{re.escape(words)}$"):
        PictureStore(as_pictures(folder), Framing(SIZE), strict=True)


def test_a_picture_must_show_the_region_at_its_own_size_and_scaled(folder):
    (source,) = as_pictures(folder / "3.png")
    line = np.zeros((80, 120), bool)
    line[:, 50:53] = True  # three columns: less than half of one of the picture's twelve
    with pytest.raises(
        ValueError, match=r"3\.png: roi must .*, got none in a picture of 8 x 12 pixels \(height x width\)$"
    ):
        read(source, Framing((80, 120), roi=RegionOfInterest(line)))
    dot = RegionOfInterest([(4, 4), (5, 4), (4, 5)])  # three of the picture's pixels: less than half of one
    with pytest.raises(ValueError, match=r"3\.png: roi must .* 8 x 12 pixels .*, seen as 1 x 2"):
        read(source, Framing((1, 2), roi=dot))
    assert read(source, Framing((8, 12), roi=dot)).view.size == (8, 12)
