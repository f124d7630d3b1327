"""Settings of a model, of its training, evaluation and export: plain values, with their ranges and checks.

This module needs neither torch nor numpy, so the command line checks its options before anything loads.
"""

import dataclasses
import math
import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

PRESETS: dict[str, dict[str, bool]] = {
    "paper": {"denoising": True, "encoder_decoder": True, "segmentation": True, "light": False},
    "fast": {"denoising": True, "encoder_decoder": True, "segmentation": True, "light": True},
    "stpm": {"denoising": False, "encoder_decoder": False, "segmentation": False, "light": False},
}
SCHEDULES = {  # steps of the two training stages, and pictures per step
    "paper": ((1000, 4000), 32),
    "fast": ((600, 800), 8),
    "stpm": ((1000, 4000), 32),
}
TEACHERS = ("resnet18", "embedded")
OWN_TEACHERS = {"paper": "resnet18", "fast": "embedded", "stpm": "resnet18"}  # of the presets
PRECISIONS = ("auto", "float32", "bfloat16")
INFERENCE_PRECISIONS = ("float32", "float16", "bfloat16")
EXPORT_PRECISIONS = ("float32", "int8")
PROTOCOLS = {  # how evaluation compares maps with masks
    "full": "masks at their own resolution, labels from the folder",
    "paper": "masks resized to the network's input, labels from the resized masks",
}
FLIPS = ("", "horizontal", "vertical", "both")
AUGMENTATIONS = ("", "light")
BIT_DEPTHS = (10, 12, 14, 16)  # of cameras whose pictures are stored as 16-bit data
DEVICE = re.compile(r"auto|(cpu|mps)(:0)?|(cuda|xpu)(:(0|[1-9]\d?))?")

SMALLEST_SIDE = 64  # below it the student's fourth stage has a single position left to normalise over
MOST_PIXELS = 4096**2  # of the network's input, whose features take many times its memory
MOST_SIDE = 2**20  # of a tile, more than any picture has
MOST_SEED = 2**63 - 1  # that torch takes
MOST_ENLARGED = 4  # the largest factor that a tile is enlarged by: memory grows with its square
MOST_OVERLAP = 0.75  # the largest share of a tile's side that a neighbouring tile covers, too

Sides = int | tuple[int, int]


@dataclass(frozen=True)
class Settings:
    """Everything that defines a model. It is made and checked once, stored in every file, and never changed.

    Attributes:
        preset: "fast", a light network; "paper", the published one; or "stpm", the student-teacher baseline.
        teacher: "embedded", the one in this package; "resnet18", torchvision's ImageNet weights; or None: the
            preset's own, "embedded" for "fast" and "resnet18" for the others. Once made, settings name it.
        image_size: sides of the network's input in pixels, one number or (height, width), at least 64 each,
            and at most 4096 x 4096 pixels.
        seed: seed of all random numbers, a whole number from 0 to 2^63 - 1.
        precision: precision of training: "float32", "bfloat16", or "auto", see `destseg.training.trainer`.
        inference_precision: precision of prediction: "float32"; on a GPU also "float16" or "bfloat16".
        denoising, encoder_decoder, segmentation: parts of the network, to be switched off in ablations; None:
            as the preset has them.
        memory_bank: maps also tell how far features are from kept ones of normal pictures, and how far the
            student's are from the teacher's, see `destseg.model.networks.DeSTSegNet.fused`; None: the light
            network has it, if it has its segmentation part.
        bounded: what each stage of the student's decoder gives is brought to one length, so that its numbers
            fit into 8 bits: `destseg.model.networks.Student` says more.
        student_encoder: the student sees the picture through an encoder of its own, as published; otherwise
            its decoder starts from what the teacher sees. A student without a decoder always has an encoder.
        tile: for large pictures, the side of the tiles that become one input each, in pixels of the picture,
            or (height, width); None: the whole picture becomes one input.
        overlap: least share of a tile's side that neighbouring tiles have in common, 0 to 0.75.
        keep_aspect: scale both sides of a picture alike, and pad the rest of the input. Padding is neither
            trained on nor scored.
        roi: region of interest, a `destseg.pictures.roi.RegionOfInterest`; None: the whole picture counts.
        bit_depth: bits of the camera behind 16-bit data, 8 to 16: 12 if values lie in 0..4095. Pictures of 8
            bits are read the same whatever it is. None: `fit` learns it from the normal pictures, if these
            are 16-bit data; until then, and in files of before, 16.

    Raises:
        ValueError: a value is not allowed; the message says what is allowed and what came.

    Example:
        >>> Settings(image_size=(128, 256), tile=64).size
        (128, 256)
        >>> Settings().teacher, Settings("paper").teacher
        ('embedded', 'resnet18')
        >>> Settings(image_size=32)
        Traceback (most recent call last):
        ValueError: image_size must be a number of pixels or (height, width), each at least 64, got 32
    """

    preset: str = "fast"
    teacher: str | None = None
    image_size: Sides = 256
    seed: int = 0
    precision: str = "auto"
    inference_precision: str = "float32"
    denoising: bool | None = None
    encoder_decoder: bool | None = None
    segmentation: bool | None = None
    memory_bank: bool | None = None
    bounded: bool = False
    student_encoder: bool = True
    tile: Sides | None = None
    overlap: float = 0.25
    keep_aspect: bool = False
    roi: Any = dataclasses.field(default=None, compare=False)
    bit_depth: int | None = None

    def __post_init__(self) -> None:
        check_choice("preset", self.preset, PRESETS)
        self._set("teacher", OWN_TEACHERS[self.preset] if self.teacher is None else self.teacher)
        check_choice("teacher", self.teacher, TEACHERS)
        check_choice("precision", self.precision, PRECISIONS)
        check_choice("inference_precision", self.inference_precision, INFERENCE_PRECISIONS)
        for name, default in PRESETS[self.preset].items():
            if name != "light":
                value = getattr(self, name)
                self._set(name, default if value is None else checked_switch(name, value))
        own = PRESETS[self.preset]["light"] and self.segmentation
        bank = own if self.memory_bank is None else self.memory_bank
        self._set("memory_bank", checked_switch("memory_bank", bank))
        self._set("student_encoder", checked_switch("student_encoder", self.student_encoder))
        self._set("bounded", checked_switch("bounded", self.bounded))
        self._set("seed", whole_number("seed", self.seed, most=MOST_SEED))
        self._set("image_size", one_or_two(input_size(self.image_size)))
        self._set("overlap", checked_overlap(self.overlap))
        self._set("keep_aspect", checked_switch("keep_aspect", self.keep_aspect))
        if self.bit_depth is not None:
            self._set("bit_depth", checked_bit_depth(self.bit_depth))
        if self.tile is not None:
            self._set("tile", one_or_two(checked_tile(self.tile, self.size, self.keep_aspect)))

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)  # called by __post_init__ only

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
        preset = {name: getattr(self, name, default) for name, default in PRESETS[self.preset].items()}
        others = ("memory_bank", "bounded", "student_encoder")
        return preset | {name: bool(getattr(self, name)) for name in others}

    def stored(self) -> dict[str, Any]:
        """Return the settings as a file holds them: numbers, strings, lists; the ROI in its stored form."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        values["image_size"] = list(self.size)
        values["tile"] = None if self.tile_size is None else list(self.tile_size)
        return values | {"roi": None if self.roi is None else self.roi.stored()}

    @classmethod
    def from_stored(cls, stored: Mapping[str, Any]) -> "Settings":
        """Make settings from their stored form; the ROI is left in its own.

        A file without preset or teacher means the published ones: they were the defaults at first. One
        without memory bank is older than it.
        Raises ValueError for names that this version does not know, and where the constructor does.
        """
        unknown = sorted(map(str, stored.keys() - {field.name for field in dataclasses.fields(cls)}))
        if unknown:
            raise ValueError(f"unknown settings {', '.join(unknown)}: a newer version of destseg wrote them")
        pairs = {name: stored.get(name) for name in ("image_size", "tile")}
        sides = {name: tuple(pair) for name, pair in pairs.items() if isinstance(pair, list)}
        return cls(**{"preset": "paper", "teacher": "resnet18", "memory_bank": False, **stored, **sides})


@dataclass(frozen=True)
class Schedule:
    """How a model is fitted; `destseg.DeSTSeg.fit` describes each field.

    Raises ValueError that says what is allowed and what came.
    """

    steps: tuple[int, int]
    batch_size: int
    rotate: float | str = 0.0
    flip: str = ""
    augment: str = ""
    held_out: float = 0.2
    false_positive_rate: float = 0.01
    drop_outliers: bool = True

    def __post_init__(self) -> None:
        try:
            student, segmentation = (whole_number("steps", count) for count in self.steps)
        except (TypeError, ValueError) as error:
            wanted = "two whole numbers of at least 0, (student, segmentation)"
            raise ValueError(f"steps must be {wanted}, got {self.steps!r}") from error
        object.__setattr__(self, "steps", (student, segmentation))
        object.__setattr__(self, "batch_size", whole_number("batch_size", self.batch_size, least=1))
        check_choice("flip", self.flip, FLIPS)
        check_choice("augment", self.augment, AUGMENTATIONS)
        turns = self.rotate if self.rotate == "auto" else checked_rotation(self.rotate)
        object.__setattr__(self, "rotate", turns)
        switch = checked_switch("drop_outliers", self.drop_outliers)
        object.__setattr__(self, "drop_outliers", switch)
        if not 0 <= _number(self.held_out) <= 0.5:
            raise ValueError(f"held_out must be a share between 0 and 0.5, got {self.held_out!r}")
        check_rate(self.false_positive_rate)

    @classmethod
    def of(
        cls,
        preset: str,
        steps: tuple[int, int] | None,
        batch_size: int | None,
        rotate: float | str | None = None,
        **others: Any,
    ) -> "Schedule":
        """Return a schedule; the preset's steps, batch size and rotation take the place of None."""
        default_steps, default_batch_size = SCHEDULES[preset]
        default_rotation = "auto" if PRESETS[preset]["light"] else 0.0  # the others are as published
        return cls(
            default_steps if steps is None else steps,
            default_batch_size if batch_size is None else batch_size,
            default_rotation if rotate is None else rotate,
            **others,
        )


def check_choice(name: str, value: object, allowed: Sequence[str] | Mapping[str, object]) -> None:
    """Raise ValueError unless the value is one of those allowed; `name` is for the error."""
    if value not in tuple(allowed):
        choices = ", ".join(choice or repr(choice) for choice in allowed)
        raise ValueError(f"{name} must be one of {choices}, got {value!r}")


def check_rate(false_positive_rate: float) -> None:
    """Raise ValueError unless the rate lies between 0 and 1, exclusive."""
    if not 0 < _number(false_positive_rate) < 1:
        raise ValueError(
            f"false_positive_rate must lie between 0 and 1, exclusive, got {false_positive_rate!r}"
        )


def check_amounts(**amounts: float) -> None:
    """Raise ValueError, naming the first, unless all values are numbers of at least 0."""
    for name, value in amounts.items():
        if not _number(value) >= 0:  # NaN fails, too
            raise ValueError(f"{name} must be a number of at least 0, got {value!r}")


def check_groups(groups: Any) -> None:
    """Raise ValueError or TypeError unless this may say how pictures come in groups; None may."""
    allowed = '"folder", a regular expression with exactly one group, or a function of the path'
    if groups is None or callable(groups) or groups == "folder":
        return
    if not isinstance(groups, str):
        raise TypeError(f"groups must be {allowed}, got {type(groups).__name__}")
    try:
        parts = re.compile(groups).groups
    except re.error as error:
        raise ValueError(f"groups must be {allowed}, got {groups!r}: {error}") from error
    if parts != 1:
        raise ValueError(f"groups must be {allowed}, got {groups!r} with {parts} groups")


def check_device(device: str) -> str:
    """Check the form of a device's name and return it; whether the machine has the device shows later."""
    if not isinstance(device, str) or not DEVICE.fullmatch(device):
        raise ValueError(f"device must be auto, cpu, cuda, cuda:1 or the like, got {device!r}")
    return device


def whole_number(name: str, value: Any, least: int = 0, most: int | None = None) -> int:
    """Return a whole number from `least` to `most` as a Python int; `name` is for the error."""
    try:
        number = least - 1 if isinstance(value, bool) else int(operator.index(value))
    except TypeError:
        number = least - 1
    if number < least or (most is not None and number > most):
        limit = "" if most is None or number < least else f", up to {most}"
        raise ValueError(f"{name} must be a whole number of at least {least}{limit}, got {value!r}")
    return number


def checked_switch(name: str, value: Any) -> bool:
    """Return True or False, or whatever equals one of them, as a bool; `name` is for the error."""
    try:
        return {False: False, True: True}[value]
    except (KeyError, TypeError) as error:  # TypeError: it has no hash
        raise ValueError(f"{name} must be True or False, got {value!r}") from error


def checked_rotation(rotate: Any) -> float | str:
    """Return "90", or degrees as a number: "5" and 5 are the same."""
    try:
        degrees = math.nan if isinstance(rotate, bool) else float(rotate)
    except (TypeError, ValueError, OverflowError):
        degrees = math.nan
    if not 0 <= degrees <= 180:
        allowed = '"auto", "90" (quarter turns) or degrees from 0 to 180'
        raise ValueError(f"rotate must be {allowed}, got {rotate!r}")
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
    if math.prod(size) > MOST_PIXELS:
        advice = "cut larger pictures into tiles"
        raise ValueError(f"image_size must have at most {MOST_PIXELS} pixels, got {image_size!r}: {advice}")
    return size


def checked_tile(tile: Any, size: tuple[int, int], keep_aspect: bool) -> tuple[int, int]:
    """Return height and width of a tile; `size` is the height and width of the network's input."""
    try:
        sides = two_sides(tile)
    except ValueError as error:
        raise ValueError(f"tile must be a number of pixels or (height, width), got {tile!r}") from error
    if max(sides) > MOST_SIDE:
        raise ValueError(f"tile must have sides of at most {MOST_SIDE} pixels, got {tile!r}")
    if any(side * MOST_ENLARGED < wanted for side, wanted in zip(sides, size, strict=True)):
        least = tuple(math.ceil(wanted / MOST_ENLARGED) for wanted in size)
        raise ValueError(f"tile must be at least a quarter of the input, {least}, got {tile!r}")
    if keep_aspect and sides[0] * size[1] != sides[1] * size[0]:
        raise ValueError(
            f"keep_aspect with tile: its (height, width) must have the aspect of the input, {size}, "
            f"got {sides}"
        )
    return sides


def checked_overlap(overlap: Any) -> float:
    """Return the overlap, a share from 0 to 0.75."""
    share = _number(overlap)
    if not 0 <= share <= MOST_OVERLAP:
        raise ValueError(
            f"overlap must be a share of a tile's side from 0 to {MOST_OVERLAP}, got {overlap!r}"
        )
    return share


def checked_bit_depth(bit_depth: Any) -> int:
    """Return the number of bits, 8 to 16."""
    try:
        bits = 0 if isinstance(bit_depth, bool) else operator.index(bit_depth)
    except TypeError:
        bits = 0
    if not 8 <= bits <= 16:
        raise ValueError(f"bit_depth must be a whole number from 8 to 16, got {bit_depth!r}")
    return int(bits)


def two_sides(sides: Any) -> tuple[int, int]:
    """Return height and width from one whole number or two. Raises ValueError for anything else."""
    pair = sides if isinstance(sides, (tuple, list)) else (sides, sides)
    try:
        height, width = map(operator.index, pair)
    except (TypeError, ValueError) as error:
        raise ValueError(f"sides must be one whole number or two, got {sides!r}") from error
    return height, width


def one_or_two(sides: Sequence[int]) -> Sides:
    """Return (height, width), or a single number where they are equal."""
    height, width = sides
    return height if height == width else (height, width)


def _number(value: Any) -> float:
    """Return a number as a float, and NaN for anything else, such as text."""
    return float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
