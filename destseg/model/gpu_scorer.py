"""The scorer for a GPU: batches go there and maps come back while the CPU does other work.

In half precision all of it is recorded as one CUDA graph. On a CPU the same steps are taken, for tests to see
them; prediction there does not go this way.
"""

import contextlib
import copy
import threading
from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import torch

from destseg.model.networks import DeSTSegNet
from destseg.model.normalisation import normalise, row_of_constants

BATCH = 32  # inputs that a GPU scores at once
WARM_UP = 3  # runs before recording, in which libraries choose their algorithms
RECORDING = threading.Lock()  # of the whole process: while one thread records, no other one may


class GpuScorer:
    """A network on a GPU as a scorer. Threads use lanes of their own, each with its stream and buffers.

    Args:
        network: in evaluation mode; later changes to its weights count in float32.
        size: height and width of its inputs.
        precision: one of `destseg.settings.INFERENCE_PRECISIONS`; half precision computes with a copy.
    """

    batch = BATCH

    def __init__(self, network: DeSTSegNet, size: tuple[int, int], precision: str) -> None:
        self.network, self.size, self.precision = network, size, precision
        self._spare: dict[int, list[Lane]] = defaultdict(list)  # by how many inputs they take

    def maps(self, pixels: np.ndarray) -> np.ndarray:
        """See `destseg.inference.scorer.Scorer.maps`."""
        with self._lane(1 if len(pixels) == 1 else BATCH) as lane:
            return lane.maps(pixels)

    @contextlib.contextmanager
    def _lane(self, count: int) -> Iterator["Lane"]:
        """Lend a lane for so many inputs, made if there is none to spare; it is kept for later."""
        with RECORDING:
            self.network = in_precision(self.network, getattr(torch, self.precision))
            spare = self._spare[count]
            lane = spare.pop() if spare else Lane(self.network, self.size, count)
        try:
            yield lane
        finally:
            spare.append(lane)


class Lane:
    """Pinned buffers and a stream for up to `count` inputs of one size; one thread at a time uses it.

    The copy of the pictures to the GPU, the networks and the copy of the maps back run in a stream of their
    own, beside those of other lanes. In half precision they are recorded once, for `count` pictures, and then
    started by one call. In float32 the networks take so long that starting them one by one costs little.

    Args:
        network: as `in_precision` returns it.
        size: height and width of the inputs in pixels.
        count: how many inputs there are in a call at most.
    """

    def __init__(self, network: DeSTSegNet, size: tuple[int, int], count: int) -> None:
        weights = next(network.parameters())
        self.network, self.size = network, size
        self.device, self.precision = weights.device, weights.dtype
        on_gpu = self.device.type == "cuda"
        self._pixels = torch.zeros((count, *size, 3), dtype=torch.uint8, pin_memory=on_gpu)
        self._maps = torch.empty((count, *size), pin_memory=on_gpu)
        self._constants = row_of_constants(size[1], self.device)  # a graph needs them to stay where they are
        self._graph: torch.cuda.CUDAGraph | None = None
        if on_gpu:
            with torch.cuda.device(self.device):
                self._stream = torch.cuda.Stream()
                self._done = torch.cuda.Event(blocking=count > 1)  # a long wait leaves the processor free
                if self.precision != torch.float32:
                    self._graph = self._recorded(count)

    def maps(self, pixels: np.ndarray) -> np.ndarray:
        """Return the maps of n pictures (n, h, w, 3) uint8."""
        count, height, width, _ = self._pixels.shape
        fits = pixels.dtype == np.uint8 and pixels.shape[1:] == (height, width, 3)
        if not fits or not 0 < len(pixels) <= count:
            raise ValueError(
                f"pixels must be (1 to {count}, {height}, {width}, 3) uint8, got {pixels.dtype} of shape "
                f"{pixels.shape}"
            )
        self._pixels[: len(pixels)] = torch.from_numpy(pixels)
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
            self._done.synchronize()
        return self._maps[: len(pixels)].numpy().copy()

    @torch.inference_mode()
    def _run(self, count: int) -> None:
        pixels = self._pixels[:count].to(self.device, non_blocking=True)
        maps = self.network.maps(normalise(pixels).to(self.precision))
        self._maps[:count].copy_(maps, non_blocking=True)

    def _recorded(self, count: int) -> torch.cuda.CUDAGraph:
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            for _ in range(WARM_UP):
                self._run(count)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
            self._run(count)
        return graph


def in_precision(network: DeSTSegNet, precision: torch.dtype) -> DeSTSegNet:
    """Return a network whose weights are of that precision: itself, or a copy in channels-last order."""
    if next(network.parameters()).dtype == precision:
        return network
    return copy.deepcopy(network).to(precision, memory_format=torch.channels_last)  # type: ignore[call-overload]
