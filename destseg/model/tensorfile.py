"""Files of tensors, written whole or not at all, and read without unpickling anything.

A file ends in the SHA-256 of all before it, as the comment of torch's zip file, which torch does not read.
"""

import hashlib
import io
import pickletools
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

import destseg
from destseg.files import FilePath, as_path, write_whole
from destseg.model.process import check_process
from destseg.model.torchfile import MOST_OPERATIONS, PLAIN, ForeignContentError, read_content
from destseg.packages import import_package

DIGITS = 64  # of the checksum
SEALED = "ends in its checksum"  # an entry of the content; without it, files of earlier versions have none
MOST_BYTES = 2 << 30  # of a file


def versions() -> dict[str, str]:
    """Return the versions of destseg and torch that are running."""
    return {"destseg": destseg.__version__, "torch": str(torch.__version__)}


def write_tensors(path: FilePath, content: dict[str, Any]) -> None:
    """Write tensors and plain values (numbers, strings, lists, dicts) as one torch file, whole or not at all.

    Arrays become tensors, and numpy's numbers become Python's. Nothing is written that `read_tensors` would
    refuse.

    Raises:
        TypeError: for a value of any other type; the message names it.
        ValueError: the file would be too large, or would hold too many values.
    """
    file = io.BytesIO()
    torch.save(_plain(content, "content") | {SEALED: True}, file)
    _check_size(path, file)
    whole = file.getvalue()[:-2] + DIGITS.to_bytes(2, "little")  # the comment's size
    digest = hashlib.sha256(whole).hexdigest().encode()
    write_whole(path, lambda file: file.write(whole + digest))


def _check_size(path: FilePath, file: io.BytesIO) -> None:
    """Raise ValueError if a torch file is larger than those that `read_tensors` takes."""
    size = file.tell() + DIGITS
    if size > MOST_BYTES:
        raise ValueError(f"{path} cannot be written: it may have at most {MOST_BYTES} bytes, got {size}")
    with zipfile.ZipFile(file) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("data.pkl"))
        count = sum(1 for _ in pickletools.genops(archive.read(name)))
    if count > MOST_OPERATIONS:
        allowed = (
            f"at most {MOST_OPERATIONS} values, of which a text counts as two and a tensor as some thirty"
        )
        raise ValueError(f"{path} cannot be written: it may hold {allowed}, got {count}")


def _plain(value: Any, name: str) -> Any:
    """Return a value in a form that `read_tensors` takes; numpy's types would need unpickling."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value)
    if isinstance(value, dict):
        return {_plain(key, f"a key of {name}"): _plain(value[key], f"{name}[{key!r}]") for key in value}
    if type(value) in (list, tuple):
        return type(value)(_plain(item, f"{name}[{k}]") for k, item in enumerate(value))
    plain = value.item() if isinstance(value, np.generic) else value
    if type(plain) not in PLAIN:  # subclasses would need unpickling, too
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        raise TypeError(
            f"{name} must be a tensor, array, number, string, list or dict to be saved, got {kind}"
        )
    return plain


def read_tensors(path: FilePath) -> dict[str, Any]:
    """Read a torch file of tensors and plain values onto the CPU; nothing in it is executed.

    Raises:
        OSError: there is no such file (FileNotFoundError), or it may not be read.
        ValueError: the file is damaged, truncated, no torch file, or holds other things than tensors and
            plain values.
        ImportError: torch is too old.
        RuntimeError: where `check_process` raises it; whether the file is whole is computed with torch.
    """
    import_package("torch")
    check_process()
    path = as_path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise ValueError(f"{path} must have at most {MOST_BYTES} bytes, got {size}")
    with open(path, "rb") as file:  # outside the try: a file that may not be read is not damaged
        whole = file.read()
    try:
        content = read_content(whole)
        _check_values(content)
        if isinstance(content, dict) and content.pop(SEALED, False):
            digest = hashlib.sha256(memoryview(whole)[:-DIGITS]).hexdigest()
            if digest.encode() != whole[-DIGITS:]:
                raise ValueError("its checksum does not hold")
    except ForeignContentError as error:
        held = f"it holds other things than tensors and plain values ({error})"
        raise ValueError(f"{path} cannot be loaded: {held}; nothing of it was executed") from None
    except Exception as error:  # zip files and pickles are refused with errors of many types
        reason = str(error).strip().split("\n")[0][:200]
        raise ValueError(
            f"{path} is damaged, truncated or not a file of tensors and plain values ({reason})"
        ) from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a dict of tensors, got {type(content).__name__}")
    return content


def matching_tensors(
    expected: Mapping[str, Tensor], given: Mapping[str, object], source: str, exact: bool = False
) -> dict[str, Tensor]:
    """Return the tensors that a network expects, in its dtypes, from a state dict.

    The state dict may hold more, unless it must be `exact`.

    Counters of batches may be missing: torch versions differ in them, and evaluation does not use them.

    Raises:
        ValueError: a tensor is missing, not expected, has another shape or kind of numbers, or NaN or
            infinity in it; the message names the first.
    """
    others = sorted(map(str, given.keys() - expected.keys()))
    if exact and others:
        raise ValueError(f"{source} does not belong to this network: it has {others[0][:100]}")
    found = {}
    for name, tensor in expected.items():
        value = given.get(name)
        if value is None and name.endswith("num_batches_tracked"):
            value = torch.zeros(tensor.shape, dtype=tensor.dtype)
        if not isinstance(value, Tensor):
            raise ValueError(f"{source} lacks the tensor {name} of shape {tuple(tensor.shape)}")
        if value.shape != tensor.shape:
            raise ValueError(
                f"{source}: the tensor {name} must have shape {tuple(tensor.shape)}, got {tuple(value.shape)}"
            )
        counter = name.endswith("num_batches_tracked")  # float16, too, in a checkpoint in half precision
        kinds_differ = value.is_floating_point() != tensor.is_floating_point() and not counter
        if kinds_differ or value.is_complex():
            raise ValueError(f"{source}: the tensor {name} must be of {tensor.dtype}, got {value.dtype}")
        found[name] = value.to(tensor.dtype)  # a checkpoint may be in half precision
        if not found[name].isfinite().all():
            raise ValueError(f"{source}: the tensor {name} must be finite, got NaN or infinity")
    return found


def _check_values(content: Any) -> None:
    """Raise ValueError where content cannot be what `write_tensors` wrote.

    It may be small and yet, where lists hold one another, without end for who prints or compares it.
    """
    values, count = [content], 0
    while values:
        value = values.pop()
        if isinstance(value, (dict, list, tuple)):
            count += len(value)
            if count > MOST_OPERATIONS:
                raise ValueError(f"it holds more than {MOST_OPERATIONS} values, or a list that holds itself")
            values += value.values() if isinstance(value, dict) else value
        elif not isinstance(value, (Tensor, *PLAIN)):
            raise ForeignContentError(getattr(value, "name", type(value).__name__))
