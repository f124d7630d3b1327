"""`destseg calibrate` on the command line, of fitted models and of exported ones."""

import shutil

import destseg
from destseg.cli import main


def test_calibrate_writes_a_new_threshold(model, few_parts, tmp_path, capsys):
    output = tmp_path / "new.destseg"
    command = ["calibrate", str(model), str(few_parts), "-o", str(output), "--false-positive-rate", "0.5"]
    assert main(command) == 0
    assert "calibration pictures: 24\nguaranteed false-positive rate: 0.5\n" in capsys.readouterr().out
    assert main(["info", str(output)]) == 0
    assert "calibration pictures: 24" in capsys.readouterr().out


def copied(exported, folder):
    """A copy of an exported model, of all its files, that a test may change."""
    folder.mkdir()
    for path in exported.parent.iterdir():
        shutil.copy(path, folder)
    return folder / exported.name


def test_exported_models_are_calibrated_where_there_is_no_torch(
    exported, few_parts, run_without_torch, tmp_path
):
    path = copied(exported, tmp_path / "copy")
    before = path.read_bytes()
    other = path.with_name(f"other{path.suffix}")
    command = ("calibrate", path, few_parts, "--false-positive-rate", "0.05")
    process = run_without_torch(*command, "-o", other)
    assert (process.returncode, process.stderr) == (0, "")
    calibrated = destseg.load(other)
    assert len(calibrated.calibration_.scores) == 24 and calibrated.calibration_.false_positive_rate == 0.05
    assert process.stdout.splitlines() == [
        "calibration pictures: 24",
        "guaranteed false-positive rate: 0.05",
        f"threshold: {calibrated.threshold_:.6g}",
        f"pixel threshold: {calibrated.pixel_threshold_:.6g}",
    ]
    assert path.read_bytes() == before
    assert destseg.load(path).threshold_ != calibrated.threshold_

    process = run_without_torch(*command)  # by default the file itself is written anew
    assert (process.returncode, process.stderr) == (0, "")
    assert destseg.load(path).calibration_ == calibrated.calibration_


def test_too_few_pictures_for_the_wanted_rate_are_told(exported, few_parts, run_without_torch, tmp_path):
    path = copied(exported, tmp_path / "copy")
    process = run_without_torch("calibrate", path, few_parts, "--false-positive-rate", "0.005")
    assert process.returncode == 0
    assert "guaranteed false-positive rate: 0.04\n" in process.stdout
    words = "guarantee a false-positive rate of 0.04, not of 0.005: that takes 199"
    assert process.stderr == f"destseg: 24 calibration pictures {words}\n"
    assert destseg.load(path).calibration_.false_positive_rate == 0.005


def test_the_scores_of_the_last_calibration_serve_another_rate(exported, run_without_torch, tmp_path):
    path = copied(exported, tmp_path / "copy")
    before = destseg.load(path)
    process = run_without_torch("calibrate", path, "--false-positive-rate", "0.5")
    assert (process.returncode, process.stderr) == (0, "")
    after = destseg.load(path)
    assert after.calibration_ == before.calibration_.at_rate(0.5) and after.threshold_ < before.threshold_


def test_a_copy_of_an_exported_model_needs_a_name_of_its_format(exported, few_parts, tmp_path, capsys):
    for name in ("other.destseg", "other.onnx" if exported.suffix == ".xml" else "other.xml"):
        assert main(["calibrate", str(exported), str(few_parts), "-o", str(tmp_path / name)]) == 2
        words = f"the name of an exported file of this format must end in {exported.suffix}, got "
        assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_region_for_an_exported_model_is_refused_before_anything_is_scored(exported, few_parts, capsys):
    before = exported.read_bytes()
    assert main(["calibrate", str(exported), str(few_parts), "--roi", "0,0 40,0 40,40"]) == 2
    assert "--roi: the graph in" in capsys.readouterr().err
    assert exported.read_bytes() == before
