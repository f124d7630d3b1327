"""The matrix of the bench: which settings are measured on which category, with which seeds.

A cell's settings come in layers, of which later ones win: the published rotation of its category; those of a
TOML file for all cells and for the category; those of the method; those given on the command line.
"""

import dataclasses
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from destseg.bench.published import ABLATION, ROTATIONS, published_name
from destseg.files import FilePath, as_path
from destseg.settings import Schedule, Settings, check_groups, whole_number

Values = dict[str, Any]

_SETTINGS = {field.name for field in dataclasses.fields(Settings)} - {"seed"}
_SCHEDULE = {field.name for field in dataclasses.fields(Schedule)}
OF_MODEL = _SETTINGS | {"teacher_weights"}  # what `destseg.DeSTSeg` takes
OF_FIT = _SCHEDULE | {"texture_source", "groups"}  # what its `fit` takes


class Cell(NamedTuple):
    """One measurement: a model is fitted to a category and evaluated."""

    category: str
    folder: Path
    method: str
    seed: int
    settings: Values  # by name, those of OF_MODEL and OF_FIT

    @property
    def name(self) -> str:
        return f"{self.category}, {self.method}, seed {self.seed}"

    def path(self, output: Path) -> Path:
        """Return the file of its result."""
        return output / "cells" / self.category / self.method / f"{self.seed}.json"

    def identity(self) -> Values:
        """Return what must be the same wherever its result is taken from, as JSON holds it."""
        values: Values = self._asdict()
        del values["folder"]
        plain: Values = json.loads(json.dumps(values, default=str))
        return plain


class Config(NamedTuple):
    """What a TOML file says: settings by name, for all cells, for categories, and for variants."""

    settings: Values = {}  # noqa: RUF012 - never changed
    categories: dict[str, Values] = {}  # noqa: RUF012
    variants: dict[str, Values] = {}  # noqa: RUF012


def read_config(path: FilePath) -> Config:
    """Read a TOML file with the tables [settings], [categories.NAME] and [variants.NAME], all optional.

    Raises ValueError where it holds anything else, and ImportError before Python 3.11, which reads no TOML.
    """
    if sys.version_info < (3, 11):
        raise ImportError(
            "Python 3.11 or later is needed to read TOML: give settings one by one instead (--set)"
        )
    import tomllib

    try:
        content = tomllib.loads(as_path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not TOML: {error}") from error
    named = [content.get("settings", {})]
    for kind in ("categories", "variants"):
        named += content.get(kind, {}).values()
    if content.keys() - set(Config._fields) or not all(isinstance(values, dict) for values in named):
        wanted = "[settings], [categories.NAME] and [variants.NAME]"
        raise ValueError(f"{path} must hold the tables {wanted} only, got {', '.join(map(str, content))}")
    return Config(**content)


def read_setting(text: str) -> tuple[str, Any]:
    """Read NAME=VALUE, the value as JSON, or as text if it is none: steps=[300,400], augment=light."""
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"a setting must be NAME=VALUE, got {text!r}")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def methods_of(presets: Iterable[str], ablation: bool, variants: Mapping[str, Values]) -> dict[str, Values]:
    """Return the settings of each method by name: presets, the paper's eight ablations, and variants."""
    methods: dict[str, Values] = {preset: {"preset": preset} for preset in presets}
    if ablation:
        names = ("denoising", "encoder_decoder", "segmentation")
        for name, parts in ABLATION.items():
            methods[name] = {"preset": "paper", **dict(zip(names, parts, strict=True))}
    for name, values in variants.items():
        if name in methods or not re.fullmatch(r"[\w+.-]*\w", name):
            wanted = "letters, digits and _ + . -, and no preset's"
            raise ValueError(f"the name of a variant must be made of {wanted}, got {name!r}")
        methods[name] = values
    return methods or {Settings.preset: {"preset": Settings.preset}}


def cells_of(
    folders: Mapping[str, Path],
    methods: Mapping[str, Values],
    seeds: Sequence[int],
    config: Config,
    overrides: Values,
) -> list[Cell]:
    """Return all cells, the first seed's first.

    Raises ValueError, naming the cell, where its settings are not allowed.
    """
    cells = []
    for seed in dict.fromkeys(seeds):
        for category, folder in folders.items():
            rotate = ROTATIONS.get(published_name(category))  # None: the preset's own
            common = {"rotate": rotate, **config.settings, **config.categories.get(category, {})}
            for method, values in methods.items():
                cells.append(Cell(category, folder, method, seed, {**common, **values, **overrides}))
    for cell in cells:
        try:
            _check(cell)
        except ValueError as error:
            raise ValueError(f"{cell.name}: {error}") from error
    return cells


def _check(cell: Cell) -> None:
    unknown = cell.settings.keys() - OF_MODEL - OF_FIT
    if unknown:
        allowed = ", ".join(sorted(OF_MODEL | OF_FIT))
        raise ValueError(f"there is no setting {min(unknown)}; there are {allowed}")
    settings, schedule = (
        {name: value for name, value in cell.settings.items() if name in names}
        for names in (_SETTINGS - {"roi"}, _SCHEDULE)
    )
    made = Settings(**settings, seed=whole_number("seed", cell.seed))
    Schedule.of(made.preset, schedule.pop("steps", None), schedule.pop("batch_size", None), **schedule)
    check_groups(cell.settings.get("groups"))
