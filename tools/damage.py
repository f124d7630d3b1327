"""Damages what files hold: bytes at random, and content on purpose, with a checksum that holds."""

import html
import io
import json
import re
import zipfile
from pathlib import Path
from random import Random

import torch

from destseg.artifacts.artifact import KEY
from destseg.artifacts.digest import BLANK, sealed
from destseg.artifacts.onnx_file import METADATA
from destseg.artifacts.openvino_file import DESCRIBED
from destseg.artifacts.protobuf import Field, Message
from destseg.model.tensorfile import read_tensors, write_tensors

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
