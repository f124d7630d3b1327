"""A model as a file holds it, and what every format of such files can do."""

import importlib
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from destseg.inference.calibration import Calibration
from destseg.inference.scorer import Scorer
from destseg.pictures.roi import RegionOfInterest
from destseg.settings import Settings

INPUT = "pixels"  # of an exported graph
OUTPUTS = ("anomaly_map", "score", "is_anomalous")
IMAGES, MAPS = "images", "maps"  # the network's own input and output, within the graph
KEY = "destseg"  # of the description in an exported file
DESCRIPTION = "destseg export 1"
EXTRAS = {  # of the installation, by the package they bring
    "onnxruntime": "onnx",
    "openvino": "openvino",
    "onnx": "export",
    "onnxscript": "export",
    "nncf": "export",
}


@dataclass(frozen=True)
class Artifact:
    """A model as a file holds it.

    Attributes:
        settings: what it is made of.
        calibration: its thresholds; None before calibration.
        versions: of destseg and torch, when the file was written.
        engine: "torch", "onnx" or "openvino", which runs it.
        precision: of the network in the file, "float32" or "int8".
        losses: one a training step; none in exported files.
        network: the network's tensors by their names; None in exported files.
        start: makes the scorer of an exported file, with as many threads as operations have; None in others.
        path: where it was read from; None where it was not.
    """

    settings: Settings
    calibration: Calibration | None
    versions: Mapping[str, str]
    engine: str = "torch"
    precision: str = "float32"
    losses: list[float] = field(default_factory=list)
    network: Mapping[str, Any] | None = None
    start: Callable[[], Scorer] | None = None
    path: Path | None = None

    def with_calibration(self, calibration: Calibration) -> "Artifact":
        """Return the same model with other thresholds."""
        return replace(self, calibration=calibration)

    def description(self) -> str:
        """Return what an exported file says beside its graph, as JSON."""
        assert self.calibration is not None  # without thresholds nothing is exported
        content = {"format": DESCRIPTION, "versions": dict(self.versions), "precision": self.precision}
        content |= {"settings": self.settings.stored(), "calibration": self.calibration.stored()}
        return json.dumps(content)


@dataclass(frozen=True)
class Format:
    """A kind of file that holds a model.

    Attributes:
        name: what it is called.
        ending: of the names of such files; "" for all that belong to no other format.
        read: read a file. Raises FileNotFoundError, ImportError where its engine is missing, or ValueError.
        write: write a file, whole or not at all, of the path, the content and what it says of itself.
            The content is of a type of the format's own: that of `build`, or a network's tensors by name.
        set_threshold: write a copy of a file, of the path of one and that of the other, with the thresholds
            and settings of this artifact; they may be the same.
        build: make the content from a program of torch.export, see `destseg.model.graph`; None where files
            of this format hold no graph.
        quantise: return the content in INT8, of that of `build`, of pictures (n, h, w, 3) uint8 that ranges
            are learnt from, and of the weights, as bytes, of convolutions that stay in float32.
    """

    name: str
    ending: str
    read: Callable[[Path], Artifact]
    write: Callable[[Path, Any, Artifact], None]
    set_threshold: Callable[[Path, Path, Artifact], None]
    build: Callable[[Any], Any] | None = None
    quantise: Callable[[Any, Any, set[bytes]], Any] | None = None


def described(text: str, path: Path, engine: str, start: Callable[[Settings], Scorer]) -> Artifact:
    """Return the artifact of an exported file from its description; ValueError where it is something else.

    Args:
        text: what `Artifact.description` gave.
        path: of the file.
        engine: that runs it.
        start: makes the scorer of a model of these settings.
    """
    try:
        content = json.loads(text)
        if content["format"] != DESCRIPTION:
            raise ValueError(f'it is a "{content["format"]}" and this version reads a "{DESCRIPTION}"')
        settings = stored_settings(content["settings"])
        return Artifact(
            settings=settings,
            calibration=Calibration.from_stored(content["calibration"]),
            versions=content["versions"],
            engine=engine,
            precision=str(content["precision"]),
            start=lambda: start(settings),
            path=path,
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} was not exported by this version of destseg: {error}") from error


def stored_settings(stored: Mapping[str, Any]) -> Settings:
    """Return the settings that a file holds; a region of interest may be points or a mask, but no path."""
    settings = Settings.from_stored(stored)
    if settings.roi is None:
        return settings
    if isinstance(settings.roi, (str, bytes)):
        raise ValueError("roi must be points or a mask in a file, got a path")
    return replace(settings, roi=RegionOfInterest(settings.roi))


def imported(name: str) -> Any:
    """Import an engine's package, or raise ImportError with the command that installs it."""
    # OpenVINO and NNCF report their use to their maker; without this module they cannot.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        command = f"pip install 'destseg[{EXTRAS[package]}]'"
        raise ImportError(f"{name} is missing ({error}): install it with {command}", name=name) from error


def damaged(path: Path, error: Exception) -> ValueError:
    """Return what to raise where an engine cannot read a file; each engine has errors of its own."""
    reason = str(error).strip().split("\n")[-1][:200]
    return ValueError(f"{path} is damaged, or no exported model ({reason})")
