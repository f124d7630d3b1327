"""The curves of `destseg.curves` for maps that lie on a device, by torch's own sorts there.

Letters: n pictures of h x w pixels, k instances, m distinct scores of their pixels. Nothing leaves the device
but single numbers. Components are found as in `destseg.ops.components.components_ref`: hook the larger root
onto the smaller, then shorten all paths.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class TensorCurves(NamedTuple):
    """Pixel counts at each distinct score of a defect pixel, highest score first, as in `Curves`."""

    scores: Tensor  # (m,) falling
    positives: Tensor  # (m,) int64, defect pixels with map >= score
    overlap: Tensor  # (m,) float64, mean over all instances of the share of the instance with map >= score
    normals_above: Tensor  # (m,) int64, normal pixels with map > score
    normals: Tensor  # (m,) int64, normal pixels with map >= score
    found_at: Tensor  # (k,) the score at which each instance is found
    positive_count: int
    normal_count: int

    def auroc(self) -> float:
        """Area under the ROC curve; nan without defect pixels or without normal ones."""
        if not self.positive_count or not self.normal_count:
            return math.nan
        ranked_below = self.normal_count - 0.5 * (self.normals_above + self.normals).double()
        return float((_steps(self.positives) * ranked_below).sum()) / self.positive_count / self.normal_count

    def average_precision(self) -> float:
        """Mean over defect pixels of the precision at their score; nan without defect pixels."""
        if not self.positive_count:
            return math.nan
        return float((_steps(self.positives) * self._precision()).sum()) / self.positive_count

    def pro(self, limit: float = 0.3) -> float:
        """Area under region overlap over false positive rate in [0, limit], divided by limit."""
        if not self.positive_count or not self.normal_count:
            return math.nan
        end = limit * self.normal_count
        above, at_or_above = self.normals_above.double(), self.normals.double()
        left = end - 0.5 * (above + at_or_above)
        cut = 0.5 * (end - above) ** 2 / (at_or_above - above).clamp(min=1)  # of a tie that the end cuts
        left = torch.where(at_or_above > end, cut, left)
        return float((_steps(self.overlap) * torch.where(above < end, left, 0.0)).sum()) / end

    def iap(self) -> float:
        """Instance average precision; nan without instances."""
        return float(self._instance_precision().mean()) if len(self.found_at) else math.nan

    def iap_at(self, recall: float) -> float:
        """Precision at the smallest instance recall that reaches `recall` percent; nan without instances."""
        k = len(self.found_at)
        if not k:
            return math.nan
        return float(self._instance_precision()[min(math.floor(k * (100 - recall) / 100), k - 1)])

    def _precision(self) -> Tensor:
        return self.positives / (self.positives + self.normals).double()

    def _instance_precision(self) -> Tensor:
        thresholds = self.found_at.sort().values
        place = len(self.scores) - 1 - torch.searchsorted(self.scores.flip(0).contiguous(), thresholds)
        return self._precision()[place].cummax(dim=0).values


def curves(maps: Tensor, masks: Tensor) -> TensorCurves:
    """Return the curves of maps (n, h, w), float32 or float64 without NaN, and masks (n, h, w) bool."""
    labels, sizes = components(masks)
    positives, falling = maps[masks].sort(descending=True)
    last = torch.ones(len(positives), dtype=torch.bool, device=maps.device)  # of each distinct score
    last[:-1] = positives[1:] != positives[:-1]
    share = (1 / sizes.double())[labels][falling].cumsum(0) / max(len(sizes), 1)
    normals = maps[~masks].sort().values
    scores = positives[last]
    at_or_above = len(normals) - torch.searchsorted(normals, scores)
    by_instance = labels[falling].sort(stable=True).indices
    middle = sizes.cumsum(0) - sizes + sizes // 2
    return TensorCurves(
        scores,
        last.nonzero()[:, 0] + 1,
        share[last],
        len(normals) - torch.searchsorted(normals, scores, right=True),
        at_or_above,
        positives[by_instance][middle],
        len(positives),
        len(normals),
    )


def components(masks: Tensor) -> tuple[Tensor, Tensor]:
    """Number the 8-connected components of masks (n, h, w) bool.

    Returns:
        labels: (foreground pixels,) int64, from 0, of each of them in raster order over the whole stack.
        sizes: (k,) int64, the pixels of each component.
    """
    _, h, w = masks.shape
    steps = F.pad(masks.to(torch.int8), (1, 1)).diff(dim=2)
    image, row, starts = (steps == 1).nonzero().unbind(1)
    stops = (steps == -1).nonzero()[:, 2]
    # A row is left out after each picture, and two columns after each row, so that no run meets another's.
    rows, pitch = image * (h + 1) + row, w + 2
    below = (rows + 1) * pitch
    first = torch.searchsorted(rows * pitch + stops, below + starts - 1, right=True)
    counts = torch.searchsorted(rows * pitch + starts, below + stops + 1) - first
    upper = torch.arange(len(rows), device=masks.device).repeat_interleave(counts)
    among = torch.arange(len(upper), device=masks.device) - (counts.cumsum(0) - counts)[upper]
    roots = _roots(len(rows), upper, first[upper] + among)
    is_root = roots == torch.arange(len(rows), device=masks.device)
    of_runs, lengths = (is_root.cumsum(0) - 1)[roots], stops - starts
    sizes = lengths.new_zeros(int(is_root.sum())).index_add_(0, of_runs, lengths)
    return of_runs.repeat_interleave(lengths), sizes


def _roots(count: int, upper: Tensor, lower: Tensor) -> Tensor:
    """The first member of the linked group of each of `count` runs."""
    roots = torch.arange(count, device=upper.device)
    while True:
        a, b = roots[upper], roots[lower]
        if torch.equal(a, b):
            return roots
        roots = roots.scatter_reduce(0, torch.maximum(a, b), torch.minimum(a, b), "amin")
        while not torch.equal(shorter := roots[roots], roots):
            roots = shorter


def _steps(values: Tensor) -> Tensor:
    """How much each value is above the one before it, the first above 0; float64."""
    return values.double().diff(prepend=values.new_zeros(1, dtype=torch.float64))


def checked(maps: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Return maps in at least single precision and masks as bool, or raise as `metrics.evaluate` does."""
    if not isinstance(masks, Tensor) or maps.ndim != 3 or maps.shape != masks.shape or 0 in maps.shape[1:]:
        got = f"{tuple(maps.shape)} and {tuple(getattr(masks, 'shape', ()))}"
        raise ValueError(f"maps and masks on a GPU must be tensors (n, h, w) of one size, got {got}")
    maps = maps if maps.dtype == torch.float64 else maps.float()
    if bool(maps.isnan().any()):
        image, row, column = maps.isnan().nonzero()[0].tolist()
        raise ValueError(f"maps must not hold NaN, got NaN in map {image} at row {row}, column {column}")
    if masks.dtype != torch.bool:
        highest = masks.flatten(1).amax(1) if len(masks) else masks.new_empty(0)
        lowest = torch.where(masks == 0, highest[:, None, None], masks).flatten(1)
        if len(masks) and bool((lowest.amin(1) != highest).any()):
            raise ValueError("masks must hold 0 for normal pixels and one other value for defects")
    return maps, masks != 0


def image_scores(maps: Tensor, top: int) -> list[float]:
    """Return the mean of the `top` largest values of each map."""
    flat = maps.flatten(1)
    return flat.topk(min(top, flat.shape[1])).values.double().sort().values.mean(dim=1).tolist()
