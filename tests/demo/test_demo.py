"""The sample job from end to end, small and short; how good its figures are takes minutes to find out."""

import inspect
import json

import numpy as np
import PIL.Image
import pytest

import destseg
from destseg import demo
from destseg.cli import main, parser
from destseg.demo.parts import DEFECTS
from destseg.pictures.dataset import read_mvtec
from destseg.pictures.masks import read_mask

SHORT = ["--pictures", "3", "--steps", "1", "1", "--size", "64"]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The folder that a short run of the command filled, and what it printed."""
    folder = tmp_path_factory.mktemp("demo") / "chips"
    with pytest.MonkeyPatch.context() as patch:
        said = []
        patch.setattr("builtins.print", lambda *words, **_: said.append(words[0]))
        assert main(["demo", str(folder), *SHORT, "--seed", "4"]) == 0
    return folder, "\n".join(said)


def test_everything_is_in_the_folder(done):
    folder, _ = done
    assert sorted(path.name for path in folder.iterdir()) == [
        "chip.destseg",
        "overlays",
        "parts",
        "report.json",
        "sheet.png",
        "table.txt",
    ]
    assert len(list((folder / "parts" / "train" / "good").iterdir())) == 3
    samples = read_mvtec(folder / "parts")
    assert [sample.defect for sample in samples] == sorted([*DEFECTS, "good"])
    report = json.loads((folder / "report.json").read_text())
    assert [row["defect"] for row in report["rows"]] == [sample.defect for sample in samples]
    names = {path.name for path in (folder / "overlays").iterdir()}
    assert names == {f"{sample.defect}_{sample.path.stem}.png" for sample in samples}


def test_the_table_and_the_next_commands_are_printed(done):
    folder, said = done
    assert said.startswith((folder / "table.txt").read_text())
    commands = [line.split() for line in said.splitlines() if line.startswith("  destseg ")]
    for command in commands:  # as the parser takes them
        parser().parse_args(command[1:])
    fit = next(command for command in commands if command[1] == "fit")
    assert fit[2:] == ["my_parts/train/good", "-o", "my_part.destseg"]  # its defaults are the best path


def test_the_model_and_its_overlays_are_those_of_the_folder(done):
    folder, _ = done
    model = destseg.load(folder / "chip.destseg")
    assert model.preset == "fast" and model.seed == 4 and len(model.losses_) == 2
    sample = read_mvtec(folder / "parts")[0]
    overlay = PIL.Image.open(folder / "overlays" / f"{sample.defect}_{sample.path.stem}.png")
    assert np.array_equal(np.asarray(overlay), np.asarray(model.predict(sample.path).overlay()))


def test_the_sheet_shows_picture_truth_and_overlay(done):
    folder, _ = done
    samples = read_mvtec(folder / "parts")
    sheet = np.asarray(PIL.Image.open(folder / "sheet.png"))
    assert sheet.shape == (34 + 3 * (26 + 256 + 8), 8 + 2 * (3 * (256 + 8) + 16) - 16, 3)
    for k, sample in enumerate(samples):
        left, top = 8 + k % 2 * (3 * 264 + 16), 34 + k // 2 * 290 + 26
        picture, truth, overlay = (sheet[top : top + 256, left + 264 * i :][:, :256] for i in range(3))
        assert np.array_equal(picture, np.asarray(PIL.Image.open(sample.path)))
        name = f"{sample.defect}_{sample.path.stem}.png"
        assert np.array_equal(overlay, np.asarray(PIL.Image.open(folder / "overlays" / name)))
        white = (truth == 255).all(axis=2)
        assert np.array_equal(white, read_mask(sample.mask_path) if sample.mask_path else white & False)


def test_a_second_run_overwrites_its_own_files_when_told_to_and_no_others(done, capsys):
    folder, _ = done
    again = ["demo", str(folder), *SHORT]
    before = (folder / "report.json").read_bytes()
    assert main(again) == 1
    assert "is not empty: name another folder, or pass overwrite (--overwrite)" in capsys.readouterr().err
    assert (folder / "report.json").read_bytes() == before
    (folder / "notes.txt").write_text("mine")
    mine = folder / "parts" / "test" / "good" / "mine.png"
    mine.write_bytes(b"mine, too")
    assert main([*again, "--overwrite"]) == 1
    assert f"{mine} is no picture of this data set: move it away" in capsys.readouterr().err
    assert (folder / "report.json").read_bytes() == before
    mine.unlink()
    assert main([*again, "--overwrite", "--seed", "5"]) == 0
    assert (folder / "report.json").read_bytes() != before
    assert (folder / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"teacher": "resnet999"}, ValueError, "teacher must be one of"),
        ({"image_size": 8}, ValueError, "image_size must be"),
        ({"steps": (1,)}, ValueError, "steps must be two whole numbers"),
        ({"pictures": 1}, ValueError, "pictures must be a whole number of at least 2, got 1"),
    ],
)
def test_bad_input_is_refused_before_anything_is_made(settings, error, words, tmp_path):
    with pytest.raises(error, match=words):
        demo.run(tmp_path / "new", **settings)
    assert not (tmp_path / "new").exists()


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="is a file; a folder to fill is wanted"):
        demo.run(tmp_path / "file")


def test_the_command_has_the_defaults_of_the_function():
    given = vars(parser().parse_args(["demo"]))
    defaults = {name: value.default for name, value in inspect.signature(demo.run).parameters.items()}
    assert given["image_size"] == defaults["image_size"] and tuple(given["steps"]) == defaults["steps"]
    same = ("folder", "seed", "pictures", "teacher", "device", "overwrite")
    assert {name: given[name] for name in same} == {name: defaults[name] for name in same}
