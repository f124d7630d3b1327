"""What a model is made of, how it is fitted, tested and exported, in plain values, and what they may be.

Neither torch nor numpy is needed here, so the command line can ask what is allowed before anything loads.
"""

import dataclasses
import math
import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

PRESETS: dict[str, dict[str, bool]] = {
    "paper": {"denoising": True, "encoder_decoder": True, "segmentation": True, "light": False},
    "fast": {"denoising": True, "encoder_decoder": True, "segmentation": True, "light": True},
    "stpm": {"denoising": False, "encoder_decoder": False, "segmentation": False, "light": False},
}
SCHEDULES = {  # steps of the two training stages, and pictures a step
    "paper": ((1000, 4000), 32),
    "fast": ((600, 800), 8),
    "stpm": ((1000, 4000), 32),
}
TEACHERS = ("resnet18", "embedded")
PRECISIONS = ("auto", "float32", "bfloat16")
INFERENCE_PRECISIONS = ("float32", "float16", "bfloat16")
EXPORT_PRECISIONS = ("float32", "int8")
PROTOCOLS = {  # of evaluation
    "full": "masks at their own resolution, labels from the folder",
    "paper": "masks resized to the network's input, labels from the resized masks",
}
FLIPS = ("", "horizontal", "vertical", "both")
DEVICE = re.compile(r"auto|(cpu|cuda|mps|xpu)(:\d+)?")

SMALLEST_SIDE = 64  # below it the student's fourth stage has a single position left to normalise over
MOST_ENLARGED = 4  # a tile is at most enlarged by this: memory grows with its square
MOST_OVERLAP = 0.75  # of a tile with its neighbour

Sides = int | tuple[int, int]


@dataclass(frozen=True)
class Settings:
    """What a model is made of. Made once, checked once, stored in every file; never changed.

    Attributes:
        preset: "paper", the published network; "fast", a light one; or "stpm", the student-teacher baseline.
        teacher: "resnet18", torchvision's ImageNet weights; or "embedded", the one in this package.
        image_size: sides of the network's input in pixels, one number or (height, width), at least 64 each.
        seed: of everything drawn at random, a whole number of at least 0.
        precision: of training: "float32", "bfloat16", or "auto", see `destseg.training.trainer`.
        inference_precision: of prediction: "float32"; on a GPU also "float16" or "bfloat16".
        denoising, encoder_decoder, segmentation: parts of the network, for ablations; None: as the preset.
        tile: side in pixels of what of a picture becomes one input, or (height, width), for large pictures;
            None: the whole picture becomes one.
        overlap: share of a tile's side that neighbouring tiles have in common, at least; 0 to 0.75.
        keep_aspect: scale pictures alike in both directions. The rest of the input is padding, which nothing
            learns from and no score counts.
        roi: region of interest, a `destseg.pictures.roi.RegionOfInterest`; None: everything counts.

    Raises ValueError that says what is allowed and what came.
    """

    preset: str = "paper"
    teacher: str = "resnet18"
    image_size: Sides = 256
    seed: int = 0
    precision: str = "auto"
    inference_precision: str = "float32"
    denoising: bool | None = None
    encoder_decoder: bool | None = None
    segmentation: bool | None = None
    tile: Sides | None = None
    overlap: float = 0.25
    keep_aspect: bool = False
    roi: Any = dataclasses.field(default=None, compare=False)

    def __post_init__(self) -> None:
        check_choice("preset", self.preset, PRESETS)
        check_choice("teacher", self.teacher, TEACHERS)
        check_choice("precision", self.precision, PRECISIONS)
        check_choice("inference_precision", self.inference_precision, INFERENCE_PRECISIONS)
        for name, own in PRESETS[self.preset].items():
            if name != "light":
                given = getattr(self, name)
                self._set(name, own if given is None else bool(given))
        self._set("seed", whole_number("seed", self.seed))
        self._set("image_size", one_or_two(input_size(self.image_size)))
        self._set("overlap", checked_overlap(self.overlap))
        self._set("keep_aspect", bool(self.keep_aspect))
        if self.tile is not None:
            self._set("tile", one_or_two(checked_tile(self.tile, self.size, self.keep_aspect)))

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)  # only while it is being made

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the network's input."""
        return input_size(self.image_size)

    @property
    def tile_size(self) -> tuple[int, int] | None:
        """Height and width of a tile; None without tiles."""
        return None if self.tile is None else two_sides(self.tile)

    @property
    def parts(self) -> dict[str, bool]:
        """Which parts the network has: the arguments of `destseg.model.networks.DeSTSegNet`."""
        return {name: getattr(self, name, own) for name, own in PRESETS[self.preset].items()}

    def stored(self) -> dict[str, Any]:
        """Return what a file holds of them: numbers, strings, lists, and what the region stores of itself."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        values["image_size"] = list(self.size)
        values["tile"] = None if self.tile_size is None else list(self.tile_size)
        return values | {"roi": None if self.roi is None else self.roi.stored()}

    @classmethod
    def from_stored(cls, stored: Mapping[str, Any]) -> "Settings":
        """Return what `stored` was made of, but for the region, which is left as it was stored.

        Raises ValueError for names that this version does not know, and as the constructor does.
        """
        unknown = sorted(map(str, stored.keys() - {field.name for field in dataclasses.fields(cls)}))
        if unknown:
            raise ValueError(f"unknown settings {', '.join(unknown)}: a newer version of destseg wrote them")
        sides = {name: one_or_two(stored[name]) for name in ("image_size", "tile") if stored.get(name)}
        return cls(**{**stored, **sides})


@dataclass(frozen=True)
class Schedule:
    """How a model is fitted; `destseg.DeSTSeg.fit` says what each of these is.

    Raises ValueError that says what is allowed and what came.
    """

    steps: tuple[int, int]
    batch_size: int
    rotate: float | str = 0.0
    flip: str = ""
    held_out: float = 0.2
    false_positive_rate: float = 0.01

    def __post_init__(self) -> None:
        is_pair = isinstance(self.steps, Sequence) and len(self.steps) == 2
        if not is_pair or not all(isinstance(count, int) and count >= 0 for count in self.steps):
            raise ValueError(f"steps must be two whole numbers, (student, segmentation), got {self.steps!r}")
        object.__setattr__(self, "steps", tuple(self.steps))
        if not isinstance(self.batch_size, int) or self.batch_size < 1:
            raise ValueError(f"batch_size must be a whole number of at least 1, got {self.batch_size!r}")
        check_choice("flip", self.flip, FLIPS)
        object.__setattr__(self, "rotate", checked_rotation(self.rotate))
        if not 0 <= self.held_out <= 0.5:
            raise ValueError(f"held_out must be a share between 0 and 0.5, got {self.held_out!r}")
        check_rate(self.false_positive_rate)

    @classmethod
    def of(
        cls, preset: str, steps: tuple[int, int] | None, batch_size: int | None, **others: Any
    ) -> "Schedule":
        """Return a schedule with the preset's own steps and batch size in place of None."""
        own_steps, own_batch_size = SCHEDULES[preset]
        return cls(
            own_steps if steps is None else steps,
            own_batch_size if batch_size is None else batch_size,
            **others,
        )

    @property
    def changes_pictures(self) -> bool:
        """Whether clean pictures are rotated or flipped, so that nothing about them can be kept."""
        return bool(self.flip) or self.rotate != 0


def check_choice(name: str, value: object, allowed: Sequence[str] | Mapping[str, object]) -> None:
    if value not in tuple(allowed):
        choices = ", ".join(one or repr(one) for one in allowed)
        raise ValueError(f"{name} must be one of {choices}, got {value!r}")


def check_rate(false_positive_rate: float) -> None:
    """Raise ValueError unless the rate lies between 0 and 1, exclusive."""
    if not 0 < false_positive_rate < 1:
        raise ValueError(
            f"false_positive_rate must lie between 0 and 1, exclusive, got {false_positive_rate}"
        )


def check_duration(name: str, value: float) -> None:
    """Raise ValueError unless it is a number of at least 0; `name` is for the error."""
    if not value >= 0:  # nor is NaN
        raise ValueError(f"{name} must be a number of at least 0, got {value!r}")


def check_device(device: str) -> str:
    """Return the name of a device; whether the machine has it is only known when it is used."""
    if not isinstance(device, str) or not DEVICE.fullmatch(device):
        raise ValueError(f"device must be auto, cpu, cuda, cuda:1 or the like, got {device!r}")
    return device


def whole_number(name: str, value: Any, least: int = 0) -> int:
    """Return a whole number of at least `least`, numpy's among them, as Python's; `name` is for the error."""
    try:
        number = int(operator.index(value))
    except TypeError:
        number = least - 1
    if number < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
    return number


def checked_rotation(rotate: Any) -> float | str:
    """Return "90", or degrees as a number: "5" and 5 are the same."""
    try:
        degrees = float(rotate)
    except (TypeError, ValueError):
        degrees = math.nan
    if not 0 <= degrees <= 180:
        raise ValueError(f'rotate must be "90" (quarter turns) or degrees from 0 to 180, got {rotate!r}')
    return "90" if rotate == "90" else degrees


def input_size(image_size: Any) -> tuple[int, int]:
    """Return (height, width) in pixels from one number or two."""
    try:
        size = two_sides(image_size)
    except ValueError:
        size = (0, 0)
    if min(size) < SMALLEST_SIDE:
        allowed = f"a number of pixels or (height, width), each at least {SMALLEST_SIDE}"
        raise ValueError(f"image_size must be {allowed}, got {image_size!r}")
    return size


def checked_tile(tile: Any, size: tuple[int, int], keep_aspect: bool) -> tuple[int, int]:
    """Return height and width of a tile for a network whose input has this height and width."""
    try:
        sides = two_sides(tile)
    except ValueError as error:
        raise ValueError(f"tile must be a number of pixels or (height, width), got {tile!r}") from error
    if any(side * MOST_ENLARGED < own for side, own in zip(sides, size, strict=True)):
        least = tuple(math.ceil(own / MOST_ENLARGED) for own in size)
        raise ValueError(f"tile must be at least a quarter of the input, {least}, got {tile!r}")
    if keep_aspect and sides[0] * size[1] != sides[1] * size[0]:
        raise ValueError(
            f"keep_aspect with tile: its (height, width) must have the aspect of the input, {size}, "
            f"got {sides}"
        )
    return sides


def checked_overlap(overlap: Any) -> float:
    """Return a share from 0 to 0.75."""
    if isinstance(overlap, bool) or not isinstance(overlap, (int, float)) or not 0 <= overlap <= MOST_OVERLAP:
        raise ValueError(
            f"overlap must be a share of a tile's side from 0 to {MOST_OVERLAP}, got {overlap!r}"
        )
    return float(overlap)


def two_sides(sides: Any) -> tuple[int, int]:
    """Return height and width of one whole number or of two, numpy's among them; ValueError for others."""
    pair = sides if isinstance(sides, (tuple, list)) else (sides, sides)
    try:
        height, width = map(operator.index, pair)
    except (TypeError, ValueError) as error:
        raise ValueError(f"sides must be one whole number or two, got {sides!r}") from error
    return height, width


def one_or_two(sides: Sequence[int]) -> Sides:
    """Return height and width, or one number where they are equal."""
    height, width = sides
    return height if height == width else (height, width)
