"""The record of a fit."""

import json

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
