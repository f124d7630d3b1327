"""The networks: recorded outputs, published names, ablation switches, odd sizes, modes, initial weights."""

import itertools
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from destseg.model.networks import (
    ConvNormRelu,
    DeSTSegNet,
    SegmentationNet,
    Student,
    Teacher,
    fold_normalisations,
)
from destseg.training.losses import cosine_loss

RECORDED_AGREEMENT = 1e-4
SWITCHES = ("denoising", "encoder_decoder", "segmentation")


@pytest.fixture(scope="module")
def recorded(golden):
    return np.load(golden / "networks.npz")


@pytest.fixture(scope="module")
def published(golden_state):
    network = DeSTSegNet().eval()
    network.load_state_dict(golden_state)
    return network


@pytest.fixture(scope="module")
def small_network():
    torch.manual_seed(0)
    return DeSTSegNet().eval()


def recorded_input(shape, seed):
    import recipe

    return torch.from_numpy(recipe.golden_input(shape, seed))


def assert_recorded(found, expected):
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=RECORDED_AGREEMENT)


def test_names_and_shapes_are_those_of_published_checkpoints(golden):
    shapes = {
        name: tuple(shape) for name, shape in json.loads((golden / "state_shapes.json").read_text()).items()
    }
    assert {name: tuple(tensor.shape) for name, tensor in DeSTSegNet().state_dict().items()} == shapes


def test_number_of_parameters(small_network):
    count = sum(parameter.numel() for parameter in small_network.parameters())
    assert round(count / 1e6, 2) == 35.15


@pytest.mark.parametrize("case", [0, 1, 2])
def test_recorded_outputs(recorded, published, case):
    shape = tuple(recorded[f"in{case}_shape"].tolist())
    corrupted, clean = recorded_input(shape, case), recorded_input(shape, 50 + case)
    with torch.no_grad():
        alone, pair = published(corrupted), published(corrupted, clean)
    assert_recorded(alone.probability, recorded[f"in{case}_segmentation"])
    assert_recorded(alone.destmap, recorded[f"in{case}_destmap"])
    assert_recorded(pair.destmap, recorded[f"in{case}_pair_destmap"])
    for k in range(3):
        assert_recorded(alone.distances[k], recorded[f"in{case}_level{k + 1}_distance"])
        assert_recorded(pair.distances[k], recorded[f"in{case}_pair_level{k + 1}_distance"])


@pytest.mark.parametrize(
    ("name", "switches"), [("no_ed", {"encoder_decoder": False}), ("no_den", {"denoising": False})]
)
def test_recorded_ablations(recorded, golden_state, name, switches):
    # The student's loss and map are those of the pair; the segmentation is of the corrupted picture alone.
    network = DeSTSegNet(**switches).eval()
    assert not network.load_state_dict(golden_state, strict=False).missing_keys
    corrupted, clean = recorded_input((2, 3, 64, 64), 2), recorded_input((2, 3, 64, 64), 52)
    with torch.no_grad():
        alone, pair = network(corrupted), network(corrupted, clean)
    assert_recorded(alone.probability, recorded[f"{name}_segmentation"])
    assert_recorded(pair.destmap, recorded[f"{name}_destmap"])
    assert cosine_loss(pair.distances).item() == pytest.approx(
        float(recorded[f"{name}_cosine_loss"]), rel=1e-4
    )


@pytest.mark.parametrize("values", list(itertools.product([True, False], repeat=3)))
def test_every_row_of_the_ablation_trains_on_a_batch_of_one(values):
    torch.manual_seed(0)
    network = DeSTSegNet(**dict(zip(SWITCHES, values, strict=True))).train()
    images, clean = torch.randn(2, 1, 3, 64, 64)
    output = network(images, clean)
    loss = cosine_loss(output.distances) + output.destmap.mean()
    if network.segmentation_net is None:
        assert output.probability is None
    else:
        assert output.probability.min() >= 0 and output.probability.max() <= 1
        loss = loss + output.probability.mean()
    loss.backward()
    for name, parameter in network.named_parameters():
        if name.startswith("teacher_net."):
            assert not parameter.requires_grad and parameter.grad is None, name
        else:
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name


def test_without_denoising_the_student_sees_the_clean_picture():
    torch.manual_seed(0)
    network = DeSTSegNet(denoising=False, segmentation=False).eval()
    images, clean = torch.randn(2, 1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(network(images, clean).destmap, network(clean).destmap)
        network.denoising = True
        assert not torch.equal(network(images, clean).destmap, network(clean).destmap)


def test_without_segmentation_there_are_no_logits():
    network = DeSTSegNet(segmentation=False).eval()
    with pytest.raises(RuntimeError, match=r"built with segmentation=False; use its destmap"):
        network.logits(*network.features(torch.zeros(1, 3, 64, 64)))


@pytest.mark.parametrize(
    ("size", "quarter", "eighth", "sixteenth"),
    [
        ((64, 64), (16, 16), (8, 8), (4, 4)),
        ((70, 101), (18, 26), (9, 13), (5, 7)),
        ((65, 96), (17, 24), (9, 12), (5, 6)),
    ],
)
@pytest.mark.parametrize("encoder", [True, False])
@pytest.mark.parametrize("light", [False, True])
def test_sides_are_quartered_upwards(small_network, light, encoder, size, quarter, eighth, sixteenth):
    published = encoder and not light
    network = small_network if published else DeSTSegNet(light=light, student_encoder=encoder).eval()
    with torch.no_grad():
        output = network(torch.randn(2, 3, *size))
    assert output.probability.shape == output.destmap.shape == (2, 1, *quarter)
    assert [distance.shape for distance in output.distances] == [
        (2, 1, *s) for s in (quarter, eighth, sixteenth)
    ]
    assert torch.isfinite(output.probability).all()


@pytest.mark.parametrize(
    ("light", "encoder", "teacher", "student", "segmentation"),
    [(0, 1, 3.7, 10.7, 62.5), (1, 1, 3.7, 2.8, 2.8), (1, 0, 3.7, 2.0, 2.8)],
)
def test_gigaflops_of_256_x_256_pixels(light, encoder, teacher, student, segmentation):
    with torch.device("meta"):
        network = DeSTSegNet(light=bool(light), student_encoder=bool(encoder)).eval()
        picture = torch.empty(1, 3, 256, 256)
        features = network.features(picture)
    for part, given, expected in [
        (network.teacher_net, [picture], teacher),
        (network.student_net, [picture if encoder else features[0]], student),
        (network.segmentation_net, features, segmentation),
    ]:
        with FlopCounterMode(display=False) as counter:
            part(*given)
        assert counter.get_total_flops() / 1e9 == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize("switches", list(itertools.product([True, False], repeat=3)))
def test_light_parts_may_be_switched_off_as_well(switches):
    network = DeSTSegNet(*switches, light=True).eval()
    output = network(torch.randn(1, 3, 64, 64))
    assert (output.probability is None) == (not switches[2])
    assert [d.shape[2:] for d in output.distances] == [(16, 16), (8, 8), (4, 4)]


def test_pictures_of_a_batch_do_not_touch_each_other(small_network):
    images = torch.randn(3, 3, 70, 64)
    with torch.no_grad():
        together, alone = small_network(images), small_network(images[1:2])
    torch.testing.assert_close(together.probability[1:2], alone.probability, rtol=0, atol=1e-5)
    torch.testing.assert_close(together.destmap[1:2], alone.destmap, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(64, 64), (70, 101), (64, 96)])
@pytest.mark.parametrize("light", [False, True])
def test_maps_are_the_probability_at_the_pictures_size(light, size):
    torch.manual_seed(0)
    network, images = DeSTSegNet(light=light).eval(), torch.randn(2, 3, *size)
    with torch.no_grad():
        maps, probability = network.maps(images), network(images).probability
    expected = F.interpolate(probability, size, mode="bilinear", align_corners=False)[:, 0]
    assert maps.shape == (2, *size) and maps.dtype == torch.float32
    assert maps.min() >= 0 and maps.max() <= 1
    torch.testing.assert_close(maps, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("light", [False, True])
def test_maps_without_segmentation_are_the_destmap_at_the_pictures_size(light):
    torch.manual_seed(0)
    network, images = DeSTSegNet(segmentation=False, light=light).eval(), torch.randn(2, 3, 70, 101)
    with torch.no_grad():
        maps, destmap = network.maps(images), network(images).destmap
    expected = F.interpolate(destmap, (70, 101), mode="bilinear", align_corners=False)[:, 0]
    assert maps.shape == (2, 70, 101) and maps.dtype == torch.float32
    torch.testing.assert_close(maps, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("segmentation", [True, False])
def test_maps_in_half_precision_are_float32(segmentation):
    torch.manual_seed(0)
    network, images = DeSTSegNet(segmentation=segmentation, light=True).eval(), torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = network.maps(images)
        found = network.to(torch.bfloat16).maps(images.to(torch.bfloat16))
    assert found.dtype == torch.float32 and found.min() >= 0 and found.max() <= 1
    torch.testing.assert_close(found, expected, rtol=0, atol=3e-2)


def test_maps_of_nan_stay_nan():
    network = DeSTSegNet(light=True).eval()
    network.student_net.state_dict()["decoder_layer1.0.conv1.weight"].fill_(torch.nan)
    with torch.no_grad():
        assert network.maps(torch.randn(1, 3, 64, 64)).isnan().all()


def test_a_folded_network_gives_the_same_maps_and_leaves_the_network_alone(light):
    network, images = light.network_, torch.randn(2, 3, 64, 96)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    small = fold_normalisations(network)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in small.modules())
    assert not any(parameter.requires_grad for parameter in small.parameters())
    with torch.no_grad():
        torch.testing.assert_close(small.maps(images), network.maps(images), atol=1e-5, rtol=0)
    after = network.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize("shape", [(1, 3, 63, 64), (1, 3, 64, 20), (1, 1, 64, 64), (3, 64, 64)])
def test_words_about_inputs_that_do_not_fit(small_network, shape):
    words = rf"images must be \(n, 3, h, w\) with sides of at least 64, got \({', '.join(map(str, shape))}\)"
    with pytest.raises(ValueError, match=words):
        small_network(torch.zeros(shape))


def test_teacher_stays_frozen_in_evaluation_mode():
    network = DeSTSegNet().train()
    before = {name: value.clone() for name, value in network.teacher_net.state_dict().items()}
    assert network.student_net.training and network.segmentation_net.training
    network(torch.randn(2, 3, 64, 64))
    assert not any(module.training for module in network.teacher_net.modules())
    assert not any(parameter.requires_grad for parameter in network.teacher_net.parameters())
    for name, value in network.teacher_net.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_pooled_normalisation_of_one_value_takes_the_running_statistics():
    layer = ConvNormRelu(1, 2, 1).train()
    with torch.no_grad():
        layer.conv.weight.copy_(torch.tensor([2.0, -1.0]).reshape(2, 1, 1, 1))
        layer.norm.running_mean.fill_(1.0)
        layer.norm.running_var.fill_(4.0 - layer.norm.eps)
        layer.norm.bias.fill_(0.5)
    output = layer(torch.full((1, 1, 1, 1), 3.0))  # 2 * 3 -> (6 - 1) / 2 + 0.5; -3 -> (-3 - 1) / 2 + 0.5 < 0
    torch.testing.assert_close(output.flatten(), torch.tensor([3.0, 0.0]))
    assert layer.norm.running_mean.tolist() == [1.0, 1.0]
    layer(torch.tensor([1.0, 2.0]).reshape(2, 1, 1, 1))  # two values have a variance: 2 and 4, mean 3
    torch.testing.assert_close(layer.norm.running_mean, torch.tensor([0.9 + 0.3, 0.9 - 0.15]))


@pytest.mark.parametrize("light", [False, True])
def test_segmentation_network_sees_the_whole_picture_through_its_pooled_branch(light):
    torch.manual_seed(0)
    network = SegmentationNet(light).eval()
    near = torch.randn(1, 448, 80, 80)
    far = near.clone()
    far[..., -1, -1] += 10  # 79 pixels away, out of reach of every convolution
    with torch.no_grad():
        first, other = (network.head(network.res(similarities)) for similarities in (near, far))
    assert first[0, 0, 0, 0] != other[0, 0, 0, 0]


def test_a_bounded_student_passes_on_vectors_of_one_length():
    torch.manual_seed(0)
    student, seen = Student(width=32, bounded=True).eval(), {}
    stages = {f"decoder_layer{k}": channels for k, channels in ((4, 256), (3, 128), (2, 64), (1, 32))}
    for name in stages:
        stage = getattr(student, name)
        stage.register_forward_pre_hook(lambda _, given, name=name: seen.update({name: given[0]}))
        stage[1].bn2.weight.data *= 1000  # as training may drive it up
    with torch.no_grad():
        levels = student(torch.randn(1, 3, 128, 64))
    for later, earlier in zip([*stages][1:], [*stages], strict=False):
        # Resized vectors of one length are not longer.
        assert 0.5 < seen[later].square().mean(1).sqrt().max() <= 1.0001, later
        assert seen[later].shape[1] == stages[earlier]
    assert all(level.abs().max() < 100 for level in levels)
    plain = Student(width=32).eval()
    plain.load_state_dict(student.state_dict())
    with torch.no_grad():
        assert plain(torch.randn(1, 3, 128, 64))[0].abs().max() > 1e6


def test_encoder_blocks_start_as_their_shortcut():
    embedding = Student(encoder=False).embedding
    for encoder, stages in ((Student().encoder, 4), (Teacher().encoder, 3), (embedding, 1)):
        gains = [value for name, value in encoder.named_parameters() if name.endswith("bn2.weight")]
        assert len(gains) == 2 * stages
        assert all((gain == 0).all() for gain in gains)


@pytest.mark.parametrize("denoising", [True, False])
def test_a_student_without_an_encoder_decodes_what_the_teacher_sees_in_its_picture(denoising):
    torch.manual_seed(0)
    network = DeSTSegNet(denoising, light=True, student_encoder=False).eval()
    images, clean = torch.randn(2, 1, 3, 64, 64)
    with torch.no_grad():
        taught, learnt = network.features(images, clean)
        seen = network.teacher_net(images if denoising else clean)
        expected = network.student_net(seen)
    for found, wanted in ((taught, network.teacher_net(clean)), (learnt, expected)):
        assert all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))
    with torch.no_grad():  # of a single picture, which teacher and student both see, the teacher runs once
        calls = []
        network.teacher_net.register_forward_hook(lambda *_: calls.append(1))
        again = network.features(images)[1]
    assert calls == [1]
    alone = network.student_net(network.teacher_net(images))
    assert all(torch.equal(one, other) for one, other in zip(again, alone, strict=True))


def test_all_levels_of_the_teacher_reach_a_student_without_an_encoder():
    torch.manual_seed(0)
    student = Student(width=32, encoder=False)
    levels = [torch.randn(2, c, s, s, requires_grad=True) for c, s in ((64, 16), (128, 8), (256, 4))]
    found = student(levels)
    assert [level.shape for level in found] == [level.shape for level in levels]
    sum(level.square().mean() for level in found).backward()
    assert all(level.grad.abs().max() > 0 for level in levels)
    assert all(parameter.grad is not None for parameter in student.parameters())


def test_without_a_decoder_a_student_has_an_encoder():
    assert Student(encoder_decoder=False, encoder=False).encoder is not None


def test_decoder_and_segmentation_start_by_he():
    torch.manual_seed(0)
    student, segmentation = Student(), SegmentationNet()
    for convolution in (
        student.decoder_layer4[0].conv1,
        student.decoder_layer3[0].conv1,
        segmentation.res[0].conv2,
    ):
        expected = (2 / (9 * convolution.out_channels)) ** 0.5  # fan_out, relu
        assert convolution.weight.std().item() == pytest.approx(expected, rel=0.01)
    gains = [
        value for name, value in student.named_parameters() if name.startswith("dec") and "bn2.w" in name
    ]
    assert len(gains) == 8 and all((gain == 1).all() for gain in gains)
    last = segmentation.head[-1].weight  # the head is torch's own start: 1 / sqrt(256) at most
    assert last.abs().max() <= 1 / 16
