"""Reads what torch.save wrote: a pickle that tells of tensors, and the tensors' bytes; nothing is unpickled.

torch trusts files. Before version 2.10 it reads beyond a record that is shorter than declared
(CVE-2026-24747). To this day a file may have it fill tensors with whatever is in memory, or compute for hours
on a pickle of a kilobyte. So only those operations of a pickle are followed here that make plain values and
tensors, and sizes are compared before anything is made.
"""

import io
import math
import pickletools
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

# How files begin, in the form of today and in that of before version 1.6.
ZIP = b"PK\x03\x04"
OLD = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
END = b"PK\x05\x06"  # how the last part of a zip file begins, which has 22 bytes and a comment
RECORD = b"PK\x01\x02"  # how an entry of a zip file's list of records begins
MOST_RECORDS = 50_000
MOST_OPERATIONS = 500_000  # of a pickle; a value takes one or two
PLAIN = (bool, int, float, str, type(None))
DTYPES = {  # by torch's name for a storage of them
    **{"Byte": torch.uint8, "Char": torch.int8, "Bool": torch.bool, "Short": torch.int16},
    **{"Int": torch.int32, "Long": torch.int64, "Half": torch.float16, "BFloat16": torch.bfloat16},
    **{"Float": torch.float32, "Double": torch.float64, "Untyped": torch.uint8},
    **{"ComplexFloat": torch.complex64, "ComplexDouble": torch.complex128},
}
Declare = Callable[[str, int], Tensor]  # returns the bytes of a storage, (size,) uint8, by its key and size


class ForeignContentError(ValueError):
    """A file holds other things than tensors and plain values; the message names one."""


@dataclass(frozen=True)
class Named:
    """A function or a type, as a pickle names it; it is never looked up."""

    name: str


def read_content(content: bytes) -> Any:
    """Return the plain values and the tensors, on the CPU, in a torch file.

    Raises ValueError, and errors of many other types, if it is none, or does not hold what it declares.
    """
    if content.startswith(ZIP):
        return _read_archive(content)
    if content.startswith(OLD):
        return _read_old_form(io.BytesIO(content))
    raise ValueError("torch.save did not write it")


def _read_archive(content: bytes) -> Any:
    end = content.rfind(END)
    if len(content) != end + 22 + int.from_bytes(content[end + 20 : end + 22], "little"):
        raise ValueError("it is cut short, or something follows it")
    if content.count(RECORD) > MOST_RECORDS:
        raise ValueError(f"it has more than {MOST_RECORDS} records")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        records = {record.filename: record for record in archive.infolist()}
        if len(records) < len(archive.infolist()):
            raise ValueError("two of its records have the same name")
        if any(record.compress_type for record in records.values()):
            raise ValueError("torch.save did not write it: its records are compressed")
        if sum(record.file_size for record in records.values()) > len(content):
            raise ValueError("its records lie over one another")
        folder = next((name[:-8] for name in records if name.endswith("data.pkl")), "")
        if f"{folder}byteorder" in records and archive.read(f"{folder}byteorder") != b"little":
            raise ValueError("its numbers are big-endian")
        storages: dict[str, Tensor] = {}

        def declare(key: str, size: int) -> Tensor:
            name = f"{folder}data/{key}"
            if archive.getinfo(name).file_size != size:
                raise ValueError(f"a tensor's {size} bytes are stored in {records[name].file_size}")
            if key not in storages:
                storages[key] = torch.empty(size, dtype=torch.uint8, device="cpu")
                storages[key].numpy()[:] = np.frombuffer(archive.read(name), np.uint8)
            return storages[key]

        return _Pickle(declare).read(io.BytesIO(archive.read(f"{folder}data.pkl")))


def _read_old_form(file: io.BytesIO) -> Any:
    """Read pickles of mark, version, machine, content and the storages' keys; then the storages' bytes."""
    free, storages = len(file.getbuffer()), dict[str, Tensor]()

    def declare(key: str, size: int) -> Tensor:
        nonlocal free
        if key not in storages:
            free -= size
            if free < 0:
                raise ValueError(f"a tensor of {size} bytes is declared, and the file has fewer")
            storages[key] = torch.empty(size, dtype=torch.uint8, device="cpu")
        if len(storages[key]) != size:
            raise ValueError(f"a tensor is declared to have {size} bytes, and {len(storages[key])}")
        return storages[key]

    for _ in ("mark", "version", "machine"):
        _Pickle(declare).read(file)
    content, keys = _Pickle(declare).read(file), _Pickle(declare).read(file)
    if not isinstance(keys, list) or sorted(map(str, keys)) != sorted(storages):
        raise ValueError("its tensors are not those that it lists")
    values, declared = memoryview(file.read()), sum(8 + len(storage) for storage in storages.values())
    if len(values) != declared:
        raise ValueError(f"{declared} bytes of tensors are declared, and {len(values)} are stored")
    for key in keys:
        count = len(storages[key])
        storages[key].numpy()[:] = np.frombuffer(values[8 : 8 + count], np.uint8)  # after their number
        values = values[8 + count :]
    return content


class _Pickle:
    """Follows the operations by which torch.save tells of plain values and tensors, and no others."""

    def __init__(self, declare: Declare) -> None:
        self.declare = declare
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def read(self, pickled: io.BytesIO) -> Any:
        """Return what a pickle holds. Raises ForeignContentError if that takes other things."""
        for count, (operation, value, _) in enumerate(pickletools.genops(pickled)):
            if count == MOST_OPERATIONS:
                raise ValueError(f"it holds more than {MOST_OPERATIONS} values")
            name = operation.name
            if name in CONSTANTS:
                self.stack.append(CONSTANTS[name])
            elif name in VALUES:
                self.stack.append(value)
            elif name in STEPS:
                STEPS[name](self, value)
            else:
                raise ForeignContentError(f"the operation {name}")
        (result,) = self.stack
        return result

    def since_mark(self) -> list[Any]:
        """Take what came after the last mark."""
        mark = self.marks.pop()
        taken = self.stack[mark:]
        del self.stack[mark:]
        return taken

    def remember(self, place: int) -> None:
        self.memo[place] = self.stack[-1]

    def recall(self, place: int) -> None:
        if place not in self.memo:
            raise ValueError("it refers to what it has not told")
        self.stack.append(self.memo[place])

    def name(self, value: str) -> None:
        name = value.replace(" ", ".")
        if name not in CALLS and not (name.startswith("torch.") and (_storage_dtype(name) or _dtype(name))):
            raise ForeignContentError(name)
        self.stack.append(Named(name))

    def tuple_of(self, count: int) -> None:
        parts = self.stack[len(self.stack) - count :]
        if len(parts) < count:
            raise ValueError("a tuple has too few values")
        self.stack[len(self.stack) - count :] = [tuple(parts)]

    def extend(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not list:
            raise ValueError("values are added to what is no list")
        target += values

    def fill(self, values: list[Any]) -> None:
        target, keys = self.stack[-1], values[::2]
        if type(target) is not dict or any(type(key) not in PLAIN for key in keys):
            raise ValueError("a dict has another form than torch.save writes")
        target.update(zip(keys, values[1::2], strict=True))

    def storage(self, _: None) -> None:
        match self.stack.pop():
            case ("storage", Named(kind), str(key), str(), int(count), *rest) if rest in ([], [None]):
                dtype = _storage_dtype(kind)
                if dtype is not None and count >= 0:
                    self.stack.append(self.declare(key, count * dtype.itemsize).view(dtype))
                    return
        raise ValueError("it names a tensor in a way that torch.save does not")

    def call(self, _: None) -> None:
        named, values = self.stack[-2:]
        if not isinstance(named, Named) or named.name not in CALLS or not isinstance(values, tuple):
            raise ValueError("it calls what is no function")
        self.stack[-2:] = [CALLS[named.name](*values)]

    def build(self, _: None) -> None:
        """Leave out what a dict of tensors tells beside them: the versions of its modules."""
        self.stack.pop()
        if type(self.stack[-1]) is not dict:
            raise ForeignContentError(type(self.stack[-1]).__name__)


def _storage_dtype(name: str) -> torch.dtype | None:
    return DTYPES.get(name.rpartition(".")[2].removesuffix("Storage")) if name.endswith("Storage") else None


def _dtype(name: str) -> torch.dtype | None:
    found = getattr(torch, name.removeprefix("torch."), None)
    return found if isinstance(found, torch.dtype) else None


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> Tensor:
    """Return a tensor that lies in a storage, as torch rebuilds it; `rest` tells whether it is trained."""
    counts = [offset, *size, *stride]
    if not isinstance(storage, Tensor) or any(type(count) is not int or count < 0 for count in counts):
        raise ValueError("a tensor has another form than torch.save writes")
    size, stride = list(size), list(stride)
    last = offset + sum((side - 1) * step for side, step in zip(size, stride, strict=True))
    if math.prod(size) and max(math.prod(size), last + 1) > len(storage):
        raise ValueError(f"it holds a tensor of shape {tuple(size)} that is larger than its bytes")
    return storage.as_strided(size, stride, offset if math.prod(size) else 0)


def _tensor_of_dtype(
    storage: Any, offset: Any, size: Any, stride: Any, _: Any, __: Any, dtype: Any, *rest: Any
) -> Tensor:
    """Return a tensor of one of the dtypes that have no storages of their own."""
    found = _dtype(dtype.name)
    if found is None:
        raise ForeignContentError(dtype.name)
    return _tensor(storage.view(found), offset, size, stride)


CALLS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": lambda: {},
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_dtype,
    "torch._utils._rebuild_parameter": lambda tensor, *_: tensor,
}
CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
VALUES = {"BINUNICODE", "SHORT_BINSTRING", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"}
STEPS: dict[str, Callable[[_Pickle, Any], None]] = {
    "PROTO": lambda _, __: None,
    "STOP": lambda _, __: None,
    "MARK": lambda pickle, _: pickle.marks.append(len(pickle.stack)),
    "EMPTY_LIST": lambda pickle, _: pickle.stack.append([]),
    "EMPTY_DICT": lambda pickle, _: pickle.stack.append({}),
    "TUPLE": lambda pickle, _: pickle.stack.append(tuple(pickle.since_mark())),
    "TUPLE1": lambda pickle, _: pickle.tuple_of(1),
    "TUPLE2": lambda pickle, _: pickle.tuple_of(2),
    "TUPLE3": lambda pickle, _: pickle.tuple_of(3),
    "APPEND": lambda pickle, _: pickle.extend([pickle.stack.pop()]),
    "APPENDS": lambda pickle, _: pickle.extend(pickle.since_mark()),
    "SETITEM": lambda pickle, _: pickle.fill([pickle.stack.pop(-2), pickle.stack.pop()]),
    "SETITEMS": lambda pickle, _: pickle.fill(pickle.since_mark()),
    "GLOBAL": _Pickle.name,
    "REDUCE": _Pickle.call,
    "BUILD": _Pickle.build,
    "BINPERSID": _Pickle.storage,
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), lambda pickle, place: pickle.remember(place)),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), lambda pickle, place: pickle.recall(place)),
}
