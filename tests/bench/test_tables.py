"""The tables: their numbers, the paper's beside them, and the command that makes them."""

import csv
import json
import statistics

import pytest

import destseg.bench.tables
from destseg.bench.cells import read_result
from destseg.bench.published import ABLATION
from destseg.bench.tables import aggregate, in_markdown
from destseg.cli import main


def rows(markdown, first):
    """The cells of all rows that begin with this one."""
    split = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in markdown.splitlines()]
    return [cells[1:] for cells in split if cells[0] == first]


def test_means_and_deviations_over_seeds(result):
    shares = {("wood", 0): 0.5, ("wood", 1): 0.7, ("casting", 0): 0.1, ("casting", 1): 0.5, ("wood", 2): 0.9}
    results = [result(category, "fast", seed, share) for (category, seed), share in shares.items()]
    lines = aggregate(results)["full"]["fast"]
    assert list(lines) == ["wood", "casting", "all"]
    assert lines["wood"]["iap"] == {"mean": pytest.approx(0.7), "deviation": pytest.approx(0.2)}
    # Over all: (0.5 + 0.1) / 2 and (0.7 + 0.5) / 2; the third seed has no casting.
    means = {"mean": pytest.approx(0.45), "deviation": pytest.approx(statistics.stdev([0.3, 0.6]))}
    assert lines["all"]["iap"] == means
    assert [(lines[name]["seeds"], lines[name]["wanted"]) for name in lines] == [(3, 3), (2, 2), (2, 3)]
    markdown = in_markdown(results)
    assert rows(markdown, "wood")[0][0] == "70.0 ± 20.0" and rows(markdown, "all")[0][0] == "45.0 ± 21.2"
    assert rows(markdown, "fast")[0][-4:] == ["2.0 ± 0.0", "40.0 ± 0.0", "500.0 ± 0.0", "2 of 3"]
    assert "destseg 1, torch 2, cpu; threads of each cell: 1." in markdown


def test_one_seed_has_no_deviation_and_what_is_undefined_is_a_dash(result):
    markdown = in_markdown([result("wood", "fast", 0, 0.5), result("casting", "fast", 0, None)])
    assert rows(markdown, "wood")[0][0] == "50.0" and rows(markdown, "casting")[0][0] == "-"
    assert rows(markdown, "all")[0][0] == "-"  # not the mean of the others


def test_a_failed_cell_stands_in_the_table_with_its_error(result):
    failed = {"category": "wood", "method": "fast", "seed": 1, "settings": {}, "error": "OSError: a | b\nc"}
    markdown = in_markdown([result("wood", "fast", 0, 0.5), failed])
    assert rows(markdown, "wood")[0][-1] == "1 of 2" and rows(markdown, "all")[0][-1] == "1 of 2"
    assert r"| wood, seed 1 | failed: OSError: a \| b c |" in markdown
    only = in_markdown([failed])
    assert rows(only, "wood")[0][0] == "-" and rows(only, "wood")[0][-1] == "0 of 1"


def test_the_paper_s_rows_stand_below_ours(result):
    methods = ["paper", "stpm", "fast", "ablation-7-ed+seg"]
    markdown = in_markdown([result("transistor_256", method, 0, 0.5) for method in methods])
    assert (
        rows(markdown, "*paper: DeSTSeg, transistor*")
        == [["", "*89.1 ± 3.4*", "*64.8 ± 4.0*", "", "*78.3 ± 2.5*", "*49.6 ± 8.4*", "", "", "", ""]] * 6
    )  # both protocols, all methods but the ablation
    means = rows(markdown, "*paper: all 15 categories*")
    assert [row[2] for row in means[:3]] == ["*75.8 ± 0.8*", "*54.3*", "*69.7*"] and len(means) == 6
    assert [line[0] for line in means[:3]] == ["*98.6 ± 0.4*", "*95.1*", "*97.7*"]
    ablation = in_markdown([result("screw", method, 0, 0.5) for method in ABLATION])
    assert [row[4] for row in rows(ablation, "*paper: all 15 categories*")][:8] == [
        f"*{iap}*" for iap in (55.8, 53.9, 57.7, 71.8, 58.5, 72.3, 71.2, 76.4)
    ]


SET = ["--set", "image_size=64", "--set", "batch_size=2", "--set", "precision=float32", "--no-progress"]


def test_the_command_measures_a_matrix_and_never_twice(data_root, result, tmp_path, monkeypatch, capsys):
    measured = []

    def quickly(cells, output, jobs, work):
        for cell in cells:
            measured.append(cell.name)
            found = (
                {"error": "ValueError: broken"}
                if cell.method == "broken"
                else result(cell.category, cell.method, 0, 0.5)
            )
            path = cell.path(output)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(found | cell.identity()))
            yield cell, read_result(cell, output)

    monkeypatch.setattr(destseg.bench.tables, "run_cells", quickly)
    command = ["bench", "tables", str(data_root), "--seeds", "0", "-o", str(tmp_path / "out"), *SET]
    assert main([*command, "--categories", "plain", "--set", "steps=[1,1]"]) == 0
    assert measured == ["plain, fast, seed 0"]
    printed = capsys.readouterr().out
    assert printed == (tmp_path / "out/tables.md").read_text()
    assert main([*command, "--set", "steps=[1,1]"]) == 0
    assert measured[1:] == ["transistor_256, fast, seed 0"]
    assert main([*command, "--set", "steps=[1,2]"]) == 1
    assert "0.json was measured with other settings (steps)" in capsys.readouterr().err and len(measured) == 2
    with open(tmp_path / "out/tables.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(line["category"], line["protocol"]) for line in lines] == [
        (category, protocol) for category in ("plain", "transistor_256") for protocol in ("full", "paper")
    ]
    content = json.loads((tmp_path / "out/tables.json").read_text())
    assert [cell["category"] for cell in content["cells"]] == ["plain", "transistor_256"]
    assert {float(line["pixel_ap"]) for line in lines} == {0.5}
    assert content["tables"]["full"]["fast"]["all"]["pixel_ap"] == {"mean": 0.5, "deviation": None}

    pytest.importorskip("tomllib")
    config = tmp_path / "matrix.toml"
    config.write_text(
        "[categories.plain]\nrotate = 3\n[variants.broken]\n[variants.tiles]\ntile = 64\nsteps = [1, 0]\n"
    )
    command[-len(SET) - 1] = str(tmp_path / "variants")
    for _ in range(2):  # what failed is tried again
        measured.clear()
        assert main([*command, "--categories", "plain", "--config", str(config)]) == 1
        assert "plain, broken, seed 0" in measured
    assert measured == ["plain, broken, seed 0"]
    assert (tmp_path / "variants/config.toml").read_text() == config.read_text()
    (tiles,) = (tmp_path / "variants/cells/plain/tiles").iterdir()
    assert json.loads(tiles.read_text())["settings"] == {
        **{"rotate": 3, "tile": 64, "steps": [1, 0]},
        **{"image_size": 64, "batch_size": 2, "precision": "float32"},
    }
    assert "| plain, seed 0 | failed: ValueError: broken |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--jobs", "0"], "jobs must be a whole number of at least 1, got 0"),
        (["--categories", "x"], "category must be one of plain, transistor_256, got 'x'"),
        (["--set", "x=1"], "seed 0: there is no setting x;"),
        (["--set", "x"], "a setting must be NAME=VALUE, got 'x'"),
        (["--seeds", "-1"], "seed must be a whole number of at least 0"),
        (["--config", "missing.toml"], "missing.toml"),
        (["--device", "x"], "device must be auto"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_wrong_usage(data_root, tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    assert main(["bench", "tables", str(data_root), *arguments]) == 2
    assert words in capsys.readouterr().err and not list(tmp_path.iterdir())


@pytest.mark.slow
def test_two_jobs_in_real_processes(data_root, tmp_path, capsys):
    command = [
        "bench",
        "tables",
        str(data_root),
        "--seeds",
        "0",
        "1",
        "--jobs",
        "2",
        "-o",
        str(tmp_path / "out"),
    ]
    assert main([*command, *SET, "--set", "steps=[1,1]"]) == 0
    printed = capsys.readouterr().out
    assert all(rows(printed, name)[0][-1] == "2" for name in ("plain", "transistor_256", "all"))
    log = (tmp_path / "out/log.txt").read_text()
    assert all(
        f"{name}, fast, seed {seed}: fitted" in log for name in ("plain", "transistor_256") for seed in (0, 1)
    )
    assert main([*command, *SET, "--set", "steps=[1,1]"]) == 0
    assert (tmp_path / "out/log.txt").read_text() == log  # nothing ran again
