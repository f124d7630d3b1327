"""What the tests of the bench share: a data set of two small categories, and results as cells leave them."""

import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import PIL.Image
import pytest

from destseg.inference.report import COLUMNS
from destseg.settings import PROTOCOLS


@pytest.fixture(scope="session")
def root(few_parts: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Two categories, each of 12 normal pictures, and two good ones and two with a hole to test."""
    root = tmp_path_factory.mktemp("root")
    pictures = sorted(few_parts.iterdir())
    mask = np.zeros((80, 96), bool)
    mask[20:40, 30:60] = True
    for category, normal in (("transistor_256", "train/good"), ("plain", "normal")):
        for folder in (normal, "test/good", "test/hole", "ground_truth/hole"):
            (root / category / folder).mkdir(parents=True)
        for k, path in enumerate(pictures[:16]):
            home = root / category / (normal if k < 12 else "test/good" if k < 14 else "test/hole")
            shutil.copy(path, home)
            if k >= 14:
                pixels = np.array(PIL.Image.open(path))
                pixels[mask] = 255
                PIL.Image.fromarray(pixels).save(home / path.name)
                PIL.Image.fromarray(mask).save(root / category / "ground_truth/hole" / path.name)
    return root


@pytest.fixture
def result() -> Callable[..., dict[str, Any]]:
    """A function that makes a cell's result, in which every metric of protocol full is `share`."""

    def make(category: str, method: str, seed: int, share: float | None, **others: Any) -> dict[str, Any]:
        shares = dict(zip(PROTOCOLS, (share, 0.5), strict=True))
        reports = {protocol: dict.fromkeys(COLUMNS, shares[protocol]) for protocol in PROTOCOLS}
        costs = {"fit_minutes": 2.0, "milliseconds": 40.0, "peak_bytes": 5e8}
        machine = {"device": "cpu", "threads": 1, "versions": {"destseg": "1", "torch": "2"}}
        whole = {"category": category, "method": method, "seed": seed, "settings": {}, "reports": reports}
        return {**whole, **costs, **machine, **others}

    return make
