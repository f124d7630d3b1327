"""What the tests of pictures share."""

import pathlib
from collections.abc import Callable

import PIL.Image
import pytest


@pytest.fixture
def make_picture(tmp_path: pathlib.Path) -> Callable[[str], pathlib.Path]:
    """A function that writes a picture of 2 x 2 pixels below tmp_path."""

    def write(name: str) -> pathlib.Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.new("L", (2, 2)).save(path)
        return path

    return write
