"""Pictures in groups: ways to say so, equal pictures, and hints from names and looks."""

import re
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from destseg.pictures.folders import Source, as_pictures
from destseg.pictures.framing import Framing
from destseg.pictures.groups import NUMBERED, groups_of, hint_at_groups, join_groups, named_groups, units_of
from destseg.pictures.store import PictureStore
from destseg.settings import check_groups

NAMES = ["day1/7_0.png", "day1/7_1.png", "day2/8_0.png", "day2/7_0.png"]
FABRIC = [f"good/{strip:04}_000_02_{crop}.png" for strip in range(1, 16) for crop in range(4)]
ITEMS = [f"good/kos{item:02}_Part{part}.jpg" for item in range(1, 49) for part in range(item % 4 + 4)]
EXPOSURES = [f"good/exp{k % 6 + 1}_num_{10334 + 17 * k}.jpg" for k in range(762)]


def files(names):
    return [Source(name, Path(name)) for name in names]


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        (None, [0, 1, 2, 3]),
        ("folder", [0, 0, 1, 1]),
        (r"(\d)_", [0, 0, 1, 0]),
        (r"(.*)_\d\.png$", [0, 0, 1, 2]),
        (r"day(\d)/", [0, 0, 1, 1]),
        (lambda path: path.stem[0], [0, 0, 1, 0]),
        (lambda path: (path.parent.name, len(path.parts)), [0, 0, 1, 1]),
    ],
)
def test_every_way_to_say_what_belongs_together(groups, expected):
    assert join_groups(groups_of(files(NAMES), groups)) == expected


def test_a_function_gets_the_path_of_a_file_and_the_name_of_an_array():
    seen = []
    groups_of([*files(NAMES[:1]), *as_pictures(np.zeros((2, 4, 4, 3), np.uint8))], seen.append)
    assert seen == [Path("day1/7_0.png"), Path("picture 0"), Path("picture 1")]


@pytest.mark.parametrize(
    ("groups", "error", "words"),
    [
        ("(day", ValueError, r"^groups must be \"folder\", a regular expression .*, got '\(day': missing \)"),
        ("day", ValueError, r"exactly one group, or a function of the path, got 'day' with 0 groups$"),
        ("(a)(b)", ValueError, r"got '\(a\)\(b\)' with 2 groups$"),
        (3, TypeError, r"^groups must be .*, got int$"),
    ],
)
def test_words_about_what_says_no_groups(groups, error, words):
    with pytest.raises(error, match=words):
        check_groups(groups)
    with pytest.raises(error, match=words):
        groups_of(files(NAMES), groups)


@pytest.mark.parametrize("pattern", [r"day2/(\d)", r"day2/(\d)|day1"])
def test_a_picture_that_a_pattern_does_not_match_is_named(pattern):
    with pytest.raises(
        ValueError, match=rf"^groups: the pattern {re.escape(repr(pattern))} does not match day1/7_0"
    ):
        groups_of(files(NAMES), pattern)


@pytest.mark.parametrize("groups", ["folder", r"(\d)"])
def test_patterns_and_folders_need_paths(groups):
    pictures = as_pictures([np.zeros((4, 4, 3), np.uint8)])
    words = rf"groups={re.escape(repr(groups))} needs the paths of the pictures, and picture 0 has none"
    with pytest.raises(ValueError, match=words):
        groups_of(pictures, groups)


def test_a_function_must_return_something_hashable():
    with pytest.raises(
        TypeError, match=r"^groups must return something hashable, got a list for day1/7_0\.png$"
    ):
        groups_of(files(NAMES), lambda path: [path])


@pytest.mark.parametrize(
    ("labelings", "expected"),
    [
        ([[]], []),
        ([["a", "b", "a"]], [0, 1, 0]),
        ([[1, 2, 3, 4], [5, 6, 6, 5]], [0, 1, 1, 0]),
        ([[1, 1, 2, 2, 3], [4, 5, 5, 6, 7]], [0, 0, 0, 0, 1]),  # a chain
        ([[1, 2, 3, 4, 1], [0, 9, 8, 9, 8]], [0, 1, 0, 1, 0]),
    ],
)
def test_groups_that_share_a_picture_become_one(labelings, expected):
    assert join_groups(*labelings) == expected


def test_equal_pictures_are_one_unit_and_named_once(tmp_path, caplog):
    for name, level in {"0": 9, "1": 5, "2": 9, "3": 7, "4": 9}.items():
        PIL.Image.new("RGB", (8, 8), (level,) * 3).save(tmp_path / f"{name}.png")
    sources = as_pictures(tmp_path)
    store = PictureStore(sources, Framing((8, 8)))
    assert units_of(store, dict(zip(sources, "abcde", strict=True))) == [0, 1, 0, 2, 0]
    assert caplog.messages == [
        f"2 of 5 pictures equal an earlier one, such as {tmp_path / '2.png'}, which equals "
        f"{tmp_path / '0.png'}: equal pictures stay on one side of the split between training and "
        "calibration and count once; delete the copies"
    ]
    assert units_of(store.subset([1, 3]), dict(zip(sources, "aaaaa", strict=True))) == [0, 0]
    assert len(caplog.messages) == 1


def test_equal_pixels_of_another_shape_are_not_equal():
    framing = Framing((8, 8), tile=(8, 8))
    wide, high = np.full((8, 16, 3), 7, np.uint8), np.full((16, 8, 3), 7, np.uint8)
    store = PictureStore(as_pictures([wide, high, wide.copy()]), framing)
    assert len(set(store.digests)) == 2 and store.digests[0] == store.digests[2]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (FABRIC, NUMBERED),
        (ITEMS, NUMBERED),
        (EXPOSURES, None),  # six large groups
        ([f"good/{k:03}.png" for k in range(213)], None),
        ([f"img_{k:04}.png" for k in range(40)], None),
        ([f"part{k:02}_cam{camera}.png" for k in range(9) for camera in (1, 2)], NUMBERED),
        ([f"roll{k:02}/{number}.png" for k in range(9) for number in range(6)], "folder"),
        ([f"cam{camera}/{k:03}.png" for camera in (1, 2) for k in range(30)], None),  # two large folders
        ([f"{k * 7919 % 10007}_{k}.png" for k in range(40)], None),  # each its own
        (["first.png", *FABRIC], None),
        (["7.png"], None),
    ],
)
def test_names_that_look_like_groups(names, expected):
    assert named_groups(files(names)) == expected


def test_arrays_have_no_names():
    assert named_groups(as_pictures(np.zeros((60, 4, 4, 3), np.uint8))) is None


def test_what_the_hint_says_to_type_puts_the_pictures_into_groups():
    assert len(set(groups_of(files(FABRIC), NUMBERED))) == 15
    assert len(set(groups_of(files(ITEMS), NUMBERED))) == 48


def paint(path, seed):
    pixels = np.random.default_rng(seed).integers(60, 200, (64, 64, 3), np.uint8)
    path.parent.mkdir(exist_ok=True)
    PIL.Image.fromarray(pixels).save(path)
    return pixels


def test_names_are_hinted_at_once_with_what_to_type(tmp_path, caplog):
    for k in range(16):
        paint(tmp_path / f"{k // 4}_{k % 4}.png", k)
    hint_at_groups(PictureStore(as_pictures(tmp_path), Framing((64, 64))))
    (words,) = caplog.messages
    assert words.startswith(
        f"the names of 16 pictures form 4 groups, such as {tmp_path / '0_0.png'} and {tmp_path / '0_1.png'}: "
    )
    assert words.endswith(f"fit with groups=r\"{NUMBERED}\" (--group '{NUMBERED}')")


def test_looks_are_hinted_at_once_with_the_likeliest_pair(tmp_path, caplog):
    for k in range(6):
        paint(tmp_path / f"{k}.png", k)
    brighter = np.clip(1.03 * paint(tmp_path / "2.png", 2) + 0.5, 0, 255).astype(np.uint8)
    PIL.Image.fromarray(brighter).save(tmp_path / "6.png")
    paint(tmp_path / "7.png", 5)  # equal pictures have their own warning
    hint_at_groups(PictureStore(as_pictures(tmp_path), Framing((64, 64))))
    (words,) = caplog.messages
    pair = f"{tmp_path / '2.png'} and {tmp_path / '6.png'}"
    assert words.startswith(f"1 pair of pictures seems to show the same part, such as {pair}: ")
    assert "delete one of each pair, or put both into one group by groups= (--group)" in words
