"""Damages files of every kind that destseg reads, and counts what comes of it.

Each mutation gives a clear error that names the file, or the very same model; or, where the file was changed
on purpose and has a new checksum, another model that is valid and comes back whole when it is saved. All else
counts as wrong: other errors, other content, more than two seconds, more than a gigabyte, a crash.

    python tools/mutate_files.py --count 10000        # of each kind
"""

import argparse
import dataclasses
import html
import io
import json
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import types
import warnings
import zipfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from random import Random

import numpy as np
import onnx
import openvino
import torch
from torch import nn

from destseg.artifacts import destseg_file, formats
from destseg.artifacts.artifact import INPUT, KEY, OUTPUTS, Artifact
from destseg.artifacts.digest import BLANK, sealed
from destseg.artifacts.onnx_file import METADATA
from destseg.artifacts.openvino_file import DESCRIBED
from destseg.artifacts.protobuf import Field, Message
from destseg.artifacts.record import FitRecord
from destseg.inference.calibration import Calibration
from destseg.model.tensorfile import matching_tensors, read_tensors, write_tensors
from destseg.settings import Settings
from destseg.training.checkpoint import Plan
from destseg.training.trainer import Trainer

SECONDS, MEMORY = 2, 1 << 30  # that reading one file may take
KINDS = ("destseg", "checkpoint", "onnx", "openvino")
ENDINGS = {"onnx": ".onnx", "openvino": ".xml"}
SETTINGS = Settings(image_size=64)
RECORD = FitRecord(20, 1, 12, 7, (3, 4), 2, "light", "90", "both", "cpu", ("a.png", "b.png"))
CALIBRATION = Calibration((0.1, 0.3, 0.2), (0.2, 0.4, 0.1), 0.25, False, (0, 1, 1))
PARTS = {"denoising": True, "encoder_decoder": True, "segmentation": True, "light": False}
PLAN = Plan((0, 8), 2, 0.0, "", "", 0, (64, 64), PARTS, "float32", 4, 5, 0, 6, None)


class Hung(BaseException):
    """Not an Exception, which a reader might take for damage."""


class Small(nn.Module):
    """As much of a network as a trainer's state is about."""

    def __init__(self) -> None:
        super().__init__()
        self.light = False
        self.teacher_net, self.student_net = nn.Conv2d(1, 2, 1), nn.Conv2d(1, 2, 1)
        self.segmentation_net = nn.Sequential()
        self.segmentation_net.res, self.segmentation_net.head = nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)


def small_trainer() -> Trainer:
    """Return a trainer before its first step."""
    torch.manual_seed(0)
    synthesis = types.SimpleNamespace(normals=[], changes_pictures=True)
    return Trainer(Small(), synthesis, PLAN, 0)


def write_checkpoint(path: Path) -> None:
    """Write the checkpoint of a trainer that has done all steps but one, as its average has begun."""
    trainer = small_trainer()
    trainer.optimizer = trainer._enter(student_stage=False)
    network = trainer.network.segmentation_net
    for step in range(PLAN.steps[1] - 1):
        loss = network.head(network.res(torch.rand(2, 1, 3, 3))).square().sum()
        trainer.optimizer.zero_grad()
        loss.backward()
        trainer.optimizer.step()
        trainer.losses.append(loss.detach())
        trainer._keep_average(step)
    trainer.save(path)


def small_tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {f"part.{k}": torch.rand(3, 4, generator=generator) for k in range(6)}


def small_onnx() -> onnx.ModelProto:
    pixels, flag = (onnx.helper.make_tensor_value_info(name, 1, [1]) for name in (INPUT, OUTPUTS[2]))
    weights = onnx.numpy_helper.from_array(np.arange(500, dtype=np.float32), "weights")
    node = onnx.helper.make_node("Identity", [INPUT], [OUTPUTS[2]])
    return onnx.helper.make_model(onnx.helper.make_graph([node], "graph", [pixels], [flag], [weights]))


def small_openvino() -> openvino.Model:
    opset = openvino.opset13
    pixels = opset.parameter([500], np.float32)
    flag = opset.greater(opset.multiply(pixels, np.arange(500, dtype=np.float32)), np.float32(0.5))
    flag.output(0).get_tensor().set_names({OUTPUTS[2]})
    return openvino.Model([flag], [pixels], "small")


def make(kind: str, folder: Path) -> Path:
    """Return the file of a kind, which is made if it is not there: small, so that many can be read."""
    path = folder / f"model{ENDINGS.get(kind, '.' + kind)}"
    if path.exists():
        return path
    if kind == "checkpoint":
        write_checkpoint(path)
        return path
    versions = {"destseg": "0.1.0", "torch": "2.10.0"}
    artifact = Artifact(SETTINGS, CALIBRATION, versions, record=RECORD, losses=[0.5, 0.25])
    content = {"destseg": small_tensors, "onnx": small_onnx, "openvino": small_openvino}[kind]()
    formats.FORMATS[kind].write(path, content, artifact)
    return path


def parts_of(path: Path) -> list[Path]:
    return formats.format_of(path).files(path)


# What a file holds, in values that can be compared.


def content_of(kind: str, path: Path) -> dict:
    """Return everything that a file gives who loads it; for an exported file, its bytes among it."""
    if kind == "checkpoint":
        trainer = small_trainer()
        trainer.resume(path)
        trainer.save(path.with_suffix(".again"))
        return read_tensors(path.with_suffix(".again"))
    artifact = formats.read(path)
    told = {"settings": artifact.settings.stored(), "record": artifact.record and artifact.record.stored()}
    told |= {"calibration": artifact.calibration and artifact.calibration.stored()}
    told |= {"versions": dict(artifact.versions), "precision": artifact.precision}
    if kind == "destseg":
        network = matching_tensors(small_tensors(), artifact.network, str(path), exact=True)
        return told | {"losses": artifact.losses, "network": network}
    return told | {"bytes": [part.read_bytes() for part in formats.format_of(path).files(path)]}


def is_equal(first: object, second: object) -> bool:
    """Whether two values of a file's content are the same, bit by bit."""
    if isinstance(first, dict):
        return (
            isinstance(second, dict)
            and first.keys() == second.keys()
            and all(is_equal(value, second[name]) for name, value in first.items())
        )
    if isinstance(first, (torch.Tensor, np.ndarray)):
        return type(second) is type(first) and first.dtype == second.dtype and bool((first == second).all())
    return type(first) is type(second) and first == second


def comes_back(kind: str, path: Path, content: dict) -> bool:
    """Whether what was loaded from a changed file loads again, and is the same, once it is saved."""
    if kind != "destseg":
        return True  # a checkpoint was saved and read again, an exported file holds its own bytes
    artifact = formats.read(path)
    again = path.with_suffix(".again")
    destseg_file.write(again, artifact.network, dataclasses.replace(artifact, path=None))
    return is_equal(content_of(kind, again), content)


# Damage: each function returns other bytes.


def flip_bits(whole: bytes, random: Random) -> bytes:
    changed = bytearray(whole)
    for _ in range(random.choice((1, 1, 1, 2, 8))):
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def overwrite(whole: bytes, random: Random) -> bytes:
    """Put noise, zeros, ones or other bytes of the file over a part of it."""
    size = min(random.choice((1, 4, 64, 4096)), len(whole))
    place, other = random.randrange(len(whole) - size + 1), random.randrange(len(whole) - size + 1)
    noise = random.choice((random.randbytes(size), bytes(size), b"\xff" * size, whole[other : other + size]))
    return whole[:place] + noise + whole[place + size :]


def cut(whole: bytes, random: Random) -> bytes:
    near_end = random.choice((random.randrange(len(whole)), len(whole) - random.randrange(1, 100)))
    return whole[: max(0, near_end)]


def insert_or_remove(whole: bytes, random: Random) -> bytes:
    place, size = random.randrange(len(whole)), random.choice((1, 2, 64))
    return whole[:place] + random.choice((random.randbytes(size), b"")) + whole[place + size * (size < 3) :]


def append(whole: bytes, random: Random) -> bytes:
    return whole + random.choice((bytes(64), random.randbytes(random.randrange(1, 200)), whole))


def change_entry(whole: bytes, random: Random) -> bytes:
    """Change a bit of an entry of a zip file's lists of records: attributes, sizes, places, names."""
    starts = [found.start() for found in re.finditer(rb"PK[\x01\x03\x05\x06][\x02\x04\x06\x07]", whole)]
    if not starts:
        return flip_bits(whole, random)
    changed, place = bytearray(whole), random.choice(starts) + random.randrange(56)
    if place < len(changed):
        changed[place] ^= 1 << random.randrange(8)
    return bytes(changed)


def pack_anew(whole: bytes, random: Random) -> bytes:
    """Exchange, double, leave out or compress records of a zip file, whose checksums of their own hold."""
    if not whole.startswith(b"PK"):
        return flip_bits(whole, random)
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(whole)) as given, zipfile.ZipFile(target, "w") as packed:
        names = given.namelist()
        first, second = random.choice(names), random.choice(names)
        kind = random.choice(("exchange", "exchange", "double", "leave out", "compress", "same"))
        for name in names:
            if kind == "leave out" and name == first:
                continue
            source = {first: second, second: first}.get(name, name) if kind == "exchange" else name
            how = zipfile.ZIP_DEFLATED if kind == "compress" else zipfile.ZIP_STORED
            packed.writestr(name, given.read(source), compress_type=how)
            if kind == "double" and name == first:
                packed.writestr(name, given.read(second))
    return target.getvalue()


DAMAGE = (flip_bits, flip_bits, overwrite, cut, insert_or_remove, append, change_entry, pack_anew)


# Content changed on purpose.


def strange_value(random: Random) -> object:
    plain = [
        None,
        True,
        False,
        0,
        -1,
        1,
        2**31,
        2**62,
        1.5,
        -1e300,
        float("nan"),
        float("inf"),
        "",
        "cpu",
        "x",
    ]
    long = ["/dev/zero", "é" * 70_000, "\x1b[2J", [], [1, 2], [[0, 0], [9, 0], [9, 9]], [[]], {}, {"a": 1}]
    many = [[0.5] * 5000, list(range(9000)), [None], ["a"], [2**62] * 3]
    tensors = [
        torch.zeros(0),
        torch.zeros(3),
        torch.full((3,), float("nan")),
        torch.zeros(3, dtype=torch.int8),
    ]
    tensors += [torch.ones(9, 9), torch.ones(2, 2, dtype=torch.bool), torch.zeros(2, dtype=torch.complex64)]
    return random.choice(plain + long + many + random.choice(([], tensors)))


def change_content(content: dict, random: Random) -> None:
    """Leave out, replace, rename or move one entry at any depth."""
    parent, name = content, random.choice(list(content))
    while isinstance(parent[name], (dict, list)) and parent[name] and random.random() < 0.75:
        parent = parent[name]
        name = random.choice(list(parent)) if isinstance(parent, dict) else random.randrange(len(parent))
    kind = random.choice(("leave out", "replace", "replace", "replace", "rename", "copy", "wrap"))
    if kind == "leave out":
        del parent[name]
    elif kind == "rename" and isinstance(parent, dict):
        parent[random.choice((f"{name}x", "", 0, f"{name}".upper()))] = parent.pop(name)
    elif kind == "copy" and isinstance(parent, dict):
        parent[name] = parent[random.choice(list(parent))]
    elif kind == "wrap":
        parent[name] = random.choice(([parent[name]], {"a": parent[name]}, str(parent[name])))
    else:
        parent[name] = strange_value(random)


def write_changed(kind: str, original: Path, path: Path, random: Random) -> None:
    """Write a file with changed content and a checksum that holds."""
    if kind in ("destseg", "checkpoint"):
        content = read_tensors(original)
        for _ in range(random.choice((1, 1, 2))):
            change_content(content, random)
        write_tensors(path, content)
        return
    whole, beside = original.read_bytes(), original.with_suffix(".bin")
    text = json.loads(description(kind, whole))
    checksum = text["sha256"]
    change_content(text, random)
    if text.get("sha256") == checksum:
        text["sha256"] = BLANK
    described = json.dumps(text, default=str)
    if kind == "onnx":
        fields = [field for field in Message.decode(whole).fields if field.number != METADATA]
        entry = Message([Field(1, KEY.encode()), Field(2, described.encode())]).encode()
        path.write_bytes(sealed(Message([Field(METADATA, entry), *fields]).encode()))
        return
    value = html.escape(described).encode("utf-8", "xmlcharrefreplace")
    changed = DESCRIBED.sub(lambda _: b'<%s value="%s"' % (KEY.encode(), value), whole, count=1)
    path.write_bytes(sealed(changed, beside.read_bytes()))


def description(kind: str, whole: bytes) -> str:
    if kind == "openvino":
        return html.unescape(DESCRIBED.search(whole)[1].decode())
    entries = Message.decode(whole).messages(METADATA)
    return next(entry.first(2) for entry in entries if entry.first(1) == KEY.encode()).decode()


# One mutation, and many.


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
