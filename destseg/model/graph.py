"""The whole way from pixels to a verdict as one network, for exported files."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from destseg.inference.scoring import top_count
from destseg.model.networks import (
    CHANNELS,
    ConvNormRelu,
    DeSTSegNet,
    SegmentationNet,
    fold_normalisations,
    resize,
)
from destseg.model.normalisation import IMAGENET_MEAN, IMAGENET_STD
from destseg.ops.similarity import similarity_input

EXAMPLE = (2, 80, 96, 3)  # to trace with: any shape without 0 and 1, which torch takes for constants


class Inference(nn.Module):
    """A network with everything around it, in standard operators only.

    Called with pictures (n, h, w, 3) uint8 of any one size, it returns their anomaly maps (n, h, w) float32
    in [0, 1] at that size, their scores (n,) float32, and whether each score exceeds the threshold (n,) bool.
    Two more outputs serve to take the graph apart: the pictures at the input size, (n, 3, height, width)
    float32 from 0 to 255, and their maps at that size, (n, height, width) float32.

    Args:
        network: in evaluation mode.
        size: height and width of its input in pixels.
        threshold: a picture that scores above it is anomalous.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: DeSTSegNet, size: tuple[int, int], threshold: float) -> None:
        super().__init__()
        self.network, self.size, self.threshold = fold_normalisations(network).cpu(), size, threshold
        if self.network.light and self.network.segmentation_net is not None:
            levelwise = LevelwiseSegmentation(self.network.segmentation_net)
            self.network.segmentation_net = levelwise  # type: ignore[assignment]
        self.register_buffer("mean", 255 * torch.tensor(IMAGENET_MEAN)[:, None, None])
        self.register_buffer("std", 255 * torch.tensor(IMAGENET_STD)[:, None, None])

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        images = resize_like_pillow(pixels.permute(0, 3, 1, 2).float(), self.size)
        maps = self.network.maps((images - self.mean) / self.std)
        score = maps.flatten(1).topk(top_count(self.size)).values.mean(dim=1)
        size = (pixels.shape[1], pixels.shape[2])
        resized_maps = F.interpolate(maps[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]
        return resized_maps, score, score > self.threshold, images, maps


class LevelwiseSegmentation(nn.Module):
    """The light segmentation network, which here reduces the channels of each level before it resizes it.

    A 1x1 convolution and resizing commute. In this order there is a third as much to resize, and a quarter as
    much to multiply.

    Args:
        network: a light one, its normalisations merged.
    """

    def __init__(self, network: SegmentationNet) -> None:
        super().__init__()
        first, *others = network.res
        assert isinstance(first, ConvNormRelu)  # as every light one's
        self.reductions = nn.ModuleList()
        for channels, weight in zip(CHANNELS, first.conv.weight.split(CHANNELS[:3], dim=1), strict=False):
            reduction = nn.Conv2d(channels, len(weight), 1, bias=False)
            reduction.weight = nn.Parameter(weight.clone(), requires_grad=False)
            self.reductions.append(reduction)
        assert first.conv.bias is not None  # the normalisation's
        self.bias = first.conv.bias
        self.rest = nn.Sequential(nn.ReLU(), *others, network.head)

    def forward(self, taught: list[Tensor], learnt: list[Tensor]) -> Tensor:
        levels = zip(self.reductions, taught, learnt, strict=True)
        fine, *coarse = (reduce(similarity_input([t], [s])) for reduce, t, s in levels)
        total = sum((resize(level, fine.shape[2:]) for level in coarse), start=fine)
        return self.rest(total + self.bias[:, None, None])


def resize_like_pillow(values: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize whole numbers 0 to 255, (n, c, h, w) float32, exactly as `pictures.decoding.resize` does.

    Pillow sums in fixed point, which decides how halves are rounded, and a single grey level changes a map.
    Here each weight has two digits. The sums over each digit are whole numbers that float32 holds exactly, up
    to a reduction by 16.
    """
    high, low = fixed_point_weights(values.shape[3], size[1])
    values = _carry(values @ high.T, values @ low.T)
    high, low = fixed_point_weights(values.shape[2], size[0])
    return _carry(high @ values, low @ values)


def fixed_point_weights(given: int, wanted: int) -> tuple[Tensor, Tensor]:
    """Return Pillow's weight of each of `given` pixels in each of `wanted` pixels, antialiased bilinear.

    Returns:
        The digits high and low, (wanted, given) float32 each: the weights times 2^22, rounded, are
        high * 2^11 + low.
    """
    # A triangle over the centre of each wanted pixel, as wide as two of the larger pixels, in whole numbers.
    centres = (2 * torch.arange(wanted, dtype=torch.int32)[:, None] + 1) * given
    distances = ((2 * torch.arange(given, dtype=torch.int32) + 1) * wanted - centres).abs()
    rest = torch.maximum(2 * given - distances, 2 * wanted - distances).clamp(min=0)
    total = rest.sum(dim=1, keepdim=True, dtype=torch.int32)
    digits = []
    for bits in (6, 5, 6, 5):  # long division in steps that keep 32 bits from overflowing
        digits.append(rest * 2**bits // total)
        rest = rest * 2**bits - digits[-1] * total
    rounding = (2 * rest >= total).int()
    high, low = digits[0] * 32 + digits[1], digits[2] * 32 + digits[3] + rounding
    return high.float(), low.float()


def _carry(high: Tensor, low: Tensor) -> Tensor:
    """Combine the sums over both digits into whole numbers; halves are rounded up."""
    return torch.floor((high + torch.floor(low / 2**11) + 2**10) / 2**11)


def trace(inference: Inference) -> torch.export.ExportedProgram:
    """Return the graph of an `Inference` for any number of pictures of any size.

    Notes on where in the source each node came from are removed: they would end up in exported files.
    """
    n, h, w = (torch.export.Dim(name, min=1) for name in ("n", "h", "w"))
    example = torch.zeros(EXAMPLE, dtype=torch.uint8)
    with torch.no_grad():
        program = torch.export.export(
            inference.eval(), (example,), dynamic_shapes={"pixels": {0: n, 1: h, 2: w}}
        )
    for node in program.graph.nodes:
        for key in ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn"):
            node.meta.pop(key, None)
    return program


def to_onnx(
    program: torch.export.ExportedProgram, opset: int, input_name: str, output_names: Sequence[str]
) -> Any:
    """Return a program as an ONNX model, a ModelProto. Needs the packages onnx and onnxscript."""
    written = torch.onnx.export(
        program,
        dynamo=True,
        verbose=False,
        opset_version=opset,
        input_names=[input_name],
        output_names=list(output_names),
    )
    assert written is not None  # with dynamo=True it never is
    return written.model_proto
