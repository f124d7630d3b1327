"""The two stages of training: first the student learns the teacher, then the segmentation network both."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from tqdm import tqdm

from destseg.files import read_tensors, write_tensors
from destseg.losses import cosine_loss, segmentation_loss
from destseg.networks import DeSTSegNet
from destseg.ops.similarity import cosine_distances
from destseg.synthesis import Batch, Synthesis, prefetched

PUBLISHED_BATCH = 32  # the student's rate belongs to a loss summed over so many pictures
STUDENT_RATE = 0.4
RESIDUAL_RATE, HEAD_RATE = 0.1, 0.01  # of the segmentation network
PRECISIONS = ("auto", "float32", "bfloat16")
CHECKPOINT_FORMAT = "destseg checkpoint 1"


@dataclass(frozen=True)
class Plan:
    """What a run is determined by; a checkpoint is continued only by a run with the same plan."""

    steps: tuple[int, int]  # of the student stage and the segmentation stage
    batch_size: int
    seed: int
    image_size: tuple[int, int]
    rotate: str
    flip: str
    pictures: int
    precision: str  # "float32" or "bfloat16"
    denoising: bool
    encoder_decoder: bool
    segmentation: bool


def plan_of(synthesis: Synthesis, steps: tuple[int, int], precision: str, parts: dict[str, bool]) -> Plan:
    """Return the plan of training a network of these parts with these batches."""
    return Plan(
        steps=(steps[0], steps[1]),
        batch_size=synthesis.batch_size,
        seed=synthesis.seed,
        image_size=synthesis.normals.size,
        rotate=str(synthesis.rotate),
        flip=synthesis.flip,
        pictures=len(synthesis.normals),
        precision=precision,
        **parts,
    )


def check_precision(wanted: str) -> None:
    if wanted not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {wanted!r}")


def check_schedule(steps: Any, batch_size: Any) -> None:
    if len(steps) != 2 or not all(isinstance(count, int) and count >= 0 for count in steps):
        raise ValueError(f"steps must be two whole numbers, (student, segmentation), got {steps!r}")
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size must be a whole number of at least 1, got {batch_size!r}")


def training_precision(wanted: str, device: torch.device) -> str:
    """Return "float32" or "bfloat16"; "auto" takes the latter on GPUs and on CPUs with matrix units for it.

    Elsewhere CPUs only emulate bfloat16, more slowly than float32. Weights and losses are float32 throughout.
    """
    if wanted != "auto":
        return wanted
    if device.type == "cpu":
        capabilities = getattr(torch.cpu, "get_capabilities", dict[str, bool])()  # torch 2.12 has it, 2.6 not
        return "bfloat16" if capabilities.get("amx_bf16") else "float32"
    return "bfloat16" if device.type == "cuda" else "float32"


def student_optimizer(network: DeSTSegNet) -> Optimizer:
    return SGD(network.student_net.parameters(), lr=STUDENT_RATE, momentum=0.9, weight_decay=1e-4)


def segmentation_optimizer(network: DeSTSegNet) -> Optimizer:
    assert network.segmentation_net is not None  # the trainer skips the stage without it
    groups = [
        {"params": network.segmentation_net.res.parameters(), "lr": RESIDUAL_RATE},
        {"params": network.segmentation_net.head.parameters(), "lr": HEAD_RATE},
    ]
    return SGD(groups, momentum=0.9, weight_decay=1e-4)


def student_loss(network: DeSTSegNet, corrupted: Tensor, clean: Tensor) -> Tensor:
    """Return the cosine loss, summed over the batch; the teacher sees the clean pictures."""
    return cosine_loss(cosine_distances(*network.features(corrupted, clean)))


def fusion_loss(network: DeSTSegNet, corrupted: Tensor, masks: Tensor) -> Tensor:
    """Return focal + l1 of the segmentation network; teacher and student both see the corrupted pictures."""
    with torch.no_grad():
        taught, learnt = network.features(corrupted)
    return segmentation_loss(network.logits(taught, learnt), masks)


class Trainer:
    """Runs a plan on a network, step by step; its whole state can be written down and continued.

    Args:
        network: on its device; changed in place.
        synthesis: makes the batches.
        plan: what is to be done.
        cache_memory: bound in bytes on the teacher's features of clean pictures, which are computed once
            and kept when they fit, unless pictures are rotated or flipped.
    """

    def __init__(self, network: DeSTSegNet, synthesis: Synthesis, plan: Plan, cache_memory: int) -> None:
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.synthesis, self.plan, self.cache_memory = synthesis, plan, cache_memory
        self.device = next(network.parameters()).device
        self.losses: list[Tensor] = []
        self.optimizer: Optimizer | None = None
        self._taught: list[Tensor] | None = None

    @property
    def total_steps(self) -> int:
        return self.plan.steps[0] + (self.plan.steps[1] if self.plan.segmentation else 0)

    def run(
        self, workers: int, progress: bool, checkpoint: Path | None = None, minutes: float = 10.0
    ) -> list[float]:
        """Do the steps that are left and return the loss of every step.

        With a checkpoint path, the state is written there every so many minutes and when SIGINT or SIGTERM
        asks to stop; then the signal takes its usual course.
        """
        written = time.monotonic()
        steps = range(len(self.losses), self.total_steps)
        bar = tqdm(total=self.total_steps, initial=steps.start, disable=None if progress else True)
        with bar, stop_requests(wanted=checkpoint is not None) as requests:
            for step, batch in zip(steps, prefetched(self.synthesis.batch, steps, workers), strict=True):
                self.losses.append(self.step(step, batch))
                bar.set_description("student" if step < self.plan.steps[0] else "segmentation", refresh=False)
                if not bar.disable and step % 10 == 0:  # reading a loss waits for the device
                    bar.set_postfix(loss=f"{self.losses[-1].item():.4f}", refresh=False)
                bar.update()
                due = requests or step == steps[-1] or time.monotonic() - written > 60 * minutes
                if checkpoint and due:  # also at the end: calibration and saving are still to come
                    self.save(checkpoint)
                    written = time.monotonic()
                if requests:
                    break
        self.network.eval()
        if requests:  # the handlers are back in place: the signal does what it always does
            signal.raise_signal(requests[0])
        return torch.stack(self.losses).tolist() if self.losses else []

    def step(self, step: int, batch: Batch) -> Tensor:
        """Do one step of the stage that its number belongs to, and return its loss, detached."""
        in_student_stage = step < self.plan.steps[0]
        if self.optimizer is None or step == self.plan.steps[0]:
            self.optimizer = self._enter(in_student_stage)
        corrupted = batch.corrupted.to(self.device, non_blocking=True)
        with self._autocast():
            if in_student_stage:
                loss = self._student_loss(corrupted, batch)
                # Of the published scale whatever the batch: its rate belongs to a sum over 32 pictures.
                scaled = loss * (PUBLISHED_BATCH / len(corrupted))
            else:
                loss = scaled = fusion_loss(self.network, corrupted, batch.masks.to(self.device))
        self.optimizer.zero_grad()
        scaled.backward()
        self.optimizer.step()
        return loss.detach()

    def _enter(self, student_stage: bool) -> Optimizer:
        """Put every part into the mode its stage wants, and make the stage's optimiser."""
        network = self.network
        network.eval()
        network.student_net.requires_grad_(student_stage)
        if student_stage:
            network.student_net.train()
            self._remember_teacher()
            return student_optimizer(network)
        self._taught = None
        assert network.segmentation_net is not None
        network.segmentation_net.train()
        return segmentation_optimizer(network)

    def _student_loss(self, corrupted: Tensor, batch: Batch) -> Tensor:
        if self._taught is None:
            return student_loss(self.network, corrupted, batch.clean.to(self.device))
        taught = [level[batch.indices].to(self.device) for level in self._taught]
        seen = corrupted if self.plan.denoising else batch.clean.to(self.device)
        return cosine_loss(cosine_distances(taught, self.network.student_net(seen)))

    def _remember_teacher(self) -> None:
        """Compute the teacher's features of all clean pictures once, if that pays and they fit."""
        normals, batch_size = self.synthesis.normals, self.plan.batch_size
        height, width = self.plan.image_size
        size = len(normals) * height * width * 4 * (64 / 16 + 128 / 64 + 256 / 256)
        seen = self.plan.steps[0] * batch_size
        if self.synthesis.changes_pictures or size > self.cache_memory or seen < len(normals):
            return
        chunks = []
        for first in range(0, len(normals), batch_size):
            clean = self.synthesis.clean(range(first, min(first + batch_size, len(normals))))
            with torch.no_grad(), self._autocast():
                chunks.append(self.network.teacher_net(clean.to(self.device)))
        self._taught = [torch.cat(levels) for levels in zip(*chunks, strict=True)]

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.plan.precision == "bfloat16")

    def save(self, path: Path) -> None:
        """Write everything that the next step depends on."""
        state = {
            "format": CHECKPOINT_FORMAT,
            "plan": plain(self.plan),
            "network": trained(self.network),
            "optimizer": self.optimizer.state_dict() if self.optimizer else {},
            "losses": torch.stack(self.losses).cpu() if self.losses else torch.empty(0),
        }
        write_tensors(path, state)

    def resume(self, path: Path) -> None:
        """Continue from a file written by `save`.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is no checkpoint, is damaged, or belongs to another plan; the difference is named.
        """
        state = read_tensors(path)
        if state.get("format") != CHECKPOINT_FORMAT:
            raise ValueError(f"{path} is no checkpoint of this version of destseg")
        then, now = state["plan"], plain(self.plan)
        changed = [
            f"{name} was {then.get(name)!r}, now {now[name]!r}" for name in now if then.get(name) != now[name]
        ]
        if changed:
            raise ValueError(f"{path} belongs to another run: {'; '.join(changed)}")
        self.network.load_state_dict(state["network"], strict=False)
        self.losses = list(state["losses"].to(self.device))
        if state["optimizer"]:
            self.optimizer = self._enter(len(self.losses) <= self.plan.steps[0])
            self.optimizer.load_state_dict(state["optimizer"])


def trained(network: nn.Module) -> dict[str, Tensor]:
    """Return the state dict without the teacher, which training leaves as it is."""
    return {
        name: value for name, value in network.state_dict().items() if not name.startswith("teacher_net.")
    }


def plain(plan: Plan) -> dict[str, Any]:
    """Return the plan as values that a file of tensors may hold and that compare equal when read back."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(plan).items()}


@contextmanager
def stop_requests(wanted: bool) -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM into the list that is yielded, instead of letting them end the process.

    Only the main thread may handle signals; elsewhere, and where not wanted, the list stays empty.
    """
    requests: list[int] = []
    if not wanted or threading.current_thread() is not threading.main_thread():
        yield requests
        return

    def handle(number: int, frame: object) -> None:
        if requests:  # asked a second time: do not wait for the step to end
            raise KeyboardInterrupt
        requests.append(number)

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield requests
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
