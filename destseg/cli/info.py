"""`destseg info`: describes the installation, or a model's file."""

import argparse
import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

import destseg
from destseg.cli.output import show, thresholds
from destseg.progress import printable

HELP = "Describe this installation, or a model."
EXAMPLE = "destseg info part.destseg"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", metavar="MODEL", help="file written by fit or export")


def run(options: argparse.Namespace) -> int:
    lines = _installation() if options.model is None else _model(options.model)
    show("\n".join(printable(line, but="") for line in lines))
    return 0


def _installation() -> list[str]:
    from destseg.artifacts.formats import EXPORTED
    from destseg.ops import kernels
    from destseg.packages import import_package

    torch = _package("torch", importlib.import_module)
    lines = [f"destseg {destseg.__version__}, {f'torch {torch.__version__}' if torch else 'no torch'}"]
    lines.append(f"compiled kernels: {'yes' if kernels.cpu else 'no'}")
    if torch:
        lines.append(f"CUDA: {torch.cuda.get_device_name() if torch.cuda.is_available() else 'no'}")
    lines.append(f"threads: {kernels.thread_count()}")
    for form in EXPORTED.values():
        engine = _package(form.package, partial(import_package, any_version=True))
        lines.append(f"{form.package}: {engine.__version__ if engine else 'no'}")
    return lines


def _package(name: str, load: Callable[[str], Any]) -> Any:
    """Return a package, or None where it is missing."""
    try:
        return load(name)
    except ImportError:
        return None


def _model(path: str) -> list[str]:
    """Describe a model; its engine is not started."""
    from destseg.artifacts.formats import read

    artifact = read(path)
    lines = [f"{path}: destseg {artifact.versions['destseg']}, torch {artifact.versions['torch']}"]
    settings = artifact.settings.stored() | {"roi": artifact.settings.roi}
    lines += [f"{name}: {value}" for name, value in settings.items()]
    lines.append(f"engine: {artifact.engine}, {artifact.precision}")
    if artifact.network is not None:
        values = sum(tensor.numel() for tensor in artifact.network.values())
        lines.append(f"values: {values / 1e6:.2f} million")
        lines.append(f"training steps: {len(artifact.losses)}")
    if artifact.record is not None:
        lines += artifact.record.lines()
    return lines + thresholds(artifact.calibration)
