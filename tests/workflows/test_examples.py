"""The examples in the public docstrings run, and give what they say."""

import doctest
import importlib

import pytest


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "module",
    ["detector", "settings", "metrics", "pictures.decoding", "pictures.changes", "inference.calibration"],
)
def test_examples_are_true(module):
    found = doctest.testmod(importlib.import_module(f"destseg.{module}"))
    assert found.attempted and not found.failed
