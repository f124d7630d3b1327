"""Building and installing: what DESTSEG_EXT does where there is no compiler."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

pytest.importorskip("setuptools")
ROOT = pathlib.Path(__file__).resolve().parents[1]


def build(tmp_path, wish):
    """Build the wheel's content in a copy of the tree, with a compiler that does not exist."""
    for name in ("setup.py", "pyproject.toml", "CMakeLists.txt", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("csrc", "destseg"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    environment = os.environ | {"CXX": "/no/compiler"}
    environment.pop("DESTSEG_EXT", None)
    if wish is not None:
        environment["DESTSEG_EXT"] = wish
    return subprocess.run(
        [sys.executable, "setup.py", "build"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )


@pytest.mark.parametrize("wish", [None, "0"])
def test_without_a_compiler_the_package_builds_all_the_same(tmp_path, wish):
    process = build(tmp_path, wish)
    assert process.returncode == 0, process.stderr
    assert next((tmp_path / "build").glob("lib*/destseg/detector.py"), None)
    assert not list((tmp_path / "build").rglob("_C*.so"))
    notices = [line for line in process.stderr.splitlines() if line.startswith("destseg: ")]
    assert len(notices) == (0 if wish == "0" else 1)


def test_a_build_that_must_have_the_kernels_fails_without_a_compiler(tmp_path):
    assert build(tmp_path, "1").returncode != 0


def test_another_wish_is_refused(tmp_path):
    process = build(tmp_path, "yes")
    assert process.returncode != 0
    assert "DESTSEG_EXT must be unset, 0 (skip the kernels) or 1 (require them), got 'yes'" in process.stderr
