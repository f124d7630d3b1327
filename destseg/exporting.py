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
from destseg.calibration import Calibration
from destseg.engines import ENDINGS, KEY, describe, imported
from destseg.files import write_whole
from destseg.folders import Pictures, as_pictures
from destseg.framing import Framing
from destseg.graph import IMAGES, INPUT, MAPS, OUTPUTS, Inference, traced
from destseg.networks import DeSTSegNet
from destseg.quantising import quantised_onnx, quantised_openvino, samples
from destseg.store import PictureStore

PRECISIONS = ("float32", "int8")
OPSET = 18  # of ONNX


def export(
    network: DeSTSegNet,
    settings: dict[str, Any],
    calibration: Calibration,
    path: str | os.PathLike[str],
    form: str | None = None,
    precision: str = "float32",
    normal: Pictures | None = None,
    strict: bool = False,
) -> None:
    """Write an exported model; `DeSTSeg.export` passes the first three.

    Args:
        network: in evaluation mode.
        settings: of the model, as they are saved.
        calibration: where its thresholds come from.
        path: file to write, ending in .onnx, .xml (OpenVINO: weights lie beside it in .bin) or .pt2 (torch).
        form: "onnx", "openvino" or "torch" (a program of torch.export); by default what the ending says.
        precision: "float32", or "int8" with ONNX and OpenVINO.
        normal: normal pictures, which "int8" learns the ranges of its numbers from; training's serve best.
        strict: raise at the first unreadable picture instead of leaving it out with a warning.

    Raises:
        ValueError: the arguments do not fit together, or the model does more than stretch its pictures.
        ImportError: the engine's packages are missing; the message names the command that installs them.
    """
    form = form_of(path, form, precision)
    height, width = settings["image_size"]
    bent = [name for name in ("keep_aspect", "tile", "roi") if settings.get(name)]
    if bent:
        raise ValueError(
            f"the exported graph stretches whole pictures to its input, but this model was fitted with "
            f"{', '.join(bent)}: export a model without"
        )
    pictures = None
    if precision == "int8":
        if normal is None:
            raise ValueError('precision "int8" needs normal pictures to learn from: pass normal=')
        store = PictureStore(as_pictures(normal), Framing((height, width)), strict=strict)
        pictures = samples(store, settings["seed"])
    versions = {"destseg": destseg.__version__, "torch": str(torch.__version__)}
    metadata = describe(settings, calibration, precision, versions)
    inner = form != "torch"  # torch's program is not taken apart again
    with _quietly():
        inference = Inference(network, (height, width), calibration.threshold, inner)
        write = {"onnx": _write_onnx, "openvino": _write_openvino, "torch": _write_torch}[form]
        write(Path(path), traced(inference), metadata, pictures)


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


def _write_torch(
    path: Path, program: torch.export.ExportedProgram, metadata: str, pictures: np.ndarray | None
) -> None:
    write_whole(path, lambda file: torch.export.save(program, file, extra_files={f"{KEY}.json": metadata}))


def _write_onnx(
    path: Path, program: torch.export.ExportedProgram, metadata: str, pictures: np.ndarray | None
) -> None:
    imported("onnxscript")
    onnx = imported("onnx")
    names = [*OUTPUTS, IMAGES, MAPS]
    written = torch.onnx.export(
        program, dynamo=True, verbose=False, opset_version=OPSET, input_names=[INPUT], output_names=names
    )
    assert written is not None  # it is with dynamo
    model = written.model_proto
    for thing in (model.graph, *model.graph.node, *model.graph.value_info):
        del thing.metadata_props[:]  # where in the source each came from
    if pictures is not None:
        model = quantised_onnx(model, pictures)
    del model.graph.output[len(OUTPUTS) :]
    onnx.helper.set_model_props(model, {KEY: metadata})
    write_whole(path, lambda file: file.write(model.SerializeToString()))


def _write_openvino(
    path: Path, program: torch.export.ExportedProgram, metadata: str, pictures: np.ndarray | None
) -> None:
    openvino = imported("openvino")
    frontend = imported("openvino.frontend").FrontEndManager().load_by_framework("pytorch")
    decoder = imported("openvino.frontend.pytorch.fx_decoder").TorchFXPythonDecoder
    decoded = decoder.from_exported_program(program)  # to be kept while it is converted
    model = frontend.convert(frontend.load(decoded))
    for output, name in zip(model.outputs, OUTPUTS, strict=False):
        output.get_tensor().set_names({name})
    for result, name in zip(model.get_results()[len(OUTPUTS) :], (IMAGES, MAPS), strict=True):
        result.input_value(0).get_tensor().add_names({name})
        model.remove_result(result)
    if pictures is not None:
        model = quantised_openvino(model, pictures)
    model.set_rt_info(metadata, [KEY])
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder, "model.xml")
        openvino.serialize(model, whole)
        for part in (whole.with_suffix(".bin"), whole):
            write_whole(path.with_suffix(part.suffix), partial(_copy, part))


def _copy(source: Path, target: BinaryIO) -> None:
    with open(source, "rb") as file:
        shutil.copyfileobj(file, target)
