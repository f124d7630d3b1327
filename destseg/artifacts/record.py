"""What `fit` did: kept in the model's file, told at a terminal, and shown by `destseg info`."""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any

from destseg.settings import MOST_SEED, Schedule, check_device, whole_number


@dataclass(frozen=True)
class FitRecord:
    """How a model was fitted.

    Attributes:
        pictures: normal pictures found.
        left_out: how many of them could not be read.
        trained_on: how many were taken for training.
        calibrated_on: how many were held out to calibrate the model.
        steps: training steps of the student stage and of the segmentation stage.
        batch_size: pictures per step.
        augment, rotate, flip: how pictures were changed in training, see `destseg.DeSTSeg.fit`.
        device: where training ran, such as "cpu" or "cuda".
        outliers: names of normal pictures that stand far out, see `destseg.training.outliers`.
        drop_outliers: whether they were left out of training and calibration.
    """

    pictures: int
    left_out: int
    trained_on: int
    calibrated_on: int
    steps: tuple[int, int]
    batch_size: int
    augment: str
    rotate: float | str
    flip: str
    device: str
    outliers: tuple[str, ...] = ()
    drop_outliers: bool = False

    @classmethod
    def of(cls, schedule: Schedule, device: str, **counts: Any) -> "FitRecord":
        """Return the record of a fit by a schedule, on a device; `counts` are the numbers of pictures."""
        shared = {field.name for field in fields(cls)} & {field.name for field in fields(schedule)}
        return cls(**counts, device=device, **{name: getattr(schedule, name) for name in shared})

    def lines(self) -> list[str]:
        """Describe the fit, as lines of text."""
        left_out = f"{self.left_out} left out" if self.left_out else "none left out"
        student, segmentation = self.steps
        changes = {"augment": self.augment, "rotate": self.rotate, "flip": self.flip}
        changed = "".join(f", {name} {value}" for name, value in changes.items() if value)
        use = f"{self.trained_on} train, {self.calibrated_on} calibrate"
        lines = [
            f"pictures: {self.pictures} found, {left_out}; {use}",
            f"training: {student} + {segmentation} steps of {self.batch_size} on {self.device}{changed}",
        ]
        if self.outliers:
            fate = "left out" if self.drop_outliers else "trained on all the same"
            lines.append(f"outliers among the normal pictures, {fate}: {', '.join(self.outliers)}")
        return lines

    def stored(self) -> dict[str, Any]:
        """Return the record as a file holds it, in plain values."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    @classmethod
    def from_stored(cls, stored: Mapping[str, Any]) -> "FitRecord":
        """Make a record from its stored form.

        Raises KeyError for an entry that is missing, and ValueError for one that is unknown or cannot be.
        """
        values: dict[str, Any] = dict(stored)
        unknown = sorted(map(str, values.keys() - {field.name for field in fields(cls)}))
        if unknown:
            names = ", ".join(unknown)
            raise ValueError(f"unknown entries {names} in its record: a newer version of destseg wrote them")
        for field in fields(cls):
            if field.default is MISSING:
                values[field.name]  # a KeyError names what is missing
        for name in ("pictures", "left_out", "trained_on", "calibrated_on"):
            values[name] = whole_number(name, values[name], most=MOST_SEED)
        shared = {field.name for field in fields(Schedule)} & values.keys()
        schedule = Schedule(**{name: values[name] for name in shared})  # which checks them
        values |= {name: getattr(schedule, name) for name in shared}
        outliers = values.get("outliers", ())
        if not isinstance(outliers, (list, tuple)) or not all(isinstance(name, str) for name in outliers):
            raise ValueError(f"outliers must be a list of names, got {outliers!r}")
        return cls(**values | {"device": check_device(values["device"]), "outliers": tuple(outliers)})
