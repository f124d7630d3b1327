"""What several test files share: the recorded values, tolerances per dtype, small pictures."""

import os
import pathlib
import sys

import pytest

_TESTS = pathlib.Path(__file__).resolve().parent
SHARED = pathlib.Path(os.environ.get("DESTSEG_SHARED", _TESTS.parents[1] / "shared"))


@pytest.fixture(scope="session")
def shared() -> pathlib.Path:
    """The folder of real data, weights and recorded values; tests that use it skip where it is missing."""
    if not (SHARED / "golden").is_dir():
        pytest.skip(f"no shared folder at {SHARED} (set DESTSEG_SHARED to its path)")
    return SHARED


@pytest.fixture(scope="session")
def golden(shared: pathlib.Path) -> pathlib.Path:
    """The folder of values recorded from the published implementation; its recipe becomes importable."""
    sys.path.insert(0, str(shared / "golden"))
    return shared / "golden"
