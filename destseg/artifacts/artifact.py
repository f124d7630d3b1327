"""A model as a file holds it, and what a format of such files can do."""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from destseg.artifacts.digest import BLANK, is_whole
from destseg.artifacts.record import FitRecord
from destseg.inference.calibration import Calibration
from destseg.inference.scorer import Scorer
from destseg.pictures.arrays import is_tensor
from destseg.pictures.roi import RegionOfInterest
from destseg.settings import EXPORT_PRECISIONS, Settings, check_choice

INPUT = "pixels"  # of an exported graph
OUTPUTS = ("anomaly_map", "score", "is_anomalous")
IMAGES, MAPS = "images", "maps"  # the input and output of the network within the graph
KEY = "destseg"  # under which an exported file holds its description
DESCRIPTION = "destseg export 2"
WITHOUT_CHECKSUM = "destseg export 1"  # of earlier versions
MOST_WORDS = 300  # letters of an error's reason


@dataclass(frozen=True)
class Artifact:
    """A model as a file holds it.

    Attributes:
        settings: the model's settings.
        calibration: its thresholds; None before calibration.
        versions: the versions of destseg and torch that wrote the file.
        engine: what runs the model: "torch", or the name of an exported file's format.
        precision: precision of the network in the file, "float32" or "int8".
        record: what `fit` did; None where that is not known.
        losses: one per training step; none in exported files.
        network: the network's tensors by name; None in exported files.
        start: makes the scorer of an exported file, with as many threads as an operation may use; else None.
        has_checksum: whether damage to the file is noticed; not in files that earlier versions exported.
        path: the file that it was read from; None if it was not read.
    """

    settings: Settings
    calibration: Calibration | None
    versions: Mapping[str, str]
    engine: str = "torch"
    precision: str = "float32"
    record: FitRecord | None = None
    losses: list[float] = field(default_factory=list)
    network: Mapping[str, Any] | None = None
    start: Callable[[], Scorer] | None = None
    has_checksum: bool = True
    path: Path | None = None

    def description(self) -> str:
        """Return the description that an exported file holds beside its graph, as JSON; not sealed yet."""
        assert self.calibration is not None  # a model without thresholds is not exported
        content = {"format": DESCRIPTION, "sha256": BLANK, "versions": dict(self.versions)}
        content["precision"] = self.precision
        content |= {"settings": self.settings.stored(), "calibration": self.calibration.stored()}
        if self.record is not None:
            content["record"] = self.record.stored()
        return json.dumps(content)


@dataclass(frozen=True)
class Format:
    """A kind of file that holds a model.

    Attributes:
        name: the format's name.
        package: the package that runs its models, by the name to import.
        ending: how the names of such files end; "" for all endings of no other format.
        read: read the file at a path. Raises FileNotFoundError, ImportError where its engine is missing, or
            ValueError.
        write: write a file, whole or not at all; takes its path, its content and its artifact. Each format
            has its own type of content: what `build` makes, or a network's tensors by name.
        set_threshold: copy a file with other thresholds and settings; takes the paths of the file and of the
            copy, which may be the same, and the artifact that has the new thresholds and settings.
        files: return the files that belong to the one at a path, itself among them.
        build: make the content from a program of torch.export, see `destseg.model.graph`; None for formats
            without a graph.
        quantise: return the content in INT8; takes the content that `build` made, inputs (n, h, w, 3) uint8
            from which to learn ranges, and the weights, as bytes, of convolutions that stay in float32. None
            for formats without INT8.
    """

    name: str
    package: str
    ending: str
    read: Callable[[Path], Artifact]
    write: Callable[[Path, Any, Artifact], None]
    set_threshold: Callable[[Path, Path, Artifact], None]
    files: Callable[[Path], list[Path]] = lambda path: [path]
    build: Callable[[Any], Any] | None = None
    quantise: Callable[[Any, Any, set[bytes]], Any] | None = None

    @property
    def precisions(self) -> tuple[str, ...]:
        """The precisions that a model can be exported in; none for formats of fitted models."""
        if self.build is None:
            return ()
        return EXPORT_PRECISIONS if self.quantise else EXPORT_PRECISIONS[:1]


def artifact_from(
    text: str, path: Path, engine: str, start: Callable[[Settings], Scorer], contents: Mapping[Path, bytes]
) -> Artifact:
    """Return the artifact of an exported file from its description, once the checksum is found to hold.

    Args:
        text: the description, as `Artifact.description` returned it, with the checksum.
        path: the file.
        engine: the engine that runs it.
        start: makes the scorer of the model from its settings.
        contents: what the file holds, and then what each of those beside it holds.

    Raises:
        ValueError: the file is something else, of another version, or damaged.
    """
    with _explained(path):
        content = json.loads(text)
        if not isinstance(content, dict):
            raise ValueError("it holds no description of a model")
        if content["format"] not in (DESCRIPTION, WITHOUT_CHECKSUM):
            raise ValueError(f'it is a "{content["format"]}" and this version reads a "{DESCRIPTION}"')
        has_checksum = content["format"] == DESCRIPTION
        checksum = content["sha256"] if has_checksum else None
    if has_checksum and not is_whole(checksum, *contents.values()):
        others = "".join(f", or does not belong to {part.name}" for part in contents if part != path)
        raise ValueError(
            f"{path} is damaged{others}: its checksum does not hold; copy it again, or export it again"
        )
    with _explained(path):
        settings, precision = stored_settings(mapping_in(content, "settings")), content["precision"]
        check_choice("precision", precision, EXPORT_PRECISIONS)
        return Artifact(
            settings=settings,
            calibration=Calibration.from_stored(mapping_in(content, "calibration")),
            versions=stored_versions(content),
            engine=engine,
            precision=precision,
            record=stored_record(content),
            start=lambda: start(settings),
            has_checksum=has_checksum,
            path=path.absolute(),
        )


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn errors about an exported file's description into one that says what is wrong with it."""
    try:
        yield
    except Exception as error:  # a file may hold anything
        reason = why_unreadable(error)
        raise ValueError(f"{path} was not exported by this version of destseg: {reason}") from error


def why_unreadable(error: Exception) -> str:
    """Say in words what is wrong with a file's content, from the error that it raised."""
    if isinstance(error, KeyError):
        return f"it lacks {error.args[0]}"
    reason = str(error) if isinstance(error, ValueError) else f"an entry has another form ({error})"
    return reason if len(reason) <= MOST_WORDS else f"{reason[:MOST_WORDS]} ..."  # a file may hold anything


def mapping_in(content: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return an entry of a file's content that must be a mapping."""
    if not isinstance(content[name], Mapping):
        raise ValueError(f"its {name} must be a mapping, got {type(content[name]).__name__}")
    return content[name]


def stored_settings(stored: Mapping[str, Any]) -> Settings:
    """Return the settings that a file holds; their ROI may be points or a mask, but not a path."""
    settings = Settings.from_stored(stored)
    if settings.roi is None:
        return settings
    if not isinstance(settings.roi, (list, tuple, np.ndarray)) and not is_tensor(settings.roi):
        raise ValueError(f"roi must be points or a mask in a file, got {type(settings.roi).__name__}")
    return replace(settings, roi=RegionOfInterest(settings.roi))


def stored_versions(content: Mapping[str, Any]) -> dict[str, str]:
    """Return the versions of destseg and torch in a file's content."""
    versions = mapping_in(content, "versions")
    for name in ("destseg", "torch"):
        if not isinstance(versions[name], str):
            raise ValueError(f"its version of {name} must be a text, got {versions[name]!r}")
    return dict(versions)


def stored_record(content: Mapping[str, Any]) -> FitRecord | None:
    """Return the record of the fit in a file's content; None in files of before, which have none."""
    return None if content.get("record") is None else FitRecord.from_stored(mapping_in(content, "record"))


def damage_error(path: Path, error: Exception) -> ValueError:
    """Return the error to raise where an engine cannot read a file; engines raise errors of many types."""
    reason = str(error).strip().split("\n")[-1][:200]
    return ValueError(f"{path} is damaged, or no exported model ({reason})")
