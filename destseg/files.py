"""Paths as users write them, and files that appear whole or not at all."""

import contextlib
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
    """Let `write` fill a temporary file, then rename it to `path`: a crash leaves the old file or the new.

    A pipe or a device, such as /dev/stdout, is written itself.

    Raises OSError, naming the path and the cause, where it cannot be written.
    """
    path = as_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if _is_stream(path):
            with open(path, "wb") as file:
                write(file)
        else:
            _write_and_rename(path, write)
    except (OSError, RuntimeError) as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, OSError):  # torch raises RuntimeError after it
            cause = cause.__context__
        if cause is None:
            raise
        raise type(cause)(f"{path} cannot be written: {cause}") from error


def check_writable(path: FilePath | None) -> Path | None:
    """Check, before hours of work, that a file can be written, and return its path; None stays None.

    Makes the folder it is to lie in. Raises IsADirectoryError where the path is a folder, or another OSError.
    """
    if path is None:
        return None
    path = as_path(path)
    if os.path.isdir(path):
        raise IsADirectoryError(f"{path} is a folder; a file to write is wanted")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            os.stat(path)  # which fails where the name is too long
        if not (_is_stream(path) and os.access(path, os.W_OK)):
            with tempfile.TemporaryFile(dir=path.parent):
                pass
    except OSError as error:
        raise OSError(f"{path} cannot be written: {error}") from error
    return path


def _is_stream(path: Path) -> bool:
    """Whether this is a pipe or a device, which must not be replaced by a file."""
    return os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)


def _write_and_rename(path: Path, write: Callable[[BinaryIO], object]) -> None:
    temporary = path.with_name(f".destseg-{secrets.token_hex(8)}")  # short: `path` may be as long as allowed
    try:
        with open(temporary, "xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
