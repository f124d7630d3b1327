"""Files of tensors, written whole or not at all, and read without unpickling anything."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

import destseg
from destseg.files import FilePath, as_path, write_whole
from destseg.model.storages import check_storages
from destseg.packages import import_package

PLAIN = (bool, int, float, str, type(None))


def versions() -> dict[str, str]:
    """Return the versions of destseg and torch that are running."""
    return {"destseg": destseg.__version__, "torch": str(torch.__version__)}


def write_tensors(path: FilePath, content: dict[str, Any]) -> None:
    """Write tensors and plain values (numbers, strings, lists, dicts) as one torch file, whole or not at all.

    Arrays become tensors, and numpy's numbers become Python's. Raises TypeError, naming the value, for any
    other type: `read_tensors` would refuse the whole file.
    """
    content = _plain(content, "content")
    write_whole(path, lambda file: torch.save(content, file))


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
    """
    import_package("torch")
    path = as_path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    with open(path, "rb") as file:  # outside the try: a file that may not be read is not damaged
        try:
            check_storages(file)
            content = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # torch's zip reader and unpickler raise errors of many types
            if "weights_only" in str(error):  # torch's text tells how to load it all the same, which runs it
                found = re.search(r"GLOBAL ([\w.]+)|class ([\w.]+)", str(error))
                what = f" ({found[1] or found[2]})" if found else ""
                held = f"it holds other things than tensors and plain values{what}"
                raise ValueError(f"{path} cannot be loaded: {held}; nothing of it was executed") from None
            reason = str(error).strip().split("\n")[0][:200]
            raise ValueError(
                f"{path} is damaged, truncated or not a file of tensors and plain values ({reason})"
            ) from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a dict of tensors, got {type(content).__name__}")
    _check_tensors(content, path)
    return content


def matching_tensors(
    expected: Mapping[str, Tensor], given: Mapping[str, object], source: str
) -> dict[str, Tensor]:
    """Return the tensors that a network expects, in its dtypes, from a state dict that may hold more.

    Counters of batches may be missing: torch versions differ in them, and evaluation does not use them.

    Raises:
        ValueError: a tensor is missing or has another shape; the message names the first.
    """
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
        found[name] = value.to(tensor.dtype)  # a checkpoint may be in half precision
    return found


def _check_tensors(content: Any, path: FilePath) -> None:
    """Raise ValueError for a tensor larger than its bytes in the file: copies of it could take all memory."""
    values, seen = [content], set()
    while values:
        value = values.pop()
        if isinstance(value, Tensor):
            wanted = value.numel() * value.element_size()
            if value.layout != torch.strided or value.is_meta or wanted > value.untyped_storage().nbytes():
                shape = tuple(value.shape)
                raise ValueError(f"{path} holds a tensor of shape {shape} that is larger than its bytes")
        elif isinstance(value, (Mapping, list, tuple, set)) and id(value) not in seen:
            seen.add(id(value))  # a list may hold itself
            values += value.values() if isinstance(value, Mapping) else value
