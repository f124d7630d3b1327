"""The scorers that compute with torch: on a CPU, on a GPU, and as the published implementation does."""

from functools import partial

import numpy as np
import torch

from destseg.inference.scorer import Scorer
from destseg.model.construction import torch_device
from destseg.model.gpu_scorer import GpuScorer
from destseg.model.networks import DeSTSegNet, fold_normalisations, resize
from destseg.model.normalisation import normalise
from destseg.model.process import check_process, in_one_thread, plain_torch


class TorchScorer:
    """A network as a scorer, on any device, one input after the other.

    Args:
        network: in evaluation mode, on its device. The scorer uses a copy with normalisations merged into
            convolutions, which saves an eighth of the light network's time on a CPU.
        size: height and width of its inputs.
    """

    batch = 1  # two inputs take longer together than one after the other (2-core x86-64, two threads)

    def __init__(self, network: DeSTSegNet, size: tuple[int, int]) -> None:
        self.network, self.size = fold_normalisations(network), size

    def maps(self, pixels: np.ndarray) -> np.ndarray:
        """See `Scorer.maps`."""
        return in_one_thread(partial(self._maps, pixels))

    @plain_torch()
    def _maps(self, pixels: np.ndarray) -> np.ndarray:
        weights = next(self.network.parameters())
        with torch.inference_mode():
            images = normalise(torch.from_numpy(pixels).to(weights.device))
            if not weights.is_contiguous(memory_format=torch.channels_last):
                images = images.contiguous()  # torch computes channels last if either is: let weights decide
            return self.network.maps(images).cpu().numpy()


class PublishedScorer:
    """Inference as published: eager, float32, in torch's default memory order, running the teacher twice."""

    batch = 1

    def __init__(self, network: DeSTSegNet, size: tuple[int, int]) -> None:
        self.network = network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        self.size = size

    def maps(self, pixels: np.ndarray) -> np.ndarray:
        """See `Scorer.maps`."""
        with torch.inference_mode():
            images = normalise(pixels).contiguous()
            taught = self.network.teacher_net(images)
            output = self.network(images)
            assert output.probability is not None  # the published network has a segmentation part
            maps = resize(output.probability, self.size)
            if self.network.memory_bank is not None:
                maps = self.network.fused(maps, taught, output.destmap)
            return maps[:, 0].numpy()


def scorer_of(network: DeSTSegNet, size: tuple[int, int], precision: str) -> Scorer:
    """Return the fastest scorer for the device that a network is on.

    Args:
        network: as `ready_to_predict` returns it.
        size: height and width of its inputs.
        precision: on a GPU one of `destseg.settings.INFERENCE_PRECISIONS`; elsewhere float32.
    """
    if next(network.parameters()).device.type == "cuda":
        return GpuScorer(network, size, precision)
    return TorchScorer(network, size)


def ready_to_predict(network: DeSTSegNet, device: torch.device) -> DeSTSegNet:
    """Put a network, in place, into evaluation mode, onto its device, and into the faster memory order.

    On CPUs channels last is faster for the light network (53 ms per picture instead of 59), but slower for
    the published one (340 instead of 305; 2-core x86-64 with AVX-512, two threads, 2026-11-22).

    Raises RuntimeError where `check_process` does.
    """
    check_process()
    last = network.light or device.type != "cpu"
    layout = torch.channels_last if last else torch.contiguous_format
    network = network.eval().requires_grad_(False).to(device)
    return network.to(memory_format=layout)  # type: ignore[call-overload]


def check_inference_precision(wanted: str, device: str) -> None:
    """Raise ValueError where a device does not compute in the wanted precision.

    Only GPUs compute in other precisions than float32: CPUs just emulate float16, more slowly.
    """
    if wanted != "float32" and torch_device(device).type != "cuda":
        where = f"on device {device!r}, which is no GPU"
        raise ValueError(f"inference_precision must be float32 {where}, got {wanted!r}")
