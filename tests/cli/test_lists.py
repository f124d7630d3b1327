"""Lists of pictures, @FILE, as `destseg fit` and `destseg calibrate` take them."""

import shutil

import pytest

import destseg
from destseg.cli import main
from destseg.cli.arguments import read_lists
from destseg.pictures.folders import as_normals


def test_a_list_stands_for_the_paths_in_it(tmp_path):
    path = tmp_path / "marks.txt"
    path.write_bytes("\ufeff# comment\r\n/a/1.png\r\n\n  b/\u00fc 2.png\u2028x \n# missed: c.png\n".encode())
    assert read_lists(["x", f"@{path}", "./@y"]) == ["x", "/a/1.png", "b/\u00fc 2.png\u2028x", "./@y"]
    path.write_bytes(b"\xff.png")  # a name that is not UTF-8
    assert read_lists([f"@{path}"]) == ["\udcff.png"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"# only this\n\n", "marks.txt must list pictures, one path a line, got none"),
        (b"\x89PNG\0\0", "got"),
    ],
)
def test_a_list_of_nothing_is_refused(tmp_path, content, words, capsys):
    path = tmp_path / "marks.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=words):
        read_lists([f"@{path}"])
    assert main(["fit", f"@{path}", "-o", str(tmp_path / "part.destseg")]) == 2
    assert str(path) in capsys.readouterr().err
    assert main(["calibrate", "part.destseg", "@nowhere.txt"]) == 2
    assert "nowhere.txt" in capsys.readouterr().err


def test_calibrate_and_fit_take_lists(model, few_parts, tmp_path, monkeypatch):
    """Those of a report on a test set: its false alarms are normal pictures."""
    good = tmp_path / "parts/test/good"
    shutil.copytree(few_parts, good)
    (tmp_path / "parts/ground_truth").mkdir()
    first, *others = sorted(good.iterdir())
    marks, new = tmp_path / "marks.txt", str(tmp_path / "new.destseg")
    marks.write_text("".join(f"{path}\n" for path in others))
    assert main(["calibrate", str(model), str(first), f"@{marks}", "-o", new]) == 0
    assert len(destseg.load(new).calibration_.scores) == 24
    taken = []

    def fit(_, normal, **others):
        taken.extend(as_normals(normal))
        raise ValueError("enough")

    monkeypatch.setattr(destseg.DeSTSeg, "fit", fit)
    assert main(["fit", f"@{marks}", "-o", new]) == 1
    assert [source.name for source in taken] == [*map(str, others)]
