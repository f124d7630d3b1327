"""Paths as users write them, and files that appear whole or not at all."""

import os
import secrets
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

FilePath = str | os.PathLike[str]


def as_path(path: FilePath) -> Path:
    """Return a path as a user means it: ~ is the home folder, as in a shell. Every path of a user goes here.

    Raises ValueError for an empty path, which would be the current folder.
    """
    if not os.fspath(path):
        raise ValueError("a path must not be empty, got ''")
    return Path(os.path.expanduser(path))  # which leaves "~name" as it is where there is no such user


def write_whole(path: FilePath, write: Callable[[BinaryIO], object]) -> None:
    """Let `write` fill a temporary file, then rename it to `path`: a crash leaves the old file or the new."""
    path = as_path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        with open(temporary, "xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(path: FilePath | None) -> Path | None:
    """Check, before hours of work, that a file can be written, and return its path; None stays None.

    Makes the folder it is to lie in. Raises IsADirectoryError where the path is a folder, or another OSError.
    """
    if path is None:
        return None
    path = as_path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; a file to write is wanted")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise OSError(f"{path} cannot be written: {error}") from error
    return path
