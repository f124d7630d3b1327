"""Keeps a model under load, or kills what destseg does at random moments, and tells what became of it.

    python tools/endure.py load part.destseg parts/test/good --predictions 100000
    python tools/endure.py kill parts/train/good --times 50

Linux only. The exit status is 1 if a promise of docs/promises.md was broken.
"""

import argparse
import collections
import contextlib
import csv
import hashlib
import json
import multiprocessing
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time

import PIL.Image
import PIL.ImageDraw

import destseg
from destseg.bench.means import COSTS
from destseg.cli import main as command
from destseg.ops.kernels import thread_count
from destseg.pictures.folders import picture_paths

MOST_GROWTH = 10.0  # MB of resident memory, after the warm-up
SHORT = ["--size", "64", "--steps", "4", "3", "--batch-size", "2", "--no-progress"]
SHORT_CELLS = ["image_size=64", "steps=[4,3]", "batch_size=2"]
TABLES = "bench tables"
PATIENCE = 60  # seconds until all processes of a killed command have ended


def digest(model: destseg.DeSTSeg, paths: list[pathlib.Path]) -> str:
    """Return a digest of a model's thresholds, and of its maps, masks and scores of some pictures."""
    found = hashlib.sha256(repr((model.threshold_, model.pixel_threshold_)).encode())
    for path in paths:
        result = model.predict(path)
        found.update(result.anomaly_map.tobytes() + result.mask.tobytes() + repr(result.score).encode())
    return found.hexdigest()


def digest_of_file(model: str, paths: list[pathlib.Path]) -> str:
    return digest(destseg.load(model), paths)


def held() -> tuple[float, int, int]:
    """Return MB of resident memory, open handles and threads of this process."""
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    handles, threads = (len(os.listdir(f"/proc/self/{kind}")) for kind in ("fd", "task"))
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6, handles, threads


def load(options: argparse.Namespace) -> list[str]:
    """Predict many times, from threads and from processes; return what went wrong."""
    paths = picture_paths(options.pictures)
    model = destseg.load(options.model)
    expected, wrong = digest(model, paths), []
    for number in range(options.predictions):
        if number == options.predictions // 10:
            before = held()
        model.predict(paths[number % len(paths)])
    after = held()
    growth = after[0] - before[0]
    print(
        f"{options.predictions} predictions: {growth:+.1f} MB since the first tenth of {after[0]:.0f} MB, "
        f"handles {before[1]} -> {after[1]}, threads {before[2]} -> {after[2]}"
    )
    if growth > MOST_GROWTH or after[1] > before[1] or after[2] > before[2]:
        wrong.append("memory, handles or threads grew")

    several: list[str] = []
    together, end = threading.Barrier(options.threads + 1), threading.Event()

    def work() -> None:
        several.append(digest(model, paths))
        together.wait()
        end.wait()

    threads = [threading.Thread(target=work) for _ in range(options.threads)]
    for thread in threads:
        thread.start()
    together.wait()
    more = held()[2] - after[2]
    end.set()
    for thread in threads:
        thread.join()
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        several += pool.starmap(digest_of_file, [(options.model, paths)] * options.processes)
    equal = several.count(expected)
    print(
        f"{options.threads} threads and {options.processes} processes, {len(paths)} pictures each: "
        f"{equal} of {len(several)} equal one thread's bytes; {more} more threads while they ran"
    )
    if equal < options.threads + options.processes:
        wrong.append("threads or processes predicted other bytes")
    if more > options.threads + thread_count():  # the one that computes for them, and its team
        wrong.append("threads multiplied")
    return wrong


def actions(parts: str) -> dict[str, tuple[str, list[list[str]]]]:
    """Return what is killed: a file, or else a folder, and the two commands that write it by turns."""
    models, quiet = ("model0.destseg", "model1.destseg"), "--no-progress"
    fit = ["fit", parts, "-o", "fitted.destseg", *SHORT, "--checkpoint-minutes", "0", "--seed"]
    calibrate = ["calibrate", "model0.destseg", "-o"]
    predict = ["predict", "model0.destseg", parts, "-o", "results", "--maps", "png", quiet]
    rates = [["--false-positive-rate", rate] for rate in ("0.3", "0.2")]
    return {
        "fit": ("fitted.destseg", [[*fit, "0"], [*fit, "1"]]),
        "save": ("saved.destseg", [[*calibrate, "saved.destseg", *rate] for rate in rates]),
        "calibrate": (
            "calibrated.destseg",
            [
                ["calibrate", "model0.destseg", parts, "-o", "calibrated.destseg", quiet, *rate]
                for rate in rates
            ],
        ),
        "predict": ("results", [predict, predict]),
        "export": ("exported.xml", [["export", model, "exported.xml", quiet] for model in models]),
    }


def kill(options: argparse.Namespace) -> list[str]:
    """Kill each command at random moments; return what went wrong."""
    wrong: list[str] = []
    generator, parts = random.Random(options.seed), str(pathlib.Path(options.pictures).resolve())
    paths = picture_paths(parts)[:3]
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for seed in ("0", "1") if set(options.actions) - {TABLES} else ():
            finish(["fit", parts, "-o", f"model{seed}.destseg", *SHORT, "--seed", seed])
        for name in options.actions:
            if name == TABLES:
                wrong += kill_tables(options.times, generator, picture_paths(parts))
                continue
            target, commands = actions(parts)[name]
            seconds, expected, counts = 0.0, [], collections.Counter[str]()
            for arguments in commands:
                seconds = run(arguments, None)
                expected.append(state(target, paths))
            for number in range(options.times):
                arguments = commands[number % 2]
                # every other one of each command in its last tenth, in which files are written
                run(arguments, seconds * generator.uniform(0.9 if number % 4 > 1 else 0.0, 1.0))
                counts["temporary files left"] += len(hidden())
                allowed = {*expected, "refused"} if name == "export" else {*expected}
                if pathlib.Path(f"{target}.checkpoint").exists():
                    counts["resumed"] += 1
                    finish([*arguments, "--resume"])
                    allowed = {expected[number % 2]}
                found = state(target, paths)
                counts["the new file" if found == expected[number % 2] else "the old file"] += (
                    found != "refused"
                )
                counts["refused"] += found == "refused"
                if found not in allowed:
                    wrong.append(f"{name}: {found} after kill {number}")
            finish(commands[0])
            if state(target, paths) != expected[0]:
                wrong.append(f"{name}: another result of the run after the kills")
            counts["of them still there after the next run"] = len(hidden())
            print(f"{name}: {options.times} kills within {seconds:.1f} s: {told(counts)}", flush=True)
    return wrong


def kill_tables(times: int, generator: random.Random, paths: list[pathlib.Path]) -> list[str]:
    """Kill the bench of a few cells at random moments; return what went wrong."""
    wrong: list[str] = []
    counts = collections.Counter[str]()
    write_categories(pathlib.Path("categories"), paths)
    settings = [word for setting in SHORT_CELLS for word in ("--set", setting)]
    command = ["bench", "tables", "categories", "--seeds", "0", "--no-progress", *settings, "-o"]
    temporary = pathlib.Path("temporary")  # of the killed, in place of the system's
    temporary.mkdir()
    seconds = run([*command, "tables"], None)
    expected = tables_of(pathlib.Path("tables"))
    if not expected:
        wrong.append(f"{TABLES}: no tables of a run that nobody killed")
    while counts["kills"] < times:
        number = counts["kills"]
        output, moment = pathlib.Path(f"tables{number}"), seconds * generator.uniform(0, 1)
        os.environ["TMPDIR"] = str(temporary.resolve())
        lasted = run([*command, str(output)], moment)
        del os.environ["TMPDIR"]
        if lasted < moment:  # other work had slowed the first run, and there was nothing to kill
            seconds = lasted
            shutil.rmtree(output)
            continue
        counts["kills"] += 1
        done = {path: path.stat().st_mtime_ns for path in output.glob("cells/*/*/*.json")}
        counts["cells done before"] += len(done)
        counts["temporary files left"] += len(hidden())
        if any(path.is_file() for path in temporary.rglob("*")):
            wrong.append(f"{TABLES}: files in the folder for temporary ones after kill {number}")
        finish([*command, str(output)])
        again = [path for path, when in done.items() if path.stat().st_mtime_ns != when]
        counts["of them measured again"] += len(again)
        if again:
            wrong.append(f"{TABLES}: {', '.join(map(str, again))} measured again after kill {number}")
        if tables_of(output) != expected:
            wrong.append(f"{TABLES}: other tables after kill {number}")
        counts["of those still there after the next run"] += len(hidden())
        if hidden():
            wrong.append(f"{TABLES}: temporary files left after the run that followed kill {number}")
    del counts["kills"]
    print(f"{TABLES}: {times} kills within {seconds:.1f} s: {told(counts)}", flush=True)
    return wrong


def write_categories(root: pathlib.Path, paths: list[pathlib.Path]) -> None:
    """Write two categories of some pictures, two of which get a black square each."""
    for place, category in enumerate(("first", "second")):
        own = paths[place:] + paths[:place]
        names = ["train/good"] * (len(own) - 4) + ["test/good"] * 2 + ["test/hole"] * 2
        for name, path in zip(names, own, strict=True):
            target = root / category / name / f"{path.stem}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            picture = PIL.Image.open(path).convert("RGB")
            mask = PIL.Image.new("L", picture.size)
            middle, end = (tuple(side // part for side in picture.size) for part in (3, 2))
            PIL.ImageDraw.Draw(mask).rectangle((*middle, *end), fill=255)
            if name == "test/hole":
                picture.paste((0, 0, 0), mask=mask)
                truth = root / category / "ground_truth/hole" / target.name
                truth.parent.mkdir(parents=True, exist_ok=True)
                mask.save(truth)
            picture.save(target)


def tables_of(output: pathlib.Path) -> list[object]:
    """Return what the tables in a folder hold, without what each run costs; [] where they cannot be read."""
    try:
        held = json.loads((output / "tables.json").read_text())
        with open(output / "tables.csv", newline="") as file:
            lines = list(csv.DictReader(file))
        rows = [line.split(" | ") for line in (output / "tables.md").read_text().splitlines()]
        page = (output / "tables.html").read_text().splitlines()
    except (ValueError, OSError):
        return []
    lines += [
        line for table in held["tables"].values() for by_name in table.values() for line in by_name.values()
    ]
    for entry in [*lines, *held["cells"]]:
        for cost in COSTS:
            del entry[cost]
    metrics = [[*row[:7], *row[10:]] for row in rows]
    return [held, lines, metrics, len(page)]  # in the page costs stand among all else


def told(counts: collections.Counter[str]) -> str:
    return ", ".join(f"{count} {what}" for what, count in counts.items())


def run(arguments: list[str], kill_after: float | None) -> float:
    """Run a command, kill it so many seconds after its packages are loaded; return how long it ran."""
    loaded = "import sys, torch, destseg.detector, destseg.cli as cli; print('ready', flush=True)"
    program = [sys.executable, "-W", "ignore", "-c", f"{loaded}; cli.main(sys.argv[1:])", *arguments]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        process.stdout.readline()
        begun = time.monotonic()
        try:
            process.communicate(timeout=kill_after)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate(timeout=PATIENCE)  # until its own processes have ended, too
        return time.monotonic() - begun


def finish(arguments: list[str]) -> None:
    """Run a command in this process, which must succeed."""
    with contextlib.redirect_stdout(None):
        if command(arguments) != 0:
            sys.exit(f"{arguments} failed")


def state(target: str, paths: list[pathlib.Path]) -> str:
    """Return a digest of what a command has written, or "refused" where it cannot be read."""
    try:
        if target == "results":
            for path in pathlib.Path(target).glob("*.png"):
                PIL.Image.open(path).load()
            return "whole"
        return digest_of_file(target, paths)
    except (ValueError, OSError):
        return "refused"


def hidden() -> list[pathlib.Path]:
    return [path for path in pathlib.Path().rglob(".*") if path.is_file()]


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = top.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("load")
    verb.add_argument("model")
    verb.add_argument("pictures", help="folder of a few pictures")
    verb.add_argument("--predictions", type=int, default=100_000)
    verb.add_argument("--threads", type=int, default=16)
    verb.add_argument("--processes", type=int, default=4)
    verb = verbs.add_parser("kill")
    verb.add_argument("pictures", help="folder of normal pictures, at least 20")
    verb.add_argument("--times", type=int, default=50)
    verb.add_argument("--seed", type=int, default=0)
    names = [*actions(""), TABLES]
    verb.add_argument("--actions", nargs="+", default=names, choices=names)
    return top


if __name__ == "__main__":
    options = parser().parse_args()
    wrong = load(options) if options.verb == "load" else kill(options)
    for sentence in wrong:
        print(f"broken: {sentence}")
    sys.exit(bool(wrong))
