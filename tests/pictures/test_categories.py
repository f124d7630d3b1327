"""Categories of data sets in the layouts in which they are published."""

import pytest

from destseg.pictures.categories import find_categories, read_category

LAYOUTS = {  # the normal pictures' folder, and the files of a category
    "mvtec": (
        "train/good",
        ["train/good/0.png", "test/good/1.png", "test/hole/2.png", "ground_truth/hole/2_mask.png"],
    ),
    "btad": ("train/ok", ["train/ok/0.bmp", "test/ok/1.bmp", "test/ko/2.bmp", "ground_truth/ko/2.png"]),
    "plain": ("normal", ["normal/0.png", "test/good/1.png", "test/bad/2.png", "ground_truth/bad/2.png"]),
    "flat": ("train", ["train/0.png", "test/normal/1.png", "test/bad/2.png", "ground_truth/bad/2.png"]),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_categories_in_the_layouts_of_public_data_sets(tmp_path, make_picture, layout):
    normal, names = LAYOUTS[layout]
    for category in ("b", "a"):
        paths = [make_picture(f"{category}/{name}") for name in names]
    make_picture("notes/drawing.png")
    (tmp_path / "licence.txt").write_text("x")
    assert find_categories([tmp_path]) == {"a": tmp_path / "a", "b": tmp_path / "b"}
    assert find_categories([tmp_path / "a"]) == {"a": tmp_path / "a"}  # a root may be a category
    found = read_category(tmp_path / "a")
    assert found.normal == tmp_path / "a" / normal
    (good,) = (sample for sample in found.samples if not sample.is_anomalous)
    (bad,) = (sample for sample in found.samples if sample.is_anomalous)
    assert (good.path, good.mask_path, bad.path, bad.mask_path) == (paths[1], None, *paths[2:])


def test_visa_as_its_archive_holds_it(tmp_path, make_picture):
    normal = [make_picture(f"candle/Data/Images/Normal/{k}.JPG") for k in range(3)]
    anomaly = make_picture("candle/Data/Images/Anomaly/000.JPG")
    mask = make_picture("candle/Data/Masks/Anomaly/000.png")
    make_picture("pcb1/Data/Images/Normal/0.JPG")
    lines = ["train,normal,candle/Data/Images/Normal/2.JPG,", "train,normal,candle/Data/Images/Normal/0.JPG,"]
    lines += ["test,normal,candle/Data/Images/Normal/1.JPG,"]
    lines += ["test,anomaly,candle/Data/Images/Anomaly/000.JPG,candle/Data/Masks/Anomaly/000.png"]
    (tmp_path / "split_csv").mkdir()
    table = "\n".join(["object,split,label,image,mask", *(f"candle,{line}" for line in lines)])
    (tmp_path / "split_csv/1cls.csv").write_text(table + "\n")
    assert list(find_categories([tmp_path])) == ["candle", "pcb1"]
    found = read_category(tmp_path / "candle")
    assert found.normal == [normal[2], normal[0]]
    assert [(sample.path, sample.defect, sample.mask_path) for sample in found.samples] == [
        (anomaly, "anomaly", mask),
        (normal[1], "good", None),
    ]
    with pytest.raises(ValueError, match=r"1cls\.csv names no pictures of pcb1 to train on, or none to test"):
        read_category(tmp_path / "pcb1")


def test_folders_without_categories_and_two_of_one_name_are_refused(tmp_path, make_picture):
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*missing"):
        find_categories([tmp_path / "missing"])
    make_picture("empty/1.png")
    with pytest.raises(ValueError, match=r"empty holds no category: a folder with test and train/good"):
        find_categories([tmp_path / "empty"])
    for root in ("one", "two"):
        make_picture(f"{root}/01/train/ok/1.png")
        make_picture(f"{root}/01/test/ok/1.png")
    with pytest.raises(ValueError, match=r"two categories are called 01: .*one/01 and .*two/01"):
        find_categories([tmp_path / "one", tmp_path / "two"])
