"""The bill of materials: every pin of constraints.txt, and every package that pyproject.toml asks for."""

import importlib.util
import json
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
SCRIPT = ROOT / "tools" / "bill_of_materials.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("bill_of_materials", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_pin_becomes_a_component(script):
    pins = '# of this release\nNNCF_x.y==3.4.0  # why\n\npillow==13.0.0; python_version >= "3.11"\n'
    first, second = script.components(pins)
    assert first["purl"] == first["bom-ref"] == "pkg:pypi/nncf-x-y@3.4.0" and first["name"] == "nncf-x-y"
    assert second["version"] == "13.0.0"
    assert second["properties"] == [{"name": "condition", "value": 'python_version >= "3.11"'}]


@pytest.mark.parametrize("line", ["torch>=2", "torch", "-r others.txt", "torch == 2.13.0"])
def test_what_is_no_exact_pin_is_refused(script, line):
    with pytest.raises(ValueError, match="must be an exact pin"):
        script.components(line)


def test_every_package_that_is_asked_for_is_in_it():
    command = [sys.executable, str(SCRIPT)]
    whole = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert (whole["bomFormat"], whole["specVersion"]) == ("CycloneDX", "1.5")
    text = (ROOT / "pyproject.toml").read_text()
    parts = re.findall(
        r'"([a-z0-9-]+)>=', text[text.index("dependencies = [") : text.index("[project.scripts]")]
    )
    built_with = {"setuptools", "cmake", "pybind11"}  # not pinned: what builds is not what runs
    names = [part["name"] for part in whole["components"]]
    assert set(parts) - built_with == set(names) and len(names) == len(set(names))
