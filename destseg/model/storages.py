"""Whether a torch file holds the bytes of all its tensors, as it declares; found out before torch reads it.

torch trusts files. Before version 2.10 it reads beyond a record that is shorter than declared
(CVE-2026-24747). To this day it fills a tensor with whatever is in memory if a file in the form of before
version 1.6 leaves the tensor's bytes out.
"""

import pickletools
import re
import zipfile
from typing import Any, BinaryIO

# How files begin, in the form of today and in that of before version 1.6. torch goes by the same bytes.
ZIP = b"PK\x03\x04"
OLD = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
BYTES = {  # of an element, by torch's name for a storage of them
    **{"Untyped": 1, "Byte": 1, "Char": 1, "Bool": 1, "Short": 2, "Half": 2, "BFloat16": 2, "Int": 4},
    **{"Float": 4, "Long": 8, "Double": 8, "ComplexFloat": 8, "ComplexDouble": 16},
}
# Operations of pickles. torch's own unpickler knows no other ones that do the same.
TEXTS = {"BINUNICODE", "SHORT_BINSTRING"}
VALUES = TEXTS | {"GLOBAL", "BININT", "BININT1", "BININT2", "LONG1", "NONE"}
PUTS, GETS = {"BINPUT", "LONG_BINPUT"}, {"BINGET", "LONG_BINGET"}
LIST = re.compile("PROTO EMPTY_LIST (MARK (TEXT )+APPENDS |TEXT APPEND )*STOP")
UNKNOWN = ...


def check_storages(file: BinaryIO) -> None:
    """Check that a torch file, which is at its start, holds the bytes of all its tensors, unchanged.

    Raises ValueError, KeyError or BadZipFile if it does not.
    """
    start = file.read(len(OLD))
    if start.startswith(ZIP):
        with zipfile.ZipFile(file) as archive:
            _check_archive(archive)
    elif start == OLD:
        _check_old_form(file)
    else:
        raise ValueError("torch.save did not write it")
    file.seek(0)


def _check_archive(archive: zipfile.ZipFile) -> None:
    broken = archive.testzip()  # torch writes checksums, and does not check them
    if broken is not None:
        raise zipfile.BadZipFile(f"the checksum of {broken} does not hold")
    for name in archive.namelist():
        if name.endswith("data.pkl"):
            for key, size in _declared_sizes(archive.read(name)).items():
                stored = archive.getinfo(name.removesuffix(".pkl") + f"/{key}").file_size
                if stored != size:
                    raise ValueError(f"a tensor's {size} bytes are stored in {stored}")


def _check_old_form(file: BinaryIO) -> None:
    """Check a sequence of pickles: version, machine, content, list of storages; then the storages' bytes."""
    for _ in ("version", "machine"):
        for _ in pickletools.genops(file):
            pass
    sizes = _declared_sizes(file)
    if sorted(_texts(file)) != sorted(sizes):
        raise ValueError("its tensors are not those that it lists")
    start = file.tell()
    declared, stored = sum(8 + size for size in sizes.values()), file.seek(0, 2) - start
    if stored != declared:
        raise ValueError(f"{declared} bytes of tensors are declared, and {stored} are stored")


def _texts(pickled: BinaryIO) -> list[str]:
    """Return the texts in a pickled list of texts; no texts if it is anything else."""
    names, texts = [], []
    for operation, value, _ in pickletools.genops(pickled):
        if operation.name in TEXTS:
            texts.append(str(value))
        if operation.name not in PUTS:
            names.append("TEXT" if operation.name in TEXTS else operation.name)
    return texts if LIST.fullmatch(" ".join(names)) else []


def _declared_sizes(pickled: bytes | BinaryIO) -> dict[str, int]:
    """Return the sizes in bytes of the storages that a pickle names, by their keys; nothing is unpickled.

    torch.save names a storage by a tuple of texts, a type and a number, and the operation BINPERSID. So
    plain values, and tuples of them, are followed on the unpickler's stack, down to its last mark; all else
    is unknown.
    """
    sizes: dict[str, int] = {}
    memo: dict[Any, Any] = {}
    stack: list[Any] = [UNKNOWN]
    for operation, value, _ in pickletools.genops(pickled):
        name, top = operation.name, stack[-1] if stack else UNKNOWN
        if name in VALUES:
            stack.append(value)
        elif name in GETS:
            stack.append(memo.get(value, UNKNOWN))
        elif name in PUTS:
            memo[value] = top
        elif name == "MARK":
            stack = []
        elif name == "TUPLE":
            stack = [tuple(stack)]
        else:
            if name == "BINPERSID":
                key, size = _storage(top)
                if sizes.setdefault(key, size) != size:
                    raise ValueError(f"a tensor is declared to have {size} bytes, and {sizes[key]}")
            stack = [UNKNOWN]
    return sizes


def _storage(named: Any) -> tuple[str, int]:
    """Return the key of a storage and its size in bytes, from what names it."""
    match named:
        case ("storage", str(kind), str(key), str(), int(count), *rest) if rest in ([], [None]):
            element = BYTES.get(kind.rpartition(" ")[2].removesuffix("Storage"))
            if element is not None:
                return key, element * count
    raise ValueError("it names a tensor in a way that torch.save does not")
