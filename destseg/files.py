"""Files that appear whole or not at all."""

import os
import secrets
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

FilePath = str | os.PathLike[str]


def write_whole(path: FilePath, write: Callable[[BinaryIO], object]) -> None:
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


def check_writable(path: FilePath | None) -> Path | None:
    """Find out before hours of work whether a file can be written there, and return its path; None for None.

    Its folder is made. Raises IsADirectoryError where the path leads to a folder, or another OSError.
    """
    if path is None:
        return None
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; a file to write is wanted")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise OSError(f"{path} cannot be written: {error}") from error
    return path
