"""Which cells there are, and with which settings."""

from pathlib import Path

import pytest

from destseg.bench import published
from destseg.bench.matrix import Config, cells_of, methods_of, read_config, read_setting

FOLDERS = {"transistor_256": Path("t"), "wood": Path("w"), "screw": Path("s"), "casting": Path("c")}


def cells(methods=None, config=Config(), overrides=(), seeds=(0,)):  # noqa: B008 - never changed
    return cells_of(FOLDERS, methods or methods_of([], False, {}), seeds, config, dict(overrides))


def test_rotations_are_those_that_the_paper_gives_to_a_category():
    assert [cell.settings for cell in cells()] == [
        {"rotate": rotate, "preset": "fast"} for rotate in (None, 5.0, "90", None)
    ]
    assert len(published.ROTATIONS) == 10 and published.ROTATIONS.keys() <= published.CATEGORIES.keys()


def test_later_layers_win():
    config = Config(
        {"augment": "light", "rotate": 1, "batch_size": 4}, {"wood": {"rotate": 2, "batch_size": 5}}
    )
    methods = {"mine": {"batch_size": 6, "preset": "stpm"}}
    found = {cell.category: cell.settings for cell in cells(methods, config)}
    common = {"augment": "light", "preset": "stpm", "batch_size": 6}
    assert found["wood"] == {"rotate": 2, **common} and found["screw"] == {"rotate": 1, **common}
    found = {cell.category: cell.settings for cell in cells(methods, config, {"batch_size": 7, "rotate": 3})}
    assert found["wood"] == {**common, "batch_size": 7, "rotate": 3}


def test_methods_are_presets_ablations_and_variants():
    assert methods_of(["fast", "stpm"], False, {"big": {"image_size": 512}}) == {
        "fast": {"preset": "fast"},
        "stpm": {"preset": "stpm"},
        "big": {"image_size": 512},
    }
    rows = methods_of([], True, {})
    parts = [
        tuple(row[name] for name in ("denoising", "encoder_decoder", "segmentation")) for row in rows.values()
    ]
    assert len(set(parts)) == len(rows) == 8 and {row["preset"] for row in rows.values()} == {"paper"}
    for name, switches in zip(rows, parts, strict=True):  # the name says what is on
        said = name.split("-")[-1].split("+")
        assert said == [n for n, on in zip(("den", "ed", "seg"), switches, strict=True) if on] or (
            said in (["none"], ["all"]) and set(switches) == {said == ["all"]}
        )
    with pytest.raises(
        ValueError, match=r"made of letters, digits and _ \+ \. -, and no preset's, got '\.\./x'"
    ):
        methods_of([], False, {"../x": {}})
    with pytest.raises(ValueError, match=r"no preset's, got 'fast'"):
        methods_of(["fast"], False, {"fast": {}})


def test_the_first_seed_is_measured_first_and_none_twice():
    assert [cell.seed for cell in cells(seeds=(3, 1, 3))] == [3] * 4 + [1] * 4


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            {"size": 64},
            r"transistor_256, fast, seed 0: there is no setting size; there are augment, batch_size",
        ),
        ({"image_size": 32}, "seed 0: image_size must be a number of pixels"),
        ({"steps": [1]}, "seed 0: steps must be two whole numbers"),
        ({"groups": "x"}, "seed 0: groups must be "),
    ],
)
def test_settings_are_checked_before_anything_is_measured(overrides, words):
    with pytest.raises(ValueError, match=words):
        cells(overrides=overrides)


def test_settings_of_the_command_line():
    found = dict(
        map(read_setting, ["steps=[3,4]", "augment=light", "overlap=0.5", "keep_aspect=true", 'rotate="90"'])
    )
    assert found == {"steps": [3, 4], "augment": "light", "overlap": 0.5, "keep_aspect": True, "rotate": "90"}
    with pytest.raises(ValueError, match="a setting must be NAME=VALUE, got 'steps'"):
        read_setting("steps")


def test_a_file_of_settings(tmp_path):
    pytest.importorskip("tomllib")
    path = tmp_path / "matrix.toml"
    path.write_text(
        "[settings]\nsteps = [3, 4]\n[categories.wood]\nrotate = '90'\n[variants.big]\nimage_size = 512\n"
    )
    assert read_config(path) == Config(
        {"steps": [3, 4]}, {"wood": {"rotate": "90"}}, {"big": {"image_size": 512}}
    )
    path.write_text("steps = [3, 4]\n")
    with pytest.raises(ValueError, match=r"matrix\.toml must hold the tables \[settings\].* only, got steps"):
        read_config(path)
    path.write_text("[settings]\n[variants]\nbig = 512\n")
    with pytest.raises(ValueError, match=r"must hold the tables .* only, got settings, variants"):
        read_config(path)
    path.write_text("steps: 3")
    with pytest.raises(ValueError, match=r"matrix\.toml is not TOML: "):
        read_config(path)


def test_before_python_3_11_files_of_settings_are_refused(monkeypatch):
    monkeypatch.setattr("sys.version_info", (3, 10))
    with pytest.raises(ImportError, match=r"Python 3\.11 or later is needed to read TOML: .*--set"):
        read_config("matrix.toml")


def test_the_paper_s_means_are_those_of_its_categories():
    """Published rounded to 0.1: what was mistyped by more would show."""
    for metric in ("pixel_auroc", "pixel_ap", "iap", "iap90"):
        mean = sum(figures[metric][0] for figures in published.CATEGORIES.values()) / 15
        assert mean == pytest.approx(published.METHODS["paper"][metric][0], abs=0.11)
