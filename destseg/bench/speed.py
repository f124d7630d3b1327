"""Measures what prediction costs, for presets, engines and precisions, beside the published network."""

import itertools
import logging
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import destseg
from destseg.artifacts.artifact import Artifact
from destseg.artifacts.formats import EXPORTED, FORMATS, format_of, read
from destseg.artifacts.int8_pictures import cost_table, synthetic_metrics
from destseg.bench.processes import peak_memory, threads_of_children
from destseg.detector import DeSTSeg, load
from destseg.inference.calibration import Calibration
from destseg.inference.stream import predictions
from destseg.model.construction import loaded_network, random_network
from destseg.model.scorer import PublishedScorer
from destseg.ops.kernels import thread_count
from destseg.pictures.dataset import read_mvtec
from destseg.pictures.folders import Pictures, as_normals, as_pictures
from destseg.pictures.framing import framing_of
from destseg.pictures.masks import mask_scale
from destseg.pictures.store import PictureStore
from destseg.progress import bar
from destseg.settings import Settings, input_size

logger = logging.getLogger("destseg")

PRESETS = ("paper", "fast")
PATIENCE = 10.0  # seconds that a process has to end by itself, before it is ended
TURN = 0.5  # seconds that each side works before the next takes its turn


class Side(NamedTuple):
    """One of the models that are compared."""

    name: str  # of the preset or the file
    engine: str
    precision: str
    path: Path
    published: bool = False  # run as the published implementation does


class Cost(NamedTuple):
    """What one side costs."""

    milliseconds: float  # for one picture, from decoded pixels to Prediction, batch 1; median
    per_second: float  # pictures per second, over all its turns
    memory: int  # largest resident size of its process in bytes
    size: int  # size of its files in bytes


def table(
    models: Sequence[str | Path],
    size: int | tuple[int, int] = 256,
    seconds: float = 5.0,
    dataset: str | Path | None = None,
    progress: bool = True,
) -> str:
    """Time models against the published network and return a table.

    Each side runs in a process of its own, with as many threads as an operation may use here. The sides take
    turns, so that a slow phase of the machine hits all alike.

    Args:
        models: files written by `DeSTSeg.save` or `DeSTSeg.export`; if there are none, untrained networks of
            each preset on each installed engine.
        size: input size, in pixels, of untrained networks and of the published one.
        seconds: how long each side works.
        dataset: test set in the MVTec layout; the table then also shows the models' metrics on it.
        progress: show progress bars.
    """
    if dataset is not None and not models:
        raise ValueError("a dataset goes with models: untrained networks find nothing in it")
    quality: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        sides = [untrained("paper", size, Path(folder))._replace(name="published", published=True)]
        if models:
            for path in map(Path, models):
                load(path, "cpu")  # what cannot be loaded or evaluated fails before hours of work
                artifact = read(path)
                sides.append(Side(path.name, artifact.engine, artifact.precision, path))
        else:
            for preset in PRESETS:
                sides += export_everywhere(untrained(preset, size, Path(folder)), progress)
        if dataset is not None:
            mask_scale(read_mvtec(dataset))
        costs = measure(sides, input_size(size), seconds, progress)
        if dataset is not None:
            reports = [load(side.path, "cpu").evaluate(dataset, progress=progress) for side in sides[1:]]
            shares = [(report.image_auroc, report.pixel_ap, report.iap) for report in reports]
            rows = [f"{100 * auroc:7.1f} {100 * ap:5.1f} {100 * iap:5.1f}" for auroc, ap, iap in shares]
            quality = ["  AUROC    AP   IAP", "", *rows]
    lines = ["model                 engine    precision      ms  pictures/s  times  peak MB  file MB"]
    for side, cost in zip(sides, costs, strict=True):
        gain = costs[0].milliseconds / cost.milliseconds
        numbers = f"{cost.milliseconds:7.1f} {cost.per_second:11.1f} {gain:6.2f}"
        sizes = f"{cost.memory / 1e6:8.0f} {cost.size / 1e6:8.1f}"
        lines.append(f"{side.name:21} {side.engine:9} {side.precision:9} {numbers} {sizes}")
    lines = [line + more for line, more in itertools.zip_longest(lines, quality, fillvalue="")]
    height, width = input_size(size)
    note = f"{thread_count()} threads; batch 1; a picture of {height} x {width} pixels"
    return "\n".join([*lines, note])


def untrained(preset: str, size: int | tuple[int, int], folder: Path) -> Side:
    """Save a model with random weights, which is as fast as any other."""
    settings, calibration = Settings(preset, image_size=size), Calibration((0.5,), (0.5,), 0.5)
    artifact = Artifact(settings, calibration, {"destseg": destseg.__version__, "torch": "any"})
    path = folder / f"{preset}.destseg"
    FORMATS["destseg"].write(path, random_network(settings).state_dict(), artifact)
    return Side(preset, "torch", "float32", path)


def export_everywhere(side: Side, progress: bool = True) -> list[Side]:
    """Export a model to every installed engine, and return the sides with the model itself."""
    model = load(side.path, "cpu")
    height, width = model.settings.size
    normal = np.random.default_rng(0).integers(0, 256, (8, height, width, 3), dtype=np.uint8)
    sides = [side]
    kinds = [(form, precision) for form in EXPORTED.values() for precision in form.precisions]
    for form, precision in kinds:
        path = side.path.with_name(f"{side.name}-{precision}{form.ending}")
        try:
            model.export(path, form.name, precision, normal=normal, calibration=normal, progress=progress)
        except ImportError as error:
            logger.warning("left out: %s %s: %s", form.name, precision, error)
        else:
            sides.append(Side(side.name, form.name, precision, path))
    return sides


def measure(
    sides: Sequence[Side], size: tuple[int, int], seconds: float, progress: bool = True
) -> list[Cost]:
    """Return what each side costs on one picture of the given height and width."""
    context = multiprocessing.get_context("spawn")
    ends, processes = [], []
    try:
        with threads_of_children(thread_count()):
            for side in sides:
                end, child_end = context.Pipe()
                process = context.Process(target=_work, args=(side, size, child_end), daemon=True)
                process.start()
                child_end.close()
                ends.append(end)
                processes.append(process)
                end.recv()  # it has warmed up: no side is measured while another loads
        times: list[list[float]] = [[] for _ in sides]
        for _ in bar(range(max(1, round(seconds / TURN))), "timing", wanted=progress):
            for end, side_times in zip(ends, times, strict=True):
                end.send(TURN)
                side_times += end.recv()
        memory = []
        for end in ends:
            end.send(None)
            memory.append(end.recv())
        for process in processes:
            process.join(PATIENCE)
    finally:
        for process in processes:
            process.terminate()
            process.join()
    files = [format_of(side.path).files(side.path) for side in sides]
    sizes = [sum(file.stat().st_size for file in parts) for parts in files]
    return [
        Cost(1000 * float(np.median(side_times)), len(side_times) / sum(side_times), peak, size)
        for side_times, peak, size in zip(times, memory, sizes, strict=True)
    ]


def _work(side: Side, size: tuple[int, int], parent: Connection) -> None:
    """Predict for as long as the parent says, until it says None; send back the seconds for each picture."""
    predict = published_predictor(side.path) if side.published else load(side.path, "cpu").predict
    pixels = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    for _ in range(3):
        predict(pixels)
    parent.send("ready")
    while (wanted := parent.recv()) is not None:
        times: list[float] = []
        end = time.perf_counter() + wanted
        while not times or time.perf_counter() < end:
            start = time.perf_counter()
            predict(pixels)
            times.append(time.perf_counter() - start)
        parent.send(times)
    parent.send(peak_memory())


def published_predictor(path: Path) -> Callable[[np.ndarray], object]:
    """Return a function that predicts as the published implementation does, with the network in a file."""
    artifact = read(path)
    assert artifact.network is not None and artifact.calibration is not None  # `untrained` wrote both
    network = loaded_network(artifact.settings, artifact.network, str(path)).eval()
    scorer, framing = PublishedScorer(network, artifact.settings.size), framing_of(artifact.settings)
    calibration = artifact.calibration
    return lambda pixels: next(predictions(scorer, framing, calibration, as_pictures(pixels)))


def int8_cost(
    model: DeSTSeg, quantised: DeSTSeg, normal: Pictures, dataset: Any = None, progress: bool = True
) -> str:
    """Return lines that tell what INT8 costs, on synthetic anomalies and on an MVTec-like data set."""
    store = PictureStore(as_normals(normal), framing_of(model.settings), progress=progress)
    pair = (model, quantised)
    before, after = (synthetic_metrics(either.scorer, store, model.settings.seed) for either in pair)
    metrics = {"synthetic anomalies": (before, after)}
    if dataset is not None:
        before, after = (either.evaluate(dataset, progress=progress) for either in pair)
        metrics["data set"] = (before, after)
    return cost_table(metrics)
