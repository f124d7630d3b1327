"""Makes the files of destseg 0.1.0 that lie here. It runs at commit 5d09350, whose modules it imports.

    python made_by.py FOLDER

A model, its exports, a checkpoint of a fit that was stopped after the first of its 2 + 1 steps, and what
that version finds with them. All weights repeat a short pattern, so that 40 MB shrink to a few kilobytes.
"""

# ruff: noqa: I001 - its imports are sorted as at that commit

import json
import lzma
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL.Image
import torch

import destseg
from destseg.calibration import split
from destseg.folders import as_pictures
from destseg.framing import framing_of
from destseg.networks import DeSTSegNet
from destseg.presets import parts_of
from destseg.store import PictureStore
from destseg.synthesis import Synthesis
from destseg.textures import from_normals
from destseg.training import new_trainer

PATTERN = torch.randn(61, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16).float()
FIT = {
    "preset": "fast",
    "teacher": "embedded",
    "image_size": 64,
    "seed": 5,
    "device": "cpu",
    "precision": "float32",
}
TEACHER = "teacher_net.encoder."


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(exist_ok=True)
    torch.set_num_threads(1)
    normal = np.stack(list(pictures()))
    record = predictions(normal, folder) | {"resumed": resumed(normal, folder / "fit.checkpoint")}
    (folder / "expected.json").write_text(json.dumps(record, indent=1) + "\n")
    for path in sorted(folder.iterdir()):
        if path.suffix not in (".json", ".xz", ".py"):
            path.with_name(path.name + ".xz").write_bytes(lzma.compress(path.read_bytes(), preset=9))
            path.unlink()


def pictures() -> Iterator[np.ndarray]:
    for k in range(12):
        generator = np.random.default_rng([9, k])
        rows, columns = np.mgrid[0:64, 0:96]
        disc = np.hypot(rows - 32, columns - 48) < 20
        values = 90 + 40 * np.sin(rows / 9 + generator.uniform(0, 1)) + 30 * disc
        values = values[..., None] * [1.0, 0.9, 0.8] + generator.normal(0, 4, (64, 96, 1))
        yield values.clip(0, 255).astype(np.uint8)


def predictions(normal: np.ndarray, folder: Path) -> dict[str, object]:
    """Write a model and its exports, and return what it finds."""
    model = destseg.DeSTSeg("fast", "embedded", (64, 96), seed=3, device="cpu", precision="float32")
    model._adopt(filled(), [0.5, 0.25])
    model.calibrate(normal, 0.2)
    model.save(folder / "model.destseg")
    model.export(folder / "model.onnx")
    model.export(folder / "model.xml")
    odd = normal[0].copy()
    odd[20:30, 40:60] = 255
    large = model.predict(np.asarray(PIL.Image.fromarray(odd).resize((120, 100))))
    return {
        "scores": [float(found.score) for found in model.predict(np.stack([odd, *normal[:3]]))],
        "threshold": model.threshold_,
        "pixel_threshold": model.pixel_threshold_,
        "p_value": model.predict(odd).p_value,
        "large": {
            "score": float(large.score),
            "map": np.round(large.anomaly_map[::20, ::24].astype(float), 7).tolist(),
        },
    }


def resumed(normal: np.ndarray, path: Path) -> dict[str, object]:
    """Write a checkpoint after the first step, and return what a fit that goes on from there gives."""
    network = filled()
    teacher = {
        name.removeprefix(TEACHER): value.clone()
        for name, value in network.state_dict().items()
        if name.startswith(TEACHER)
    }
    store = PictureStore(as_pictures(normal), framing_of((64, 64)))
    normals = store.subset(split(store.pictures, 5, 0.2)[0])
    synthesis = Synthesis(normals, from_normals(normals), 2, 5)
    trainer = new_trainer(network, synthesis, (2, 1), "float32", parts_of("fast"), 2 << 30)
    fill(network)
    trainer.losses.append(trainer.step(0, synthesis.batch(0)))
    fill(network)  # what the step made of the weights is not kept: they would not repeat
    for state in trainer.optimizer.state.values():
        state["momentum"] = patterned(state["momentum"]) * 1e-3
    trainer.save(path)
    model = destseg.DeSTSeg(**FIT, teacher_weights=teacher)
    schedule = {"steps": (2, 1), "batch_size": 2, "workers": 0, "false_positive_rate": 0.2}
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copy(path, folder)  # which is written to
        model.fit(normal, resume=copy, progress=False, **schedule)
    return {"losses": model.losses_, "scores": list(model.calibration_.scores), "settings": FIT}


def filled() -> DeSTSegNet:
    network = DeSTSegNet(**parts_of("fast"))
    fill(network)
    return network


def fill(network: DeSTSegNet) -> None:
    """Overwrite all weights and running statistics."""
    for name, tensor in network.state_dict().items():
        if not tensor.is_floating_point():
            continue
        if tensor.ndim == 4:
            fan = tensor.shape[0] * tensor.shape[2] * tensor.shape[3]
            tensor.copy_(patterned(tensor) * (2 / fan) ** 0.5)
        elif name.endswith("bn2.weight"):  # the sums of residual blocks stay small
            tensor.fill_(0.25)
        elif name.endswith("running_var") or ("weight" in name and tensor.ndim == 1):
            tensor.fill_(1)
        else:
            tensor.zero_()


def patterned(tensor: torch.Tensor) -> torch.Tensor:
    """Return values that repeat in the order of memory, which is what is compressed."""
    if not tensor.is_floating_point():
        return tensor
    values = PATTERN.repeat(tensor.numel() // len(PATTERN) + 1)[: tensor.numel()].clone()
    if tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last):
        n, c, h, w = tensor.shape
        return values.view(n, h, w, c).permute(0, 3, 1, 2)
    return values.view(tensor.shape)


if __name__ == "__main__":
    main()
