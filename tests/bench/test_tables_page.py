"""The page of the tables: what tables.md says, marks, dots, errors, settings, the command."""

import html
import json
import re
import shlex
import sys

import pytest

import destseg.bench.tables
from destseg.bench.cells import read_result
from destseg.bench.tables import in_markdown
from destseg.bench.tables_page import SHAPES, choose_ticks, describe_settings, tables_values
from destseg.cli import main
from destseg.page.rendering import write_page
from destseg.settings import PROTOCOLS

HOSTILE = "<b>&amp;\"' | </script><i>"


@pytest.fixture
def page_of(tmp_path):
    """A function that returns the page about some results, as text."""

    def make(results, wanted=9, command=None):
        write_page(tmp_path / "tables.html", "tables.html", tables_values(results, wanted, command))
        return (tmp_path / "tables.html").read_text()

    return make


def rows(page):
    """The texts of each row of a page's tables; a star stands before the best."""
    lines = re.findall(r"<tr.*?</tr>", page, re.S)
    cells = [re.findall(r"<t[hd].*?>(.*?)</t[hd]>", line, re.S) for line in lines]
    return [[html.unescape(re.sub(r"<.*?>", "", cell)) for cell in line] for line in cells]


def markdown_rows(text):
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    cells = [
        [cell.strip() for cell in line.removeprefix("|").removesuffix("|").split(" | ")] for line in lines
    ]
    return [[re.sub(r"^\*(.*)\*$", r"\1", cell) for cell in line] for line in cells]


def test_the_page_of_one_method_has_the_rows_of_tables_md(result, page_of):
    results = [result(name, "fast", seed, 0.3 + seed / 10) for name in ("wood", "bolt") for seed in range(3)]
    expected = [row for row in markdown_rows(in_markdown(results)) if row[0] != "all"]  # which is fast's
    assert rows(page_of(results)) == expected and len(expected) == 2 * (2 + 1 + 3)


def test_with_more_methods_their_rows_stand_together(result, page_of):
    shares = {"fast": 0.5, "paper": 0.75, "ablation-8-all": 0.6}
    results = [
        result(name, method, 0, share) for name in ("wood", "bolt") for method, share in shares.items()
    ]
    found = [[row[0], *row[1:2]] for row in rows(page_of(results))]
    names = [row[0] for row in found]
    everywhere = ["method", "fast", "paper", "paper: all 15 categories", "ablation-8-all"]
    everywhere += ["paper: all 15 categories"]
    each = ["method", "wood", "fast", "paper", "published", "ablation-8-all"]
    each += ["bolt", "fast", "paper", "ablation-8-all"]
    assert names == (everywhere + each) * 2
    assert [row[1] for row in found[:6]] == ["image AUROC", "50.0", "★75.0", "98.6 ± 0.4", "60.0", "98.6"]
    page = html.unescape(page_of(results))
    assert "In italics: the paper's" in page and "★: the best of the methods" in page


def test_the_best_of_the_methods_is_marked_as_it_is_shown(result, page_of):
    def made(method, share, **costs):
        return result("bolt", method, 0, share, **costs)

    found = rows(page_of([made("a", 0.50041, milliseconds=10.0), made("b", 0.5), made("c", 0.4)]))
    bolt = found[-3:]  # of protocol paper, in which all shares are the same
    assert [row[8] for row in bolt] == ["★10.0", "40.0", "40.0"]  # the fastest
    assert not any("★" in cell for row in bolt for cell in row[:8] + row[9:])
    full = [row for row in found if row[0] in "abc"][3:6]
    assert [row[1] for row in full] == ["★50.0", "★50.0", "40.0"]
    assert "★" not in page_of([made("a", 0.5)])
    undefined = rows(page_of([made("a", None), made("b", 0.5)]))
    assert [row[1] for row in undefined if row[0] in "ab"][:2] == ["-", "50.0"]


def test_dots_stand_where_the_values_are(result):
    shares = {("wood", 0): 0.5, ("wood", 1): 0.9, ("bolt", 0): 0.6, ("bolt", 1): None}
    results = [result(name, "fast", seed, share) for (name, seed), share in shares.items()]
    failed = {"category": "nut", "method": "fast", "seed": 0, "settings": {}, "error": "OSError: x"}
    full, paper = tables_values([*results, failed], 9, None)["protocols"]
    image, pixel_ap, _ = full["plots"]
    assert [line["label"] for line in image["rows"]] == ["wood", "bolt", "nut"]
    marks = {mark["words"]: mark for mark in image["marks"]}
    assert sorted(marks) == [
        "bolt, fast, seed 0: 60.0",  # whose mean is not defined
        *("wood, fast, mean: 70.0", "wood, fast, seed 0: 50.0", "wood, fast, seed 1: 90.0"),
    ]
    at = [marks[f"wood, fast, {words}"]["x"] for words in ("seed 0: 50.0", "mean: 70.0", "seed 1: 90.0")]
    assert at == sorted(at) and at[1] - at[0] == pytest.approx(at[2] - at[1], abs=0.2)
    ticks = {float(words): x for x, words in image["ticks"]}
    assert at[2] == pytest.approx(ticks[90], abs=0.2)
    assert image["left"] <= min(ticks.values()) and max(ticks.values()) < image["width"]
    (line,) = pixel_ap["papers"]  # wood's, 81.9; none of image AUROC
    assert line["words"] == "wood, the paper: 81.9" and not image["papers"]
    assert at[1] < line["x"] < at[2] and image["bottom"] < image["height"]
    assert [plot["title"] for plot in paper["plots"]] == ["image AUROC", "pixel AP", "IAP"]


def test_a_metric_without_values_has_no_plot(result, page_of):
    results = [result("bolt", "fast", 0, None)]
    full, paper = tables_values(results, 1, None)["protocols"]
    assert full["plots"] == [] and len(paper["plots"]) == 3
    assert page_of(results).count("<figure>") == 3
    assert page_of([]).count("<figure>") == 0  # nor is there anything before the first cell is done


def test_marks_of_methods_differ_in_shape_not_in_colour_alone(result):
    count = 2 * len(SHAPES)
    results = [result("bolt", f"m{k}", 0, 0.5) for k in range(count)]
    marks = tables_values(results, count, None)["marks"]
    assert len({(mark["shape"], mark["is_hollow"]) for mark in marks.values()}) == count
    (plot, *_) = tables_values(results, count, None)["protocols"][0]["plots"]
    heights = [mark["y"] for mark in plot["marks"] if mark["is_mean"]]
    assert (
        len(set(heights)) == count and plot["rows"][0]["top"] < min(heights) < max(heights) < plot["bottom"]
    )


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([50.0], [49, 50]),
        ([100.0], [99, 100]),
        ([0.0, 100.0], [0, 25, 50, 75, 100]),
        ([97.2, 99.9], [97, 98, 99, 100]),
        ([41.0, 88.5], [40, 60, 80, 100]),
        ([0.3, 0.6], [0, 1]),
    ],
)
def test_ticks_lie_around_the_values(values, ticks):
    assert choose_ticks(values) == ticks


def test_a_failed_cell_is_told_with_its_error_and_names_are_escaped(result, page_of):
    error = f"OSError: {HOSTILE}\nmore"
    failed = {"category": HOSTILE, "method": "fast", "seed": 1, "settings": {"roi": HOSTILE}, "error": error}
    page = page_of([result(HOSTILE, "fast", 0, 0.5), failed], command=f"destseg {HOSTILE}")
    assert "2 of 9 measured, 1 failed" in page
    assert HOSTILE not in page and "<i>" not in page and page.count("</script>") == 0
    told = re.search(r"<dl class=\"errors\"><dt>(.*?)</dt><dd.*?><pre>✕ (.*?)</pre>", page, re.S)
    assert list(map(html.unescape, told.groups())) == [f"{HOSTILE}, fast, seed 1", error]
    assert HOSTILE in [row[0] for row in rows(page)]
    assert "Failed" not in page_of([result("bolt", "fast", 0, 0.5)])


def test_settings_are_told_once_for_all_that_share_them(result):
    settings = {
        ("wood", "a"): {"steps": [1, 2], "preset": "fast", "rotate": 5.0, "tile": None},
        ("wood", "b"): {"steps": [1, 2], "preset": "paper", "rotate": 5.0, "flip": "both"},
        ("bolt", "a"): {"steps": [1, 2], "preset": "fast", "rotate": None},
        ("bolt", "b"): {"steps": [1, 2], "preset": "paper", "flip": "both", "augment": "light"},
        ("nut", "a"): {"steps": [1, 2], "preset": "fast", "rotate": 5.0},
        ("nut", "b"): {"steps": [1, 2], "preset": "paper", "rotate": 5.0, "flip": "both"},
    }
    results = [
        result(*pair, seed, 0.5, settings=values) for seed in (0, 1) for pair, values in settings.items()
    ]
    assert list(describe_settings(results)) == [
        ("all cells", "steps=[1, 2]"),
        ("a", "preset=fast"),
        ("b", "flip=both, preset=paper"),
        ("wood, nut", "rotate=5.0"),
        ("bolt with b", "augment=light"),
    ]
    assert list(describe_settings([])) == []


@pytest.fixture
def quickly(result, monkeypatch):
    """Cells are not measured; each has the same result."""

    def run_cells(cells, output, jobs, work):
        for cell in cells:
            path = cell.path(output)
            path.parent.mkdir(parents=True, exist_ok=True)
            made = result(cell.category, cell.method, cell.seed, 0.5) | cell.identity()
            path.write_text(json.dumps(made))
            yield cell, read_result(cell, output)

    monkeypatch.setattr(destseg.bench.tables, "run_cells", run_cells)


def test_the_command_on_the_page_makes_the_same_page(data_root, quickly, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = [
        "--categories",
        "plain",
        "--seeds",
        "0",
        "2",
        "--ablation",
        "--set",
        "steps=[1,2]",
        "--jobs",
        "2",
    ]
    output = "-o=-it's out"
    assert main(["bench", "tables", str(data_root), *options, output, "--no-progress"]) == 0
    page = tmp_path / "-it's out/tables.html"
    before = page.read_text()
    told = re.search(r'id="command"><code>(.*?)</code>', before)[1]
    command = shlex.split(html.unescape(re.sub("<.*?>", "", told)))
    assert command[:3] == ["destseg", "bench", "tables"]
    page.unlink()
    assert main([*command[1:], "--no-progress"]) == 0
    made = re.compile(r'<p class="faint" id="made">.*?</p>')
    assert made.sub("", page.read_text()) == made.sub("", before)
    assert "16 of 16 measured" in before and before.count("<figure>") == 3 * len(PROTOCOLS)


def test_without_jinja2_the_page_is_left_out_and_one_line_says_so(
    data_root, quickly, tmp_path, monkeypatch, capsys, caplog
):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    command = ["bench", "tables", str(data_root), "--seeds", "0", "-o", str(tmp_path / "out")]
    assert main([*command, "--no-progress"]) == 0
    (record,) = caplog.records
    words = r"tables\.html is left out: jinja2 is missing .*: install it with pip install 'destseg\[report\]'"
    assert re.fullmatch(words, record.getMessage())
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("cells", "tables.md", "tables.csv", "tables.json")
    }
    assert capsys.readouterr().out == (tmp_path / "out/tables.md").read_text()
