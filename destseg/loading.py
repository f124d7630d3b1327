"""From a file to a model, whichever kind of file it is."""

import os

from destseg import engines, modelfile, presets
from destseg.detector import DeSTSeg
from destseg.framing import one_or_two


def load(path: str | os.PathLike[str], device: str = "auto") -> DeSTSeg:
    """Load a model written by `DeSTSeg.save`, or by `DeSTSeg.export` as ONNX or OpenVINO.

    An exported one runs on its engine, on the CPU, with as many threads as torch has at this moment. Nothing
    in a file is executed.

    Raises FileNotFoundError, ValueError where the file is damaged, truncated or something else, or
    ImportError, naming the command that installs it, where its engine is missing.
    """
    engine = None
    if engines.is_exported(path):
        engine, content = engines.read(path, device)
    else:
        content = modelfile.read(path)
    settings = dict(content.settings)
    settings |= {name: one_or_two(settings[name]) for name in ("image_size", "tile") if settings.get(name)}
    model = DeSTSeg(**settings, device=device)
    if engine is None:
        model._adopt(presets.loaded_network(model._parts, content.network, str(path)), content.losses)
    else:
        model.network_ = engine
    model.calibration_ = content.calibration
    return model
