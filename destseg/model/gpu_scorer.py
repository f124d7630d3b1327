"""The scorer for a GPU: batches go there and maps come back while the CPU does other work.

One CUDA graph records all of it: launching kernels one by one takes longer than they do. On a CPU the same
steps run for tests only; prediction on a CPU uses `TorchScorer`.
"""

import contextlib
import threading
from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import torch

from destseg.model.networks import DeSTSegNet, fold_normalisations
from destseg.model.normalisation import normalise, row_of_constants
from destseg.model.process import check_process, plain_torch

BATCH = 32  # inputs that a GPU scores at once
FEW = 8  # inputs of a smaller lane: a graph always computes all that it takes
WARM_UP = 3  # runs before recording, in which libraries choose their algorithms
RECORDING = threading.Lock()  # only one thread of the process may record at a time


class GpuScorer:
    """A network on a GPU as a scorer. Each thread uses a lane of its own, with its stream and buffers.

    Args:
        network: in evaluation mode. The scorer uses a copy, see `in_precision`.
        size: height and width of its inputs.
        precision: one of `destseg.settings.INFERENCE_PRECISIONS`.
    """

    batch = BATCH

    def __init__(self, network: DeSTSegNet, size: tuple[int, int], precision: str) -> None:
        self.network, self.size = in_precision(network, getattr(torch, precision)), size
        self._spare: dict[int, list[Lane]] = defaultdict(list)  # by the number of inputs they take

    @plain_torch()
    def maps(self, pixels: np.ndarray) -> np.ndarray:
        """See `destseg.inference.scorer.Scorer.maps`."""
        check_process()
        counts = (count for count in (1, FEW, self.batch) if count >= len(pixels))
        with self._lane(min(counts, default=self.batch)) as lane:
            return lane.maps(pixels)

    @contextlib.contextmanager
    def _lane(self, count: int) -> Iterator["Lane"]:
        """Lend a lane for `count` inputs; make one if none is free, and keep it for later."""
        with RECORDING:
            spare = self._spare[count]
            lane = spare.pop() if spare else Lane(self.network, self.size, count)
        try:
            yield lane
        finally:
            spare.append(lane)


class Lane:
    """Pinned buffers and a stream for up to `count` inputs of one size, for one thread at a time.

    The copy of the inputs to the GPU, the networks, and the copy of the maps back are recorded once, for
    `count` inputs, and then started by one call, in the lane's own stream, beside those of other lanes.

    Args:
        network: as `in_precision` returns it.
        size: height and width of the inputs in pixels.
        count: the largest number of inputs in a call.
    """

    def __init__(self, network: DeSTSegNet, size: tuple[int, int], count: int) -> None:
        weights = next(network.parameters())
        self.network, self.size = network, size
        self.device, self.precision = weights.device, weights.dtype
        on_gpu = self.device.type == "cuda"
        self._pixels = torch.zeros((count, *size, 3), dtype=torch.uint8, pin_memory=on_gpu)
        self._maps = torch.empty((count, *size), pin_memory=on_gpu)
        self._constants = row_of_constants(size[1], self.device)  # kept: a graph holds their address
        self._graph: torch.cuda.CUDAGraph | None = None
        if on_gpu:
            with torch.cuda.device(self.device):
                self._stream = torch.cuda.Stream()
                self._done = torch.cuda.Event(blocking=count > 1)  # a long wait leaves the processor free
                self._graph = self._record(count)

    def maps(self, pixels: np.ndarray) -> np.ndarray:
        """Return the maps of n inputs (n, h, w, 3) uint8."""
        count, height, width, _ = self._pixels.shape
        fits = pixels.dtype == np.uint8 and pixels.shape[1:] == (height, width, 3)
        if not fits or not 0 < len(pixels) <= count:
            raise ValueError(
                f"pixels must be (1 to {count}, {height}, {width}, 3) uint8, got {pixels.dtype} of shape "
                f"{pixels.shape}"
            )
        self._pixels[: len(pixels)] = torch.from_numpy(pixels)
        if self._graph is None:
            self._run(len(pixels))
        else:
            self._stream.wait_stream(torch.cuda.current_stream(self.device))
            with torch.cuda.stream(self._stream):
                self._graph.replay()
                self._done.record()
            self._done.synchronize()
        return self._maps[: len(pixels)].numpy().copy()

    @torch.inference_mode()
    def _run(self, count: int) -> None:
        pixels = self._pixels[:count].to(self.device, non_blocking=True)
        maps = self.network.maps(normalise(pixels).to(self.precision))
        self._maps[:count].copy_(maps, non_blocking=True)

    def _record(self, count: int) -> torch.cuda.CUDAGraph:
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            for _ in range(WARM_UP):
                self._run(count)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
            self._run(count)
        return graph


def in_precision(network: DeSTSegNet, precision: torch.dtype) -> DeSTSegNet:
    """Return a copy in this precision, in channels-last order, normalisations merged into convolutions."""
    merged = fold_normalisations(network)
    return merged.to(precision, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]
