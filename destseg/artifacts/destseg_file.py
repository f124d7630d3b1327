"""The file of a fitted model: tensors and plain values, nothing that would have to be unpickled.

Reading and writing take torch, which is imported only then.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from destseg.artifacts.artifact import (
    Artifact,
    Format,
    mapping_in,
    stored_record,
    stored_settings,
    stored_versions,
    why_unreadable,
)
from destseg.inference.calibration import Calibration, stored_numbers
from destseg.packages import import_package

KIND = "destseg model 1"


def read(path: Path) -> Artifact:
    """Read a file that `write` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: torch is missing or too old; the message names the command that installs it.
        ValueError: the file is damaged, or no destseg model of this version.
    """
    import_package("torch")
    from destseg.model.tensorfile import read_tensors

    content = read_tensors(path)
    kind = content.get("format")
    if kind != KIND:
        if any(str(name).startswith("teacher_net.") for name in content):
            hint = "it looks like a published checkpoint: use DeSTSeg.from_checkpoint"
        elif isinstance(kind, str) and kind.startswith("destseg"):
            hint = f'it is a "{kind}" and this version reads a "{KIND}"'
        else:
            hint = "it holds other tensors"
        raise ValueError(f"{path} is not a destseg model: {hint}")
    try:
        stored = None if content.get("calibration") is None else mapping_in(content, "calibration")
        return Artifact(
            settings=stored_settings(mapping_in(content, "settings")),
            calibration=None if stored is None else Calibration.from_stored(stored),
            versions=stored_versions(content),
            record=stored_record(content),
            losses=list(stored_numbers(content, "losses")),
            network=mapping_in(content, "network"),
            path=path.absolute(),
        )
    except Exception as error:  # a file may hold anything
        reason = why_unreadable(error)
        raise ValueError(f"{path} is not a destseg model of this version: {reason}") from error


def write(path: Path, network: Mapping[str, Any], artifact: Artifact) -> None:
    """Write a fitted model; `network` holds the network's tensors by name."""
    from destseg.model.tensorfile import write_tensors

    content: dict[str, Any] = {
        "format": KIND,
        "versions": dict(artifact.versions),
        "settings": artifact.settings.stored(),
        "losses": np.array(artifact.losses, np.float64),
        "network": {name: value.cpu().contiguous() for name, value in network.items()},
    }
    if artifact.calibration is not None:
        stored = artifact.calibration.stored()
        # As arrays: of values that stand alone a file may hold a bounded number.
        arrays = {name: stored[name] for name in ("scores", "pixel_scores", "groups")}
        stored |= {name: np.array(values) for name, values in arrays.items() if values is not None}
        content["calibration"] = stored
    if artifact.record is not None:
        content["record"] = artifact.record.stored()
    write_tensors(path, content)


def set_threshold(source: Path, target: Path, artifact: Artifact) -> None:
    """Write a copy of a model's file with the thresholds and settings of an artifact."""
    network = read(source).network
    assert network is not None  # files of this format always hold one
    write(target, network, artifact)


FORMAT = Format("destseg", "torch", "", read, write, set_threshold)
