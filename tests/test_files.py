"""Paths as users write them, files that appear whole or not at all, and names that are not UTF-8."""

import csv
import errno
import json
import os
import re
import signal
import stat
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest
import torch

import destseg
from destseg import files
from destseg.files import as_path, check_writable, write_whole
from destseg.model.tensorfile import write_tensors

ODD = os.fsdecode(b"caf\xe9")  # Latin-1: no UTF-8


@pytest.fixture
def home(tmp_path, monkeypatch):
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    yield tmp_path / "home"
    assert not list((tmp_path / "here").iterdir())  # no folder named ~


def test_a_path_begins_at_home(home):
    assert as_path("~/a/b") == as_path(home / "a" / "b") == home / "a" / "b"
    assert (
        as_path("a/~/b") == as_path("a/~/b")
        and str(as_path("~nobody-of-this-name.png")) == "~nobody-of-this-name.png"
    )
    with pytest.raises(ValueError, match="a path must not be empty"):
        as_path("")


def test_files_are_written_at_home(home):
    write_whole("~/new/a", lambda file: file.write(b"x"))
    assert (home / "new/a").read_bytes() == b"x"
    assert check_writable("~/other/b") == home / "other/b" and (home / "other").is_dir()
    with pytest.raises(ValueError, match="a path must not be empty"):
        check_writable("")


def test_models_pictures_and_reports_lie_at_home(home, fitted, few_parts, picture):
    fitted.save("~/m/part.destseg")
    loaded = destseg.load("~/m/part.destseg", "cpu")
    PIL.Image.fromarray(picture).save(home / "1.png")
    assert loaded.predict("~/1.png").source == str(home / "1.png")
    pytest.importorskip("onnxruntime")
    fitted.export("~/m/part.onnx")
    assert destseg.load("~/m/part.onnx").threshold_ == fitted.threshold_
    assert sorted(path.name for path in (home / "m").iterdir()) == ["part.destseg", "part.onnx"]


def test_the_command_line_expands_what_no_shell_did(home, fitted, picture, capsys):
    from destseg.cli import main

    fitted.save(home / "m")
    (home / "new").mkdir()
    PIL.Image.fromarray(picture).save(home / "new" / "1.png")
    assert main(["predict", "~/m", "~/new", "-o", "~/out"]) == 0
    line = json.loads(capsys.readouterr().out)
    assert line["source"] == str(home / "new/1.png") and line["overlay"] == str(home / "out/1_overlay.png")
    assert main(["calibrate", "~/m", "-o", "~/n"]) == 0 and (home / "n").is_file()
    assert main(["predict", "~/m", ""]) == 1
    assert "a path must not be empty" in capsys.readouterr().err


def test_weights_lie_at_home(home, teacher_weights, monkeypatch):
    from destseg.model.teachers import find_weights, teacher_state

    (home / "w.pth").write_bytes(teacher_weights.read_bytes())
    assert teacher_state("resnet18", "~/w.pth").keys() == teacher_state("resnet18", teacher_weights).keys()
    monkeypatch.setenv("DESTSEG_TEACHER_WEIGHTS", "~/w.pth")
    assert find_weights() == home / "w.pth"


@pytest.fixture
def odd_set(tmp_path, picture):
    """A test set below a folder, with defects and pictures, whose names are not UTF-8."""
    try:
        (tmp_path / ODD).mkdir()
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    mask = np.zeros((80, 96), np.uint8)
    mask[10:30, 10:30] = 255
    for folder, pixels in (("test/good", picture), (f"test/{ODD}", picture), (f"ground_truth/{ODD}", mask)):
        (tmp_path / ODD / folder).mkdir(parents=True)
        PIL.Image.fromarray(pixels).save(tmp_path / ODD / folder / f"{ODD}.png")
    return tmp_path / ODD


def test_names_that_are_not_utf_8_survive_json_and_csv(odd_set, fitted, tmp_path):
    report = fitted.evaluate(odd_set, progress=False)
    report.to_json(tmp_path / "r.json")
    report.to_csv(tmp_path / "r.csv")
    report.defects_to_csv(tmp_path / "d.csv")
    names = [f"test/good/{ODD}.png", f"test/{ODD}/{ODD}.png"]
    assert sorted(row["name"] for row in json.loads((tmp_path / "r.json").read_text())["rows"]) == sorted(
        names
    )
    assert b"test/good/caf\xe9.png" in (tmp_path / "r.csv").read_bytes()  # the bytes of the name itself
    with open(tmp_path / "r.csv", encoding="utf-8", errors="surrogateescape") as file:
        assert sorted(row["name"] for row in csv.DictReader(file)) == sorted(names)
    assert b"\ncaf\xe9,1," in (tmp_path / "d.csv").read_bytes()


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_names_that_a_console_cannot_write_are_written_all_the_same(odd_set, fitted, tmp_path, encoding):
    fitted.save(tmp_path / ODD / "m")
    environment = os.environ | {"PYTHONIOENCODING": encoding}

    def run(*arguments):
        command = [sys.executable, "-m", "destseg", *map(os.fsencode, arguments)]
        process = subprocess.run(command, capture_output=True, env=environment)
        assert process.returncode == 0, process.stderr
        return process.stdout.decode("ascii")

    (tmp_path / ODD / "m").rename(tmp_path / ODD / f"{ODD}.destseg")
    model = str(tmp_path / ODD / f"{ODD}.destseg")
    table = run("evaluate", model, str(odd_set), "--csv", str(tmp_path / "r.csv"))
    assert "caf\\udce9" in table
    assert "caf\\udce9.destseg: destseg" in run("info", model)
    line = json.loads(
        run("predict", model, str(odd_set / "test" / "good"), "-o", str(tmp_path / ODD / "out"))
    )
    assert line["source"] == str(odd_set / "test" / "good" / f"{ODD}.png")
    assert os.path.exists(line["overlay"])


def test_a_model_remembers_names_that_are_not_utf_8(fitted, tmp_path):
    import dataclasses

    from destseg.artifacts import destseg_file

    path = tmp_path / "m"
    fitted.save(path)
    artifact = destseg_file.read(path)
    record = dataclasses.replace(artifact.record, outliers=(f"{ODD}.png",))
    destseg_file.write(path, artifact.network, dataclasses.replace(artifact, record=record))
    assert destseg_file.read(path).record == record


LONG = "a" * 240 + ".destseg"  # a name may have 255 bytes


def test_a_name_as_long_as_is_allowed_is_written(tmp_path):
    for name in (LONG, "é" * 127 + "a"):
        write_whole(tmp_path / name, lambda file: file.write(b"x"))
        assert check_writable(tmp_path / name) == tmp_path / name
        assert (tmp_path / name).read_bytes() == b"x"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_longer_name_is_refused_before_any_work(tmp_path):
    with pytest.raises(OSError, match=r"a{256} cannot be written: .*name too long"):
        check_writable(tmp_path / ("a" * 256))


def fail_with(error):
    def write(file):
        raise error

    return write


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (OSError("2 requested and 0 written"), "2 requested and 0 written"),  # as numpy says it
    ],
)
def test_what_cannot_be_written_is_named_with_the_cause(tmp_path, error, words):
    (tmp_path / "a").write_bytes(b"before")
    with pytest.raises(OSError, match=rf"^{re.escape(str(tmp_path / 'a'))} cannot be written: .*{words}$"):
        write_whole(tmp_path / "a", fail_with(error))
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"before"]


def test_where_there_is_no_folder_it_is_named_with_the_cause(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError, match=r"file/a cannot be written: .*File exists: .*file'$"):
        write_whole(tmp_path / "file" / "a", lambda file: file.write(b"x"))


def test_an_error_that_is_not_the_files_stays_as_it_is(tmp_path):
    with pytest.raises(KeyError, match="mine"):
        write_whole(tmp_path / "a", fail_with(KeyError("mine")))
    assert not list(tmp_path.iterdir())


def test_torch_hides_the_cause_but_it_is_told(tmp_path, no_file_grows):
    """It says "enforce fail at inline_container.cc"."""
    with pytest.raises(OSError, match=r"part cannot be written: .*File too large$"):
        write_tensors(tmp_path / "part", {"weights": torch.zeros(100_000)})
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with names are POSIX")
def test_a_pipe_is_written_itself_and_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    assert check_writable(tmp_path / "pipe") == tmp_path / "pipe"
    write_whole(tmp_path / "pipe", lambda file: file.write(b"x"))
    assert os.read(reader, 9) == b"x"
    os.close(reader)
    assert (tmp_path / "pipe").is_fifo() and len(list(tmp_path.iterdir())) == 1


needs_links = pytest.mark.skipif(os.name == "nt", reason="links, modes and owners are POSIX")


@needs_links
def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "far/a").write_bytes(b"before")
    (tmp_path / "folder").symlink_to("far")
    for name, target in (("link", "folder/a"), ("dangling", "far/new")):
        (tmp_path / name).symlink_to(target)
        assert check_writable(tmp_path / name) == tmp_path / name
        write_whole(tmp_path / name, lambda file: file.write(b"x"))
        assert os.readlink(tmp_path / name) == target
        assert (tmp_path / target).read_bytes() == b"x"
    (tmp_path / "round").symlink_to("round")
    for write in (check_writable, lambda path: write_whole(path, lambda file: file.write(b"x"))):
        with pytest.raises(OSError, match=r"round cannot be written: .*symbolic links"):
            write(tmp_path / "round")
    assert sorted(path.name for path in (tmp_path / "far").iterdir()) == ["a", "new"]


@needs_links
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444])
def test_permissions_stay_and_are_never_wider(tmp_path, mode):
    path = tmp_path / "a"
    path.write_bytes(b"before")
    path.chmod(mode)
    if os.access(path, os.W_OK):  # also for root, who may write everything

        def write(file):
            assert stat.S_IMODE(os.fstat(file.fileno()).st_mode) == 0o600
            file.write(b"x")

        write_whole(path, write)
        assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"x", mode)


def test_a_file_that_may_not_be_written_is_not_replaced(tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.write_bytes(b"before")
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everything
    for write in (check_writable, lambda path: write_whole(path, lambda file: file.write(b"x"))):
        with pytest.raises(PermissionError, match=r"a cannot be written: .*it is read-only"):
            write(path)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"before"]


@needs_links
def test_the_owner_stays_where_that_is_allowed(tmp_path, monkeypatch):
    asked = []

    def refuse(path, owner, group):
        asked.append((owner, group))
        raise PermissionError

    path = tmp_path / "a"
    path.write_bytes(b"before")
    old = path.stat()
    with monkeypatch.context() as patch:
        patch.setattr(os, "chown", refuse)
        write_whole(path, lambda file: file.write(b"x"))
    assert asked == [(old.st_uid, old.st_gid), (-1, old.st_gid)] and path.read_bytes() == b"x"
    if os.geteuid() == 0:
        os.chown(path, 12345, 54321)
        write_whole(path, lambda file: file.write(b"y"))
        assert (path.stat().st_uid, path.stat().st_gid) == (12345, 54321)


@needs_links
def test_the_file_and_then_its_new_name_are_on_the_disk(tmp_path, monkeypatch):
    done, sync, replace = [], os.fsync, os.replace

    def fsync(descriptor):
        sync(descriptor)
        done.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")

    def rename(source, target):
        replace(source, target)
        done.append("rename")

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", rename)
    write_whole(tmp_path / "a", lambda file: file.write(b"x"))
    assert done == ["file", "rename", "folder"]


@needs_links
def test_what_is_printed_to_a_file_is_added_to_and_not_replaced(tmp_path):
    """The shell holds that file open: what takes its place would be all that is left of the output."""
    code = (
        "import sys; from destseg.files import write_whole; print('table', flush=True); "
        "write_whole(sys.argv[1], lambda file: file.write(b'report ')); print('end')"
    )
    for path in ("/dev/stdout", tmp_path / "out"):
        with open(tmp_path / "out", "wb") as out:
            subprocess.run([sys.executable, "-c", code, str(path)], stdout=out, check=True)
        assert (tmp_path / "out").read_text() == "table\nreport end\n"


WRITER = """
import sys, time
from destseg.files import write_whole
def write(file):
    file.write(b"x" * 1000)
    print("writing", flush=True)
    time.sleep(60)
write_whole(sys.argv[1], write)
"""
linux = pytest.mark.skipif(not os.path.exists("/proc/self/ns/pid"), reason="asks Linux for processes")


@linux
def test_what_a_killed_writer_leaves_is_removed_by_the_next_and_what_others_write_is_not(tmp_path):
    def hidden():
        return sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("."))

    def start():
        command = [sys.executable, "-c", WRITER, str(tmp_path / "a")]
        writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert writer.stdout.readline() == "writing\n"
        return writer

    def write():
        files._tidied.clear()  # as in a new process
        write_whole(tmp_path / "a", lambda file: file.write(b"new"))

    (tmp_path / "a").write_bytes(b"old")
    killed, living = start(), start()
    try:
        found = dict(zip((files.TEMPORARY.fullmatch(name)[2] for name in hidden()), hidden(), strict=True))
        assert found.keys() == {str(killed.pid), str(living.pid)}
        mine, others = found[str(killed.pid)], [found[str(living.pid)]]
        here, number, _ = files.TEMPORARY.fullmatch(mine).groups()
        # Of a process of another computer with the same number, and of nobody.
        others += [mine.replace(here, "0123456789ab"), ".destseg-0123456789abcdef", ".destseg-notes"]
        reused = mine.replace(f"-{number}-", f"-{os.getpid()}-")  # by this process, which began later
        for name in (*others[1:], reused):
            (tmp_path / name).touch()
        killed.kill()
        os.waitid(os.P_PID, killed.pid, os.WEXITED | os.WNOWAIT)  # dead, but its parent has not asked yet
        assert (tmp_path / "a").read_bytes() == b"old" and hidden() == sorted([mine, reused, *others])
        write()
        assert hidden() == sorted(others) and (tmp_path / "a").read_bytes() == b"new"
        (tmp_path / mine).touch()
        write_whole(tmp_path / "b", lambda file: file.write(b"x"))
        assert mine in hidden()  # a folder is looked through once in a process: it may be large
        killed.wait()
        write()
        assert hidden() == sorted(others)
    finally:
        for writer in (killed, living):
            writer.send_signal(signal.SIGKILL)
            writer.wait()
            writer.stdout.close()


def test_a_process_of_another_user_is_not_taken_for_dead(monkeypatch):
    def refuse(*_):
        raise PermissionError

    assert files._is_dead(os.getpid(), 5) and not files._is_dead(os.getpid(), files._start(os.getpid()))
    monkeypatch.setattr(os, "kill", refuse)
    assert not files._is_dead(os.getpid(), 5) and not files._is_dead(10**30, 5)
