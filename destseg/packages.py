"""Packages that only some uses need, imported where they are needed, and refused if they are too old."""

import importlib
import re
import sys
from typing import Any

PACKAGES = {  # the extra of the installation that brings a package, and the oldest version that was tested
    "torch": ("", "2.10"),  # no extra: it comes with destseg itself
    "onnxruntime": ("onnx", "1.20"),
    "openvino": ("openvino", "2025.2"),
    "onnx": ("export", "1.17"),
    "onnxscript": ("export", "0.6"),
    "nncf": ("export", "2.17"),
    "jinja2": ("report", "3.1"),
}


def import_package(name: str, any_version: bool = False) -> Any:
    """Import a package, or a module of it.

    Raises ImportError, with the command that installs it, where it is missing, or older than pyproject.toml
    allows, which pip prevents but for --no-deps. With `any_version` its version does not matter.
    """
    # OpenVINO and NNCF report their use to their maker; without the module openvino_telemetry they cannot.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    package = name.partition(".")[0]
    extra, oldest = PACKAGES[package]
    command = f"pip install 'destseg[{extra}]'" if extra else "pip install destseg"
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"{name} is missing ({error}): install it with {command}", name=name) from error
    version = sys.modules[package].__version__
    if not any_version and _release(version) < _release(oldest):
        raise ImportError(
            f"{package} {version} is too old, {oldest} or later is needed: {command}", name=name
        )
    return module


def _release(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)[:2]]
