"""Building and installing: what DESTSEG_EXT does where there is no compiler, or no build requirement."""

import importlib.util
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

pytest.importorskip("setuptools")
ROOT = pathlib.Path(__file__).resolve().parents[2]
BESIDE_PYTHON = f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"


@pytest.fixture(params=["compiler", "pybind11"])
def build(request, tmp_path):
    """A function that builds the wheel's content in a copy of the tree, where something does not exist."""
    for name in ("setup.py", "pyproject.toml", "CMakeLists.txt", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("csrc", "destseg"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    environment = os.environ | {"CXX": "/no/compiler", "PATH": BESIDE_PYTHON}
    if request.param == "pybind11":
        (tmp_path / "missing").mkdir()
        (tmp_path / "missing" / "pybind11.py").write_text("raise ImportError('there is no pybind11')")
        environment["PYTHONPATH"] = str(tmp_path / "missing")
    elif not (importlib.util.find_spec("pybind11") and shutil.which("cmake", path=BESIDE_PYTHON)):
        pytest.skip("without pybind11 and CMake nothing looks for a compiler")

    def run(wish):
        environment.pop("DESTSEG_EXT", None)
        if wish is not None:
            environment["DESTSEG_EXT"] = wish
        command = [sys.executable, "setup.py", "build"]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    return run


@pytest.mark.parametrize("wish", [None, "0"])
def test_the_package_builds_all_the_same(build, tmp_path, wish):
    process = build(wish)
    assert process.returncode == 0, process.stderr
    assert next((tmp_path / "build").glob("lib*/destseg/detector.py"), None)
    assert not list((tmp_path / "build").rglob("_C*.so"))
    for name in ("py.typed", "model/embedded_teacher.pt", "page/page.html", "page/tables.html"):
        assert next((tmp_path / "build").glob(f"lib*/destseg/{name}"), None), name
    notices = [line for line in process.stderr.splitlines() if line.startswith("destseg: ")]
    assert len(notices) == (0 if wish == "0" else 1)
    assert "CMake Error" not in process.stderr  # which is many lines


def test_a_build_that_must_have_the_kernels_fails(build, request):
    process = build("1")
    assert process.returncode != 0
    reason = {"compiler": "/no/compiler", "pybind11": "there is no pybind11"}
    assert reason[request.node.callspec.params["build"]] in process.stderr


def test_another_wish_is_refused(build):
    process = build("yes")
    assert process.returncode != 0
    assert "DESTSEG_EXT must be unset, 0 (skip the kernels) or 1 (require them), got 'yes'" in process.stderr


def test_the_kernels_for_gpus_are_there_where_nvcc_is():
    if not (os.environ.get("CI") and os.environ.get("DESTSEG_EXT") != "0" and shutil.which("nvcc")):
        pytest.skip("asked in continuous integration with nvcc")
    from destseg import _C_cuda  # it loads without a GPU, too: its runtime is part of it

    table = _C_cuda.anomalies([(0.5, 1, 2, 0.25)])
    assert len(table) == 48
