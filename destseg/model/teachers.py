"""Finds the teacher's weights."""

import hashlib
import http.client
import io
import os
import urllib.request
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from destseg.files import as_path, check_writable, write_whole
from destseg.model.networks import Teacher
from destseg.model.tensorfile import matching_tensors, read_tensors
from destseg.progress import Bar
from destseg.settings import TEACHERS, check_choice

VARIABLE = "DESTSEG_TEACHER_WEIGHTS"
# torchvision's ResNet18 IMAGENET1K_V1; the file's name contains the first digits of its SHA-256.
ADDRESS = "https://download.pytorch.org/models/resnet18-f37072fd.pth"
EMBEDDED = Path(__file__).with_name("embedded_teacher.pt")  # see docs/embedded_teacher.md

Weights = str | Path | Mapping[str, Tensor] | None


def teacher_state(teacher: str, weights: Weights = None, progress: bool = True) -> dict[str, Tensor]:
    """Return the state dict of a `networks.Teacher`, every tensor present and of the right shape.

    Args:
        teacher: "resnet18", torchvision's IMAGENET1K_V1; or "embedded", the one in this package.
        weights: a state dict or a file of one, in torchvision's parameter names for ResNet18. By default
            "embedded" takes the package's file; "resnet18" takes the file that the DESTSEG_TEACHER_WEIGHTS
            variable names, else the one in torch hub's cache, else downloads it there and checks its hash.
        progress: show how far a download is.

    Raises:
        ValueError: unknown teacher, or a tensor, which the message names, is missing or has another shape.
        FileNotFoundError: the named file does not exist.
        OSError: nothing was found and the download failed; the message names every way to give weights.
    """
    check_choice("teacher", teacher, TEACHERS)
    with torch.device("meta"):  # shapes only
        expected = Teacher().float().encoder.state_dict()
    if isinstance(weights, Mapping):
        state = matching_tensors(expected, weights, "the given state dict")
    else:
        packaged = EMBEDDED if teacher == "embedded" else None
        path = as_path(weights) if weights is not None else packaged or find_weights(progress=progress)
        state = matching_tensors(expected, read_tensors(path), str(path))
    return {f"encoder.{name}": tensor for name, tensor in state.items()}


def find_weights(address: str = ADDRESS, progress: bool = True) -> Path:
    """Return the path of the weights: from the variable, torch hub's cache, or a download checked by hash."""
    named = os.environ.get(VARIABLE)
    if named:
        if not as_path(named).is_file():
            raise FileNotFoundError(f"the variable {VARIABLE} names a file that does not exist: {named}")
        return as_path(named)
    cached = Path(torch.hub.get_dir()) / "checkpoints" / address.rsplit("/", 1)[-1]
    if not cached.exists():
        try:
            download(address, cached, progress)
        except OSError as error:
            raise OSError(
                "no teacher weights. Give one of: teacher_weights=PATH (--teacher-weights PATH); the "
                f"variable {VARIABLE}=PATH; the file {cached} in torch hub's cache; a network that "
                f"reaches {address} ({error}); or take the teacher that needs none of them, "
                'teacher="embedded" (--teacher embedded)'
            ) from error
    return cached


def download(address: str, path: Path, progress: bool = True) -> None:
    """Download a file whose name ends in -<first digits of its SHA-256>; it appears at `path` whole or not.

    Raises:
        OSError: the server cannot be reached, or the content does not have the hash in the file's name.
    """
    expected = path.stem.rsplit("-", 1)[-1]

    check_writable(path)
    digest, content = hashlib.sha256(), io.BytesIO()
    try:
        with urllib.request.urlopen(address, timeout=30) as response:
            total = int(response.headers.get("Content-Length", 0)) or None
            with Bar(path.name, total, unit="B", wanted=progress) as bar:
                while chunk := response.read(1 << 20):
                    digest.update(chunk)
                    content.write(chunk)
                    bar.update(len(chunk))
    except http.client.HTTPException as error:  # the answer is not HTTP, or ends too early
        raise OSError(f"{address}: {error!r}") from error
    if not digest.hexdigest().startswith(expected):
        raise OSError(f"{address}: the SHA-256 must begin with {expected}, got {digest.hexdigest()}")
    write_whole(path, lambda file: file.write(content.getbuffer()))
