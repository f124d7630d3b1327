"""Paths as users write them, and files that appear whole or not at all."""

import contextlib
import errno
import hashlib
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import BinaryIO

FilePath = str | os.PathLike[str]

# The name of a temporary file tells the system of the process that writes it, its number, and when it began.
TEMPORARY = re.compile(r"\.destseg-([0-9a-f]{12})-(\d+)-(\d+)-[0-9a-f]{8}")
_tidied: set[Path] = set()  # folders in which this process has removed what dead processes left


def as_path(path: FilePath) -> Path:
    """Return a path as a user means it: ~ is the home folder, as in a shell. Every path of a user goes here.

    Raises ValueError for an empty path, which would be the current folder.
    """
    if not os.fspath(path):
        raise ValueError("a path must not be empty, got ''")
    return Path(os.path.expanduser(path))  # which leaves "~name" as it is where there is no such user


def write_whole(path: FilePath, write: Callable[[BinaryIO], object]) -> None:
    """Let `write` fill a temporary file, then rename it to `path`: a crash leaves the old file or the new.

    A link stays, and the file that it leads to is replaced. The new file has the old one's permissions and,
    where that is allowed, its owner. A pipe or a device, such as /dev/null, is written itself, and what this
    process prints to, such as /dev/stdout, is added to.

    Raises OSError, naming the path and the cause, where it cannot be written.
    """
    write_together({as_path(path): write})


def write_together(files: Mapping[Path, Callable[[BinaryIO], object]]) -> None:
    """Do the same with several files, of which none is renamed before all are filled."""
    with contextlib.ExitStack() as stack:
        filled: dict[Path, tuple[Path, Path]] = {}
        for path, write in files.items():
            with _named(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                old = _status(path)
                if (stream := _open_stream(path, old)) is not None:
                    with stream:
                        write(stream)
                    continue
                target = Path(os.path.realpath(path))
                _remove_stale(target.parent)
                temporary = target.with_name(_temporary_name())  # short, whatever `path` is
                stack.callback(temporary.unlink, missing_ok=True)
                mode = 0o666 if old is None else 0o600  # what it replaces may be secret
                with open(temporary, "xb", opener=partial(os.open, mode=mode)) as file:
                    write(file)
                    file.flush()
                    if old is not None:
                        _keep_owner_and_mode(temporary, old)
                    os.fsync(file.fileno())
                filled[path] = temporary, target
        for path, (temporary, target) in filled.items():
            with _named(path):
                os.replace(temporary, target)
        for folder in {target.parent for _, target in filled.values()}:
            _sync(folder)


def check_writable(path: FilePath | None) -> Path | None:
    """Check, before hours of work, that a file can be written, and return its path; None stays None.

    Makes the folder it is to lie in. Raises IsADirectoryError where the path is a folder, or another OSError.
    """
    if path is None:
        return None
    path = as_path(path)
    if os.path.isdir(path):
        raise IsADirectoryError(f"{path} is a folder; a file to write is wanted")
    with _named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        old = _status(path)  # which fails where the name is too long
        if old is None or stat.S_ISREG(old.st_mode):
            with tempfile.TemporaryFile(dir=Path(os.path.realpath(path)).parent):
                pass
    return path


def _status(path: Path) -> os.stat_result | None:
    """Return what is known of the file at a path; None if there is none.

    Raises PermissionError where it may not be written: renaming would replace it all the same.
    """
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    if not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, "it is read-only")
    return status


def _open_stream(path: Path, status: os.stat_result | None) -> BinaryIO | None:
    """Open a pipe, a device, or what this process prints to; None for a file whose place another may take."""
    if status is None or stat.S_ISDIR(status.st_mode):
        return None
    if not stat.S_ISREG(status.st_mode):
        return open(path, "wb")
    for descriptor in (1, 2):
        with contextlib.suppress(OSError):  # it is closed
            if os.path.samestat(status, os.fstat(descriptor)):
                return open(os.dup(descriptor), "wb")  # goes on where it has come to
    return None


def _keep_owner_and_mode(path: Path, old: os.stat_result) -> None:
    """Give a file the permissions of the one that it will replace; owner and group where that is allowed."""
    if hasattr(os, "chown"):  # not on Windows
        for owner in (old.st_uid, -1):
            try:
                os.chown(path, owner, old.st_gid)
                break
            except OSError:
                continue
    os.chmod(path, stat.S_IMODE(old.st_mode) & 0o777)


def _sync(folder: Path) -> None:
    """Make sure that a rename outlasts a power cut, where the system has a way to."""
    with contextlib.suppress(OSError, AttributeError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _temporary_name() -> str:
    process = os.getpid()
    return f".destseg-{_system()}-{process}-{_start(process) or 0}-{secrets.token_hex(4)}"


def _system() -> str:
    """Return what tells the running system whose processes this one can see: 12 digits; zeros if unknown.

    Folders are shared with other computers and with containers, where a number is another process.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        return hashlib.sha256((boot + os.readlink("/proc/self/ns/pid")).encode()).hexdigest()[:12]
    except OSError:  # no Linux
        return "0" * 12


def _start(process: int) -> int | None:
    """Return when a process began, in ticks since the system did; None if it has ended."""
    try:
        fields = Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def _is_dead(process: int, start: int) -> bool:
    """Whether the process that began at that moment runs no more; its number may have been taken again."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # PermissionError: it runs, as another user
        return False
    return _start(process) != start


def _remove_stale(folder: Path) -> None:
    """Remove temporary files of dead processes from a folder, once in a process: listing may take long."""
    system = _system()
    if folder in _tidied or not system.strip("0"):
        return
    _tidied.add(folder)
    with contextlib.suppress(OSError):  # what cannot be removed is no reason not to write
        for entry in os.scandir(folder):
            match = TEMPORARY.fullmatch(entry.name)
            if match and match[1] == system and _is_dead(int(match[2]), int(match[3])):
                with contextlib.suppress(OSError):
                    os.unlink(entry)


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Name the file in the error of a system that cannot write it."""
    try:
        yield
    except OSError as error:
        raise type(error)(f"{path} cannot be written: {error}") from error
