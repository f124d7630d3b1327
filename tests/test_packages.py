"""Packages that are missing or too old, and what pyproject.toml says of them."""

import pathlib
import re
import sys
import types

import pytest
import torch

import destseg
from destseg.model.tensorfile import write_tensors
from destseg.packages import PACKAGES, import_package

ROOT = pathlib.Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("name", "extra"),
    [("openvino", "openvino"), ("onnxruntime", "onnx"), ("onnx", "export"), ("nncf", "export")],
)
def test_a_missing_engine_names_what_to_install(monkeypatch, name, extra):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=rf"{name} is missing.*pip install 'destseg\[{extra}\]'"):
        import_package(name)


@pytest.mark.parametrize(
    ("name", "version", "words"),
    [
        ("onnxscript", "0.5.7", r"onnxscript 0\.5\.7 is too old, 0\.6 .*: pip install 'destseg\[export\]'"),
        ("openvino", "2025.1.0-18503-6fec06580ab", r"openvino 2025\.1\.0-\S+ is too old, 2025\.2 or later"),
        (
            "torch",
            "2.9.1+cu128",
            r"torch 2\.9\.1\+cu128 is too old, 2\.10 or later is needed: pip install destseg$",
        ),
    ],
)
def test_an_old_package_is_named_with_its_version_and_what_is_needed(monkeypatch, name, version, words):
    monkeypatch.setitem(sys.modules, name, types.SimpleNamespace(__version__=version))
    with pytest.raises(ImportError, match=f"^{words}"):
        import_package(name)


@pytest.mark.parametrize("version", ["2.10", "2.10.0a0+git1234567", "2.13.0+cpu", "3.0"])
def test_newer_packages_are_taken(monkeypatch, version):
    module = types.SimpleNamespace(__version__=version)
    monkeypatch.setitem(sys.modules, "torch", module)
    assert import_package("torch") is module


def test_an_old_torch_reads_no_file(monkeypatch, tmp_path):
    """It reads beyond records that are shorter than declared, CVE-2026-24747."""
    path = tmp_path / "part.destseg"
    write_tensors(path, {"a": 1})
    monkeypatch.setattr(torch, "__version__", "2.9.1")
    monkeypatch.setattr(torch, "load", None)
    for read in (destseg.load, destseg.DeSTSeg.from_checkpoint):
        with pytest.raises(ImportError, match=r"^torch 2\.9\.1 is too old, 2\.10 or later is needed"):
            read(path)


@pytest.fixture(scope="module")
def groups():
    """The requirements in pyproject.toml by the name of their extra; "" for those of destseg itself."""
    tomllib = pytest.importorskip("tomllib")  # from Python 3.11 on
    content = tomllib.loads((ROOT / "pyproject.toml").read_text())
    own = content["project"]["dependencies"]
    build = content["build-system"]["requires"]
    return {"": own, "build": build} | content["project"]["optional-dependencies"]


def test_a_package_is_too_old_where_pip_says_so(groups):
    for name, (extra, oldest) in PACKAGES.items():
        assert f"{name}>={oldest}" in groups[extra]


def test_every_requirement_has_one_lower_bound(groups):
    """.ci/versions installs these versions."""
    requirements = {text for group in groups.values() for text in group if not text.startswith("destseg[")}
    assert all(re.fullmatch(r"[a-z0-9-]+>=[0-9.]+", text) for text in requirements)
    assert len({text.partition(">")[0] for text in requirements}) == len(requirements) > 10
