"""Small files of every kind that destseg reads, and what they hold in values that can be compared."""

import dataclasses
import types
from pathlib import Path

import numpy as np
import onnx
import openvino
import torch
from torch import nn

from destseg.artifacts import destseg_file, formats
from destseg.artifacts.artifact import INPUT, OUTPUTS, Artifact
from destseg.artifacts.record import FitRecord
from destseg.inference.calibration import Calibration
from destseg.model.tensorfile import matching_tensors, read_tensors
from destseg.settings import Settings
from destseg.training.checkpoint import Plan
from destseg.training.trainer import Trainer

KINDS = ("destseg", "checkpoint", "onnx", "openvino")
ENDINGS = {"onnx": ".onnx", "openvino": ".xml"}
SETTINGS = Settings(image_size=64)
RECORD = FitRecord(20, 1, 12, 7, (3, 4), 2, "light", "90", "both", "cpu", ("a.png", "b.png"))
CALIBRATION = Calibration((0.1, 0.3, 0.2), (0.2, 0.4, 0.1), 0.25, False, (0, 1, 1))
PARTS = {"denoising": True, "encoder_decoder": True, "segmentation": True, "light": False}
PLAN = Plan((0, 8), 2, 0.0, "", "", 0, (64, 64), PARTS, "float32", 4, 5, 0, 6, None)


class Small(nn.Module):
    """As much of a network as a trainer's state is about."""

    def __init__(self) -> None:
        super().__init__()
        self.light = False
        self.teacher_net, self.student_net = nn.Conv2d(1, 2, 1), nn.Conv2d(1, 2, 1)
        self.segmentation_net = nn.Sequential()
        self.segmentation_net.res, self.segmentation_net.head = nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)


def small_trainer() -> Trainer:
    """Return a trainer before its first step."""
    torch.manual_seed(0)
    synthesis = types.SimpleNamespace(normals=[], changes_pictures=True)
    return Trainer(Small(), synthesis, PLAN, 0)


def write_checkpoint(path: Path) -> None:
    """Write the checkpoint of a trainer that has done all steps but one, as its average has begun."""
    trainer = small_trainer()
    trainer.optimizer = trainer._enter(student_stage=False)
    network = trainer.network.segmentation_net
    for step in range(PLAN.steps[1] - 1):
        loss = network.head(network.res(torch.rand(2, 1, 3, 3))).square().sum()
        trainer.optimizer.zero_grad()
        loss.backward()
        trainer.optimizer.step()
        trainer.losses.append(loss.detach())
        trainer._keep_average(step)
    trainer.save(path)


def small_tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {f"part.{k}": torch.rand(3, 4, generator=generator) for k in range(6)}


def small_onnx() -> onnx.ModelProto:
    pixels, flag = (onnx.helper.make_tensor_value_info(name, 1, [1]) for name in (INPUT, OUTPUTS[2]))
    weights = onnx.numpy_helper.from_array(np.arange(500, dtype=np.float32), "weights")
    node = onnx.helper.make_node("Identity", [INPUT], [OUTPUTS[2]])
    return onnx.helper.make_model(onnx.helper.make_graph([node], "graph", [pixels], [flag], [weights]))


def small_openvino() -> openvino.Model:
    opset = openvino.opset13
    pixels = opset.parameter([500], np.float32)
    flag = opset.greater(opset.multiply(pixels, np.arange(500, dtype=np.float32)), np.float32(0.5))
    flag.output(0).get_tensor().set_names({OUTPUTS[2]})
    return openvino.Model([flag], [pixels], "small")


def make(kind: str, folder: Path) -> Path:
    """Return the file of a kind, which is made if it is not there: small, so that many can be read."""
    path = folder / f"model{ENDINGS.get(kind, '.' + kind)}"
    if path.exists():
        return path
    if kind == "checkpoint":
        write_checkpoint(path)
        return path
    versions = {"destseg": "0.1.0", "torch": "2.10.0"}
    artifact = Artifact(SETTINGS, CALIBRATION, versions, record=RECORD, losses=[0.5, 0.25])
    content = {"destseg": small_tensors, "onnx": small_onnx, "openvino": small_openvino}[kind]()
    formats.FORMATS[kind].write(path, content, artifact)
    return path


def parts_of(path: Path) -> list[Path]:
    return formats.format_of(path).files(path)


# What a file holds, in values that can be compared.


def content_of(kind: str, path: Path) -> dict:
    """Return everything that a file gives who loads it; for an exported file, its bytes among it."""
    if kind == "checkpoint":
        trainer = small_trainer()
        trainer.resume(path)
        trainer.save(path.with_suffix(".again"))
        return read_tensors(path.with_suffix(".again"))
    artifact = formats.read(path)
    told = {"settings": artifact.settings.stored(), "record": artifact.record and artifact.record.stored()}
    told |= {"calibration": artifact.calibration and artifact.calibration.stored()}
    told |= {"versions": dict(artifact.versions), "precision": artifact.precision}
    if kind == "destseg":
        network = matching_tensors(small_tensors(), artifact.network, str(path), exact=True)
        return told | {"losses": artifact.losses, "network": network}
    return told | {"bytes": [part.read_bytes() for part in formats.format_of(path).files(path)]}


def is_equal(first: object, second: object) -> bool:
    """Whether two values of a file's content are the same, bit by bit."""
    if isinstance(first, dict):
        return (
            isinstance(second, dict)
            and first.keys() == second.keys()
            and all(is_equal(value, second[name]) for name, value in first.items())
        )
    if isinstance(first, (torch.Tensor, np.ndarray)):
        return type(second) is type(first) and first.dtype == second.dtype and bool((first == second).all())
    return type(first) is type(second) and first == second


def comes_back(kind: str, path: Path, content: dict) -> bool:
    """Whether what was loaded from a changed file loads again, and is the same, once it is saved."""
    if kind != "destseg":
        return True  # a checkpoint was saved and read again, an exported file holds its own bytes
    artifact = formats.read(path)
    again = path.with_suffix(".again")
    destseg_file.write(again, artifact.network, dataclasses.replace(artifact, path=None))
    return is_equal(content_of(kind, again), content)
