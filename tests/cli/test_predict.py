"""`destseg predict` on the command line: what it prints, and the names of the files it writes."""

import itertools
import json
import os
import pathlib
import time

import PIL.Image
import pytest

import destseg
from destseg.cli import main
from destseg.cli.predict import _OutputNames


def test_predict_names_the_pictures_it_cannot_read_and_goes_on(model, few_parts, tmp_path, capsys):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    good = sorted(few_parts.iterdir())[0]
    assert main(["predict", str(model), str(broken), str(good)]) == 1
    first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert first["source"] == str(broken) and "broken.png" in first["error"]
    assert second["source"] == str(good) and "score" in second
    assert main(["predict", str(model), str(broken), "--strict"]) == 1
    assert "broken.png" in capsys.readouterr().err


def test_predict_writes_a_page_of_what_it_could_read(model, few_parts, tmp_path, capsys):
    (broken := tmp_path / "broken.png").write_bytes(b"no picture")
    first, second, *_ = map(str, sorted(few_parts.iterdir()))
    page = tmp_path / "new" / "page.html"
    assert main(["predict", str(model), first, str(broken), second, "--report", str(page)]) == 1
    assert len(capsys.readouterr().out.splitlines()) == 3
    text = page.read_text()
    assert text.count('"layers": "') == 2 and first in text and second in text
    assert f"left out, as it cannot be read: {broken}" in text and f"destseg calibrate {model} " in text
    assert main(["predict", str(model), first, "--report", str(tmp_path)]) == 2
    assert "is a folder; a file to write is wanted" in capsys.readouterr().err


def test_pictures_of_the_same_name_do_not_overwrite_each_other(model, few_parts, tmp_path, capsys):
    picture = PIL.Image.open(sorted(few_parts.iterdir())[0])
    for path in ("a/x/1.png", "a/y/1.png", "a/y/1.bmp", "b/1.png", "c/1.png"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        picture.save(tmp_path / path)
    given = [tmp_path / "a", tmp_path / "b" / "1.png", tmp_path / "c" / "1.png"]
    out = tmp_path / "out"
    assert main(["predict", str(model), *map(str, given), "-o", str(out), "--maps", "npy"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len({line["overlay"] for line in lines} | {line["map"] for line in lines}) == 10
    assert (out / "x" / "1_map.npy").exists() and (out / "y" / "1_overlay.png").exists()


@pytest.mark.parametrize("out", ["results", "."])
def test_results_of_an_earlier_run_are_no_pictures(
    model, few_parts, tmp_path, monkeypatch, capsys, caplog, out
):
    monkeypatch.chdir(tmp_path)
    for name in ("1.png", "2_map.jpg"):
        PIL.Image.open(sorted(few_parts.iterdir())[0]).save(name)
    for _ in range(2):
        assert main(["predict", str(model), ".", "-o", out, "--maps", "png"]) == 0
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [line["source"] for line in lines] == ["1.png", "2_map.jpg"]
    assert "left out: 4 results of an earlier run" in caplog.text


def test_names_of_many_outputs_take_no_time():
    names, started = _OutputNames(pathlib.Path("o"), [], [], ["_map.npy"]), time.monotonic()
    found = [names.of(f"{folder}/part.1.png")[0] for folder in range(2000)]
    assert time.monotonic() - started < 3  # trying all names for each picture took 10 seconds and more
    stems = ["part.1", "part_1_png", "part.1_2", "part.1_3"]
    assert [path.as_posix() for path in found[:4]] == [f"o/{stem}_map.npy" for stem in stems]
    assert len(set(found)) == 2000


def test_no_overlays_and_no_folder_write_nothing(model, few_parts, tmp_path, capsys):
    picture = str(sorted(few_parts.iterdir())[0])
    assert main(["predict", str(model), picture]) == 0
    assert main(["predict", str(model), picture, "-o", str(tmp_path / "o"), "--no-overlays"]) == 0
    assert not (tmp_path / "o").exists()
    assert "overlay" not in capsys.readouterr().out


def test_exported_models_predict_where_there_is_no_torch(
    exported, light, few_parts, run_without_torch, tmp_path
):
    process = run_without_torch("predict", exported, few_parts, "-o", tmp_path / "out", "--maps", "png")
    assert (process.returncode, process.stderr) == (0, "")
    lines = [json.loads(line) for line in process.stdout.splitlines()]
    expected = light.predict(few_parts)
    assert [line["source"] for line in lines] == [one.source for one in expected]
    for line, one in zip(lines, expected, strict=True):
        assert line["score"] == pytest.approx(one.score, abs=1e-3)
        assert line["threshold"] == one.threshold
        assert PIL.Image.open(line["overlay"]).size == PIL.Image.open(line["map"]).size == (96, 80)


def test_a_whole_data_set_is_refused_with_the_right_path(model, few_parts, tmp_path, capsys):
    picture = PIL.Image.open(sorted(few_parts.iterdir())[0])
    for name in ("train/good/0", "test/good/1", "test/crack/2", "ground_truth/crack/2_mask"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        picture.save(tmp_path / f"{name}.png")
    assert main(["predict", str(model), str(tmp_path)]) == 1
    assert f"did you mean {tmp_path}/test?" in capsys.readouterr().err
    for verb in (["calibrate", str(model)], ["fit", "-o", str(tmp_path / "new.destseg")]):
        assert main([*verb, str(tmp_path)]) == 1
        assert f"did you mean {tmp_path}/train/good?" in capsys.readouterr().err
    assert main(["predict", str(model), str(tmp_path / "test")]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_what_is_left_out_of_a_folder_is_told_once(model, few_parts, tmp_path, caplog, capsys):
    picture = PIL.Image.open(sorted(few_parts.iterdir())[0])
    for name in ("a.png", "b.ppm"):
        picture.convert("RGB").save(tmp_path / name)
    assert main(["predict", str(model), str(tmp_path)]) == 0
    assert [message for message in caplog.messages if "b.ppm" in message] == caplog.messages[:1]


@pytest.fixture
def folder(few_parts, tmp_path, monkeypatch):
    """The current folder, with three pictures, two of them named as the overlay and map of one would be."""
    monkeypatch.chdir(tmp_path)
    for k, name in enumerate(("a.png", "a_overlay.png", "a_png_map.png")):
        PIL.Image.open(sorted(few_parts.iterdir())[k]).save(name)
    return tmp_path


def files_in(*folders):
    paths = [path for folder in folders for path in sorted(folder.iterdir()) if path.is_file()]
    return {path.name: path.read_bytes() for path in paths}


@pytest.mark.parametrize("output", [".", "link", "out"])
def test_no_picture_is_written_over(model, folder, capsys, output):
    """The output folder is that of the pictures, under this or another name, or holds links to them."""
    before = files_in(folder)
    (folder / "link").symlink_to(folder)
    (folder / "out").mkdir()
    (folder / "out/a_overlay.png").symlink_to(folder / "a_png_map.png")
    (folder / "roi_map.png").write_bytes(before["a_overlay.png"])
    pictures = [str(folder / name) for name in before]
    command = ["predict", str(model), *pictures, "-o", output, "--maps", "png", "--roi"]
    for roi in ("roi_map.png", "0,0 90,0 90,70"):  # the second run writes over the results of the first
        assert main([*command, roi]) == 0
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [line["source"] for line in lines] == pictures
        assert files_in(folder).items() >= before.items()
        written = {os.path.realpath(line[kind]) for line in lines for kind in ("overlay", "map")}
        assert len(written) == 6 and not written & set(pictures)
    assert os.readlink(folder / "out/a_overlay.png") == str(folder / "a_png_map.png")


def test_a_picture_named_like_a_result_is_a_picture(model, folder, capsys, caplog):
    for count in (3, 3):  # results are known by what they say, not by their names
        assert main(["predict", str(model), ".", "-o", "."]) == 0
        assert len(capsys.readouterr().out.splitlines()) == count
    assert caplog.text.count("left out: 3 results of an earlier run") == 1


def test_nothing_is_written_outside_the_output_folder(model, few_parts, tmp_path, monkeypatch, capsys):
    picture = PIL.Image.open(sorted(few_parts.iterdir())[0])
    for name in ("here/a.png", "other/q.png", "here/...png", "here/..png", "here/.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        picture.save(tmp_path / name, format="PNG")
    monkeypatch.chdir(tmp_path / "here")
    before = set(tmp_path.rglob("*"))
    given = [".", "../other/q.png", "../here/../other/q.png", "...png", "..png", ".png"]
    assert main(["predict", str(model), *given, "-o", "out/in", "--maps", "npy"]) in (0, 1)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    written = {path for path in tmp_path.rglob("*") if path not in before and path.is_file()}
    assert {path.parent for path in written} == {tmp_path / "here/out/in"}
    told = {os.path.abspath(line[kind]) for line in lines for kind in ("overlay", "map") if kind in line}
    assert told == set(map(str, written)) and len(told) >= 6


def test_an_interrupted_prediction_ends_as_such(model, few_parts, monkeypatch, capsys):
    real = destseg.DeSTSeg.predict_each

    def stop_after_two(self, *arguments, **options):
        yield from itertools.islice(real(self, *arguments, **options), 2)
        raise KeyboardInterrupt

    monkeypatch.setattr(destseg.DeSTSeg, "predict_each", stop_after_two)
    assert main(["predict", str(model), str(few_parts)]) == 130  # an unreadable picture gives 1
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 2 and printed.err.endswith("destseg predict: interrupted\n")
