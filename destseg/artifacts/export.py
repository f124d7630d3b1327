"""Writes a model as one graph that other engines run, see `destseg.model.graph.Inference`."""

import contextlib
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from destseg.artifacts.artifact import Artifact, Format
from destseg.artifacts.formats import EXPORTED, FORMATS, check_name, format_of
from destseg.artifacts.int8_pictures import float32_weights, range_inputs
from destseg.files import FilePath, as_path
from destseg.inference.calibration import calibrate
from destseg.inference.stream import stream
from destseg.model.graph import Inference, trace
from destseg.model.networks import DeSTSegNet
from destseg.model.process import plain_torch
from destseg.pictures.folders import Pictures, as_normals
from destseg.pictures.framing import framing_of
from destseg.pictures.store import PictureStore
from destseg.progress import screen
from destseg.settings import EXPORT_PRECISIONS, check_choice

logger = logging.getLogger("destseg")


@plain_torch()
def export(
    network: DeSTSegNet,
    artifact: Artifact,
    path: FilePath,
    form: Format,
    normal: Pictures | None = None,
    *,
    strict: bool = False,
    calibration: Pictures | None = None,
    progress: bool = True,
) -> None:
    """Write an exported model; `DeSTSeg.export` describes the errors.

    Args:
        network: in evaluation mode.
        artifact: the description of the file: settings, thresholds from scores in float32, and precision.
        path: file to write.
        form: its format, as `wanted_format` gives it.
        normal, strict, calibration, progress: as for `DeSTSeg.export`.
    """
    settings, thresholds, path = artifact.settings, artifact.calibration, as_path(path)
    assert thresholds is not None and form.build is not None  # the caller and `wanted_format` check both
    unsupported = [
        name for name in ("keep_aspect", "tile", "roi") if getattr(settings, name) not in (None, False)
    ]
    if unsupported:
        raise ValueError(
            f"the exported graph stretches whole pictures to its input, but this model was fitted with "
            f"{', '.join(unsupported)}: export a model without them"
        )
    framing = framing_of(settings)
    ranges = held_out = None
    if artifact.precision == "int8":
        if normal is None:
            raise ValueError('precision "int8" needs normal pictures to learn from: pass normal=')
        store = PictureStore(as_normals(normal), framing, strict=strict, progress=progress)
        ranges = range_inputs(store, settings.seed)
    if calibration is not None:
        held_out = PictureStore(as_normals(calibration), framing, strict=strict, progress=progress)
    with _quietly(progress):
        program = trace(Inference(network, settings.size, thresholds.threshold))
        content = form.build(program)
        if ranges is not None and form.quantise is not None:
            bounded = network.light and network.student_net.bounded
            content = form.quantise(content, ranges, float32_weights(program, bounded))
    if held_out is None:
        if ranges is not None:
            logger.warning(
                "%s: scores in int8 differ from those that its thresholds were made from, so its false-"
                "positive rate is not guaranteed: export with calibration= (--calibration) and held-out "
                "normal pictures",
                path,
            )
        with _quietly(progress):
            form.write(path, content, artifact)
        return
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder, f"draft{form.ending}")
        with _quietly(progress):
            form.write(draft, content, artifact)
        start = form.read(draft).start
        assert start is not None  # every exported file has one
        results = stream(start(), framing, held_out.sources, held_out.picture)
        options: dict[str, Any] = {"pictures": held_out.pictures, "progress": progress}
        with closing(results):
            own_thresholds = calibrate(results, thresholds.false_positive_rate, **options)
        form.set_threshold(draft, path, replace(artifact, calibration=own_thresholds))


def wanted_format(path: FilePath, name: str | None, precision: str) -> Format:
    """Return the format of a file to export; without a name, the path's ending decides.

    Raises ValueError where path, format and precision do not fit together.
    """
    check_choice("precision", precision, EXPORT_PRECISIONS)
    if name is None:
        form = format_of(path)
        if form.build is None:
            allowed = " or ".join(exported.ending for exported in EXPORTED.values())
            raise ValueError(f"the exported file's name must end in {allowed}, got {os.fspath(path)}")
    else:
        check_choice("format", name, EXPORTED)
        form = FORMATS[name]
        check_name(path, form)
    check_choice(f"precision of {form.name} files", precision, form.precisions)
    return form


@contextlib.contextmanager
def _quietly(progress: bool) -> Iterator[None]:
    """Silence exporters and quantisers; their own progress shows where ours would."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.callback(logging.disable, logging.root.manager.disable)
        logging.disable(logging.WARNING)
        shown = screen() if progress else None
        stack.enter_context(contextlib.redirect_stdout(shown or stack.enter_context(open(os.devnull, "w"))))
        yield
