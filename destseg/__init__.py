"""Find and outline defects in pictures of manufactured parts after seeing normal pictures only."""

import importlib
import logging
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from destseg import metrics
    from destseg.detector import DeSTSeg, load
    from destseg.inference.prediction import Prediction, Region

__version__ = "0.1.0"
__all__ = ["DeSTSeg", "Prediction", "Region", "__version__", "load", "metrics"]

_HOMES = {
    "DeSTSeg": "detector",
    "load": "detector",
    "Prediction": "inference.prediction",
    "Region": "inference.prediction",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: `destseg --help` needs none of them."""
    if name == "metrics":
        return importlib.import_module("destseg.metrics")
    if name in _HOMES:
        return getattr(importlib.import_module(f"destseg.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'destseg' has no attribute {name!r}")


def _reaches_anybody(_: logging.LogRecord) -> bool:
    """Whether a warning can be written: where no handler is set up, logging itself writes to standard error,
    and raises where that is closed or no stream.
    """
    return logging.getLogger("destseg").hasHandlers() or (
        hasattr(sys.stderr, "write") and not getattr(sys.stderr, "closed", False)
    )


for _name in ("destseg", "destseg.ops"):  # here: before any other module of the package can warn
    logging.getLogger(_name).addFilter(_reaches_anybody)
del _name
