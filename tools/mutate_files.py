"""Damages files of every kind that destseg reads, and counts what comes of it.

Each mutation gives a clear error that names the file, or the very same model; or, where the file was changed
on purpose and has a new checksum, another model that is valid and comes back whole when it is saved. All else
counts as wrong: other errors, other content, more than two seconds, more than a gigabyte, a crash.

    python tools/mutate_files.py --count 10000        # of each kind
"""

import argparse
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from random import Random

import torch
from damage import DAMAGE, write_changed
from small_files import KINDS, comes_back, content_of, is_equal, make, parts_of

SECONDS, MEMORY = 2, 1 << 30  # that reading one file may take


class Hung(BaseException):
    """Not an Exception, which a reader might take for damage."""


def mutate(kind: str, original: Path, folder: Path, number: int) -> Path:
    """Write the mutation of this number, and return its path."""
    random = Random(f"{kind} {number}")
    path = folder / original.name
    parts = parts_of(original)
    for part in parts:
        shutil.copyfile(part, folder / part.name)
    if number % 3 == 0:
        write_changed(kind, original, path, random)
        return path
    part = random.choice(parts)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile's, of two records of one name
        changed = random.choice(DAMAGE)(part.read_bytes(), random)
    (folder / part.name).write_bytes(changed)
    return path


def outcome(kind: str, path: Path, expected: dict, on_purpose: bool) -> str:
    """Return "error", "same" or "valid", or what is wrong."""
    started = time.process_time()
    signal.alarm(20 * SECONDS)
    try:
        content = content_of(kind, path)
    except ValueError as error:
        found = "error" if str(path) in str(error) else f"WRONG: does not name the file: {error}"
        found = found if len(str(error)) < 2000 else "WRONG: an endless message"
    except FileNotFoundError:
        found = "error"
    except (Exception, Hung) as error:
        found = f"WRONG: {type(error).__name__}: {error}"
    else:
        if is_equal(content, expected):
            found = "same"
        elif on_purpose and comes_back(kind, path, content):
            found = "valid"
        else:
            found = "WRONG: other content"
    finally:
        signal.alarm(0)
    taken = time.process_time() - started
    return found if taken < SECONDS else f"WRONG: {found} took {taken:.1f} s"


def run(kind: str, original: Path, numbers: range) -> Counter[str]:
    """Count the outcomes of some mutations; of those that are wrong, each with its number."""

    def hang(*_: object) -> None:
        raise Hung(f"after {20 * SECONDS} s")

    signal.signal(signal.SIGALRM, hang)
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        for part in parts_of(original):
            shutil.copyfile(part, Path(folder, part.name))
        expected = content_of(kind, Path(folder, original.name))
        for number in numbers:
            path = mutate(kind, original, Path(folder), number)
            found = outcome(kind, path, expected, on_purpose=number % 3 == 0)
            counts[f"{found} (mutation {number})" if found.startswith("WRONG") else found] += 1
    return counts


def limited() -> None:
    """Bound a worker's memory: what it has, and as much as one file may take."""
    torch.set_num_threads(1)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    size = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (size, size))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=10_000, help="mutations of each kind")
    parser.add_argument("--first", type=int, default=0, help="number of the first")
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS)
    parser.add_argument(
        "--folder", type=Path, help="where files to mutate lie, such as model.onnx, or are made"
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    options = parser.parse_args()
    numbers, wrong = range(options.first, options.first + options.count), 0
    with tempfile.TemporaryDirectory() as made:
        for kind in options.kinds:
            folder = options.folder or Path(made)
            folder.mkdir(parents=True, exist_ok=True)
            original, counts = make(kind, folder), Counter[str]()
            with ProcessPoolExecutor(options.workers, initializer=limited) as pool:
                chunks = [numbers[start : start + 100] for start in range(0, len(numbers), 100)]
                futures = {pool.submit(run, kind, original, chunk): chunk for chunk in chunks}
                for future, chunk in futures.items():
                    try:
                        counts += future.result()
                    except BrokenProcessPool:
                        counts[f"WRONG: a crash (among mutations {chunk[0]} to {chunk[-1]})"] += 1
            bad = {found: count for found, count in counts.items() if found.startswith("WRONG")}
            wrong += sum(bad.values())
            told = ", ".join(f"{name} {counts[name]}" for name in ("error", "same", "valid"))
            print(f"{kind}: {told}, wrong {sum(bad.values())}", flush=True)
            for found in list(bad)[:20]:
                print(f"  {found[:300]}", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
