"""Scoring at a GPU's own pace: pictures go there, maps and scores come back while the CPU does other work.

In half precision all of it is recorded as one CUDA graph. On a CPU the same steps are taken, for tests to see
them; prediction there does not go this way.
"""

import contextlib
import copy
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from destseg.images import normalise, row_of_constants
from destseg.networks import DeSTSegNet, folded
from destseg.ops.destmap import destmap_of_features
from destseg.presets import torch_device
from destseg.scoring import FRAMES_AT_ONCE, largest, resized_maps

WARM_UP = 3  # runs before recording, in which libraries choose their algorithms
INFERENCE_PRECISIONS = ("float32", "float16", "bfloat16")
RECORDING = threading.Lock()  # of the whole process: while one thread records, no other one may


class GraphScores(NamedTuple):
    """What a network makes of n pictures, in CPU memory; overwritten when the next ones are started."""

    anomaly_maps: Tensor  # (n, h, w) float32 in [0, 1]
    scores: Tensor  # (n,) float64
    pixel_scores: Tensor  # (n,) float64; see `destseg.scoring.scores`


class GraphScorer:
    """Scores up to `count` pictures of one size. One thread at a time starts; any may wait.

    On a GPU the copy of the pictures to it, the networks, the scores and the copies back have a stream of
    their own, beside those of other scorers. In half precision they are recorded once, for `count` pictures,
    and then started together by one call; in float32, where starting them one by one is small beside the
    networks' time, as on a CPU, they are not.

    Args:
        network: as `in_precision` returns it; later changes to its weights count.
        size: height and width of the pictures in pixels.
        count: how many pictures there are in a call at most.
    """

    def __init__(self, network: DeSTSegNet, size: tuple[int, int], count: int = 1) -> None:
        weights = next(network.parameters())
        self.network, self.size = network, size
        self.device, self.precision = weights.device, weights.dtype
        on_gpu = self.device.type == "cuda"
        shape = (count, *size)
        self._pixels = torch.zeros((*shape, 3), dtype=torch.uint8, pin_memory=on_gpu)
        self._results = GraphScores(
            torch.empty(shape, pin_memory=on_gpu),
            *(torch.empty(count, dtype=torch.float64, pin_memory=on_gpu) for _ in range(2)),
        )
        self._constants = row_of_constants(
            size[1], self.device
        )  # a graph needs them where they are, for ever
        self._graph: torch.cuda.CUDAGraph | None = None
        if on_gpu:
            with torch.cuda.device(self.device):
                self._stream = torch.cuda.Stream()
                self._done = torch.cuda.Event(blocking=count > 1)  # who waits long leaves the processor
                if self.precision != torch.float32:
                    self._graph = self._recorded(count)

    def __call__(self, pixels: Sequence[np.ndarray] | np.ndarray) -> GraphScores:
        """Score n pictures, each (h, w, 3) uint8."""
        results = self.start(pixels)
        self.wait()
        return results

    def start(self, pixels: Sequence[np.ndarray] | np.ndarray) -> GraphScores:
        """Start to score n pictures, each (h, w, 3) uint8; the results are there after `wait`."""
        count, height, width, _ = self._pixels.shape
        if not 0 < len(pixels) <= count:
            raise ValueError(f"there must be 1 to {count} pictures, got {len(pixels)}")
        for place, picture in zip(self._pixels.numpy(), pixels, strict=False):
            if picture.dtype != np.uint8 or picture.shape != place.shape:
                got = f"got {picture.dtype} of shape {picture.shape}"
                raise ValueError(f"each picture must be ({height}, {width}, 3) uint8, {got}")
            np.copyto(place, picture)
        if self.device.type != "cuda":
            self._run(len(pixels))
        else:
            self._stream.wait_stream(torch.cuda.current_stream(self.device))
            with torch.cuda.stream(self._stream):
                if self._graph is None:
                    self._run(len(pixels))
                else:
                    self._graph.replay()
                self._done.record()
        return GraphScores(*(kept[: len(pixels)] for kept in self._results))

    def wait(self) -> None:
        """Return when what was started is done; at once if nothing was."""
        if self.device.type == "cuda":
            self._done.synchronize()

    @torch.inference_mode()
    def _run(self, count: int) -> None:
        network = self.network
        pixels = self._pixels[:count].to(self.device, non_blocking=True)
        taught, learnt = network.features(normalise(pixels).to(self.precision))
        if network.segmentation_net is None:
            result = destmap_of_features(taught, learnt, self.size)
        else:
            result = network.logits(taught, learnt).float().sigmoid()
        maps = resized_maps(result[:, 0].float().clamp(0, 1), self.size)
        highest = largest(maps.flatten(1), self.size)
        for kept, value in zip(self._results, (maps, highest.mean(dim=1), highest[:, -1]), strict=True):
            kept[:count].copy_(value, non_blocking=True)

    def _recorded(self, count: int) -> torch.cuda.CUDAGraph:
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            for _ in range(WARM_UP):
                self._run(count)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
            self._run(count)
        return graph


class GpuNetwork:
    """A network on a GPU, in place of itself wherever pictures are scored. Threads may use it at once.

    Called with up to `FRAMES_AT_ONCE` pictures (n, h, w, 3) uint8, it returns their anomaly maps (n, h, w)
    float32 in CPU memory.

    Args:
        network: in evaluation mode. In half precision it is copied when first needed.
        size: height and width of its input in pixels.
        precision: one of `INFERENCE_PRECISIONS`.
    """

    def __init__(self, network: DeSTSegNet, size: tuple[int, int], precision: str) -> None:
        self.network, self.size, self.precision = network, size, precision
        self._spare: dict[int, list[GraphScorer]] = defaultdict(list)  # by their counts

    def __call__(self, pixels: np.ndarray) -> Tensor:
        with self.scorer(1 if len(pixels) == 1 else FRAMES_AT_ONCE) as scorer:
            return scorer(pixels).anomaly_maps.clone()

    @contextlib.contextmanager
    def scorer(self, count: int) -> Iterator[GraphScorer]:
        """Lend a scorer of so many pictures, made if there is none to spare; it is kept for later."""
        with RECORDING:
            self.network = in_precision(self.network, getattr(torch, self.precision))
            spare = self._spare[count]
            scorer = spare.pop() if spare else GraphScorer(self.network, self.size, count)
        try:
            yield scorer
        finally:
            scorer.wait()
            spare.append(scorer)


def in_precision(network: DeSTSegNet, precision: torch.dtype) -> DeSTSegNet:
    """Return a network whose weights are of that precision: itself, or a copy in channels-last order."""
    if next(network.parameters()).dtype == precision:
        return network
    return copy.deepcopy(network).to(precision, memory_format=torch.channels_last)  # type: ignore[call-overload]


def scoring(network: DeSTSegNet, size: tuple[int, int], precision: str) -> "DeSTSegNet | GpuNetwork":
    """Return what scores in place of a network: a `GpuNetwork` on a GPU, elsewhere a copy, see `folded`.

    Merging the normalisations saves an eighth of the light network's time on a CPU.
    """
    if next(network.parameters()).device.type == "cuda":
        return GpuNetwork(network, size, precision)
    return folded(network)


def checked_precision(wanted: str, device: str) -> str:
    """Return one of `INFERENCE_PRECISIONS` as it is, or raise ValueError that says what is allowed.

    Other devices than GPUs take float32 alone: CPUs only emulate float16, more slowly.
    """
    if wanted not in INFERENCE_PRECISIONS:
        allowed = ", ".join(INFERENCE_PRECISIONS)
        raise ValueError(f"inference_precision must be one of {allowed}, got {wanted!r}")
    if wanted != "float32" and torch_device(device).type != "cuda":
        where = f"on device {device!r}, which is no GPU"
        raise ValueError(f"inference_precision must be float32 {where}, got {wanted!r}")
    return wanted
