"""The kernels for GPUs on the CPU: the very same code, its blocks and threads run one after the other."""

import hashlib
import importlib.util
import os
import pathlib
import shutil
import subprocess
import sysconfig
import types
from collections.abc import Callable

import pytest
import torch

from destseg.ops import kernels, tensors

SOURCES = pathlib.Path(__file__).resolve().parents[1] / "csrc"


def compiled(folder: pathlib.Path) -> types.ModuleType:
    """The module destseg._C_cuda for addresses in CPU memory; compiled into a folder unless it lies there.

    Skips the test where there are no sources or no compiler.
    """
    pybind11, compiler = pytest.importorskip("pybind11"), os.environ.get("CXX", "c++")
    if not SOURCES.is_dir() or shutil.which(compiler) is None:
        pytest.skip("needs the kernels' sources and a C++ compiler")
    module = folder / f"_C_cuda{sysconfig.get_config_var('EXT_SUFFIX')}"
    if not module.exists():
        fresh = module.with_suffix(f".{os.getpid()}")
        command = [compiler, "-std=c++17", "-O1", "-shared", "-fPIC", "-ffp-contract=off", "-fopenmp-simd"]
        command += [f"-I{pybind11.get_include()}", f"-I{sysconfig.get_path('include')}", "-o", str(fresh)]
        cuda = SOURCES / "cuda"
        subprocess.run([*command, "-x", "c++", cuda / "bindings.cpp", *sorted(cuda.glob("*.cu"))], check=True)
        fresh.rename(module)
    specification = importlib.util.spec_from_file_location("_C_cuda", module)
    loaded = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(loaded)
    return loaded


def emulate(module: types.ModuleType, patch: Callable[..., object] = setattr) -> None:
    """Let operations on tensors in CPU memory take this module in place of the kernels for GPUs."""
    patch(kernels, "gpu", lambda: module)
    patch(tensors, "on_gpu", lambda tensor: tensor.is_cpu)
    patch(tensors, "place", lambda tensor: (0, 0))


@pytest.fixture(scope="session")
def emulation_folder(pytestconfig: pytest.Config) -> pathlib.Path:
    """The folder for `compiled`, another one for other sources."""
    files = sorted(path for path in SOURCES.rglob("*") if path.suffix in (".h", ".cu", ".cpp"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16]
    return pytestconfig.cache.mkdir(f"emulated_kernels_{digest}")


@pytest.fixture(scope="session")
def emulated_kernels(emulation_folder: pathlib.Path) -> types.ModuleType:
    """The module that `compiled` makes."""
    return compiled(emulation_folder)


@pytest.fixture(params=["cpu", "emulated", "cuda"])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """Where a test's tensors lie: in CPU memory, also with the kernels for GPUs emulated, and on a GPU."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    if request.param != "emulated":
        return torch.device(request.param)
    emulate(request.getfixturevalue("emulated_kernels"), monkeypatch.setattr)
    return torch.device("cpu")
