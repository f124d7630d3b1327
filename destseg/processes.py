"""Several processes, started by torchrun, that train one network, each on its share of every batch."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from destseg.losses import at_least_single


@dataclass(frozen=True)
class Processes:
    """The processes that train together."""

    number: int = 0  # of this one
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes files and talks to people."""
        return self.number == 0


def current() -> Processes:
    """Return what torchrun says in the environment; without it there is one process."""
    return Processes(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))


def check_batch(batch_size: int, count: int) -> None:
    """Raise ValueError unless all of several processes get as many pictures of a batch, at least 2."""
    if count > 1 and (batch_size % count or batch_size < 2 * count):
        raise ValueError(
            f"batch_size must give each of {count} processes as many pictures, at least 2, got {batch_size}"
        )


@contextmanager
def joined(device: torch.device, network: nn.Module) -> Iterator[None]:
    """Connect the processes, if there are several; the network's normalisations take their batches as one."""
    if current().count == 1:
        yield
        return
    alone = not dist.is_initialized()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if alone:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    norms = [module for module in network.modules() if type(module) is nn.BatchNorm2d]
    try:
        for norm in norms:
            norm.__class__ = SharedBatchNorm2d
        yield
    finally:
        for norm in norms:
            norm.__class__ = nn.BatchNorm2d
        if alone:
            dist.destroy_process_group()


class SharedBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation over the batches of all processes, which must be of one size.

    torch's SyncBatchNorm is for GPUs only; this one is the same on every device.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
        count = dist.get_world_size()
        values, each = at_least_single(x), [1, -1, 1, 1]
        mean = _Sum.apply(values.mean(dim=(0, 2, 3))) / count
        centred = values - mean.view(each)
        variance = _Sum.apply(centred.square().mean(dim=(0, 2, 3))) / count
        with torch.no_grad():
            samples = count * x.numel() // x.shape[1]
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (samples / (samples - 1)), self.momentum)
            self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale.view(each) + self.bias.view(each)).to(x.dtype)


class _Sum(torch.autograd.Function):
    """The sum over all processes; what each makes of it changes with every one's part."""

    @staticmethod
    def forward(ctx: Any, part: Tensor) -> Tensor:
        return summed(part)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        return summed(slope)


class _Loss(nn.Module):
    """A loss as a module, which is what DistributedDataParallel takes."""

    def __init__(self, trained: nn.Module, loss: Callable[..., Tensor]) -> None:
        super().__init__()
        self.trained, self.loss = trained, loss

    def forward(self, *arguments: Any) -> Tensor:
        return self.loss(*arguments)


def shared(trained: nn.Module, loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return a loss of a network whose gradients become the mean over all processes'."""
    return DistributedDataParallel(_Loss(trained, loss))


def summed(value: Tensor) -> Tensor:
    """Return the sum of a value over all processes; a GPU is not waited for."""
    total = value.detach().clone()
    if current().count > 1:
        dist.all_reduce(total)
    return total


def weight(images: Tensor, regions: Tensor | None) -> Tensor:
    """Return what the loss of this process's images (n, c, h, w) weighs: 1 on average, over all processes.

    A mean over the pixels that count is so weighted the same over a batch as over its shares: exactly where
    the sides are multiples of 16, else nearly.

    Args:
        regions: as those of a `destseg.synthesis.Batch`.
    """
    counting = images.new_full((), images[:, 0].numel())
    if regions is not None:
        counting = regions.sum().to(images.dtype)
    return counting * (current().count / summed(counting).clamp(min=1))


def any_asked(asked: bool, device: torch.device) -> bool:
    """Whether any process has been asked something; they agree on the answer."""
    return asked if current().count == 1 else bool(summed(torch.tensor(float(asked), device=device)) > 0)
