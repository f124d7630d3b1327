"""Test sets in the MVTec layout."""

import re

import pytest

from destseg.pictures.dataset import read_mvtec
from destseg.pictures.folders import picture_paths
from destseg.pictures.masks import read_mask


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
    with pytest.raises(ValueError, match="test holds no pictures: it is empty; they should lie in good/"):
        read_mvtec(tmp_path)
    crack = make_picture("test/crack/7.jpg")
    (sample,) = read_mvtec(tmp_path)
    assert (sample.path, sample.mask_path, sample.is_anomalous) == (crack, None, True)
    (tmp_path / "ground_truth").mkdir()
    with pytest.raises(FileNotFoundError, match=r"7\.jpg has no mask: expected .*7_mask\.png"):
        read_mvtec(tmp_path)


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


def test_test_pictures_at_any_depth(tmp_path, make_picture, caplog):
    for name in (
        "test/good/cam1/0.png",
        "test/crack/1.png",
        "test/crack/cam1/1.png",
        "test/crack/cam2/1.png",
    ):
        make_picture(name)
    for name in ("crack/1_mask.png", "crack/cam1/1_mask.png", "crack/cam2/1.png"):
        make_picture(f"ground_truth/{name}")
    samples = read_mvtec(tmp_path)
    root = tmp_path / "ground_truth/crack"
    assert [(sample.name, sample.defect, sample.mask_path) for sample in samples] == [
        ("test/crack/1.png", "crack", root / "1_mask.png"),
        ("test/crack/cam1/1.png", "crack", root / "cam1/1_mask.png"),
        ("test/crack/cam2/1.png", "crack", root / "cam2/1.png"),
        ("test/good/cam1/0.png", "good", None),
    ]
    assert not caplog.messages


def test_linked_folders_of_a_test_set(tmp_path, make_picture):
    make_picture("store/1.png")
    make_picture("masks/1.png")
    for link, target in (("test/crack", "store"), ("ground_truth/crack", "masks")):
        (tmp_path / link).parent.mkdir()
        (tmp_path / link).symlink_to(tmp_path / target)
    (sample,) = read_mvtec(tmp_path)
    assert (sample.defect, sample.name) == ("crack", "test/crack/1.png")


def test_what_a_test_set_leaves_out_is_named(tmp_path, make_picture, caplog):
    make_picture("test/good/0.png")
    make_picture("test/100 %s.png")
    make_picture("ground_truth/crack/9_mask.png")
    assert len(read_mvtec(tmp_path)) == 1
    loose, unused = caplog.messages
    assert "left out: 1 picture" in loose and "100 %s.png" in loose
    assert "1 mask" in unused and "9_mask.png" in unused
    (tmp_path / "test/good/0.png").unlink()
    with pytest.raises(ValueError, match=r"test holds no pictures: they should lie in good/ .*100 %s\.png"):
        read_mvtec(tmp_path)


@pytest.mark.parametrize("name", ["OK", "ok", "Good", "GOOD", "normal", "defect-free", "okay"])
def test_normal_pictures_under_another_name(tmp_path, make_picture, caplog, name):
    make_picture("test/good/0.png")
    make_picture(f"test/{name}/1.png")
    make_picture("test/ko/2.png")
    make_picture("ground_truth/ko/2.png")
    make_picture(f"ground_truth/{name}/1_mask.png")  # and black
    found = {sample.name: (sample.defect, sample.mask_path is None) for sample in read_mvtec(tmp_path)}
    normal = {"test/good/0.png": ("good", True), f"test/{name}/1.png": ("good", True)}
    assert found == {**normal, "test/ko/2.png": ("ko", False)}
    assert not caplog.messages


def test_of_two_masks_with_one_name_one_is_said_to_be_left_out(tmp_path, make_picture, caplog):
    make_picture("test/crack/1.png")
    masks = [make_picture(f"ground_truth/crack/1_mask.{ending}") for ending in ("png", "tif")]
    assert read_mvtec(tmp_path)[0].mask_path == masks[0]
    assert re.search(r"not used: 1 mask with the name of another.*: \S*1_mask\.tif", caplog.text)


def test_masks_among_the_pictures_are_refused(tmp_path, make_picture):
    """They would be pictures of defects, and their own masks."""
    for name in ("test/crack/1.png", "test/crack/1_mask.png", "ground_truth/crack/1_mask.png"):
        make_picture(name)
    with pytest.raises(ValueError, match=r"test/crack/1_mask\.png is the mask of a defect, by its name"):
        read_mvtec(tmp_path)
