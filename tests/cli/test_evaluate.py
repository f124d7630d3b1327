"""`destseg evaluate` on the command line."""

import json
import shutil
import sys

import numpy as np
import PIL.Image

from destseg.cli import main


def test_evaluate_prints_a_table_and_writes_json_and_csv(model, few_parts, tmp_path, capsys):
    for folder in ("test/good", "test/hole", "ground_truth/hole"):
        (tmp_path / folder).mkdir(parents=True)
    first, second = (PIL.Image.open(path) for path in sorted(few_parts.iterdir())[:2])
    first.save(tmp_path / "test/good/1.png")
    second.save(tmp_path / "test/hole/2.png")
    PIL.Image.fromarray(np.pad(np.full((9, 9), 255, np.uint8), ((9, 62), (9, 78)))).save(
        tmp_path / "ground_truth/hole/2_mask.png"
    )
    written = [
        "--json",
        tmp_path / "r.json",
        "--csv",
        tmp_path / "r.csv",
        "--defects-csv",
        tmp_path / "d.csv",
        "--report",
        tmp_path / "r.html",
    ]
    assert main(["evaluate", *map(str, [model, tmp_path, *written])]) == 0
    assert "image auroc" in (plain := capsys.readouterr().out) and "darkened" not in plain
    stored = json.loads((tmp_path / "r.json").read_text())
    assert stored["instances"] == 1 and stored["robustness"] is None
    assert len((tmp_path / "r.csv").read_text().splitlines()) == 3
    page = (tmp_path / "r.html").read_text()
    assert page.count('"layers": "') == 2 and f"destseg calibrate {model} " in page
    assert "pictures: 24 found" not in page and "<dd>24 found, none left out" in page
    assert [line.split(",")[0] for line in (tmp_path / "d.csv").read_text().splitlines()[1:]] == [
        "hole",
        "good",
        "all",
    ]
    assert main(["evaluate", *map(str, [model, tmp_path, "--robustness", *written[:2]])]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(plain) and "darkened by 20 %" in printed.removeprefix(plain)
    assert len(json.loads((tmp_path / "r.json").read_text())["robustness"]) == 5


def test_evaluate_leaves_out_what_it_cannot_read_unless_it_is_strict(model, few_parts, tmp_path, capsys):
    (tmp_path / "test/good").mkdir(parents=True)
    for path in sorted(few_parts.iterdir())[:3]:
        shutil.copy(path, tmp_path / "test/good")
    (tmp_path / "test/good/01.png").write_bytes(b"no picture")
    command = ["evaluate", str(model), str(tmp_path), "--json", str(tmp_path / "r.json")]
    assert main(command) == 0
    assert "left out 1 of 3 pictures, which cannot be read: test/good/01.png" in capsys.readouterr().out
    stored = json.loads((tmp_path / "r.json").read_text())
    assert list(stored["left_out"]) == ["test/good/01.png"] and len(stored["rows"]) == 2
    assert main([*command, "--strict"]) == 1
    assert "01.png cannot be read as a picture" in capsys.readouterr().err.splitlines()[-1]


def test_evaluate_needs_no_masks(model, few_parts, tmp_path, capsys):
    for k, path in enumerate(sorted(few_parts.iterdir())[:4]):
        folder = tmp_path / "test" / ("good" if k % 2 else "hole")
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder)
    assert main(["evaluate", str(model), str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    hole = printed.splitlines()[1].split()
    assert hole[:2] == ["hole", "2"] and float(hole[3]) >= 0 and hole[4:] == ["-"] * 5
    assert "no pixel metrics: " in printed


def test_without_jinja2_evaluate_says_so_before_it_scores(model, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    assert main(["evaluate", str(model), "no data set", "--report", str(tmp_path / "r.html")]) == 1
    assert "jinja2 is missing" in capsys.readouterr().err
