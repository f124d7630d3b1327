"""Writes a model as one graph that other engines run, see `destseg.graph.Inference`."""

import contextlib
import logging
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

import destseg
from destseg import engines
from destseg.calibration import Calibration, calibrated
from destseg.engines import ENDINGS, KEY, describe, imported
from destseg.files import write_whole
from destseg.folders import Pictures, as_pictures
from destseg.framing import Framing
from destseg.graph import IMAGES, INPUT, MAPS, OUTPUTS, Inference, traced
from destseg.networks import DeSTSegNet
from destseg.quantising import kept_weights, quantised_onnx, quantised_openvino, samples
from destseg.store import PictureStore

logger = logging.getLogger("destseg")

PRECISIONS = ("float32", "int8")
OPSET = 18  # of ONNX


def export(
    network: DeSTSegNet,
    settings: dict[str, Any],
    thresholds: Calibration,
    path: str | os.PathLike[str],
    form: str | None = None,
    precision: str = "float32",
    normal: Pictures | None = None,
    strict: bool = False,
    calibration: Pictures | None = None,
) -> None:
    """Write an exported model; `DeSTSeg.export` passes the first three.

    `destseg.load` computes in the precision of the file. Code of your own that runs an OpenVINO graph must
    ask for that: compiled without INFERENCE_PRECISION_HINT="f32", CPUs with AMX and GPUs compute in 16 bits,
    and scores differ by several hundredths.

    Args:
        network: in evaluation mode.
        settings: of the model, as they are saved.
        thresholds: the model's calibration, made from scores in float32.
        path: file to write, ending in .onnx, .xml (OpenVINO: weights lie beside it in .bin) or .pt2 (torch).
        form: "onnx", "openvino" or "torch" (a program of torch.export); by default what the ending says.
        precision: "float32", or "int8" with ONNX and OpenVINO.
        normal: normal pictures, which "int8" learns the ranges of its numbers from; training's serve best.
        strict: raise at the first unreadable picture instead of leaving it out with a warning.
        calibration: normal pictures that training did not see, nor `normal` holds. The exported model is
            calibrated with them, at the model's false-positive rate, by its own engine. Without, the model's
            thresholds stay, whose rate does not hold for "int8", where scores are others; the log says so.

    Raises:
        ValueError: the arguments do not fit together, or the model does more than stretch its pictures.
        ImportError: the engine's packages are missing; the message names the command that installs them.
    """
    form = form_of(path, form, precision)
    height, width = settings["image_size"]
    ways = ("keep_aspect", "tile", "roi")
    bent = [name for name in ways if settings[name] is not None and settings[name] is not False]
    if bent:
        raise ValueError(
            f"the exported graph stretches whole pictures to its input, but this model was fitted with "
            f"{', '.join(bent)}: export a model without"
        )
    if form == "torch" and calibration is not None:
        raise ValueError("calibration is for the formats onnx and openvino: destseg runs no torch program")
    framing, pictures, held_out = Framing((height, width)), None, None
    if precision == "int8":
        if normal is None:
            raise ValueError('precision "int8" needs normal pictures to learn from: pass normal=')
        pictures = samples(PictureStore(as_pictures(normal), framing, strict=strict), settings["seed"])
    if calibration is not None:
        held_out = PictureStore(as_pictures(calibration), framing, strict=strict)
    versions = {"destseg": destseg.__version__, "torch": str(torch.__version__)}
    described = partial(describe, settings, precision=precision, versions=versions)
    inner = form != "torch"  # torch's program is not taken apart again
    build = {"onnx": _onnx_model, "openvino": _openvino_model, "torch": _torch_model}[form]
    write = {"onnx": _write_onnx, "openvino": _write_openvino, "torch": _write_torch}[form]
    with _quietly():
        model = build(traced(Inference(network, (height, width), thresholds.threshold, inner)), pictures)
    if held_out is not None:
        with tempfile.TemporaryDirectory() as folder:
            draft = Path(folder, f"draft{ENDINGS[form]}")
            write(draft, model, described(thresholds))
            engine, _ = engines.read(draft)
            thresholds = calibrated(engine, held_out, thresholds.false_positive_rate)
            del engine  # it may hold the file
        compare = {"onnx": _compare_onnx, "openvino": _compare_openvino}[form]
        compare(model, thresholds.threshold)
    elif precision == "int8":
        logger.warning(
            "%s: scores in int8 differ from those that its thresholds were made from, so its false-positive "
            "rate is not guaranteed: export with calibration= (--calibration) and held-out normal pictures",
            path,
        )
    with _quietly():
        write(Path(path), model, described(thresholds))


def form_of(path: str | os.PathLike[str], form: str | None, precision: str) -> str:
    """Return the wanted form, by default the one that the path's ending says.

    Raises ValueError where path, form and precision do not fit together.
    """
    if form is not None and form not in ENDINGS:
        raise ValueError(f"format must be one of {', '.join(ENDINGS)}, got {form!r}")
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    found = {ending: name for name, ending in ENDINGS.items()}.get(Path(path).suffix.lower())
    if found is None or form not in (None, found):
        allowed = ENDINGS[form] if form else " or ".join(ENDINGS.values())
        raise ValueError(f"the exported file's name must end in {allowed}, got {os.fspath(path)}")
    if found == "torch" and precision == "int8":
        raise ValueError('precision "int8" is for the formats onnx and openvino; torch programs are float32')
    return found


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keep exporters and quantisers from talking about themselves; progress is for people's terminals."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.callback(logging.disable, logging.root.manager.disable)
        logging.disable(logging.WARNING)
        terminal = sys.stderr if sys.stderr.isatty() else stack.enter_context(open(os.devnull, "w"))
        stack.enter_context(contextlib.redirect_stdout(terminal))
        yield


def _onnx_model(program: torch.export.ExportedProgram, pictures: np.ndarray | None) -> Any:
    imported("onnxscript")
    imported("onnx")
    names = [*OUTPUTS, IMAGES, MAPS]
    written = torch.onnx.export(
        program, dynamo=True, verbose=False, opset_version=OPSET, input_names=[INPUT], output_names=names
    )
    assert written is not None  # it is with dynamo
    model = written.model_proto
    for thing in (model.graph, *model.graph.node, *model.graph.value_info):
        del thing.metadata_props[:]  # where in the source each came from
    if pictures is not None:
        model = quantised_onnx(model, pictures, kept_weights(program))
    del model.graph.output[len(OUTPUTS) :]
    return model


def _openvino_model(program: torch.export.ExportedProgram, pictures: np.ndarray | None) -> Any:
    imported("openvino")
    frontend = imported("openvino.frontend").FrontEndManager().load_by_framework("pytorch")
    decoder = imported("openvino.frontend.pytorch.fx_decoder").TorchFXPythonDecoder
    decoded = decoder.from_exported_program(program)  # to be kept while it is converted
    model = frontend.convert(frontend.load(decoded))
    for output, name in zip(model.outputs, OUTPUTS, strict=False):
        output.get_tensor().set_names({name})
    for result, name in zip(model.get_results()[len(OUTPUTS) :], (IMAGES, MAPS), strict=True):
        result.input_value(0).get_tensor().add_names({name})
        model.remove_result(result)
    return model if pictures is None else quantised_openvino(model, pictures, kept_weights(program))


def _torch_model(program: torch.export.ExportedProgram, pictures: np.ndarray | None) -> Any:
    return program


def _write_onnx(path: Path, model: Any, metadata: str) -> None:
    imported("onnx").helper.set_model_props(model, {KEY: metadata})
    write_whole(path, lambda file: file.write(model.SerializeToString()))


def _write_openvino(path: Path, model: Any, metadata: str) -> None:
    model.set_rt_info(metadata, [KEY])
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder, "model.xml")
        imported("openvino").serialize(model, whole)
        write_whole(path.with_suffix(".bin"), partial(_copy, whole.with_suffix(".bin")))
        write_whole(path, partial(_copy, whole))  # under the very name that was given


def _write_torch(path: Path, model: Any, metadata: str) -> None:
    extra = {f"{KEY}.json": metadata}
    write_whole(path, lambda file: torch.export.save(model, file, extra_files=extra))


def _copy(source: Path, target: BinaryIO) -> None:
    with open(source, "rb") as file:
        shutil.copyfileobj(file, target)


def _compare_onnx(model: Any, threshold: float) -> None:
    """Change above which score the graph calls a picture anomalous."""
    comparison = next(node for node in model.graph.node if OUTPUTS[2] in node.output)
    comparison.input[1] = "threshold"
    value = imported("onnx").numpy_helper.from_array(np.array(threshold, np.float32), "threshold")
    model.graph.initializer.append(value)


def _compare_openvino(model: Any, threshold: float) -> None:
    """Change above which score the graph calls a picture anomalous."""
    comparison = model.output(OUTPUTS[2]).get_node().input_value(0).get_node()
    value = imported("openvino").opset13.constant(np.float32(threshold))
    comparison.input(1).replace_source_output(value.output(0))
