"""Cells are measured in processes: what they leave, who fails, and what a kill costs."""

import io
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np
import pytest

from destseg.bench.cells import _with_maps_in, evaluate_by_all, measure, read_result, run_cells
from destseg.bench.matrix import Cell
from destseg.inference.stream import stream
from destseg.pictures.categories import read_category
from destseg.pictures.framing import framing_of


def cell(method, seed=0, **settings):
    return Cell("part", pathlib.Path("nowhere"), method, seed, settings)


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def work(cell):
    """What processes do in place of measuring; the setting `place` is a folder."""
    place = pathlib.Path(cell.settings["place"])
    (place / f"{cell.method}.begun").write_text(str(os.getpid()))
    match cell.method:
        case "fails":
            raise ValueError("no | pictures")
        case "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        case "first":  # needs the second one at the same time
            wait_for((place / "second.begun").exists)
        case "hangs":
            time.sleep(300)
    return {"answer": cell.method}


def test_cells_run_side_by_side_and_one_that_fails_stops_nothing(tmp_path):
    methods = ("first", "second", "fails", "dies")
    cells = [cell(method, place=str(tmp_path)) for method in methods]
    found = {cell.method: result for cell, result in run_cells(cells, tmp_path, 2, work)}
    assert found["first"]["answer"] == "first" and found["second"]["answer"] == "second"
    assert found["fails"]["error"] == "ValueError: no | pictures"
    assert found["dies"]["error"].startswith("its process ended with exit code -9, killed by the system")
    assert {method: read_result(c, tmp_path) for method, c in zip(methods, cells, strict=True)} == found
    assert found["first"] == {**cells[0].identity(), "answer": "first"}
    log = (tmp_path / "log.txt").read_text()
    assert "part, fails, seed 0: failed" in log and "ValueError: no | pictures" in log


RUN = """
import pathlib, sys
sys.path.insert(0, {tests!r})
from test_cells import cell, run_cells, work
place = sys.argv[1]
cells = [cell("second", place=place), cell("hangs", place=place)]
if __name__ == "__main__":
    for _ in run_cells(cells, pathlib.Path(place), 1, work): pass
"""


def is_running(pid):
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.skipif(not pathlib.Path("/proc/self/stat").exists(), reason="looks at processes in /proc")
def test_a_kill_costs_the_cells_that_were_running_and_leaves_no_process(tmp_path):
    script = tmp_path / "run.py"
    script.write_text(RUN.format(tests=str(pathlib.Path(__file__).parent)))
    process = subprocess.Popen([sys.executable, str(script), str(tmp_path)])
    begun = tmp_path / "hangs.begun"
    wait_for(lambda: begun.exists() and begun.read_text())
    process.kill()
    process.wait()
    child = int(begun.read_text())
    wait_for(lambda: not is_running(child))
    done, hung = cell("second", place=str(tmp_path)), cell("hangs", place=str(tmp_path))
    assert read_result(done, tmp_path)["answer"] == "second"
    assert read_result(hung, tmp_path) is None
    assert not list(tmp_path.glob("cells/part/*/.destseg-*"))


def test_results_of_other_settings_and_files_that_are_none_are_refused(tmp_path):
    (result,) = (result for _, result in run_cells([cell("second", place=str(tmp_path))], tmp_path, 1, work))
    path = cell("second").path(tmp_path)
    assert json.loads(path.read_text()) == result
    with pytest.raises(ValueError, match=r"0\.json was measured with other settings \(place, tile\): choose"):
        read_result(cell("second", tile=64), tmp_path)
    path.write_text(json.dumps(result | {"error": "x"}))  # which is measured again, so whatever gave it
    assert read_result(cell("second", tile=64), tmp_path)["error"] == "x"
    path.write_text("{}")
    with pytest.raises(ValueError, match=r"0\.json is no result of the bench"):
        read_result(cell("second"), tmp_path)


def test_a_cell_measures_both_protocols_and_what_it_costs(data_root):
    settings = {"image_size": 64, "steps": [1, 1], "batch_size": 2, "precision": "float32", "rotate": 5}
    found = measure(Cell("plain", data_root / "plain", "fast", 0, settings), "cpu", 1 << 28)
    assert json.loads(json.dumps(found)) == found
    full, paper = (found["reports"][protocol] for protocol in ("full", "paper"))
    assert len(full["rows"]) == len(paper["rows"]) == 4 and full["rows"] == paper["rows"]
    assert full["instances"] == paper["instances"] == 2 and full["pixel_ap"] != paper["pixel_ap"]
    assert 0 < found["fit_minutes"] < 5 and 0 < found["milliseconds"] < 5000 and found["peak_bytes"] > 1e8
    assert found["device"] == "cpu"


def test_maps_of_pictures_lie_in_a_file_and_their_pixels_nowhere(data_root, fitted):
    samples = read_category(data_root / "plain").samples
    sources = [sample.source for sample in samples]
    broken = ValueError("broken")
    scored = list(stream(fitted.scorer, framing_of(fitted.settings), sources, progress=False))
    given = [*scored[:2], (sources[2], broken), *scored[3:]]
    with tempfile.TemporaryFile() as file:
        kept = _with_maps_in(file, given)
        assert kept[2] == (sources[2], broken) and _with_maps_in(io.BytesIO(), given[2:3]) == kept[2:3]
        for place in (0, 1, 3):
            source, result = kept[place]
            assert source == sources[place] and result.score == given[place][1].score
            assert np.array_equal(result.anomaly_map, given[place][1].anomaly_map)
            assert not result.anomaly_map.flags.writeable
            assert result.pixels.size == 0 and result.pixels.base is None  # else they would stay
        del kept, result


def test_pictures_that_are_scored_once_give_the_reports_of_all_protocols(data_root, fitted):
    samples = read_category(data_root / "plain").samples
    for report in evaluate_by_all(fitted, samples):
        assert fitted.evaluate(data_root / "plain", report.protocol, progress=False) == report
