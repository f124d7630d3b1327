"""Checkpoints of training: writing, reading, the plan they belong to, and the signals that ask for one."""

import signal
import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from destseg.model.networks import DeSTSegNet
from destseg.model.tensorfile import matching_tensors, read_tensors, write_tensors
from destseg.training.optimizers import settles
from destseg.training.synthesis import Synthesis
from destseg.training.textures import PictureTextures

FORMAT = "destseg checkpoint 2"
# What a plan of an earlier version, which lacks these, means.
NEW_OPTIONS = {"augment": "", "memory_bank": False, "bounded": False, "student_encoder": True}


@dataclass(frozen=True)
class Plan:
    """Everything that determines a run; only a run with the same plan may continue its checkpoint."""

    steps: tuple[int, int]  # of the student stage and the segmentation stage
    batch_size: int
    rotate: str | float
    flip: str
    augment: str
    seed: int
    image_size: tuple[int, int]
    parts: dict[str, bool]  # of the network
    precision: str  # "float32" or "bfloat16"
    pictures: int  # the number of network inputs
    normals: int  # checksum of the normal pictures
    textures: int  # checksum of the texture source; 0 without one
    teacher: int  # checksum of the teacher's weights
    framing: int | None  # checksum of the framing; None where pictures are stretched

    def stored(self) -> dict[str, Any]:
        """Return the plan in values that a file of tensors may hold and that compare equal when read back."""
        values = {name: value for name, value in vars(self).items() if name != "parts"} | self.parts
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def plan_of(
    network: DeSTSegNet, synthesis: Synthesis, steps: tuple[int, int], precision: str, parts: dict[str, bool]
) -> Plan:
    """Return the plan for training a network of these parts on these batches, in float32 or bfloat16."""
    normals, source = synthesis.normals, synthesis.draw_texture
    return Plan(
        steps=(int(steps[0]), int(steps[1])),
        batch_size=int(synthesis.batch_size),
        rotate=synthesis.rotate,
        flip=synthesis.flip,
        augment=synthesis.augment,
        seed=int(synthesis.seed),
        image_size=normals.size,
        parts=parts,
        precision=precision,
        pictures=len(normals),
        normals=normals.checksum,
        textures=source.store.checksum if isinstance(source, PictureTextures) else 0,
        teacher=checksum(network.teacher_net),
        framing=normals.framing.checksum,
    )


def checksum(network: nn.Module) -> int:
    """Return a CRC-32 of all weights."""
    total = 0
    for tensor in network.state_dict().values():
        total = zlib.crc32(tensor.detach().cpu().contiguous().numpy(), total)
    return total


def learnt_tensors(network: nn.Module) -> dict[str, Tensor]:
    """Return all tensors of a network but the teacher's, which do not change, by name."""
    weights = network.state_dict().items()
    return {name: value for name, value in weights if not name.startswith("teacher_net.")}


def write(
    path: Path,
    plan: Plan,
    network: nn.Module,
    optimizer: Optimizer | None,
    average: nn.Module | None,
    losses: Sequence[Tensor],
) -> None:
    """Write the state of training, whole or not at all; without the teacher, which does not change."""
    state = {
        "format": FORMAT,
        "plan": plan.stored(),
        "network": learnt_tensors(network),
        "optimizer": optimizer.state_dict() if optimizer else {},
        "average": dict(average.state_dict()) if average else {},
        "losses": torch.stack(list(losses)).cpu() if losses else torch.empty(0),
    }
    write_tensors(path, state)


def read(path: Path, plan: Plan) -> dict[str, Any]:
    """Return what `write` wrote, if it belongs to this plan.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no checkpoint, is damaged, or belongs to another plan; the message names the
            difference.
    """
    state = read_tensors(path)
    if state.get("format") != FORMAT:
        raise ValueError(f"{path} is no checkpoint of this version of destseg")
    for name in ("plan", "network", "optimizer", "average"):
        if not isinstance(state.get(name), dict):
            raise ValueError(f"{path}: its {name} must be a dict, got {type(state.get(name)).__name__}")
    then, now = NEW_OPTIONS | state["plan"], plan.stored()
    changed = [
        f"{name} was {repr(then.get(name))[:100]}, now {now[name]!r}"
        for name in now
        if not _equal(then.get(name), now[name])
    ]
    if changed:
        raise ValueError(f"{path} belongs to another run: {'; '.join(changed)}")
    losses, most = state.get("losses"), sum(plan.steps)
    if not isinstance(losses, Tensor) or losses.ndim != 1 or not losses.is_floating_point():
        raise ValueError(f"{path}: its losses must be one number for each step")
    if len(losses) > most or not losses.isfinite().all():
        raise ValueError(f"{path}: its losses must be up to {most} finite numbers")
    return state


def load_optimizer(path: Path, optimizer: Optimizer, stored: Mapping[str, Any]) -> None:
    """Give a new optimizer the stored momentum of every parameter.

    Raises ValueError, naming the file, unless it is the state of an optimizer with the same options.
    """
    options = optimizer.state_dict()["param_groups"]
    rates = ("params", "momentum", "weight_decay", *(() if settles(optimizer) else ("lr",)))
    try:
        then = [[group.get(name) for name in rates] for group in stored["param_groups"]]
        kinds = {kind for values in stored["state"].values() for kind in values}
        given = {f"{place}": next(iter(values.values())) for place, values in stored["state"].items()}
    except (AttributeError, KeyError, TypeError, StopIteration, RuntimeError):  # the last one of tensors
        raise ValueError(f"{path}: its optimizer must tell its options and momentum") from None
    kind = "momentum" if settles(optimizer) else "momentum_buffer"
    if not _equal(then, [[group.get(name) for name in rates] for group in options]) or kinds != {kind}:
        raise ValueError(f"{path}: its optimizer has other options, or keeps other things, than it has now")
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    expected = {f"{place}": parameter.detach() for place, parameter in enumerate(parameters)}
    momentum = matching_tensors(expected, given, f"{path}: its optimizer", exact=True)
    state = {int(place): {kind: value} for place, value in momentum.items()}
    optimizer.load_state_dict({"state": state, "param_groups": options})


def _equal(stored: object, expected: object) -> bool:
    """Whether a value from a file is the expected one; there may be tensors in it, which do not compare."""
    try:
        return bool(stored == expected)
    except RuntimeError:
        return False


@contextmanager
def stop_requests(wanted: bool) -> Iterator[list[int]]:
    """Yield a list that collects SIGINT and SIGTERM, which then do not end the process.

    Only the main thread may handle signals; elsewhere, and if not `wanted`, the list stays empty. An ignored
    signal, such as SIGINT in a shell's background jobs, stays ignored.
    """
    requests: list[int] = []
    if not wanted or threading.current_thread() is not threading.main_thread():
        yield requests
        return

    def handle(number: int, frame: object) -> None:
        if requests:  # the second request: do not wait for the step to end
            raise KeyboardInterrupt
        requests.append(number)

    untouched = (signal.SIG_IGN, None)  # None: a handler that Python did not set and cannot restore
    previous = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) not in untouched:
            previous[number] = signal.signal(number, handle)
    try:
        yield requests
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
