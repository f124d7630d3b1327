"""The three networks of DeSTSeg as plain modules, under the parameter names of published checkpoints.

Letters: n images, c channels, h x w pixels. Level k = 1, 2, 3 has 64, 128, 256 channels at 1/4, 1/8, 1/16 of
the input's sides, rounded up. Sides need not be multiples of 32: the decoder resizes to the sizes that the
teacher's levels have. Source: Zhang et al., "DeSTSeg" (CVPR 2023, arXiv 2211.11317).
"""

import copy
import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from destseg.model.memory_bank import NEAR, MemoryBank
from destseg.ops.destmap import destmap, destmap_of_features
from destseg.ops.similarity import cosine_distances, similarity_input
from destseg.settings import SMALLEST_SIDE

CHANNELS = (64, 128, 256, 512)


class Output(NamedTuple):
    """The network's output for a batch; probability is None for a network without its segmentation part."""

    probability: Tensor | None  # (n, 1, h/4, w/4) in [0, 1]
    destmap: Tensor  # (n, 1, h/4, w/4), product over levels of the resized cosine distances
    distances: tuple[Tensor, ...]  # three of (n, 1, h_k, w_k), 1 - cosine similarity


def resize(features: Tensor, size: torch.Size | tuple[int, int]) -> Tensor:
    return F.interpolate(features, size=tuple(size), mode="bilinear", align_corners=False)


def activated(x: Tensor, conv: nn.Conv2d, norm: nn.Module, shortcut: Tensor | None = None) -> Tensor:
    """Return relu(norm(conv(x)) + shortcut), on a GPU by one kernel if the normalisation is merged."""
    if isinstance(norm, nn.Identity) and _fuses(x):
        how = (conv.bias, conv.stride, conv.padding, conv.dilation, conv.groups)
        if shortcut is None:
            return torch.cudnn_convolution_relu(x, conv.weight, *how)  # type: ignore[arg-type]
        return torch.cudnn_convolution_add_relu(x, conv.weight, shortcut, 1.0, *how)  # type: ignore[arg-type]
    x = norm(conv(x))
    return F.relu(x if shortcut is None else x + shortcut, inplace=True)


def _fuses(x: Tensor) -> bool:
    """Whether cuDNN takes a convolution of this tensor and what follows it at once; it has no gradient."""
    if not x.is_cuda or x.requires_grad or not torch.backends.cudnn.enabled:
        return False
    return x.dtype != torch.bfloat16 or torch.cuda.is_bf16_supported(including_emulation=False)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which is a 1x1 convolution where the shape changes."""

    def __init__(self, channels_in: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or channels_in != channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        return activated(activated(x, self.conv1, self.bn1), self.conv2, self.bn2, shortcut)


def block_pair(channels_in: int, channels: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(BasicBlock(channels_in, channels, stride), BasicBlock(channels, channels))


class ConvNormRelu(nn.Module):
    def __init__(
        self, channels_in: int, channels: int, kernel: int, dilation: int = 1, stride: int = 1
    ) -> None:
        super().__init__()
        padding = dilation * (kernel // 2)
        self.conv = nn.Conv2d(channels_in, channels, kernel, stride, padding, dilation, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.shape[0] * x.shape[2] * x.shape[3] == 1:
            # A single value per channel has no variance: a batch of one takes the running statistics here.
            norm = self.norm
            x = self.conv(x)
            x = F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
            return F.relu(x, inplace=True)
        return activated(x, self.conv, self.norm)


class ResNet18(nn.Module):
    """The stem and the first stages of ResNet18; returns the features of every stage.

    Args:
        stages: how many stages, 1 to 4.
        width: channels of the stem and of the first stage; each further stage has twice as many.
    """

    def __init__(self, stages: int, width: int = CHANNELS[0]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.stages = [f"layer{k}" for k in range(1, stages + 1)]
        for k, name in enumerate(self.stages):
            before, stride = (width, 1) if k == 0 else (width << (k - 1), 2)
            setattr(self, name, block_pair(before, width << k, stride))
        initialise(self)
        start_as_shortcuts(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.maxpool(activated(x, self.conv1, self.bn1))
        features = []
        for name in self.stages:
            x = getattr(self, name)(x)
            features.append(x)
        return features


class Teacher(nn.Module):
    """ResNet18's stages 1 to 3, frozen and always in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = ResNet18(3)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> "Teacher":
        return super().train(False)

    def forward(self, x: Tensor) -> list[Tensor]:
        return self.encoder(x)


class Embedding(nn.Module):
    """Condenses the teacher's three levels into (n, 8 * width, h/32, w/32), in place of an encoder.

    The finer levels are brought to the size of the third; a residual stage follows. What the decoder gets is
    meant to be too small to hold an anomaly beside the part. Source: Deng and Li, "Anomaly Detection via
    Reverse Distillation from One-Class Embedding" (CVPR 2022, arXiv 2201.10703).

    Args:
        width: channels of the student's first stage.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        first, second, third = CHANNELS[:3]
        halved = (ConvNormRelu(first, first, 3, stride=2) for _ in range(2))
        self.first, self.second = nn.Sequential(*halved), ConvNormRelu(second, second, 3, stride=2)
        self.joined = ConvNormRelu(first + second + third, 4 * width, 1)
        self.layer4 = block_pair(4 * width, 8 * width, 2)
        initialise(self)
        start_as_shortcuts(self.layer4)

    def forward(self, taught: list[Tensor]) -> Tensor:
        levels = self.first(taught[0]), self.second(taught[1]), taught[2]
        embedded: Tensor = self.layer4(self.joined(torch.cat(levels, dim=1)))
        return embedded


class Student(nn.Module):
    """Learns the teacher's features of the clean picture, through a decoder without skip connections.

    Without the decoder it is a plain ResNet18, and its first three stages are compared (STPM's design).
    If it is not as wide as the teacher, a 1x1 convolution brings each level to the teacher's channels.
    Called with pictures, or, if it has no encoder, with the teacher's features of them.

    Args:
        encoder_decoder: there is a decoder.
        width: channels of the first stage.
        bounded: each stage of the decoder gives vectors of one length. Only their directions are learnt, so
            nothing else keeps them small: stage after stage some normal pictures drove them up a
            thousandfold, and 8 bits have no room for that.
        encoder: there is a ResNet18 that sees the picture; otherwise the decoder gets an `Embedding` of what
            the teacher sees in it. A student without a decoder always has an encoder.
    """

    def __init__(
        self,
        encoder_decoder: bool = True,
        width: int = CHANNELS[0],
        bounded: bool = False,
        encoder: bool = True,
    ) -> None:
        super().__init__()
        self.encoder_decoder, self.bounded = encoder_decoder, encoder_decoder and bounded
        self.encoder: ResNet18 | None = None
        if encoder or not encoder_decoder:
            self.encoder = ResNet18(4 if encoder_decoder else 3, width)
        else:
            self.embedding = Embedding(width)
        if encoder_decoder:
            self.decoder_layer4 = block_pair(8 * width, 8 * width)
            self.decoder_layer3 = block_pair(8 * width, 4 * width)
            self.decoder_layer2 = block_pair(4 * width, 2 * width)
            self.decoder_layer1 = block_pair(2 * width, width)
            for layer in (self.decoder_layer4, self.decoder_layer3, self.decoder_layer2, self.decoder_layer1):
                initialise(layer)
        self.projections: nn.ModuleList | None = None
        if width != CHANNELS[0]:
            widths = (width, 2 * width, 4 * width)
            pairs = zip(widths, CHANNELS, strict=False)
            self.projections = nn.ModuleList(ConvNormRelu(c, taught, 1) for c, taught in pairs)

    def forward(self, seen: Tensor | list[Tensor]) -> list[Tensor]:
        levels = [*seen, self.embedding(seen)] if self.encoder is None else self.encoder(seen)
        if self.encoder_decoder:
            size1, size2, size3 = (stage.shape[-2:] for stage in levels[:3])
            x = self._bound(self.decoder_layer4(levels[3]))
            third = self._bound(self.decoder_layer3(resize(x, size3)))
            second = self._bound(self.decoder_layer2(resize(third, size2)))
            levels = [self._bound(self.decoder_layer1(resize(second, size1))), second, third]
        if self.projections is None:
            return levels
        return [project(level) for project, level in zip(self.projections, levels, strict=True)]

    def _bound(self, features: Tensor) -> Tensor:
        """Give each position a root mean square of 1, if that is wanted; dead ones stay 0."""
        if not self.bounded:
            return features
        directions = F.normalize(features.float(), dim=1, eps=1e-4).to(features.dtype)
        return directions * math.sqrt(features.shape[1])


class AtrousPyramid(nn.Module):
    """ASPP of four branches: a pooled one and 3x3 convolutions of dilation 6, 12 and 18, fused by a 3x3."""

    def __init__(self, channels: int, branch: int) -> None:
        super().__init__()
        pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), ConvNormRelu(channels, branch, 1))
        wide = (ConvNormRelu(channels, branch, 3, dilation) for dilation in (6, 12, 18))
        self.aspp_feature_extractors = nn.ModuleList([pooled, *wide])
        self.aspp_fusion_layer = ConvNormRelu(4 * branch, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        branches = [branch(x) for branch in self.aspp_feature_extractors]
        branches[0] = branches[0].expand_as(branches[1])  # resizing a single pixel repeats it
        return self.aspp_fusion_layer(torch.cat(branches, dim=1))


class SegmentationNet(nn.Module):
    """Fuses the similarities of all levels, (n, 448, h/4, w/4), into anomaly logits (n, 1, h/4, w/4).

    Called with the features of teacher and student, three levels each. The light one has a quarter of the
    channels, behind a 1x1 convolution of the similarities, and half of those in each branch of its pyramid:
    2.8 instead of 62.5 GFLOP for 256 x 256 pixels.
    """

    def __init__(self, light: bool = False) -> None:
        super().__init__()
        channels_in, channels, branch = sum(CHANNELS[:3]), 256, 256
        if light:
            channels, branch = 64, 32
            self.res = nn.Sequential(ConvNormRelu(channels_in, channels, 1), *block_pair(channels, channels))
        else:
            self.res = block_pair(channels_in, channels)
        self.head = nn.Sequential(
            AtrousPyramid(channels, branch),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, 1, 1),
        )
        # The blocks only: weights so large in the last convolution would saturate every probability.
        initialise(self.res)

    def forward(self, taught: list[Tensor], learnt: list[Tensor]) -> Tensor:
        return self.head(self.res(similarity_input(taught, learnt, dtype=taught[0].dtype)))


class DeSTSegNet(nn.Module):
    """Teacher, student and segmentation network together; the three switches are the paper's ablation.

    Args:
        denoising: the student sees the corrupted picture while the teacher sees the clean one; otherwise
            both see the clean one, if one is given.
        encoder_decoder: the student has its decoder.
        segmentation: there is a segmentation network; otherwise the DeST map is the result.
        light: the student is half as wide, and the segmentation network is the light one.
        memory_bank: maps are the weighted geometric mean of the segmentation network's, those of a
            `MemoryBank`, which `destseg.training.fit.train` fills, and the distances of student and teacher.
        bounded, student_encoder: see `Student`.

    Called with a normalised batch (n, 3, h, w), each side at least 64, and optionally the clean batch of the
    same shape for the teacher. Returns an `Output`.
    """

    def __init__(
        self,
        denoising: bool = True,
        encoder_decoder: bool = True,
        segmentation: bool = True,
        light: bool = False,
        memory_bank: bool = False,
        bounded: bool = False,
        student_encoder: bool = True,
    ) -> None:
        super().__init__()
        self.denoising, self.light = denoising, light
        self.teacher_net = Teacher()
        width = CHANNELS[0] // 2 if light else CHANNELS[0]
        self.student_net = Student(encoder_decoder, width, bounded, student_encoder)
        self.segmentation_net = SegmentationNet(light) if segmentation else None
        self.memory_bank = MemoryBank(CHANNELS[1:3]) if segmentation and memory_bank else None

    def features(self, images: Tensor, clean: Tensor | None = None) -> tuple[list[Tensor], list[Tensor]]:
        """Return teacher and student features as the networks give them, three levels each."""
        if images.ndim != 4 or images.shape[1] != 3 or min(images.shape[2:]) < SMALLEST_SIDE:
            raise ValueError(
                f"images must be (n, 3, h, w) with sides of at least {SMALLEST_SIDE}, "
                f"got {tuple(images.shape)}"
            )
        seen = images if clean is None else clean
        taught, of_student = self._taught(seen), images if self.denoising else seen
        return taught, self.learnt(of_student, taught if of_student is seen else None)

    def learnt(self, images: Tensor, taught: list[Tensor] | None = None) -> list[Tensor]:
        """Return the student's features of images; `taught` are the teacher's of the same, where known."""
        if self.student_net.encoder is not None:
            return self.student_net(images)
        return self.student_net(self._taught(images) if taught is None else taught)

    @torch.no_grad()
    def _taught(self, images: Tensor) -> list[Tensor]:
        return self.teacher_net(images)

    def logits(self, taught: list[Tensor], learnt: list[Tensor]) -> Tensor:
        """Return the segmentation network's output before the sigmoid, (n, 1, h/4, w/4)."""
        if self.segmentation_net is None:
            raise RuntimeError("this network was built with segmentation=False; use its destmap")
        return self.segmentation_net(taught, learnt)

    def maps(self, images: Tensor) -> Tensor:
        """Return the anomaly maps of a normalised batch, (n, h, w) float32 in [0, 1], at the input's size.

        They are the segmentation network's probabilities, or without one the DeST maps, resized bilinearly
        (align_corners=False). With a memory bank each value is a weighted geometric mean of this one, of the
        bank's, and of the distances of student and teacher: an anomaly is what all three call one.
        """
        taught, learnt = self.features(images)
        size = images.shape[2:]
        if self.segmentation_net is None:
            maps = destmap_of_features(taught, learnt, size)
        else:
            maps = resize(self.logits(taught, learnt).float().sigmoid(), size)
            if self.memory_bank is not None:
                maps = self.fused(maps, taught, destmap_of_features(taught, learnt))
        return maps[:, 0].float().clamp(0, 1)  # rounding may take distances of features out of [0, 1]

    def fused(self, maps: Tensor, taught: list[Tensor], product: Tensor) -> Tensor:
        """Return the weighted geometric mean of maps, the memory bank's, and the distances behind a DeST map.

        Args:
            maps: the segmentation network's, (n, 1, h, w) float32.
            taught: the teacher's features.
            product: the DeST map, (n, 1, h/4, w/4): the product of the three levels' distances.
        """
        bank, size = self.memory_bank, maps.shape[2:]
        assert bank is not None  # which the weights belong to
        weight, distance_weight = bank.weight.float(), bank.distance_weight.float()
        distances = resize(product.float(), size).clamp(NEAR**3, 1.0)  # of three levels
        both = maps.pow(1 - weight - distance_weight) * resize(bank(taught), size).pow(weight)
        return both * distances.pow(distance_weight / 3)

    def forward(self, images: Tensor, clean: Tensor | None = None) -> Output:
        taught, learnt = self.features(images, clean)
        distances = cosine_distances(taught, learnt)
        probability = None
        if self.segmentation_net is not None:
            probability = self.logits(taught, learnt).float().sigmoid()
        return Output(probability, destmap(distances), distances)


def fold_normalisations(network: DeSTSegNet) -> DeSTSegNet:
    """Return a copy for prediction, with batch normalisations merged into the convolutions before them.

    It gives the same outputs but for rounding; its parameters have other names.
    """
    network = copy.deepcopy(network).eval()
    for parent in network.modules():
        before: tuple[str, nn.Module] | None = None
        for name, child in list(parent.named_children()):  # in the order in which they are called
            if isinstance(child, nn.BatchNorm2d) and before and isinstance(before[1], nn.Conv2d):
                setattr(parent, before[0], fuse_conv_bn_eval(before[1], child))
                setattr(parent, name, nn.Identity())
            before = name, child
    return network.requires_grad_(False)


def initialise(network: nn.Module) -> None:
    """Initialise every convolution after He (fan_out, relu), and normalisations as the identity."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)


def start_as_shortcuts(network: nn.Module) -> None:
    """Let each residual block start as its shortcut."""
    for block in network.modules():
        if isinstance(block, BasicBlock):
            nn.init.zeros_(block.bn2.weight)
