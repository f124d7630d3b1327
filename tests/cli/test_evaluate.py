"""`destseg evaluate` on the command line."""

import json

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
    ]
    assert main(["evaluate", *map(str, [model, tmp_path, *written])]) == 0
    assert "image auroc" in (plain := capsys.readouterr().out) and "darkened" not in plain
    stored = json.loads((tmp_path / "r.json").read_text())
    assert stored["instances"] == 1 and stored["robustness"] is None
    assert len((tmp_path / "r.csv").read_text().splitlines()) == 3
    assert [line.split(",")[0] for line in (tmp_path / "d.csv").read_text().splitlines()[1:]] == [
        "hole",
        "good",
        "all",
    ]
    assert main(["evaluate", *map(str, [model, tmp_path, "--robustness", *written[:2]])]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(plain) and "darkened by 20 %" in printed.removeprefix(plain)
    assert len(json.loads((tmp_path / "r.json").read_text())["robustness"]) == 5
