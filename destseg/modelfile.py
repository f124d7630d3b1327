"""The file of a fitted model: tensors and plain metadata, nothing that would have to be unpickled."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import destseg
from destseg.calibration import Calibration
from destseg.files import read_tensors, write_tensors

FORMAT = "destseg model 1"
EXPORTED = (".onnx", ".xml", ".bin", ".pt2")  # endings of the files that `destseg.engines` knows


class ModelFile(NamedTuple):
    """What a model's file holds."""

    settings: dict[str, Any]  # of the constructor
    calibration: Calibration | None
    losses: list[float]  # one a training step
    network: dict[str, Tensor]
    versions: dict[str, str]  # of destseg and torch, when it was written


def write(
    path: str | os.PathLike[str],
    network: nn.Module,
    settings: dict[str, Any],
    calibration: Calibration | None,
    losses: list[float],
) -> None:
    """Write a fitted model, atomically. Raises ValueError as `check_name` does."""
    check_name(path)
    state = {name: value.cpu().contiguous() for name, value in network.state_dict().items()}
    content: dict[str, Any] = {
        "format": FORMAT,
        "versions": {"destseg": destseg.__version__, "torch": str(torch.__version__)},
        "settings": settings,
        "losses": torch.tensor(losses, dtype=torch.float64),
        "network": state,
    }
    if calibration is not None:
        content["calibration"] = calibration.stored()
    write_tensors(path, content)


def check_name(path: str | os.PathLike[str]) -> None:
    """Raise ValueError for a name that says that an exported model is in the file: it would not be loaded."""
    if Path(path).suffix.lower() in EXPORTED:
        raise ValueError(
            f"{path}: names that end in {', '.join(EXPORTED)} are for exported models; save a fitted one as "
            f"{Path(path).with_suffix('.destseg').name}, and then export it"
        )


def read(path: str | os.PathLike[str]) -> ModelFile:
    """Return what `write` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or not the file of a destseg model of this version.
    """
    content = read_tensors(path)
    kind = content.get("format")
    if kind != FORMAT:
        if any(str(name).startswith("teacher_net.") for name in content):
            hint = "it looks like a published checkpoint: use DeSTSeg.from_checkpoint"
        elif isinstance(kind, str) and kind.startswith("destseg"):
            hint = f'it is a "{kind}" and this version reads a "{FORMAT}"'
        else:
            hint = "it holds other tensors"
        raise ValueError(f"{path} is not a destseg model: {hint}")
    calibration = None
    if "calibration" in content:
        calibration = Calibration.from_stored(content["calibration"])
    losses = content["losses"].tolist()
    return ModelFile(content["settings"], calibration, losses, content["network"], content["versions"])
