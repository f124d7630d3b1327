"""Makes networks from random weights or from a file's tensors, and finds their device."""

from collections.abc import Mapping

import torch

from destseg.model.memory_bank import KEPT
from destseg.model.networks import CHANNELS, DeSTSegNet
from destseg.model.process import check_process, plain_torch
from destseg.model.teachers import Weights, teacher_state
from destseg.model.tensorfile import matching_tensors
from destseg.settings import Settings, check_device


def torch_device(name: str) -> torch.device:
    """Return the device with this name; "auto" is CUDA where there is one, else the CPU.

    Raises ValueError where `check_device` does, and where torch does not find the device.
    """
    if check_device(name) == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    backend = {"cuda": torch.cuda, "mps": torch.backends.mps, "xpu": torch.xpu}.get(device.type)
    if backend is not None:
        count = getattr(torch, device.type).device_count() if backend.is_available() else 0
        if (device.index or 0) >= count:
            found = f"torch {torch.__version__} finds no such device here"
            raise ValueError(f"device {name}: {found}, use auto or cpu")
    return device


@plain_torch()
@torch.inference_mode(False)  # whose tensors could not be trained
def new_network(settings: Settings, weights: Weights = None, progress: bool = True) -> DeSTSegNet:
    """Make an untrained network with its teacher.

    Args:
        settings: the model's; they choose the parts and the teacher.
        weights, progress: the teacher's weights, see `destseg.model.teachers.teacher_state`.

    Raises RuntimeError where `check_process` does.
    """
    check_process()
    assert settings.teacher is not None  # settings name it once they are made
    state = teacher_state(settings.teacher, weights, progress)
    network = random_network(settings)
    network.teacher_net.load_state_dict(state)
    return network


def random_network(settings: Settings) -> DeSTSegNet:
    """Make a network with random weights, the teacher's too; torch's own random state stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(settings.seed)  # torch.manual_seed would seed GPUs, too
        return DeSTSegNet(**settings.parts).float()  # whatever the default dtype


def loaded_network(
    settings: Settings, state: Mapping[str, object], source: str, exact: bool = False
) -> DeSTSegNet:
    """Make a network from a state dict, which may hold more tensors than needed unless it must be `exact`.

    Raises ValueError, naming `source`, where `matching_tensors` does.
    """
    with torch.device("meta"):  # takes no memory and draws no numbers: every tensor is replaced
        network = DeSTSegNet(**settings.parts).float()
    tensors = matching_tensors(network.state_dict(), of_today(state, source), source, exact)
    network.load_state_dict(tensors, assign=True)
    return network


def of_today(state: Mapping[str, object], source: str) -> Mapping[str, object]:
    """Return a state dict with a memory bank as it is now.

    Earlier files knew no weight of distances, and the first ones held two tensors of features, by level.

    Raises ValueError, naming `source`, where `matching_tensors` does.
    """
    if "memory_bank.weight" in state:
        state = {"memory_bank.distance_weight": torch.zeros(())} | dict(state)
    if "memory_bank.second" not in state or "memory_bank.kept" in state:
        return state
    levels = {
        f"memory_bank.{level}": torch.empty(KEPT, channels, device="meta")
        for level, channels in zip(("second", "third"), CHANNELS[1:3], strict=True)
    }
    kept = torch.cat([*matching_tensors(levels, state, source).values()], dim=1)
    others = {name: value for name, value in state.items() if name not in levels}
    return others | {"memory_bank.kept": kept[..., None, None]}
