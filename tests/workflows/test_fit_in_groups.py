"""Pictures in groups through the whole detector: what is held out, what is counted, files, command line."""

import json
import shutil

import pytest
from engines import PACKAGES, needs

import destseg
from destseg.cli import main

STRIP = r"(.*)_\d+\.png$"


@pytest.fixture(scope="module")
def strips(few_parts, tmp_path_factory):
    """Six strips of four pictures: 0_0.png to 5_3.png."""
    folder = tmp_path_factory.mktemp("strips")
    for k, path in enumerate(sorted(few_parts.iterdir())):
        shutil.copy(path, folder / f"{k // 4}_{k % 4}.png")
    return folder


@pytest.fixture
def trained(monkeypatch):
    """The names of the pictures that the last fit trained on; nothing is trained."""
    names = []

    def train(network, settings, schedule, normals, *rest):
        names[:] = [source.image.name for source in normals.sources]
        return []

    monkeypatch.setattr("destseg.training.fit.train", train)
    return names


def fit(pictures, weights, **options):
    model = destseg.DeSTSeg("fast", "resnet18", 64, device="cpu", teacher_weights=weights)
    return model.fit(pictures, progress=False, **options)


@pytest.mark.parametrize("groups", [STRIP, lambda path: path.name[0]], ids=["pattern", "function"])
def test_groups_are_held_out_whole_and_counted(strips, teacher_weights, trained, caplog, groups):
    model = fit(strips, teacher_weights, groups=groups, false_positive_rate=0.05)
    assert len(trained) == 12 and len({name[0] for name in trained}) == 3
    assert model.calibration_.groups == (0,) * 4 + (1,) * 4 + (2,) * 4
    assert model.calibration_.guaranteed_rate == 1 / 4
    words = "3 calibration groups guarantee a false-positive rate of 0.25, not of 0.05: that takes 19"
    assert caplog.messages == [words]


def test_without_groups_the_names_are_hinted_at(strips, teacher_weights, trained, caplog):
    model = fit(strips, teacher_weights, false_positive_rate=0.1)
    assert len(trained) == 14 and model.calibration_.groups is None
    (words,) = caplog.messages
    assert words.startswith("the names of 24 pictures form 6 groups")


def test_equal_pictures_stay_on_one_side(few_parts, teacher_weights, trained, tmp_path, caplog):
    paths = sorted(few_parts.iterdir())
    for k in range(8):
        shutil.copy(paths[k], tmp_path / f"{k:02}.png")
        shutil.copy(paths[k], tmp_path / f"{k + 10:02}.png")
    for seed in range(5):
        model = destseg.DeSTSeg("fast", "resnet18", 64, seed, "cpu", teacher_weights=teacher_weights)
        model.fit(tmp_path, progress=False, false_positive_rate=0.2)
        assert len(trained) == 8 and {f"{(int(name[:2]) + 10) % 20:02}.png" for name in trained} == set(
            trained
        )
        assert model.calibration_.count == 4
    assert caplog.text.count("8 of 16 pictures equal an earlier one") == 5


def test_a_single_group_guarantees_nothing(strips, teacher_weights, trained, caplog):
    model = fit(strips, teacher_weights, groups="folder")
    assert len(trained) == 24 and model.calibration_.trained_on and model.calibration_.count == 1
    words = "the only group was trained on and calibrated with: no rate is guaranteed"
    assert caplog.messages == [words]


def test_a_checkpoint_belongs_to_its_groups(few_parts, teacher_weights, tmp_path):
    """Both splits train on as many pictures."""
    names = {path: k for k, path in enumerate(sorted(few_parts.iterdir()))}
    pictures, checkpoint = list(names), tmp_path / "checkpoint"
    options = {"steps": (1, 1), "batch_size": 2, "checkpoint": checkpoint, "checkpoint_minutes": 0}
    fit(pictures, teacher_weights, groups=lambda path: names[path] // 2, **options)
    assert checkpoint.exists()
    fit(pictures, teacher_weights, groups=lambda path: names[path] // 2, resume=checkpoint, **options)
    with pytest.raises(ValueError, match="belongs to another run: normals was"):
        fit(pictures, teacher_weights, groups=lambda path: names[path] % 12, resume=checkpoint, **options)


@pytest.mark.parametrize(("groups", "error"), [("(", ValueError), ("no group", ValueError), (5, TypeError)])
def test_wrong_groups_are_refused_before_anything_is_read(fitted, groups, error):
    for call in (destseg.DeSTSeg(teacher_weights="missing").fit, fitted.calibrate):
        with pytest.raises(error, match="groups must be"):
            call("missing", groups=groups)


def test_groups_of_the_last_scores_cannot_be_changed(fitted):
    with pytest.raises(ValueError, match=r"groups goes with normal pictures: .* scores keep their groups"):
        fitted.calibrate(groups="folder")


def test_a_file_keeps_the_groups(fitted, strips, tmp_path):
    fitted.save(tmp_path / "m")
    model = destseg.load(tmp_path / "m").calibrate(strips, 0.25, groups=STRIP)
    assert model.calibration_.groups == tuple(k // 4 for k in range(24))
    model.save(tmp_path / "m")
    loaded = destseg.load(tmp_path / "m")
    assert loaded.calibration_ == model.calibration_ and loaded.calibrate(None, 0.5).calibration_.count == 6


@pytest.mark.parametrize("ending", PACKAGES)
def test_an_exported_file_keeps_the_groups(light, strips, tmp_path, ending):
    needs(ending)
    path = tmp_path / f"part{ending}"
    light.export(path)
    model = destseg.load(path).calibrate(strips, 0.25, groups=STRIP)
    model.save(path)
    loaded = destseg.load(path)
    assert loaded.calibration_ == model.calibration_ and loaded.calibration_.count == 6


def test_groups_on_the_command_line(strips, teacher_weights, trained, tmp_path, capsys):
    output = str(tmp_path / "m")
    command = ["fit", str(strips), "-o", output, "--preset", "fast", "--teacher", "resnet18", "--size", "64"]
    command += ["--teacher-weights", str(teacher_weights), "--false-positive-rate", "0.25"]
    assert main([*command, "--group", STRIP]) == 0
    assert main(["info", output]) == 0
    words = "calibration pictures: 12 in 3 groups\nguaranteed false-positive rate: 0.25\n"
    assert words in capsys.readouterr().out
    assert main(["calibrate", output, str(strips), "--group", STRIP, "--false-positive-rate", "0.1"]) == 0
    words = "calibration pictures: 24 in 6 groups\nguaranteed false-positive rate: 0.1429\n"
    assert words in capsys.readouterr().out
    assert main(["calibrate", output, str(strips), "--group", "folder"]) == 0
    assert (
        "calibration pictures: 24 in 1 group\nguaranteed false-positive rate: 0.5\n"
        in capsys.readouterr().out
    )
    assert main([*command, "--group", "folder"]) == 0
    assert main(["info", output]) == 0
    assert "rate: none: the only group was trained on\n" in capsys.readouterr().out


@pytest.mark.parametrize("command", [["fit", "missing", "-o", "m"], ["calibrate", "missing", "missing"]])
def test_a_wrong_pattern_is_wrong_usage(command, capsys):
    assert main([*command, "--group", "(a)(b)"]) == 2
    assert "groups must be" in (error := capsys.readouterr().err) and "'(a)(b)' with 2 groups" in error


def test_evaluate_compares_with_the_promised_rate(fitted, few_parts, tmp_path):
    (tmp_path / "test").mkdir()
    shutil.copytree(few_parts, tmp_path / "test/good")
    report = fitted.evaluate(tmp_path, progress=False)
    assert report.promised_rate == fitted.calibration_.guaranteed_rate == 0.1
    assert report.false_alarms.pictures == 24
    assert "of 24 good pictures flagged: " in report.table() and "; promised at most 10.0 %" in report.table()
    assert json.loads(json.dumps(report.to_dict()))["promised_rate"] == 0.1
