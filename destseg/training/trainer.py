"""The two stages of training: the student learns from the teacher, the segmentation network from both."""

import logging
import math
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from destseg.files import FilePath, as_path
from destseg.model.construction import of_today
from destseg.model.networks import DeSTSegNet
from destseg.model.tensorfile import matching_tensors
from destseg.ops.similarity import cosine_distances
from destseg.progress import Bar
from destseg.training import checkpoint, optimizers
from destseg.training.checkpoint import Plan, plan_of
from destseg.training.losses import cosine_loss, segmentation_loss
from destseg.training.resident import ResidentSynthesis
from destseg.training.synthesis import Batch, Synthesis

logger = logging.getLogger("destseg")

PUBLISHED_BATCH = 32  # the student's rate belongs to a loss summed over so many pictures
AVERAGED_SHARE = 4  # weights are averaged over the last quarter of a stage


def training_precision(wanted: str, device: torch.device) -> str:
    """Return "float32" or "bfloat16"; "auto" takes bfloat16 on GPUs and on CPUs with instructions for it.

    AVX-512's instructions for it pay on AMD's CPUs; on an Intel Xeon without AMX a step took a fifth longer
    than in float32. Other CPUs emulate bfloat16, more slowly still. Weights and losses are always float32.
    """
    if wanted != "auto":
        return wanted
    if device.type == "cpu":
        capabilities = getattr(torch.cpu, "get_capabilities", dict[str, Any])()  # from torch 2.12 on
        intel = "Intel" in capabilities.get("cpu_name", "")
        fast = capabilities.get("amx_bf16") or (capabilities.get("avx512_bf16") and not intel)
        return "bfloat16" if fast else "float32"
    return "bfloat16" if device.type == "cuda" else "float32"


def new_trainer(
    network: DeSTSegNet,
    synthesis: Synthesis,
    steps: tuple[int, int],
    precision: str,
    parts: dict[str, bool],
    cache_memory: int,
    resume: FilePath | None = None,
) -> "Trainer":
    """Return the trainer of a network, at its first step or where a checkpoint left off.

    Args:
        steps: steps of the student stage and of the segmentation stage.
        precision: as `training_precision` takes it.
        parts: which parts the network has.
        resume: the checkpoint, see `Trainer.resume`. All other arguments are as for `Trainer`.
    """
    precision = training_precision(precision, next(network.parameters()).device)
    trainer = Trainer(network, synthesis, plan_of(network, synthesis, steps, precision, parts), cache_memory)
    if resume is not None:
        trainer.resume(as_path(resume))
    return trainer


def student_loss(network: DeSTSegNet, corrupted: Tensor, clean: Tensor, rois: Tensor | None = None) -> Tensor:
    """Return the cosine loss, summed over the batch; the teacher sees the clean inputs."""
    return cosine_loss(cosine_distances(*network.features(corrupted, clean)), rois)


def fusion_loss(network: DeSTSegNet, corrupted: Tensor, masks: Tensor, rois: Tensor | None = None) -> Tensor:
    """Return focal + l1 loss of the segmentation network; teacher and student see the corrupted inputs."""
    with torch.no_grad():
        taught, learnt = network.features(corrupted)
    return segmentation_loss(network.logits(taught, learnt), masks, rois)


class Trainer:
    """Trains a network by a plan, step by step; its whole state can be saved and resumed.

    At a constant rate the weights never settle. Each stage then keeps the average of its weights and running
    statistics over its last quarter, where the published recipe keeps those of the last step. Source:
    Izmailov et al., "Averaging Weights Leads to Wider Optima" (arXiv 1803.05407).

    Args:
        network: on its device; changed in place.
        synthesis: makes the batches.
        plan: determines the run.
        cache_memory: bound in bytes on the teacher's features of clean inputs. They are computed once and
            kept if they fit, unless pictures change at each draw.
    """

    def __init__(self, network: DeSTSegNet, synthesis: Synthesis, plan: Plan, cache_memory: int) -> None:
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.synthesis, self.plan, self.cache_memory = synthesis, plan, cache_memory
        self.device = next(network.parameters()).device
        self.losses: list[Tensor] = []
        self.optimizer: Optimizer | None = None
        self.average: AveragedModel | None = None  # of the stage's network, once its last quarter has begun
        self._taught: list[Tensor] | None = None

    @property
    def total_steps(self) -> int:
        return self.plan.steps[0] + (self.plan.steps[1] if self.plan.parts["segmentation"] else 0)

    def run(
        self, workers: int, progress: bool, path: Path | None = None, minutes: float = 10.0
    ) -> list[float]:
        """Do the remaining steps and return the loss of every step.

        With a path, the state is written there every so many minutes, at the end, and when SIGINT or SIGTERM
        asks to stop. The signal then has its usual effect. Where it cannot be written, warnings say so.

        Raises:
            RuntimeError: the loss is no longer finite.
            KeyboardInterrupt: a signal asked to stop.
        """
        written, unsaved = time.monotonic(), None
        steps = range(len(self.losses), self.total_steps)
        bar = Bar("training", self.total_steps, steps.start, wanted=progress)
        with bar, checkpoint.stop_requests(wanted=path is not None) as requests:
            for step, batch in zip(steps, self._batches(steps, workers), strict=True):
                self.losses.append(self.step(step, batch))
                bar.describe("student" if step < self.plan.steps[0] else "segmentation")
                asked, last = bool(requests), step == steps[-1]  # a later signal waits for the next step
                due = path and (asked or last or time.monotonic() - written > 60 * minutes)
                if due or last or step % 10 == 0:  # reading a loss waits for the device
                    bar.describe(bar.what, loss=f"{self._finite_loss(step):.4f}")
                bar.update()
                if path and due:  # also at the end: calibration and saving are still to come
                    unsaved = self._try_to_save(path, quiet=asked or last or unsaved is not None)
                    written = time.monotonic()
                if asked:
                    break
        self.network.eval()
        if unsaved is not None and len(self.losses) == self.total_steps:
            logger.warning("%s; all is trained, but the model is in memory only until it is saved", unsaved)
        elif unsaved is not None:
            logger.warning("%s; the steps since the last checkpoint are lost", unsaved)
        if requests:  # the handlers are back in place: the signal does what it always does
            signal.raise_signal(requests[0])
            done = f"step {len(self.losses)} of {self.total_steps}"  # an application's own handler may return
            assert path is not None  # without one there are no requests
            advice = f"go on with resume={str(path)!r}" if path.exists() else str(unsaved)
            raise KeyboardInterrupt(f"stopped at {done}; {advice}")
        return torch.stack(self.losses).tolist() if self.losses else []

    def step(self, step: int, batch: Batch) -> Tensor:
        """Do one step of the stage that its number belongs to, and return its loss, detached."""
        in_student_stage = step < self.plan.steps[0]
        if self.optimizer is None or step == self.plan.steps[0]:
            self.optimizer = self._enter(in_student_stage)
        first, count = (0, self.plan.steps[0]) if in_student_stage else self.plan.steps
        optimizers.set_rates(self.optimizer, (step - first + 0.5) / count)
        corrupted = batch.corrupted.to(self.device, non_blocking=True)
        rois = None if batch.rois is None else batch.rois.to(self.device, non_blocking=True)
        loss_of = self._student_loss if in_student_stage else self._fusion_loss
        with self._autocast():
            loss = loss_of(corrupted, batch, rois)
        # At the published scale whatever the batch: the student's rate belongs to a sum over 32 pictures.
        scaled = loss * (PUBLISHED_BATCH / len(corrupted)) if in_student_stage else loss
        self.optimizer.zero_grad()
        scaled.backward()
        self.optimizer.step()
        self._keep_average(step)
        return loss.detach()

    def _batches(self, steps: range, workers: int) -> Iterator[Batch]:
        """Yield the batches of some steps; on a GPU the same batches are made there."""
        if self.device.type == "cuda":
            return ResidentSynthesis(self.synthesis, self.device, self.cache_memory).batches(steps, workers)
        return self.synthesis.batches(steps, workers)

    def _keep_average(self, step: int) -> None:
        """In a stage's last quarter, average the weights; at its end, replace them by their average."""
        if self.average is None and not self._averaged(step):
            return
        network = self._trained_network(step < self.plan.steps[0])
        if self.average is None:
            self.average = AveragedModel(network, use_buffers=True)
        optimizers.update_average(self.average, network)
        if not self._averaged(step):
            network.load_state_dict(self.average.module.state_dict())
            self.average = None

    def _averaged(self, step: int) -> int:
        """Return of how many steps there is an average after this one: of none after the last of a stage."""
        if self.optimizer is None or optimizers.settles(self.optimizer):
            return 0
        stage = 0 if step < self.plan.steps[0] else 1
        end = sum(self.plan.steps[: stage + 1])
        return 0 if step == end - 1 else max(0, step + 1 - end + self.plan.steps[stage] // AVERAGED_SHARE)

    def _trained_network(self, student_stage: bool) -> nn.Module:
        network = self.network.student_net if student_stage else self.network.segmentation_net
        assert network is not None  # there is no second stage without a segmentation network
        return network

    def _finite_loss(self, step: int) -> float:
        loss = self.losses[-1].item()
        if not math.isfinite(loss):
            raise RuntimeError(
                f"training diverged: the loss of step {step} is {loss}; try other pictures or another seed"
                + (', or precision="float32"' if self.plan.precision != "float32" else "")
            )
        return loss

    def _enter(self, student_stage: bool) -> Optimizer:
        """Put every part into the mode that the stage needs, and return the stage's optimizer."""
        self.network.eval()
        self.network.student_net.requires_grad_(student_stage)
        self._trained_network(student_stage).train()
        if student_stage:
            self._remember_teacher()
            return optimizers.student_optimizer(self.network)
        self._taught = None
        return optimizers.segmentation_optimizer(self.network)

    def _fusion_loss(self, corrupted: Tensor, batch: Batch, rois: Tensor | None) -> Tensor:
        return fusion_loss(self.network, corrupted, batch.masks.to(self.device), rois)

    def _student_loss(self, corrupted: Tensor, batch: Batch, rois: Tensor | None) -> Tensor:
        if self._taught is None:
            return student_loss(self.network, corrupted, batch.clean.to(self.device), rois)
        taught = [level[batch.indices].to(self.device) for level in self._taught]
        denoising = self.plan.parts["denoising"]
        seen, known = (corrupted, None) if denoising else (batch.clean.to(self.device), taught)
        return cosine_loss(cosine_distances(taught, self.network.learnt(seen, known)), rois)

    def _remember_teacher(self) -> None:
        """Compute the teacher's features of all clean inputs once, if that pays and they fit."""
        normals, batch_size = self.synthesis.normals, self.plan.batch_size
        height, width = self.plan.image_size
        size = len(normals) * height * width * 4 * (64 / 16 + 128 / 64 + 256 / 256)
        seen = self.plan.steps[0] * batch_size
        if self.synthesis.changes_pictures or size > self.cache_memory or seen < len(normals):
            return
        taught: list[Tensor] = []
        for first in range(0, len(normals), batch_size):
            # As many at a time as in a step, and laid out alike: then the features, and what is computed with
            # them, are rounded as if the teacher were asked at every step.
            chunk = [index % len(normals) for index in range(first, first + batch_size)]
            clean = self.synthesis.clean(chunk).to(self.device)
            with torch.no_grad(), self._autocast():
                levels = self.network.teacher_net(clean)
            taught = taught or [
                torch.empty_like(
                    level[:1].expand(len(normals), -1, -1, -1), memory_format=torch.channels_last
                )
                for level in levels
            ]
            for kept, level in zip(taught, levels, strict=True):
                kept[chunk] = level
        self._taught = taught

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.plan.precision == "bfloat16")

    def save(self, path: Path) -> None:
        """Write a checkpoint: everything that the next step depends on."""
        checkpoint.write(path, self.plan, self.network, self.optimizer, self.average, self.losses)

    def _try_to_save(self, path: Path, quiet: bool) -> OSError | None:
        """Write a checkpoint, or else return the error, and warn unless `quiet`."""
        try:
            self.save(path)
        except OSError as error:
            if not quiet:
                logger.warning("%s; training goes on without it", error)
            return error
        return None

    def resume(self, path: Path) -> None:
        """Continue from a checkpoint written by `save`; raises what `checkpoint.read` raises."""
        state = checkpoint.read(path, self.plan)
        expected = checkpoint.learnt_tensors(self.network)
        source = f"{path}: its network"
        weights = matching_tensors(expected, of_today(state["network"], source), source, exact=True)
        # No thresholds belong to these yet, so they stay what they are today.
        shares = ("memory_bank.weight", "memory_bank.distance_weight")
        weights = {name: tensor for name, tensor in weights.items() if name not in shares}
        self.network.load_state_dict(weights, strict=False)
        self.losses = list(state["losses"].to(self.device))
        student_stage = len(self.losses) <= self.plan.steps[0]
        averaged = 0
        if self.losses:
            self.optimizer = self._enter(student_stage)
            checkpoint.load_optimizer(path, self.optimizer, state["optimizer"])
            averaged = self._averaged(len(self.losses) - 1)
        if averaged:
            self.average = AveragedModel(self._trained_network(student_stage), use_buffers=True)
            expected = self.average.state_dict()
            tensors = matching_tensors(expected, state["average"], f"{path}: its average", exact=True)
            self.average.load_state_dict(tensors)
        if averaged != (int(self.average.n_averaged) if self.average else len(state["average"])):
            raise ValueError(f"{path}: its average must be that of {averaged} steps")
