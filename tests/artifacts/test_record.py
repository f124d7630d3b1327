"""The record of a fit."""

import json

import pytest

from destseg.artifacts.record import FitRecord

RECORD = FitRecord(213, 3, 170, 40, (600, 800), 8, "", 5.0, "", "cpu", ("a/1.png", "a/2.png"), True)


def test_it_tells_what_fit_did():
    assert RECORD.lines() == [
        "pictures: 213 found, 3 left out; 170 train, 40 calibrate",
        "training: 600 + 800 steps of 8 on cpu, rotate 5.0",
        "outliers among the normal pictures, left out: a/1.png, a/2.png",
    ]


def test_its_stored_form_is_plain_and_gives_it_back():
    assert FitRecord.from_stored(json.loads(json.dumps(RECORD.stored()))) == RECORD


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        *(
            (name, value, f"{name} must be a whole number of at least 0, got {value!r}")
            for name in ("pictures", "left_out", "trained_on", "calibrated_on")
            for value in (-1, 0.5, "3", None)
        ),
        ("steps", [1], "steps must be two whole numbers of at least 0, (student, segmentation), got [1]"),
        ("batch_size", 0, "batch_size must be a whole number of at least 1, got 0"),
        ("augment", "strong", "augment must be one of '', light, got 'strong'"),
        ("flip", 3, "flip must be one of '', horizontal, vertical, both, got 3"),
        ("rotate", [5], 'rotate must be "auto", "90" (quarter turns) or degrees from 0 to 180, got [5]'),
        ("device", {"a": 1}, "device must be auto, cpu, cuda, cuda:1 or the like, got {'a': 1}"),
        ("outliers", "a.png", "outliers must be a list of names, got 'a.png'"),
        ("outliers", [3], "outliers must be a list of names, got [3]"),
        ("drop_outliers", "no", "drop_outliers must be True or False, got 'no'"),
    ],
)
def test_entries_in_a_file_are_checked(name, value, words):
    with pytest.raises(ValueError) as refused:
        FitRecord.from_stored(RECORD.stored() | {name: value})
    assert str(refused.value) == words
