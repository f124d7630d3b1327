"""Measures destseg on a machine with an NVIDIA GPU, in one go: builds, tests, times, fits.

    python tools/measure_gpu.py pack build/gpu_pack transistor textures resnet18.pth  # needs a network
    python tools/measure_gpu.py run build/gpu_pack gpu.json  # on the machine, in 8 minutes at most
    python tools/measure_gpu.py show gpu.json  # the tables in Markdown

The machine needs torch for CUDA, nvcc, CMake, setuptools and pytest; pybind11, Pillow and tqdm come from the
pack if they are missing there. Each step of tools/gpu_steps.py is a process of its own with a limit of time.
What it measured until then is kept, the other steps go on, and the last line tells what could not be done.
"""

import argparse
import importlib.metadata
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TOOLS = Path(__file__).resolve().parent
sys.path[:0] = [str(TOOLS), str(TOOLS.parent)]

from gpu_steps import as_cells, header  # noqa: E402

from destseg.files import write_whole  # noqa: E402

LIMITS = {  # seconds for each step, 480 in all, and what the steps before it did not use
    "build": 60.0,
    "tests": 70.0,
    "machine": 15.0,
    "kernels": 60.0,
    "scoring": 35.0,
    "folder": 30.0,
    "published": 155.0,
    "fast": 55.0,
}
MOST = 55 << 20  # bytes of a pack: with the package's own files it travels as 64 MiB
WHEELS = ("pybind11", "pillow", "tqdm")
PLATFORMS = (
    "manylinux_2_28_x86_64",
    "manylinux_2_27_x86_64",
    "manylinux2014_x86_64",
    "manylinux_2_17_x86_64",
)


def pack(folder: Path, data: Path, textures: Path, weights: Path, most: int = MOST) -> str:
    """Collect what the machine needs, and return a line that tells what it is.

    Args:
        folder: the pack; it must not exist.
        data: a category in the MVTec layout.
        textures: pictures, of which as many are taken as there is room for.
        weights: those of ResNet18.
        most: the size of the pack in bytes.
    """
    (folder / "textures").mkdir(parents=True)
    shutil.copytree(data, folder / "data" / data.resolve().name)
    shutil.copy(weights, folder / "weights.pth")
    download(folder / "wheels")
    left = most - sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    pictures = sorted(path for path in textures.rglob("*") if path.suffix in (".jpg", ".png"))
    step = max(1, -(-sum(path.stat().st_size for path in pictures) // max(1, left)))
    taken = 0
    for path in pictures[::step]:  # of every kind, whatever the order
        if path.stat().st_size <= left:
            shutil.copy(path, folder / "textures" / f"{taken}{path.suffix}")
            left, taken = left - path.stat().st_size, taken + 1
    if not taken:
        raise ValueError(f"{data} and {weights} leave no room for textures: {most} bytes are allowed")
    return f"{folder}: {(most - left) / 2**20:.1f} MiB, {taken} of {len(pictures)} textures"


def download(folder: Path) -> None:
    """Download the wheels for the machine's Python."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--python-version", "3.12", "--implementation", "cp", "--dest", str(folder)]
    command += [f"--platform={platform}" for platform in PLATFORMS]
    subprocess.run([*command, *WHEELS], check=True)


def unpack(folder: Path, site: Path) -> list[str]:
    """Unpack the wheels of packages that are missing here, and return their names."""
    missing = []
    for wheel in sorted((folder / "wheels").glob("*.whl")):
        name = wheel.name.partition("-")[0]
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            zipfile.ZipFile(wheel).extractall(site)
            missing.append(name)
    return missing


def run(folder: Path, output: Path, steps: Sequence[str], dry: Path | None = None) -> dict[str, Any]:
    """Run steps, write their results after each, and return them.

    Args:
        folder: the pack.
        output: the JSON file.
        steps: names in LIMITS.
        dry: where the emulated kernels lie, or will; None on a GPU.
    """
    end, site = time.monotonic(), output.with_suffix(".site")
    unpacked = unpack(folder, site)
    places = [str(TOOLS.parent), str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(places), "PYTHONUNBUFFERED": "1"}
    whole: dict[str, Any] = {"unpacked": unpacked, "dry": dry is not None, "steps": {}}
    for name in steps:
        end += LIMITS[name]
        seconds = end - time.monotonic()
        print(f"\n## {name}, {seconds:.0f} s at most", flush=True)
        rows, begun = output.with_suffix(f".{name}"), time.monotonic()
        rows.write_text("")
        command = [sys.executable, str(TOOLS / "gpu_steps.py"), name, str(folder), str(rows), str(seconds)]
        command += [] if dry is None else ["--dry", str(dry)]
        status = call(command, seconds, environment)
        print(f"\n{name}: {status}", flush=True)
        kept = [json.loads(line) for line in rows.read_text().splitlines()]
        whole["steps"][name] = {"status": status, "seconds": time.monotonic() - begun, "rows": kept}
        rows.unlink()
        write_whole(output, lambda file: file.write(json.dumps(whole, indent=1).encode()))
    return whole


def call(command: Sequence[str], seconds: float, environment: dict[str, str]) -> str:
    """Run a command with all its processes, for so many seconds at most; return "done" or what happened."""
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        return f"stopped after {seconds:.0f} s"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # the session that it leads
            process.wait()
    return "done" if code == 0 else f"failed with exit code {code}"


def show(whole: dict[str, Any]) -> str:
    """Return the tables of a run in Markdown."""
    lines = []
    for name, step in whole["steps"].items():
        lines += ["", f"## {name} ({step['status']}, {step['seconds']:.0f} s)"]
        columns: tuple[str, ...] = ()
        for row in step["rows"]:
            if tuple(row) != columns:
                columns = tuple(row)
                lines += ["", *header(columns)]
            lines.append(as_cells(row.values()))
    return "\n".join(lines[1:])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack", help="collect what the machine needs")
    for name in ("folder", "data", "textures", "weights"):
        packing.add_argument(name, type=Path)
    running = commands.add_parser("run", help="measure everything")
    running.add_argument("folder", type=Path, help="the pack")
    running.add_argument("output", type=Path, help="JSON file")
    running.add_argument("--steps", nargs="+", choices=LIMITS, default=list(LIMITS), help="only these")
    running.add_argument("--dry", type=Path, metavar="FOLDER", help="on the CPU; emulated kernels lie there")
    showing = commands.add_parser("show", help="print the tables of a run")
    showing.add_argument("output", type=Path)
    options = vars(parser.parse_args(arguments))
    command = options.pop("command")
    if command == "pack":
        print(pack(**options))
        return 0
    if command == "show":
        print(show(json.loads(options["output"].read_text())))
        return 0
    steps = run(**options)["steps"]
    missed = [f"{name} {step['status']}" for name, step in steps.items() if step["status"] != "done"]
    print(f"\ncould not be done: {'; '.join(missed)}" if missed else "\neverything was done")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
