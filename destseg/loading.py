"""From a file to a model, whichever kind of file it is."""

import logging
import os

from destseg import engines, modelfile, presets
from destseg.detector import DeSTSeg
from destseg.framing import one_or_two

logger = logging.getLogger("destseg")


def load(
    path: str | os.PathLike[str], device: str = "auto", inference_precision: str | None = None
) -> DeSTSeg:
    """Load a model written by `DeSTSeg.save`, or by `DeSTSeg.export` as ONNX or OpenVINO.

    An exported one runs on its engine, on the CPU, with as many threads as torch has at this moment. Nothing
    in a file is executed.

    With another `inference_precision` than that of its calibration the model has no thresholds: call
    `calibrate` with normal pictures then. Calibrated in half precision and loaded without a GPU, it predicts
    in float32, and a warning says that its thresholds are those of half precision.

    Raises FileNotFoundError, ValueError where the file is damaged, truncated or something else, or
    ImportError, naming the command that installs it, where its engine is missing.
    """
    engine = None
    if engines.is_exported(path):
        if inference_precision is not None:
            raise ValueError(f"inference_precision of {path} was chosen by export; it cannot be changed")
        engine, content = engines.read(path, device)
    else:
        content = modelfile.read(path)
    settings = dict(content.settings)
    settings |= {name: one_or_two(settings[name]) for name in ("image_size", "tile") if settings.get(name)}
    calibrated = settings.get("inference_precision", "float32")  # the first models did not say
    settings["inference_precision"] = inference_precision or calibrated
    on_gpu = presets.torch_device(device).type == "cuda"
    if inference_precision is None and calibrated != "float32" and not on_gpu:
        text = "%s was calibrated in %s on a GPU; here it predicts in float32, and scores differ a little"
        logger.warning(text, path, calibrated)
        settings["inference_precision"] = "float32"
    model = DeSTSeg(**settings, device=device)
    if engine is None:
        model._adopt(presets.loaded_network(model._parts, content.network, str(path)), content.losses)
    else:
        model.network_ = engine
    if inference_precision in (None, calibrated):
        model.calibration_ = content.calibration
    return model
