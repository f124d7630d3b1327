"""What tests of files share: one model, exported in each form once."""

import pathlib
from collections.abc import Callable

import pytest
from engines import needs, pictures

import destseg


@pytest.fixture(scope="session")
def exported(light: destseg.DeSTSeg, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., pathlib.Path]:
    """Makes the exported file of an ending and a precision, once. Not to be changed by tests."""
    folder, made = tmp_path_factory.mktemp("exported"), set()

    def path_of(ending: str, precision: str = "float32") -> pathlib.Path:
        needs(ending, precision)
        path = folder / precision / f"part{ending}"
        if path not in made:
            light.export(path, precision=precision, normal=pictures((64, 96), 4, seed=8))
            made.add(path)
        return path

    return path_of
