"""What several test files share: the recorded values, tolerances per dtype, small pictures."""

import json
import os
import pathlib
import shutil
import sys
import tracemalloc
from collections.abc import Iterator

import numpy as np
import PIL.Image
import pytest
import torch
from emulation import device, emulated_kernels, emulation_folder  # noqa: F401

import destseg

_TESTS = pathlib.Path(__file__).resolve().parent
SHARED = pathlib.Path(os.environ.get("DESTSEG_SHARED", _TESTS.parents[1] / "shared"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run first the tests in which this process gets signals.

    On a machine with AMX a signal ended the process by SIGSEGV, before any handler was called, once OpenVINO
    models had been saved, loaded and freed. The cause was not found; it needs neither torch nor pytest.
    """
    first = ("test_checkpoint.py", "test_workers.py")
    items.sort(key=lambda item: not any(name in item.nodeid for name in first))


@pytest.fixture(autouse=True)
def untraced() -> Iterator[None]:
    """A test that fails while it traces memory would make all later ones five times as slow."""
    yield
    tracemalloc.stop()


@pytest.fixture
def no_file_grows() -> Iterator[None]:
    """Every file that is written ends at 100 kB, as on a full disk; Python ignores the signal."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture(scope="session")
def shared() -> pathlib.Path:
    """The folder of real data, weights and recorded values; tests that use it skip where it is missing."""
    if not (SHARED / "golden").is_dir():
        pytest.skip(f"no shared folder at {SHARED} (set DESTSEG_SHARED to its path)")
    return SHARED


@pytest.fixture(scope="session")
def golden(shared: pathlib.Path) -> pathlib.Path:
    """The folder of values recorded from the published implementation; its recipe becomes importable."""
    sys.path.insert(0, str(shared / "golden"))
    return shared / "golden"


@pytest.fixture(scope="session")
def golden_state(golden: pathlib.Path) -> dict[str, torch.Tensor]:
    """The state dict, in the form of a published checkpoint, that the values were recorded with."""
    import recipe

    shapes = json.loads((golden / "state_shapes.json").read_text())
    return {name: torch.from_numpy(array) for name, array in recipe.golden_state(shapes, seed=0).items()}


@pytest.fixture(scope="session")
def tolerance() -> dict[torch.dtype, float]:
    """How far a result may lie from its expected value of the order of 1."""
    return {torch.float32: 1e-5, torch.float64: 1e-12, torch.float16: 2e-3, torch.bfloat16: 1e-2}


@pytest.fixture(scope="session")
def teacher_weights(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A file of random teacher weights in torchvision's names, for tests that need some and not which."""
    from destseg.model.networks import Teacher

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        state = Teacher().encoder.state_dict()
        for name, tensor in state.items():
            if name.endswith("bn2.weight"):  # 0 at first: the blocks would do nothing
                tensor.uniform_(0.2, 0.4)
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(state, path)
    return path


@pytest.fixture(scope="session")
def few_parts(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder of 24 pictures of normal parts, 80 x 96 pixels: a brushed disc on a grained, shaded ground."""
    folder = tmp_path_factory.mktemp("parts") / "good"
    folder.mkdir()
    rows, columns = np.mgrid[0:80, 0:96]
    for k in range(24):
        generator = np.random.default_rng([4, k])
        top, left = 40 + generator.uniform(-3, 3), 48 + generator.uniform(-3, 3)
        disc = np.hypot(rows - top, columns - left) < 26
        brushed = 25 * np.sin(0.9 * columns + generator.uniform(0, 6))
        picture = np.where(disc, 165 + brushed, 70 + 0.3 * rows)[..., None] * [1.0, 0.95, 0.85]
        picture += generator.normal(0, 6, (80, 96, 1))
        PIL.Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / f"{k:02}.png")
    return folder


@pytest.fixture(scope="session")
def data_root(few_parts: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Two categories, each of 12 normal pictures, and two good ones and two with a hole to test."""
    root = tmp_path_factory.mktemp("root")
    pictures = sorted(few_parts.iterdir())
    mask = np.zeros((80, 96), bool)
    mask[20:40, 30:60] = True
    for category, normal in (("transistor_256", "train/good"), ("plain", "normal")):
        for folder in (normal, "test/good", "test/hole", "ground_truth/hole"):
            (root / category / folder).mkdir(parents=True)
        for k, path in enumerate(pictures[:16]):
            home = root / category / (normal if k < 12 else "test/good" if k < 14 else "test/hole")
            shutil.copy(path, home)
            if k >= 14:
                pixels = np.array(PIL.Image.open(path))
                pixels[mask] = 255
                PIL.Image.fromarray(pixels).save(home / path.name)
                PIL.Image.fromarray(mask).save(root / category / "ground_truth/hole" / path.name)
    return root


@pytest.fixture(scope="session")
def picture(few_parts: pathlib.Path) -> np.ndarray:
    """The first of them, (80, 96, 3) uint8. Not to be changed by tests."""
    return np.array(PIL.Image.open(sorted(few_parts.iterdir())[0]).convert("RGB"))


@pytest.fixture(scope="session")
def fitted(few_parts: pathlib.Path) -> "destseg.DeSTSeg":
    """A model fitted for a moment: everything works, nothing is good. Not to be changed by tests."""
    model = destseg.DeSTSeg(image_size=64, precision="float32")
    return model.fit(few_parts, steps=(2, 2), batch_size=2, progress=False, false_positive_rate=0.1)


@pytest.fixture(scope="session")
def light(tmp_path_factory: pytest.TempPathFactory) -> "destseg.DeSTSeg":
    """A calibrated light model of random weights, 64 x 96, whose normalisations do something."""
    from destseg.model.networks import DeSTSegNet
    from destseg.settings import Settings

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = DeSTSegNet(**Settings("fast").parts)
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                torch.nn.init.uniform_(module.weight, 0.5, 1.5)
                torch.nn.init.uniform_(module.bias, -0.2, 0.2)
                torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
                torch.nn.init.uniform_(module.running_var, 0.5, 2)
    path = tmp_path_factory.mktemp("light") / "light.pth"
    torch.save(network.state_dict(), path)
    model = destseg.DeSTSeg.from_checkpoint(path, preset="fast", image_size=(64, 96), device="cpu")
    normal = np.random.default_rng(1).integers(0, 256, (12, 64, 96, 3), dtype=np.uint8)
    return model.calibrate(normal, 0.2)
