"""What the tests of the bench share: results as cells leave them."""

from collections.abc import Callable
from typing import Any

import pytest

from destseg.inference.report import COLUMNS
from destseg.settings import PROTOCOLS


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
