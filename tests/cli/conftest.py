"""What the tests of the command line share: files of models, and processes in which there is no torch."""

import pathlib
import subprocess
import sys
from collections.abc import Callable

import pytest
from engines import PACKAGES, needs

import destseg

WITHOUT_TORCH = (
    "import sys; sys.modules['torch'] = None; import destseg.cli; sys.exit(destseg.cli.main(sys.argv[1:]))"
)


@pytest.fixture(scope="session")
def model(fitted: "destseg.DeSTSeg", tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The file of a fitted model. Not to be changed by tests."""
    path = tmp_path_factory.mktemp("model") / "part.destseg"
    fitted.save(path)
    return path


@pytest.fixture(scope="session", params=PACKAGES)
def exported(
    request: pytest.FixtureRequest, light: "destseg.DeSTSeg", tmp_path_factory: pytest.TempPathFactory
) -> pathlib.Path:
    """The file of an exported model, on each engine. Not to be changed by tests."""
    needs(request.param)
    path = tmp_path_factory.mktemp("exported") / f"part{request.param}"
    light.export(path)
    return path


@pytest.fixture
def run_without_torch(tmp_path: pathlib.Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command in a new process that cannot import torch, and return it, finished."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", WITHOUT_TORCH, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)

    return run
