"""Directories, lists and stacks of pictures; the MVTec layout; masks."""

import io
import tempfile
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from destseg.pictures.decoding import to_rgb
from destseg.pictures.folders import as_pictures, is_several, picture_paths, read_mask, read_mvtec


@pytest.fixture
def make_picture(tmp_path):
    """A function that writes a picture of 2 x 2 pixels below tmp_path."""

    def write(name):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.new("L", (2, 2)).save(path)
        return path

    return write


def names_of(source):
    return [picture.name for picture in as_pictures(source)]


def test_picture_paths_at_any_depth_in_order(tmp_path, make_picture):
    wanted = [make_picture(name) for name in ("a/2.jpg", "a/10/1.BMP", "b.png", "c.TIFF", "d.webp", "B.tif")]
    make_picture(".hidden.png")
    make_picture(".cache/1.png")
    (tmp_path / "notes.txt").write_text("x")
    assert picture_paths(tmp_path) == sorted(wanted, key=str)
    assert picture_paths(str(tmp_path)) == picture_paths(tmp_path)


def test_directories_without_pictures(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no directory .*gone"):
        picture_paths(tmp_path / "gone")
    with pytest.raises(ValueError, match="holds no pictures: it is empty"):
        picture_paths(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(NotADirectoryError, match=r"notes\.txt is a file; a directory of pictures is wanted"):
        picture_paths(tmp_path / "notes.txt")
    (tmp_path / "more.txt").write_text("x")
    (tmp_path / "README").write_text("x")
    words = r"3 files \(2 x \.txt, 1 x no ending\), such as README, none ending in \.png, \.jpg"
    with pytest.raises(ValueError, match=words):
        picture_paths(tmp_path)


def test_pictures_from_directories_and_paths(tmp_path, make_picture):
    first, second = make_picture("a/1.png"), make_picture("a/2.png")
    assert names_of(tmp_path) == names_of(str(tmp_path / "a")) == [str(first), str(second)]
    assert names_of(second) == [str(second)]
    assert names_of([str(second), first]) == [str(second), str(first)]
    assert names_of([second, tmp_path / "a"]) == [str(second), str(first), str(second)]
    assert names_of(path for path in (first, second)) == [str(first), str(second)]
    assert names_of([PIL.Image.open(first), first.read_bytes()]) == [str(first), "picture 1"]


@pytest.mark.parametrize(
    ("source", "count", "shape"),
    [
        (np.zeros((5, 8, 9, 3), np.uint8), 5, (8, 9, 3)),
        (np.zeros((5, 8, 9, 3), np.float32), 5, (8, 9, 3)),
        (np.zeros((5, 8, 9, 1), np.uint16), 5, (8, 9, 3)),
        (np.zeros((5, 8, 9), np.uint8), 5, (8, 9, 3)),
        (np.zeros((2, 8, 9), np.uint8), 2, (8, 9, 3)),
        (list(np.zeros((3, 8, 9), np.uint8)), 3, (8, 9, 3)),
        (np.zeros((3, 8, 9, 1), np.uint8), 3, (8, 9, 3)),
        (np.zeros((8, 9, 3), np.uint8), 1, (8, 9, 3)),
        (np.zeros((8, 9), np.uint8), 1, (8, 9, 3)),
        (torch.zeros(5, 3, 8, 9), 5, (8, 9, 3)),
        (torch.zeros(5, 8, 9), 5, (8, 9, 3)),
        (torch.zeros(3, 8, 9), 1, (8, 9, 3)),
        ([np.zeros((8, 9, 3), np.uint8), torch.zeros(3, 8, 9), PIL.Image.new("L", (9, 8))], 3, (8, 9, 3)),
        (PIL.Image.new("L", (9, 8)), 1, (8, 9, 3)),
    ],
)
def test_pictures_from_arrays(source, count, shape):
    pictures = as_pictures(source)
    assert [picture.name for picture in pictures] == [f"picture {index}" for index in range(count)]
    assert [to_rgb(picture.image).shape for picture in pictures] == [shape] * count


@pytest.mark.parametrize(
    ("source", "error", "words"),
    [
        ([], ValueError, "at least one picture, got none"),
        (np.zeros((0, 8, 9, 3), np.uint8), ValueError, "at least one picture, got none"),
        (np.array([np.zeros((2, 2)), None], object), ValueError, "one dtype and one size, got object"),
        (np.array([[[0.5]], [[np.nan]]])[..., None], ValueError, "^picture 1: image .* got NaN or infinity"),
        (np.full((2, 8, 9, 3), 200.0), ValueError, r"^picture 0: .*values from 200 to 200; .*numpy\.uint8"),
        (np.zeros((2, 8, 9, 5), np.uint8), ValueError, r"^picture 0: image must be .*\(8, 9, 5\)"),
        (np.zeros((2, 2, 8, 9, 3), np.uint8), ValueError, r"got uint8 of shape \(2, 2, 8, 9, 3\)"),
        ([np.zeros((8, 9), np.uint8), [1, 2]], TypeError, "^picture 1: image must be a path.*got list"),
        (
            np.zeros((3, 8, 9), np.uint8),
            ValueError,
            r"\(3, 8, 9\) may be one colour picture or 3 grey ones: for one pass "
            r"np\.transpose\(image, \(1, 2, 0\)\), for several list\(images\)",
        ),
        (np.zeros((4, 8, 9)), ValueError, r"may be one colour picture or 4 grey ones"),
        (
            torch.zeros(4, 8, 9),
            ValueError,
            r"for one pass image\.permute\(1, 2, 0\), for several list\(images",
        ),
        (np.zeros((48, 64, 2), np.uint8), ValueError, r"48 pictures of 64 x 2 pixels, or one of 2 channels"),
        (np.zeros((48, 64, 5), np.uint8), ValueError, r"48 pictures of 64 x 5 pixels, or one of 5 channels"),
        ("", ValueError, "a path must not be empty"),
        ([np.zeros((8, 9)), ""], ValueError, "a path must not be empty"),
        (7, TypeError, "pictures must be a directory.*got int"),
        ("no/such/place", FileNotFoundError, "no picture or directory .*place"),
        (["no/such/place.png"], FileNotFoundError, r"no picture or directory .*place\.png"),
    ],
)
def test_pictures_that_are_none(source, error, words):
    with pytest.raises(error, match=words):
        as_pictures(source)


def test_mvtec_layout(tmp_path, make_picture):
    good = make_picture("test/good/000.png")
    crack, hole, dent = (make_picture(f"test/{name}") for name in ("crack/1.png", "hole/2.JPG", "hole/3.png"))
    crack_mask = make_picture("ground_truth/crack/1_mask.png")
    make_picture("ground_truth/crack/1.png")  # the name with _mask wins
    hole_mask, dent_mask = (
        make_picture("ground_truth/hole/2.bmp"),
        make_picture("ground_truth/hole/3_mask.TIF"),
    )
    make_picture("test/.hidden/1.png")
    make_picture("test/good/.hidden.png")
    (tmp_path / "test/notes.txt").write_text("x")
    samples = read_mvtec(tmp_path)
    assert [(sample.path, sample.defect, sample.mask_path) for sample in samples] == [
        (crack, "crack", crack_mask),
        (good, "good", None),
        (hole, "hole", hole_mask),
        (dent, "hole", dent_mask),
    ]
    assert [sample.is_anomalous for sample in samples] == [True, False, True, True]


def test_mvtec_layout_incomplete(tmp_path, make_picture):
    with pytest.raises(FileNotFoundError, match=r"not in the MVTec layout: there is no directory .*test"):
        read_mvtec(tmp_path)
    (tmp_path / "test" / "good").mkdir(parents=True)
    with pytest.raises(ValueError, match="test holds no pictures: they should lie in good/"):
        read_mvtec(tmp_path)
    make_picture("test/crack/7.jpg")
    with pytest.raises(FileNotFoundError, match=r"7\.jpg has no mask: expected .*7_mask\.png"):
        read_mvtec(tmp_path)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 127, 128, 255]], np.uint8), [0, 0, 1, 1]),
        (np.array([[0, 1, 1, 0]], np.uint8), [0, 1, 1, 0]),
        (np.array([[0, 0, 0, 0]], np.uint8), [0, 0, 0, 0]),
        (np.array([[0, 2, 200, 0]], np.uint8), [0, 0, 1, 0]),
        (np.array([[False, True]]), [0, 1]),
        (np.array([[0, 32767, 32768, 65535]], np.uint16), [0, 0, 1, 1]),
        (np.array([[0, 1, 1, 0]], np.uint16), [0, 1, 1, 0]),
        (np.array([[[0, 0, 0], [255, 0, 0], [0, 0, 200]]], np.uint8), [0, 1, 1]),
    ],
)
def test_masks(tmp_path, values, expected):
    path = tmp_path / "mask.png"
    PIL.Image.fromarray(values).save(path)
    mask = read_mask(path)
    assert mask.dtype == np.bool_
    np.testing.assert_array_equal(mask, np.array([expected], bool))


@pytest.mark.parametrize(
    ("name", "normal", "defects"),
    [("magnetic_tile", 190, 388), ("kolektorsdd", 67, 50), ("transistor_256", 60, 40)],
)
def test_real_data_sets(shared, name, normal, defects):
    samples = read_mvtec(shared / "data" / name)
    anomalous = [sample for sample in samples if sample.is_anomalous]
    assert (len(samples) - len(anomalous), len(anomalous)) == (normal, defects)
    assert all(read_mask(sample.mask_path).any() for sample in anomalous[::10])
    assert len(picture_paths(shared / "data" / name / "test")) == normal + defects


def test_file_objects_are_single_pictures_and_named(make_picture):
    path = make_picture("1.png")
    data = path.read_bytes()
    with open(path, "rb") as file:
        for one in (io.BytesIO(data), file, memoryview(data)):
            assert not is_several(one)
            (source,) = as_pictures(one)
            assert to_rgb(source.image, source.name).shape == (2, 2, 3)
            assert source.name == (str(path) if one is file else "picture 0")
        assert names_of([io.BytesIO(data), file]) == ["picture 0", str(path)]
    with tempfile.TemporaryFile() as unnamed:  # its name is a number
        unnamed.write(data)
        assert names_of(unnamed) == ["picture 0"]


def test_the_home_folder_is_found(tmp_path, make_picture, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    path = make_picture("parts/test/good/1.png")
    make_picture("parts/test/hole/1.png")
    make_picture("parts/ground_truth/hole/1.png")
    for given in ("~/parts/test/good", Path("~/parts/test/good"), "~/parts/test/good/1.png"):
        assert names_of(given) == names_of([given]) == [str(path)]
    assert is_several("~/parts") and not is_several("~/parts/test/good/1.png")
    assert picture_paths("~/parts/test/good") == [path]
    assert read_mvtec("~/parts")[0].path == path
    assert read_mask("~/parts/ground_truth/hole/1.png").shape == to_rgb("~/parts/test/hole/1.png").shape[:2]
