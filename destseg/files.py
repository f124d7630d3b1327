"""Files of tensors, read and written: nothing is unpickled, nothing half-written takes a place."""

import os
import secrets
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor


def write_whole(path: str | os.PathLike[str], write: Callable[[BinaryIO], object]) -> None:
    """Have `write` fill a file beside `path`, then rename it there: a crash leaves old or new."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        with open(beside, "xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def write_tensors(path: str | os.PathLike[str], content: dict[str, Any]) -> None:
    """Write tensors and plain values (numbers, strings, lists, dicts) as one torch file, atomically."""
    write_whole(path, lambda file: torch.save(content, file))


def read_tensors(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a torch file of tensors and plain values onto the CPU; nothing in it is executed.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, truncated, no torch file, or holds more than tensors and plain values.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    try:
        _check_sums(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (
        Exception
    ) as error:  # torch raises whatever its zip reader and unpickler meet: there is no one type
        reason = str(error).strip().split("\n")[0][:200]
        raise ValueError(
            f"{path} is damaged, truncated or not a file of tensors and plain values ({reason})"
        ) from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a dict of tensors, got {type(content).__name__}")
    return content


def _check_sums(path: Path) -> None:
    """Raise BadZipFile where a torch file's checksums do not hold: torch writes them, and does not look."""
    if zipfile.is_zipfile(path):  # files of old torch versions have no checksums
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
        if broken is not None:
            raise zipfile.BadZipFile(f"the checksum of {broken} does not hold")


def matching_tensors(
    expected: Mapping[str, Tensor], given: Mapping[str, object], source: str
) -> dict[str, Tensor]:
    """Return the tensors of a state dict that a network expects; it may hold more.

    Counters of batches may be missing: torch versions differ about them, and evaluation does not use them.

    Raises:
        ValueError: naming the first tensor that is missing or has another shape.
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
        found[name] = value
    return found
