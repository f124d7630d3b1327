"""Measures one cell of the matrix, and all of them in processes, which nothing but their files connects."""

import contextlib
import json
import logging
import math
import multiprocessing
import multiprocessing.connection
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import IO, Any

import numpy as np

from destseg.bench.matrix import OF_FIT, Cell, Values
from destseg.bench.processes import peak_memory
from destseg.detector import DeSTSeg
from destseg.files import write_whole
from destseg.inference.evaluation import evaluate
from destseg.inference.report import Report
from destseg.inference.scoring import Scored
from destseg.inference.stream import stream
from destseg.ops.kernels import thread_count
from destseg.pictures.categories import read_category
from destseg.pictures.dataset import Sample
from destseg.pictures.decoding import to_rgb
from destseg.pictures.folders import Source
from destseg.pictures.framing import framing_of
from destseg.settings import PROTOCOLS

Result = tuple[Source, Scored | Exception]

TIMED = 20  # test pictures whose prediction is timed, at most

logger = logging.getLogger("destseg")


def measure(cell: Cell, device: str, memory: int) -> Values:
    """Fit a model, evaluate it by both protocols, time it, and return what was found.

    Args:
        cell: what to measure.
        device: as of `destseg.DeSTSeg`.
        memory: bound in bytes on decoded pictures, on textures, and on the teacher's features, each.

    Returns:
        reports, by protocol as of `Report.to_dict`; fit_minutes; milliseconds, the median from a decoded
        picture to its verdict, one at a time; peak_bytes, the largest resident size of this process; threads;
        versions.
    """
    from destseg.model.tensorfile import versions

    category = read_category(cell.folder)
    settings = {name: value for name, value in cell.settings.items() if name not in OF_FIT}
    options = {name: value for name, value in cell.settings.items() if name in OF_FIT}
    model = DeSTSeg(**settings, seed=cell.seed, device=device)
    begun = time.perf_counter()
    model.fit(category.normal, progress=False, memory=memory, **options)
    minutes = (time.perf_counter() - begun) / 60
    assert model.record_ is not None  # it was fitted
    reports = {report.protocol: report.to_dict() for report in evaluate_by_all(model, category.samples)}
    return {
        "reports": reports,
        "fit_minutes": minutes,
        "milliseconds": _milliseconds(model, category.samples[:: max(1, len(category.samples) // TIMED)]),
        "peak_bytes": peak_memory(),
        "device": model.record_.device,
        "threads": thread_count(),
        "versions": versions(),
    }


def evaluate_by_all(model: DeSTSeg, samples: Sequence[Sample]) -> list[Report]:
    """Return the reports of all protocols; pictures are scored once, their maps lie in a file meanwhile.

    The file has no name where the system allows that, so a kill leaves nothing behind.
    """
    assert model.calibration_ is not None  # it was fitted
    threshold, promised = model.threshold_, model.calibration_.promised_rate
    sources = [sample.source for sample in samples]
    scored = stream(model.scorer, framing_of(model.settings), sources, progress=False)
    options: Values = {"progress": False, "promised_rate": promised}
    options |= {"pixel_threshold": model.pixel_threshold_}
    with tempfile.TemporaryFile() as file, closing(scored) as results:
        kept = _with_maps_in(file, results)
        reports = [evaluate(samples, kept, protocol, threshold, **options) for protocol in PROTOCOLS]
        del kept  # files that are mapped cannot be deleted everywhere
    return reports


def _with_maps_in(file: IO[bytes], results: Iterable[Result]) -> list[Result]:
    """Return results that take hardly any memory: their maps in a file, without their pixels."""
    kept: list[Result] = []
    for source, scored in results:
        if not isinstance(scored, Exception):
            file.write(np.ascontiguousarray(scored.anomaly_map, np.float32).data)
            nothing = scored.pixels[:0].copy()  # a view would keep all of them
            size_only = np.broadcast_to(np.float32(0), scored.anomaly_map.shape)  # takes no memory
            scored = scored._replace(pixels=nothing, anomaly_map=size_only)
        kept.append((source, scored))
    if not file.tell():
        return kept
    file.flush()
    values, first = np.memmap(file, np.float32, "r"), 0  # one for all: each would hold the file open
    for place, (source, scored) in enumerate(kept):
        if not isinstance(scored, Exception):
            shape = scored.anomaly_map.shape
            last = first + math.prod(shape)
            kept[place] = source, scored._replace(anomaly_map=values[first:last].reshape(shape))
            first = last
    return kept


def _milliseconds(model: DeSTSeg, samples: Sequence[Sample]) -> float:
    """Return the median time from decoded pixels to a prediction; unreadable pictures are left out."""
    times: list[float] = []
    for sample in samples:
        with contextlib.suppress(ValueError, OSError):
            pixels = to_rgb(sample.path, bit_depth=model.settings.bit_depth)
            if not times:
                model.predict(pixels, progress=False)  # to warm up
            begun = time.perf_counter()
            model.predict(pixels, progress=False)
            times.append(time.perf_counter() - begun)
    return 1000 * float(np.median(times))


def run_cells(
    cells: Sequence[Cell], output: Path, jobs: int, work: Callable[[Cell], Values]
) -> Generator[tuple[Cell, Values], None, None]:
    """Measure cells, each in a process of its own, and yield their results as they come.

    A result is a file as soon as its cell is done; that of a cell that failed has "error" in it. Processes
    end with this one, however it ends.

    Args:
        cells: what to measure, in this order.
        output: folder of the results and of a log.
        jobs: how many processes run at the same time.
        work: measures a cell; it must be one that can be sent to another process.
    """
    context = multiprocessing.get_context("spawn")
    waiting, running = list(reversed(cells)), dict[Any, tuple[Any, Cell]]()
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                cell = waiting.pop()
                cell.path(output).unlink(missing_ok=True)  # the error of an earlier run
                process = context.Process(target=_measure_in_child, args=(work, cell, output), daemon=True)
                process.start()
                running[process.sentinel] = process, cell
            for sentinel in multiprocessing.connection.wait(list(running)):
                process, cell = running.pop(sentinel)
                process.join()
                result = read_result(cell, output)
                if result is None:
                    why = f"its process ended with exit code {process.exitcode}"
                    killed = ", killed by the system, which may have run out of memory"
                    result = _write(cell, output, {"error": why + (killed if process.exitcode == -9 else "")})
                yield cell, result
    finally:
        for process, _ in running.values():
            process.terminate()
            process.join()


def read_result(cell: Cell, output: Path) -> Values | None:
    """Return the result of a cell; None if there is none.

    Raises ValueError where other settings gave it, or where it cannot be read.
    """
    path = cell.path(output)
    if not path.exists():
        return None
    try:
        result: Values = json.loads(path.read_text(encoding="utf-8"))
        stored = {name: result[name] for name in cell.identity()}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no result of the bench: {error!r}") from error
    if stored != cell.identity() and "error" not in result:
        before, now = stored["settings"], cell.identity()["settings"]
        names = sorted(
            n for n in {*before, *now} if before.get(n) != now.get(n) or (n in before) != (n in now)
        )
        what = f"was measured with other settings ({', '.join(names)})"
        raise ValueError(f"{path} {what}: choose another output, or delete it")
    return result


def _measure_in_child(work: Callable[[Cell], Values], cell: Cell, output: Path) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its processes, and says so once
    threading.Thread(target=_end_with_parent, daemon=True).start()
    form = f"%(asctime)s %(levelname)s {cell.name.replace('%', '%%')}: %(message)s"
    logging.basicConfig(filename=output / "log.txt", encoding="utf-8", level=logging.WARNING, format=form)
    logger.setLevel(logging.INFO)
    try:
        result = work(cell)
    except Exception as error:  # whatever it is, the other cells go on
        logger.exception("failed")
        result = {"error": f"{type(error).__name__}: {error}"}
    _write(cell, output, result)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None  # this process was started by `run_cells`
    parent.join()
    os._exit(1)


def _write(cell: Cell, output: Path, result: Values) -> Values:
    whole = cell.identity() | result
    text = json.dumps(whole, indent=1) + "\n"
    write_whole(cell.path(output), lambda file: file.write(text.encode()))
    return whole
