"""Scoring at a GPU's own pace: half precision, and all from bytes to scores recorded as one CUDA graph."""

import copy
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from destseg.images import normalise
from destseg.networks import DeSTSegNet
from destseg.ops.destmap import destmap_of_features
from destseg.scoring import largest, resized_maps

WARM_UP = 3  # runs before recording, in which libraries choose their algorithms


class GraphScores(NamedTuple):
    """What a network makes of some pictures, in CPU memory; overwritten by the next call."""

    anomaly_maps: Tensor  # (n, h, w) float32 in [0, 1]
    scores: Tensor  # (n,) float64
    pixel_scores: Tensor  # (n,) float64; see `destseg.scoring.scores`


class GraphScorer:
    """Scores pictures, always as many and always of one size.

    On a GPU, the copy of the pictures to it, the networks, the scores and the copies back are recorded once
    and then started together by one call. Elsewhere the same steps are taken one by one.

    Args:
        network: in evaluation mode; it is copied, so later changes to it do not count.
        size: height and width of the pictures in pixels.
        count: how many pictures there are in each call.
        precision: of weights and features: torch.float16, torch.bfloat16 or torch.float32.
    """

    def __init__(
        self,
        network: DeSTSegNet,
        size: tuple[int, int],
        count: int = 1,
        precision: torch.dtype = torch.float16,
    ) -> None:
        self.network = copy.deepcopy(network).eval().to(precision, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.size, self.precision = size, precision
        self.device = next(self.network.parameters()).device
        on_gpu = self.device.type == "cuda"
        shape = (count, *size)
        self._pixels = torch.zeros((*shape, 3), dtype=torch.uint8, pin_memory=on_gpu)
        self._results = GraphScores(
            torch.empty(shape, pin_memory=on_gpu),
            *(torch.empty(count, dtype=torch.float64, pin_memory=on_gpu) for _ in range(2)),
        )
        self._graph = self._recorded() if on_gpu else None

    def __call__(self, pixels: np.ndarray) -> GraphScores:
        """Score pictures (count, h, w, 3) uint8. One thread at a time."""
        if pixels.dtype != np.uint8 or pixels.shape != tuple(self._pixels.shape):
            got = f"got {pixels.dtype} of shape {pixels.shape}"
            raise ValueError(f"pixels must be {tuple(self._pixels.shape)} uint8, {got}")
        np.copyto(self._pixels.numpy(), pixels)
        if self._graph is None:
            self._run()
        else:
            self._graph.replay()
            torch.cuda.current_stream(self.device).synchronize()
        return self._results

    @torch.inference_mode()
    def _run(self) -> None:
        network = self.network
        pixels = self._pixels.to(self.device, non_blocking=True)
        taught, learnt = network.features(normalise(pixels).to(self.precision))
        if network.segmentation_net is None:
            result = destmap_of_features(taught, learnt, self.size)
        else:
            result = network.logits(taught, learnt).float().sigmoid()
        maps = resized_maps(result[:, 0].float().clamp(0, 1), self.size)
        highest = largest(maps.flatten(1), self.size)
        for kept, value in zip(self._results, (maps, highest.mean(dim=1), highest[:, -1]), strict=True):
            kept.copy_(value, non_blocking=True)

    def _recorded(self) -> torch.cuda.CUDAGraph:
        with torch.cuda.device(self.device):
            aside = torch.cuda.Stream()
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):
                for _ in range(WARM_UP):
                    self._run()
            torch.cuda.current_stream().wait_stream(aside)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self._run()
        return graph
