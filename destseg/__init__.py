"""Find and outline defects in pictures of manufactured parts after seeing normal pictures only."""

import importlib
import logging
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


def _is_handled(record: logging.LogRecord) -> bool:
    """Whether a handler was set up; else print a warning: logging itself would, but raise where it cannot."""
    if logging.getLogger("destseg").hasHandlers():
        return True
    if record.levelno >= logging.WARNING:
        importlib.import_module("destseg.progress").write(record.getMessage())
    return False


for _name in ("destseg", "destseg.ops"):  # here: before any other module of the package can warn
    logging.getLogger(_name).addFilter(_is_handled)
del _name
