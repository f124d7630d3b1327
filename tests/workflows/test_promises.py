"""Promises of docs/promises.md that no other file of tests keeps: determinism, odd places, load and kills."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from threads import in_threads

import destseg
from destseg.cli import main
from destseg.model.process import in_one_thread

ENDURE = pathlib.Path(__file__).parents[2] / "tools" / "endure.py"
NAMES = ["with space", "[1]*?{a}", "line\nbreak", "部品 é ß", "-dash", "--output", 'it\'s "so"', "%s $HOME"]


@pytest.fixture(scope="module")
def model_file(light, tmp_path_factory):
    path = tmp_path_factory.mktemp("promises") / "part.destseg"
    light.save(path)
    return path


def test_a_model_saved_twice_is_the_same_file(light, tmp_path):
    for name in ("a", "b"):
        light.save(tmp_path / name)
    destseg.load(tmp_path / "b").save(tmp_path / "c")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == (tmp_path / "c").read_bytes()


def test_a_picture_alone_and_in_a_folder_gets_the_same_bytes(light, few_parts):
    for result in light.predict(few_parts):
        alone = light.predict(result.source)
        assert alone.score == result.score and np.array_equal(alone.mask, result.mask)
        assert alone.anomaly_map.tobytes() == result.anomaly_map.tobytes()


def test_threads_that_predict_share_the_one_that_computes(monkeypatch):
    def who(_=None):
        return in_one_thread(threading.get_ident), threading.get_ident()

    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    main_computes, main_thread = who()
    assert main_computes == main_thread
    computing, callers = map(set, zip(*in_threads(4, who), strict=True))
    assert len(computing) == 1 and not computing & {main_thread, *callers}
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert all(computes == own for computes, own in in_threads(4, who))


@pytest.mark.parametrize("name", NAMES)
def test_files_and_folders_may_have_any_name(model_file, few_parts, tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    pathlib.Path(name).mkdir()
    shutil.copy(few_parts / "00.png", pathlib.Path(name, f"{name}.png"))
    shutil.copy(model_file, f"{name}.destseg")
    assert main(["predict", f"--output=out/{name}", "--maps=png", "--", f"{name}.destseg", name]) == 0
    (line,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert line["source"] == str(pathlib.Path(name, f"{name}.png"))
    assert line["map"] == str(pathlib.Path("out", name, f"{name}_map.png")) and os.path.exists(line["map"])
    assert main(["info", "--", f"{name}.destseg"]) == 0


@pytest.mark.skipif(not pathlib.Path(sys.executable).with_name("destseg").exists(), reason="not installed")
def test_the_command_imports_nothing_from_the_current_folder_and_writes_nothing_there(
    model_file, few_parts, tmp_path
):
    here = tmp_path / "here"
    here.mkdir()
    for name in ("torch", "numpy", "destseg", "json"):
        (here / f"{name}.py").write_text("raise SystemExit('imported from the current folder')")
    here.chmod(0o555)
    before = sorted(os.listdir(here))
    command = [pathlib.Path(sys.executable).with_name("destseg"), "predict", model_file, few_parts / "00.png"]
    done = subprocess.run(command, cwd=here, capture_output=True, text=True)
    here.chmod(0o755)
    assert done.returncode == 0 and json.loads(done.stdout)["score"] >= 0, done.stderr
    assert sorted(os.listdir(here)) == before


def endure(*arguments, threads):
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-W", "ignore", ENDURE, *arguments]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_under_load_memory_is_flat_and_all_threads_and_processes_predict_the_same(model_file, few_parts):
    told = endure("load", model_file, few_parts, "--predictions", 1000, "--processes", 2, threads=4)
    assert "18 of 18 equal one thread's bytes" in told


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="kills by SIGKILL")
def test_a_kill_at_any_moment_leaves_the_old_file_or_the_new(few_parts):
    told = endure("kill", few_parts, "--times", 3, threads=1)
    assert told.count(": 3 kills within ") == 6
