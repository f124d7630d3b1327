"""Directories, lists and stacks of pictures."""

import io
import os
import re
import tempfile
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageSequence
import pytest
import torch

from destseg.pictures.dataset import read_mvtec
from destseg.pictures.decoding import to_rgb
from destseg.pictures.folders import (
    as_normals,
    as_pictures,
    is_several,
    iterate_normals,
    iterate_pictures,
    picture_paths,
)
from destseg.pictures.masks import read_mask


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


@pytest.fixture
def dataset(tmp_path, make_picture):
    """A data set in the MVTec layout."""
    names = ["train/good/0.png", "test/good/1.png", "test/crack/2.png", "ground_truth/crack/2_mask.png"]
    for name in names:
        make_picture(f"parts/{name}")
    return tmp_path / "parts"


@pytest.mark.parametrize(
    "part", ["", "..", "test", "test/crack", "ground_truth", "ground_truth/crack", "train/.."]
)
def test_a_data_set_is_no_folder_of_normal_pictures(dataset, part):
    with pytest.raises(ValueError, match=r"did you mean .*parts/train/good\?$"):
        as_normals(dataset / part)
    with pytest.raises(ValueError, match=r"did you mean .*parts/train/good\?$"):
        as_normals([dataset / part])


def test_a_data_set_is_known_from_inside(dataset, monkeypatch):
    for folder, right in (
        (".", "train/good"),
        ("test/crack", "parts/train/good"),
        ("ground_truth", "parts/train/good"),
    ):
        monkeypatch.chdir(dataset / folder)
        with pytest.raises(ValueError, match=rf"did you mean \S*{right}\?"):
            as_normals(".")


def test_a_data_set_is_known_from_a_list_of_its_files(dataset):
    for pattern in ("*/*/*.png", "test/*/*.png", "ground_truth/*/*.png"):
        with pytest.raises(ValueError, match=r"did you mean .*parts/train/good\?"):
            as_normals(sorted(dataset.glob(pattern)))


@pytest.mark.parametrize("part", ["train", "train/good", "test/good"])
def test_normal_pictures_of_a_data_set_are_normal(dataset, part):
    assert len(as_normals(dataset / part)) == 1


@pytest.mark.parametrize("part", ["", "ground_truth", "ground_truth/crack"])
def test_masks_are_no_pictures(dataset, part):
    with pytest.raises(
        ValueError, match=r"2_mask\.png is the mask of a defect.*did you mean .*parts/test\?$"
    ):
        as_pictures(dataset / part)
    assert len(names_of(dataset / "test")) == 2
    assert len(names_of(dataset / "ground_truth/crack/2_mask.png")) == 1  # who names it wants it


@pytest.mark.parametrize(
    ("names", "right"),
    [
        (["good/1.png", "bad/1.png"], "good"),
        (["OK/1.png", "loose.png"], "OK"),
        (["Images/Normal/1.png", "Images/Anomaly/1.png", "Masks/Anomaly/1.png"], "Images/Normal"),
        (["train/ok/1.png", "test/ko/1.png", "ground_truth/ko/1.png"], "train/ok"),
        (["screw/train/good/1.png", "screw/test/cut/1.png"], "screw/train/good"),
        (["train/good/1.png", "train/bad/1.png"], "train/good"),
        (["train/1.png", "test/cut/1.png"], "train"),
        (["Train/1.png", "Test/Good/1.png", "Test/NG/1.png"], "Train"),
        (["training/good/1.png", "testing/cut/1.png"], "training/good"),
        (["img/1.png", "img/Normal/2.png", "GT/1.png"], "img/Normal"),
    ],
)
def test_other_layouts_are_no_folders_of_normal_pictures(tmp_path, make_picture, names, right):
    for name in names:
        make_picture(name)
    with pytest.raises(ValueError, match=rf"did you mean {tmp_path}/{right}\?"):
        as_normals(tmp_path)
    assert as_normals(tmp_path / right)


def test_defects_among_loose_pictures_are_refused(tmp_path, make_picture):
    for name in ("1.png", "Defects/2.png"):
        make_picture(name)
    with pytest.raises(
        ValueError, match=r"Defects/2\.png lies beside .*; pass files or folders of normal pict"
    ):
        as_normals(tmp_path)


@pytest.mark.parametrize("names", [["train/1.png", "val/1.png"], ["train/good/1.png", "test/good/1.png"]])
def test_normal_pictures_may_lie_in_several_folders(tmp_path, make_picture, names):
    for name in names:
        make_picture(name)
    assert len(as_normals(tmp_path)) == 2


@pytest.mark.parametrize("end", ["_mask", "-mask", "_Mask", "_gt"])
def test_masks_are_known_by_their_names(tmp_path, make_picture, end):
    for names in (["1", "2"], [f"1{end}", f"2{end}"], [f"1{end}", "1", "2"]):
        folder = f"{len(names)} {names[0]}"
        for name in names:
            make_picture(f"{folder}/{name}.png")
        for read in (as_normals, as_pictures):
            if names == ["1", "2"]:
                assert len(read(tmp_path / folder)) == 2
                continue
            with pytest.raises(ValueError, match=rf"1{end}\.png is the mask of a defect"):
                read(tmp_path / folder)


@pytest.mark.parametrize("masks", ["gt", "Mask", "labels", "GroundTruth"])
def test_masks_are_known_by_their_folder(tmp_path, make_picture, masks):
    make_picture("img/1.png")
    make_picture(f"{masks}/1.png")
    for read in (as_normals, as_pictures):
        with pytest.raises(ValueError, match=rf"{masks}/1\.png is the mask of a defect"):
            read(tmp_path)
        assert len(read(tmp_path / "img")) == 1


def test_names_that_differ_in_their_ending_only_are_reported(tmp_path, make_picture, caplog):
    """Such as a picture 1.jpg and its mask 1.png, or a copy."""
    for name in ("1.jpg", "1.png", "2.png"):
        make_picture(name)
    assert len(picture_paths(tmp_path)) == 3
    assert re.search(r"1 picture with the name of another.*: \S*1\.png", caplog.text)


def test_an_iterator_of_paths_is_checked_as_well(dataset):
    """Such as Path("parts").rglob("*.png"); each is checked in its turn."""
    everything = sorted(dataset.rglob("*.png"))
    for iterate, wrong in ((iterate_pictures, ["2_mask"]), (iterate_normals, ["2_mask", "2"])):
        sources = list(iterate(iter(everything)))
        assert [source.name for source in sources] == [str(path) for path in everything]
        bad = [source for source in sources if source.error is not None]
        assert sorted(Path(source.name).stem for source in bad) == sorted(wrong)
        assert "is the mask of a defect" in str(bad[0].error)
    (source,) = iterate_normals(iter([dataset]))
    assert "did you mean" in str(source.error)
    assert [source.error for source in iterate_normals([dataset / "train/good"])] == [None]


def test_normal_pictures_count_once(tmp_path, make_picture, caplog):
    """Twice, they would promise more than they can."""
    paths = [make_picture("good/1.png"), make_picture("good/2.png")]
    given = [tmp_path / "good", paths[1], str(tmp_path / "good/../good/1.png")]
    assert [source.image for source in as_normals(given)] == paths
    assert "left out: 2 pictures listed before" in caplog.text
    assert len(as_pictures(given)) == 4  # whoever passes four wants four results


def frames_in_an_array():
    frame = np.zeros((2, 2), np.uint8)
    for k in range(3):
        frame[:] = 10 * k
        yield frame


def frames_in_bytes():
    memory = bytearray(encoded_stack("BMP", 1))
    for k in range(3):
        memory[:] = encoded_stack("BMP", 1, 10 * k)
        yield memoryview(memory)


def frames_in_an_image():
    image = PIL.Image.new("L", (2, 2))
    for k in range(3):
        image.paste(10 * k, (0, 0, 2, 2))
        yield image


def pages_of_a_file():
    return PIL.ImageSequence.Iterator(PIL.Image.open(io.BytesIO(encoded_stack("TIFF", 3))))


def frames_in_a_file():
    file = io.BytesIO()
    for k in range(3):
        file.seek(0)
        file.write(encoded_stack("BMP", 1, 10 * k))
        yield file


def frames_in_images_that_are_still_in_a_file():
    for file in frames_in_a_file():
        yield PIL.Image.open(file)


class Frames:
    """Looks like a list, but makes its items as they are wanted."""

    def __len__(self):
        return 3

    def __contains__(self, item):
        return False

    def __iter__(self):
        return frames_in_an_array()


def encoded_stack(format, count, first=0):
    """A file of so many pages, the first of one level, and each 10 levels brighter than the one before."""
    pages, file = [PIL.Image.new("L", (2, 2), first + 10 * k) for k in range(count)], io.BytesIO()
    pages[0].save(file, format, **({"save_all": True, "append_images": pages[1:]} if count > 1 else {}))
    return file.getvalue()


CAMERAS = [frames_in_an_array, frames_in_bytes, frames_in_an_image, pages_of_a_file, frames_in_a_file]
CAMERAS += [frames_in_images_that_are_still_in_a_file, Frames]


@pytest.mark.parametrize("camera", CAMERAS)
def test_an_iterator_may_fill_the_same_memory_again(camera):
    for take in (as_normals, iterate_pictures):
        sources = list(take(camera()))
        assert [to_rgb(source.image).max() for source in sources] == [0, 10, 20]


def test_a_ski_mask_beside_a_ski_is_a_picture(tmp_path, make_picture):
    for name in ("ski.png", "ski_mask.png", *(f"{k}.png" for k in range(20))):
        make_picture(name)
    assert len(as_normals(tmp_path)) == len(as_pictures(tmp_path)) == 22


@pytest.mark.parametrize("name", ["test/a", "masks/a", "train/test/a", "ground_truth/parts/train/good/a"])
def test_folders_that_only_sound_like_parts_of_a_data_set(tmp_path, make_picture, name):
    make_picture(f"{name}.png")
    assert len(as_normals(tmp_path)) == len(as_normals((tmp_path / name).parent)) == 1


def test_linked_folders_are_followed_once(tmp_path, make_picture, caplog):
    parts = tmp_path / "parts"
    wanted = [make_picture("parts/a.png"), make_picture("parts/real/b.png")]
    make_picture("elsewhere/c.png")
    make_picture("elsewhere/deep/d.png")
    (parts / "more").symlink_to(tmp_path / "elsewhere")
    assert picture_paths(parts) == sorted([*wanted, parts / "more/c.png", parts / "more/deep/d.png"])
    assert not caplog.messages
    (parts / "again").symlink_to("real")
    (parts / "loop").symlink_to(parts)
    (tmp_path / "elsewhere/up").symlink_to(tmp_path)
    assert picture_paths(parts) == sorted([*wanted, parts / "more/c.png", parts / "more/deep/d.png"])
    (message,) = caplog.messages
    assert "not followed: 3 links" in message and all(name in message for name in ("again", "loop", "up"))
    linked = tmp_path / "linked"
    linked.symlink_to(parts)
    assert picture_paths(linked)[0] == linked / "a.png"


def test_folders_that_cannot_be_listed_are_named(tmp_path, make_picture, caplog, monkeypatch):
    wanted, scan = make_picture("a.png"), os.scandir
    make_picture("locked/b.png")

    def scandir(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")  # such as a share that is not mounted
    assert picture_paths(tmp_path) == [wanted]
    (message,) = caplog.messages
    assert (
        "gone" in message and "left out: 2 folders that cannot be listed" in message and "locked" in message
    )
    with pytest.raises(PermissionError, match="locked"):
        picture_paths(tmp_path / "locked")


def test_pictures_of_other_kinds_are_named(tmp_path, make_picture, caplog):
    wanted = [make_picture("a.png")]
    for name in ("b.pgm", "c.gif"):
        PIL.Image.new("L", (2, 2)).save(tmp_path / name)
    (tmp_path / "d").write_bytes(wanted[0].read_bytes())
    for name in ("e.heic", "f.jxl", "g.exr", "h.DCM", "i.cr3", "j.npz"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "notes.txt").write_text("x")
    assert [source.image for source in as_normals(tmp_path)] == wanted
    (message,) = caplog.messages  # and no other
    assert "left out: 9 pictures" in message and "notes" not in message
    assert all(name in message for name in ("b.pgm", "c.gif", "d", "and 6 more", ".png, .jpg"))


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
        assert names_of(iter([file, file])) == [str(path)] * 2
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
    make_picture("pile/OK/1.png")
    make_picture("pile/2.png")
    with pytest.raises(ValueError, match=r"did you mean .*pile/OK\?"):
        as_normals("~/pile")
    assert is_several("~/parts") and not is_several("~/parts/test/good/1.png")
    assert picture_paths("~/parts/test/good") == [path]
    assert read_mvtec("~/parts")[0].path == path
    assert read_mask("~/parts/ground_truth/hole/1.png").shape == to_rgb("~/parts/test/hole/1.png").shape[:2]
