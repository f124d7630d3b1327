"""The script that measures on a GPU: its pack, what it does where steps fail, and a dry run of every step."""

import json
import pathlib
import sys
import time
import zipfile

import pytest

TOOLS = pathlib.Path(__file__).resolve().parents[2] / "tools"


@pytest.fixture
def script(monkeypatch):
    """The script, whose wheels are two: one of a package that is there, and one of a package that is not."""
    monkeypatch.syspath_prepend(str(TOOLS))
    import measure_gpu

    def download(folder):
        folder.mkdir()
        for name in ("numpy-1-py3.whl", "missing_package-2-py3.whl"):
            with zipfile.ZipFile(folder / name, "w") as file:
                file.writestr(f"{name.partition('-')[0]}/__init__.py", "")

    monkeypatch.setattr(measure_gpu, "download", download)
    return measure_gpu


def size_of(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def pack(script, data_root, few_parts, teacher_weights, tmp_path):
    script.pack(tmp_path / "pack", data_root / "transistor_256", few_parts, teacher_weights)
    return tmp_path / "pack"


def test_a_pack_takes_as_many_textures_as_there_is_room_for(script, pack, few_parts, teacher_weights):
    assert len(list((pack / "textures").iterdir())) == 24
    assert len(list((pack / "data/transistor_256/train/good").iterdir())) == 12
    assert (pack / "weights.pth").read_bytes() == teacher_weights.read_bytes()
    data, textures = pack / "data/transistor_256", size_of(few_parts)
    most = size_of(pack) - textures // 2
    line = script.pack(pack.parent / "other", data, few_parts, teacher_weights, most)
    assert 0.3 * textures < size_of(pack.parent / "other/textures") and size_of(pack.parent / "other") <= most
    taken = len(list((pack.parent / "other/textures").iterdir()))
    assert line.endswith(f"MiB, {taken} of 24 textures")
    with pytest.raises(ValueError, match="leave no room for textures: 1000 bytes are allowed"):
        script.pack(pack.parent / "third", data, few_parts, teacher_weights, 1000)


def test_each_step_has_a_limit_and_all_take_eight_minutes(script):
    import gpu_steps

    assert list(script.LIMITS) == list(gpu_steps.STEPS) and sum(script.LIMITS.values()) == 480


STEPS = """
import pathlib, subprocess, sys, time
import missing_package
step, _, rows, seconds = sys.argv[1:]
print(f"| {step} |", flush=True)
pathlib.Path(rows).write_text('{"a_b": 1.23456}\\n{"a_b": 2}\\n')
if step == "fails": sys.exit(3)
if step == "hangs":
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    pathlib.Path(rows).with_name("child").write_text(str(child.pid))
    child.wait()
"""


def test_steps_go_on_after_one_that_fails_or_hangs_and_what_was_measured_is_kept(
    script, pack, tmp_path, monkeypatch, capfd
):
    (tmp_path / "gpu_steps.py").write_text(STEPS)
    monkeypatch.setattr(script, "TOOLS", tmp_path)
    monkeypatch.setattr(script, "LIMITS", {"hangs": 3.0, "fails": 60.0, "works": 60.0})
    output = tmp_path / "gpu.json"
    begun = time.monotonic()
    assert script.main(["run", str(pack), str(output)]) == 1
    assert time.monotonic() - begun < 55
    whole = json.loads(output.read_text())
    assert whole["unpacked"] == ["missing_package"] and (tmp_path / "gpu.site/missing_package").is_dir()
    hung, failed, worked = (step["status"] for step in whole["steps"].values())
    assert (failed, worked) == ("failed with exit code 3", "done") and hung.startswith("stopped after ")
    rows = [{"a_b": 1.23456}, {"a_b": 2}]
    assert [step["rows"] for step in whole["steps"].values()] == [rows] * 3
    printed = capfd.readouterr().out
    assert printed.endswith(f"could not be done: hangs {hung}; fails failed with exit code 3\n")
    child = pathlib.Path(f"/proc/{(tmp_path / 'child').read_text()}/stat")
    if sys.platform == "linux":
        assert not child.exists() or child.read_text().rsplit(")", 1)[1].split()[0] == "Z"
    assert script.main(["show", str(output)]) == 0
    assert "| a b |\n|---|\n| 1.235 |\n| 2 |\n" in capfd.readouterr().out


@pytest.mark.slow
def test_a_dry_run_does_every_step(
    script, pack, tmp_path, emulated_kernels, emulation_folder, monkeypatch, capfd
):
    output = tmp_path / "gpu.json"
    monkeypatch.setattr(script, "LIMITS", dict.fromkeys(script.LIMITS, 300.0))  # this machine may be busy
    status = script.main(["run", str(pack), str(output), "--dry", str(emulation_folder)])
    printed = capfd.readouterr()
    assert status == 0, printed.out + printed.err
    assert printed.out.endswith("everything was done\n")
    steps = {name: step["rows"] for name, step in json.loads(output.read_text())["steps"].items()}
    assert list(steps) == list(script.LIMITS) and all(steps.values())
    assert steps["tests"][0]["passed"] > 0 and steps["tests"][0]["failed"] == ""
    assert {row.get("agrees") for row in steps["kernels"]} == {"yes", None}
    compiled = [row for row in steps["kernels"] if "compile_times_as_long" in row]
    assert len(compiled) == 2 and len(steps["kernels"]) == 2 + 7
    assert all(row["largest_difference"] < 0.05 for row in steps["scoring"] if "largest_difference" in row)
    assert [row["share_of_schedule"] for row in steps["published"] + steps["fast"] if "fit_s" in row] == [
        0.0
    ] * 3
