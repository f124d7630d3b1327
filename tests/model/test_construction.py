"""Networks made: of a seed and a teacher, of a file's tensors; and the device of a name."""

import pytest
import torch

from destseg.model.construction import loaded_network, new_network, random_network, torch_device
from destseg.model.memory_bank import KEPT
from destseg.settings import PRESETS, Settings


@pytest.fixture(scope="module")
def small():
    """Settings of a network without what takes longest to make."""
    return {"preset": "stpm", "image_size": 64}


def test_initial_weights_follow_the_seed_and_leave_torch_alone(teacher_weights, small):
    torch.manual_seed(123)
    expected = torch.rand(4)
    torch.manual_seed(123)
    first, again, other = (new_network(Settings(seed=seed, **small), teacher_weights) for seed in (5, 5, 6))
    assert torch.equal(torch.rand(4), expected)
    weights = [network.student_net.encoder.conv1.weight for network in (first, again, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    teacher = torch.load(teacher_weights, weights_only=True)
    for network in (first, other):
        assert torch.equal(network.teacher_net.encoder.conv1.weight, teacher["conv1.weight"])


def test_a_new_network_leaves_the_random_state_of_gpus_alone(teacher_weights, monkeypatch):
    seeds = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeds.append)
    new_network(Settings("paper", seed=3), teacher_weights)
    assert not seeds


def test_a_random_network_needs_no_teacher_and_leaves_torch_alone(small):
    torch.manual_seed(123)
    expected = torch.rand(4)
    torch.manual_seed(123)
    first, again, other = (random_network(Settings(seed=seed, **small)) for seed in (5, 5, 6))
    assert torch.equal(torch.rand(4), expected)
    for part in ("teacher_net", "student_net"):
        weights = [getattr(network, part).encoder.conv1.weight for network in (first, again, other)]
        assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize("preset", PRESETS)
def test_a_network_has_the_parts_of_its_settings(preset):
    network, parts = random_network(Settings(preset)), PRESETS[preset]
    assert (network.denoising, network.light) == (parts["denoising"], parts["light"])
    assert network.student_net.encoder_decoder == parts["encoder_decoder"]
    assert (network.segmentation_net is not None) == parts["segmentation"]
    assert random_network(Settings(preset, segmentation=False)).segmentation_net is None


def test_a_loaded_network_has_the_tensors_of_the_file(small):
    settings = Settings(**small)
    given = random_network(settings).state_dict()
    more = given | {"segmentation_net.head.4.bias": torch.zeros(1)}
    network = loaded_network(settings, more, "part.pckl")
    found = network.state_dict()
    assert found.keys() == given.keys()
    assert all(torch.equal(found[name], given[name]) for name in given)
    assert not any(tensor.is_meta for tensor in [*network.parameters(), *network.buffers()])


def test_the_first_files_with_a_memory_bank_held_its_levels_apart():
    settings = Settings()
    today = random_network(settings).state_dict()
    today["memory_bank.kept"] = torch.randn(KEPT, 384, 1, 1)
    before = {name: value for name, value in today.items() if name != "memory_bank.kept"}
    levels = today["memory_bank.kept"].flatten(1).split((128, 256), dim=1)
    before |= {"memory_bank.second": levels[0], "memory_bank.third": levels[1]}
    found = loaded_network(settings, before, "part.destseg", exact=True).state_dict()
    assert found.keys() == today.keys()
    assert all(torch.equal(found[name], today[name]) for name in today)
    for third, reason in ((levels[1][1:], "must have shape"), (levels[1].long(), "must be of torch.float32")):
        with pytest.raises(ValueError, match=f"part.destseg: the tensor memory_bank.third {reason}"):
            loaded_network(settings, before | {"memory_bank.third": third}, "part.destseg", exact=True)
    both = before | {"memory_bank.kept": today["memory_bank.kept"]}
    with pytest.raises(ValueError, match=r"does not belong to this network: it has memory_bank\.second"):
        loaded_network(settings, both, "part.destseg", exact=True)


def test_earlier_memory_banks_knew_no_weight_of_distances():
    """Their thresholds belong to maps without."""
    settings = Settings()
    before = random_network(settings).state_dict()
    assert before.pop("memory_bank.distance_weight") == 1 / 4
    found = loaded_network(settings, before, "part.destseg", exact=True)
    assert found.memory_bank.distance_weight == 0


def test_a_loaded_network_computes_in_float32(small):
    settings = Settings(**small)
    half = {name: tensor.half() for name, tensor in random_network(settings).state_dict().items()}
    network = loaded_network(settings, half, "half.pckl")
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    assert torch.isfinite(network.eval().maps(torch.randn(1, 3, 64, 64))).all()


def test_loading_draws_no_random_numbers(small):
    settings = Settings(**small)
    given = random_network(settings).state_dict()
    torch.manual_seed(123)
    expected = torch.rand(4)
    torch.manual_seed(123)
    loaded_network(settings, given, "part.pckl")
    assert torch.equal(torch.rand(4), expected)


def test_missing_and_misshapen_tensors_are_named(small):
    settings, name = Settings(**small), "student_net.encoder.layer1.0.conv2.weight"
    given = random_network(settings).state_dict()
    less = {key: value for key, value in given.items() if key != name}
    with pytest.raises(ValueError, match=rf"^part.pckl lacks the tensor {name} of shape \(64, 64, 3, 3\)"):
        loaded_network(settings, less, "part.pckl")
    words = rf"^part.pckl: the tensor {name} must have shape \(64, 64, 3, 3\), got \(7,\)"
    with pytest.raises(ValueError, match=words):
        loaded_network(settings, given | {name: torch.zeros(7)}, "part.pckl")


@pytest.mark.parametrize("there", [True, False])
def test_auto_is_a_gpu_where_there_is_one(there, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: int(there))
    assert torch_device("auto").type == ("cuda" if there else "cpu")
    assert torch_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "", "cpu:", 0, None])
def test_words_about_devices_that_there_are_not(name):
    with pytest.raises(ValueError, match=r"device must be auto, cpu, cuda, cuda:1 or the like, got"):
        torch_device(name)
