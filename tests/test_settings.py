"""Settings and schedules: defaults, what each may be, the words of every refusal, stored and back."""

import dataclasses
import inspect
import json
import math
import subprocess
import sys

import numpy as np
import pytest

from destseg import settings
from destseg.model.networks import DeSTSegNet
from destseg.pictures.roi import RegionOfInterest
from destseg.settings import (
    Schedule,
    Settings,
    check_amounts,
    check_device,
    one_or_two,
    two_sides,
    whole_number,
)

SWITCHES = ("denoising", "encoder_decoder", "segmentation")
TRIANGLE = [[0.0, 0.0], [30.0, 0.0], [0.0, 30.0]]
NAN = math.nan


def schedule(**changes):
    return Schedule(**{"steps": (1, 2), "batch_size": 3} | changes)


def switches(of):
    return tuple(getattr(of, name) for name in SWITCHES)


def test_default_settings_are_those_of_the_light_network():
    made = Settings()
    assert (made.preset, made.teacher, made.image_size, made.seed) == ("fast", "embedded", 256, 0)
    assert (made.precision, made.inference_precision) == ("auto", "float32")
    assert (made.tile, made.overlap, made.keep_aspect, made.roi) == (None, 0.25, False, None)
    assert switches(made) == (True, True, True)
    assert made.size == (256, 256) and made.tile_size is None


@pytest.mark.parametrize(
    ("preset", "teacher"), [("paper", "resnet18"), ("fast", "embedded"), ("stpm", "resnet18")]
)
def test_a_teacher_left_open_is_the_presets_and_stored_by_name(preset, teacher):
    assert Settings(preset).teacher == Settings(preset, None).stored()["teacher"] == teacher
    assert settings.OWN_TEACHERS.keys() == settings.PRESETS.keys()
    for other in settings.TEACHERS:
        assert Settings(preset, other).teacher == other


@pytest.mark.parametrize("preset", settings.PRESETS)
def test_switches_left_open_are_the_presets(preset):
    own = settings.PRESETS[preset]
    assert switches(Settings(preset)) == tuple(own[name] for name in SWITCHES)
    chosen = {"memory_bank": preset == "fast", "bounded": False, "student_encoder": True}
    assert Settings(preset).parts == own | chosen


@pytest.mark.parametrize("preset", settings.PRESETS)
@pytest.mark.parametrize("name", SWITCHES)
@pytest.mark.parametrize("value", [False, True, 0, 1, np.bool_(True)])
def test_a_switch_that_is_given_goes_before_the_preset(preset, name, value):
    made = Settings(preset, **{name: value})
    assert getattr(made, name) is bool(value)
    bank = preset == "fast" and (name != "segmentation" or bool(value))
    chosen = {"memory_bank": bank, "bounded": False, "student_encoder": True, name: bool(value)}
    assert made.parts == settings.PRESETS[preset] | chosen
    assert made.parts.keys() == inspect.signature(DeSTSegNet).parameters.keys()


@pytest.mark.parametrize(("preset", "own"), [("fast", True), ("paper", False), ("stpm", False)])
def test_the_light_network_has_a_memory_bank_unless_it_is_given(preset, own):
    assert Settings(preset).memory_bank is own
    assert Settings(preset, segmentation=False).memory_bank is False
    for given in (False, True):
        made = Settings(preset, memory_bank=given)
        assert made.memory_bank is made.parts["memory_bank"] is given


def test_the_largest_inputs_and_seeds():
    assert Settings(image_size=4096).size == (4096, 4096)
    assert Settings(image_size=(512, 32768)).size == (512, 32768)
    assert Settings(seed=2**63 - 1).seed == 2**63 - 1


def test_sides_are_one_number_or_height_and_width():
    assert Settings(image_size=(64, 96)).image_size == Settings(image_size=[64, 96]).size == (64, 96)
    square = Settings(image_size=[128, 128], tile=(100, 100))
    assert (square.image_size, square.tile) == (128, 100)
    assert (square.size, square.tile_size) == ((128, 128), (100, 100))
    oblong = Settings(image_size=(64, 128), tile=[16, 32], keep_aspect=True)
    assert (oblong.tile, oblong.tile_size) == ((16, 32), (16, 32))


def test_numpys_numbers_become_pythons():
    made = Settings(
        seed=np.int64(7),
        image_size=(np.int32(64), np.uint8(96)),
        tile=np.int16(80),
        overlap=np.float64(0.5),
        keep_aspect=np.bool_(False),
    )
    assert made == Settings(seed=7, image_size=(64, 96), tile=80, overlap=0.5)
    numbers = (made.seed, *made.image_size, made.tile, made.overlap, made.keep_aspect)
    assert [type(number) for number in numbers] == [int, int, int, int, float, bool]
    assert type(Settings(image_size=np.int64(64)).image_size) is int
    assert type(Settings(overlap=0).overlap) is float
    json.dumps(made.stored())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"preset": "quick"}, "preset must be one of paper, fast, stpm, got 'quick'"),
        ({"preset": None}, "preset must be one of paper, fast, stpm, got None"),
        ({"teacher": "resnet50"}, "teacher must be one of resnet18, embedded, got 'resnet50'"),
        ({"precision": "int8"}, "precision must be one of auto, float32, bfloat16, got 'int8'"),
        (
            {"inference_precision": "auto"},
            "inference_precision must be one of float32, float16, bfloat16, got 'auto'",
        ),
        ({"seed": -1}, "seed must be a whole number of at least 0, got -1"),
        ({"seed": 0.5}, "seed must be a whole number of at least 0, got 0.5"),
        ({"seed": "1"}, "seed must be a whole number of at least 0, got '1'"),
        ({"seed": None}, "seed must be a whole number of at least 0, got None"),
        ({"seed": 2**63}, f"seed must be a whole number of at least 0, up to {2**63 - 1}, got {2**63}"),
        *(
            ({name: value}, f"{name} must be True or False, got {value!r}")
            for name in ("keep_aspect", *SWITCHES, "memory_bank", "bounded", "student_encoder")
            for value in ("false", "no", 2)
        ),
        (
            {"image_size": 63},
            "image_size must be a number of pixels or (height, width), each at least 64, got 63",
        ),
        ({"image_size": (64, 63)}, "each at least 64, got (64, 63)"),
        ({"image_size": 256.0}, "image_size must be a number of pixels or (height, width), each at least 64"),
        ({"image_size": (64, 64, 64)}, "each at least 64, got (64, 64, 64)"),
        ({"image_size": "256"}, "each at least 64, got '256'"),
        ({"image_size": None}, "each at least 64, got None"),
        (
            {"image_size": 4097},
            "image_size must have at most 16777216 pixels, got 4097: cut larger pictures into tiles",
        ),
        ({"image_size": (64, 2**70)}, "image_size must have at most 16777216 pixels, got (64, "),
        *(
            ({name: value}, f"{name} must be True or False, got {value!r}")
            for name in (*SWITCHES, "keep_aspect")
            for value in ("False", "", 2, -1, 0.5, NAN, [], {}, b"\0")
        ),
        ({"keep_aspect": None}, "keep_aspect must be True or False, got None"),
        ({"tile": 63}, "tile must be at least a quarter of the input, (64, 64), got 63"),
        ({"tile": (64, 63)}, "tile must be at least a quarter of the input, (64, 64), got (64, 63)"),
        ({"tile": 0}, "tile must be at least a quarter of the input, (64, 64), got 0"),
        ({"image_size": (64, 128), "tile": 31}, "a quarter of the input, (16, 32), got 31"),
        ({"image_size": (64, 128), "tile": (16, 31)}, "a quarter of the input, (16, 32), got (16, 31)"),
        ({"image_size": 66, "tile": 16}, "tile must be at least a quarter of the input, (17, 17), got 16"),
        ({"tile": 64.0}, "tile must be a number of pixels or (height, width), got 64.0"),
        ({"tile": (1, 2, 3)}, "tile must be a number of pixels or (height, width), got (1, 2, 3)"),
        (
            {"image_size": (64, 128), "tile": 64, "keep_aspect": True},
            "keep_aspect with tile: its (height, width) must have the aspect of the input, "
            "(64, 128), got (64, 64)",
        ),
        ({"overlap": 0.8}, "overlap must be a share of a tile's side from 0 to 0.75, got 0.8"),
        ({"overlap": -0.1}, "from 0 to 0.75, got -0.1"),
        ({"overlap": NAN}, "from 0 to 0.75, got nan"),
        ({"overlap": "much"}, "from 0 to 0.75, got 'much'"),
        ({"overlap": True}, "from 0 to 0.75, got True"),
        ({"overlap": None}, "from 0 to 0.75, got None"),
    ],
)
def test_settings_that_cannot_be_are_refused(arguments, words):
    with pytest.raises(ValueError) as refused:
        Settings(**arguments)
    assert words in str(refused.value)


def test_settings_at_the_edge_of_what_is_allowed():
    made = Settings(image_size=64, tile=16, overlap=0.75)
    assert (made.size, made.tile_size, made.overlap) == ((64, 64), (16, 16), 0.75)
    assert Settings(overlap=0).overlap == 0


def test_settings_never_change():
    made = Settings()
    for name in [field.name for field in dataclasses.fields(made)]:
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(made, name, getattr(made, name))
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.another = 1
    assert dataclasses.replace(made, seed=3) == Settings(seed=3) != made == Settings()
    assert dataclasses.replace(made, seed=3).parts == made.parts
    with pytest.raises(ValueError, match="seed must be"):
        dataclasses.replace(made, seed=-3)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"preset": "stpm", "segmentation": True},
        {"preset": "fast", "teacher": "resnet18", "denoising": False, "seed": 5, "precision": "float32"},
        {"image_size": (64, 128), "tile": (32, 64), "keep_aspect": True, "overlap": 0.5},
        {"image_size": 64, "tile": 100, "inference_precision": "float16"},
    ],
)
def test_what_is_stored_makes_the_same_settings_again(arguments):
    made = Settings(**arguments)
    stored = made.stored()
    assert set(stored) == {field.name for field in dataclasses.fields(Settings)}
    assert Settings.from_stored(stored) == made
    assert Settings.from_stored(json.loads(json.dumps(stored))) == made  # nothing but plain values
    assert Settings.from_stored(stored).parts == made.parts
    assert stored["image_size"] == list(made.size) and stored["roi"] is None


def test_a_region_is_stored_as_what_makes_it_again():
    region = RegionOfInterest(TRIANGLE)
    made = Settings("fast", roi=region)
    stored = made.stored()
    assert stored["roi"] == TRIANGLE
    again = Settings.from_stored(stored)
    assert again.roi == TRIANGLE  # as stored: who reads the file makes the region
    assert RegionOfInterest(again.roi).checksum == region.checksum
    mask = np.eye(4, dtype=bool)
    stored = Settings(roi=RegionOfInterest(mask)).stored()
    assert np.array_equal(stored["roi"], mask)
    assert np.array_equal(Settings.from_stored(stored).roi, mask)
    assert made == Settings("fast")  # regions are not compared


def test_what_an_older_file_lacks_takes_the_default_of_that_time():
    old = Settings("paper", "resnet18", memory_bank=False)
    assert Settings.from_stored({}) == Settings.from_stored({"tile": None}) == old
    found = Settings.from_stored({"preset": "fast", "image_size": [64, 64]})
    assert found == Settings("fast", "resnet18", image_size=64, memory_bank=False)


def test_unknown_and_impossible_settings_of_a_file_are_refused():
    stored = Settings().stored()
    words = "unknown settings flavour, weather: a newer version of destseg wrote them"
    with pytest.raises(ValueError, match=words):
        Settings.from_stored(stored | {"weather": 1, "flavour": 2})
    with pytest.raises(ValueError, match="preset must be one of"):
        Settings.from_stored(stored | {"preset": "quick"})
    with pytest.raises(ValueError, match="image_size must be"):
        Settings.from_stored(stored | {"image_size": [32, 32]})


@pytest.mark.parametrize(
    ("preset", "steps", "batch_size", "rotate"),
    [("paper", (1000, 4000), 32, 0), ("fast", (600, 800), 8, "auto"), ("stpm", (1000, 4000), 32, 0)],
)
def test_a_schedule_left_open_is_the_presets(preset, steps, batch_size, rotate):
    own = Schedule.of(preset, None, None)
    assert (own.steps, own.batch_size) == (steps, batch_size)
    assert Schedule.of(preset, (1, 2), None) == Schedule((1, 2), batch_size, rotate)
    assert Schedule.of(preset, None, 5, flip="both") == Schedule(steps, 5, rotate, flip="both")
    assert set(settings.SCHEDULES) == set(settings.PRESETS)


def test_the_default_of_a_schedule():
    own = Schedule((0, 0), 1)
    assert own.augment == ""
    assert (own.rotate, own.flip, own.held_out, own.false_positive_rate) == (0, "", 0.2, 0.01)
    with pytest.raises(dataclasses.FrozenInstanceError):
        own.batch_size = 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        *(
            (
                {"steps": steps},
                f"steps must be two whole numbers of at least 0, (student, segmentation), got {steps!r}",
            )
            for steps in ((1, 2, 3), (1,), (-1, 2), (1, -2), (1.0, 2), "12", 7, None)
        ),
        *(
            ({"batch_size": size}, f"batch_size must be a whole number of at least 1, got {size!r}")
            for size in (0, -1, 2.0, "4", None)
        ),
        *(
            ({"flip": flip}, f"flip must be one of '', horizontal, vertical, both, got {flip!r}")
            for flip in ("diagonal", None, True)
        ),
        *(
            ({"augment": augment}, f"augment must be one of '', light, got {augment!r}")
            for augment in ("strong", None, True)
        ),
        *(
            (
                {"rotate": turn},
                f'rotate must be "auto", "90" (quarter turns) or degrees from 0 to 180, got {turn!r}',
            )
            for turn in ("around", -1, 181, NAN, "inf", None, [5])
        ),
        *(
            ({"held_out": share}, f"held_out must be a share between 0 and 0.5, got {share!r}")
            for share in (-0.1, 0.51, NAN, "0.2", None, True)
        ),
        *(
            ({"drop_outliers": value}, f"drop_outliers must be True or False, got {value!r}")
            for value in ("no", None)
        ),
        *(
            (
                {"false_positive_rate": rate},
                f"false_positive_rate must lie between 0 and 1, exclusive, got {rate!r}",
            )
            for rate in (0, 1, 1.5, -0.1, NAN, "0.1", None)
        ),
        ({"drop_outliers": "no"}, "drop_outliers must be True or False, got 'no'"),
    ],
)
def test_schedules_that_cannot_be_are_refused(changes, words):
    with pytest.raises(ValueError) as refused:
        schedule(**changes)
    assert str(refused.value) == words


def test_schedules_at_the_edge_of_what_is_allowed():
    assert tuple(schedule(steps=[0, 0]).steps) == (0, 0)
    assert schedule(held_out=0).held_out == 0 and schedule(held_out=0.5).held_out == 0.5
    assert schedule(rotate=180).rotate == 180


def test_degrees_are_the_same_however_they_are_written():
    assert schedule(rotate="5") == schedule(rotate=5) == schedule(rotate=5.0) == schedule(rotate=np.int64(5))
    assert schedule(rotate=90).rotate == 90.0 and schedule(rotate="90").rotate == "90"  # quarter turns
    for nothing in (0, "0", "0.0", 0.0):
        assert schedule(rotate=nothing).rotate == 0


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:1", "cuda:12", "cpu:0", "mps", "xpu:3"])
def test_names_of_devices(device):
    assert check_device(device) == device


@pytest.mark.parametrize("device", ["gpu", "", "cuda:", "cuda:x", "auto:1", "CUDA", " cpu", "cpu\n", 0, None])
def test_devices_that_are_none(device):
    with pytest.raises(ValueError) as refused:
        check_device(device)
    assert str(refused.value) == f"device must be auto, cpu, cuda, cuda:1 or the like, got {device!r}"


def test_one_side_or_two():
    assert one_or_two([64, 64]) == 64 and one_or_two((64, 128)) == (64, 128)
    assert two_sides(64) == two_sides((64, 64)) == (64, 64)
    assert two_sides([64, 128]) == two_sides((np.int64(64), np.uint8(128))) == (64, 128)
    for sides in (64, np.int64(64), (64, 96), [64, 96]):
        assert two_sides(one_or_two(two_sides(sides))) == two_sides(sides)
        assert all(type(side) is int for side in two_sides(sides))


@pytest.mark.parametrize("sides", [64.0, "64", None, (1, 2, 3), (64,), (), (64, 1.5), {64, 96}])
def test_sides_that_are_neither_one_number_nor_two(sides):
    with pytest.raises(ValueError) as refused:
        two_sides(sides)
    assert str(refused.value) == f"sides must be one whole number or two, got {sides!r}"


@pytest.mark.parametrize("value", [-1, NAN, "10", None, True])
def test_amounts_are_numbers_of_at_least_0(value):
    with pytest.raises(ValueError, match=f"memory must be a number of at least 0, got {value!r}"):
        check_amounts(seconds=1, memory=value)
    for allowed in (0, 10.5, np.float32(1), float("inf")):
        check_amounts(memory=allowed)


def test_switches_may_be_numpys():
    made = schedule(drop_outliers=np.bool_(False)), Settings(keep_aspect=np.bool_(True), denoising=0)
    assert (made[0].drop_outliers, made[1].keep_aspect, made[1].denoising) == (False, True, False)
    assert {type(made[0].drop_outliers), type(made[1].keep_aspect)} == {bool}  # as a file holds them


def test_whole_numbers_have_a_least():
    assert whole_number("workers", np.uint8(0)) == 0 and type(whole_number("workers", np.uint8(0))) is int
    assert whole_number("batch_size", 1, least=1) == 1
    with pytest.raises(ValueError, match="batch_size must be a whole number of at least 1, got 0"):
        whole_number("batch_size", 0, least=1)
    with pytest.raises(ValueError, match=r"workers must be a whole number of at least 0, got 1\.5"):
        whole_number("workers", 1.5)


def test_settings_need_neither_torch_nor_numpy():
    code = (
        "import sys, destseg.settings\n"
        "destseg.settings.Settings('fast')\n"
        "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_schedules_take_numpys_whole_numbers():
    counts = np.array([3, 4])
    for steps in (counts, list(counts), (np.int64(3), 4), [np.uint8(3), np.int32(4)]):
        made = schedule(steps=steps, batch_size=np.int64(2))
        assert (made.steps, made.batch_size) == ((3, 4), 2)
        assert {type(number) for number in (*made.steps, made.batch_size)} == {int}  # as a file holds them
    assert Settings(overlap=np.float32(0.5)).overlap == 0.5


def test_the_depth_of_a_camera():
    assert Settings().bit_depth is None  # learnt by fit
    for depth in (8, 10, 12, 16, np.int64(12)):
        made = Settings(bit_depth=depth)
        assert made.bit_depth == depth and type(made.bit_depth) is int
        assert Settings.from_stored(made.stored()) == made != Settings()
    old = {name: value for name, value in Settings().stored().items() if name != "bit_depth"}
    assert Settings.from_stored(old).bit_depth is None
    for depth in (7, 17, 12.0, "12", True):
        with pytest.raises(ValueError, match=r"bit_depth must be a whole number from 8 to 16, got"):
            Settings(bit_depth=depth)
