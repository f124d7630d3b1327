"""What a network is made of: the presets, its input size, its device, its initial weights."""

import operator
import os
from collections.abc import Mapping
from typing import Any

import torch

from destseg.files import matching_tensors
from destseg.framing import two_sides
from destseg.networks import SMALLEST_SIDE, DeSTSegNet
from destseg.teachers import Weights, teacher_state

SWITCHES = ("denoising", "encoder_decoder", "segmentation")  # parts that the user may switch off or on
STORED = ("preset", "teacher", "seed", "precision", "inference_precision")  # in files, beside others
PRESETS: dict[str, dict[str, bool]] = {
    "paper": {"denoising": True, "encoder_decoder": True, "segmentation": True, "light": False},
    "fast": {"denoising": True, "encoder_decoder": True, "segmentation": True, "light": True},
    "stpm": {"denoising": False, "encoder_decoder": False, "segmentation": False, "light": False},
}


FIXED = ("preset", "teacher", "image_size", "tile", "overlap", "keep_aspect", "roi", *SWITCHES)


class FixedSettings:
    """Refuses to have set anew what is read once, when a model is made: it would go unheeded."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in FIXED and name in self.__dict__:
            raise AttributeError(f"{name} of a model cannot be changed: make another one with it")
        super().__setattr__(name, value)


SCHEDULES = {  # training steps of both stages, and pictures per step
    "paper": ((1000, 4000), 32),
    "fast": ((600, 800), 8),
    "stpm": ((1000, 4000), 32),
}


def parts_of(preset: str, **switches: bool | None) -> dict[str, bool]:
    """Return DeSTSegNet's arguments for a preset, changed by switches that are not None."""
    if preset not in PRESETS:
        raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {preset!r}")
    wanted = {name: bool(value) for name, value in switches.items() if value is not None}
    return PRESETS[preset] | wanted


def schedule(
    preset: str, steps: tuple[int, int] | None, batch_size: int | None
) -> tuple[tuple[int, int], int]:
    """Return steps and batch size as given, the preset's in place of None."""
    own_steps, own_batch_size = SCHEDULES[preset]
    return own_steps if steps is None else steps, own_batch_size if batch_size is None else batch_size


def whole_number(name: str, value: Any) -> int:
    """Return a whole number of at least 0, numpy's among them, as Python's; `name` is for the error."""
    try:
        number = int(operator.index(value))
    except TypeError:
        number = -1
    if number < 0:
        raise ValueError(f"{name} must be a whole number of at least 0, got {value!r}")
    return number


def input_size(image_size: Any) -> tuple[int, int]:
    """Return (height, width) in pixels from one number or two, or raise ValueError."""
    size = two_sides(image_size)
    if size is None or min(size) < SMALLEST_SIDE:
        allowed = f"a number of pixels or (height, width), each at least {SMALLEST_SIDE}"
        raise ValueError(f"image_size must be {allowed}, got {image_size!r}")
    return size


def torch_device(name: str) -> torch.device:
    """Return the device of a name; "auto" is CUDA where there is one, for torchrun's processes one each.

    Raises ValueError where torch knows no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and "LOCAL_RANK" in os.environ:
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        return torch.device(name)
    except RuntimeError as error:
        allowed = "auto, or what torch calls a device, such as cpu, cuda or cuda:1"
        raise ValueError(f"device must be {allowed}, got {name!r}") from error


def new_network(parts: dict[str, bool], teacher: str, weights: Weights, seed: int) -> DeSTSegNet:
    """Make an untrained network with its teacher; torch's own random states are left as they were."""
    state = teacher_state(teacher, weights)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would change those of GPUs, too
        network = DeSTSegNet(**parts)
    network.teacher_net.load_state_dict(state)
    return network


def loaded_network(parts: dict[str, bool], state: Mapping[str, object], source: str) -> DeSTSegNet:
    """Make a network of the tensors of a state dict, which may hold more than it needs.

    Raises ValueError, naming `source` and the first tensor that is missing or has another shape.
    """
    with torch.device("meta"):  # no memory, no random numbers: every tensor is replaced
        network = DeSTSegNet(**parts)
    network.load_state_dict(matching_tensors(network.state_dict(), state, source), assign=True)
    return network


def ready_to_predict(network: DeSTSegNet, device: torch.device) -> DeSTSegNet:
    """Bring a network, in place, into evaluation mode, onto its device, and into the faster memory order.

    On CPUs channels last pays for the light network (53 ms a picture instead of 59), not for the published
    one (340 instead of 305; 2-core x86-64 with AVX-512, two threads, 2026-11-22).
    """
    last = network.light or device.type != "cpu"
    layout = torch.channels_last if last else torch.contiguous_format
    network = network.eval().requires_grad_(False).to(device)
    return network.to(memory_format=layout)  # type: ignore[call-overload]
