"""The checksum of exported files: by hand, and whatever becomes of the files' bytes."""

import hashlib
import json
import os

import numpy as np
import pytest
from engines import NAMES

import destseg
from destseg.artifacts.digest import BLANK, is_whole, sealed
from destseg.artifacts.formats import FORMATS, read

TRIALS = 12  # of noise in each file; each reads the whole model


def test_a_checksum_worked_by_hand():
    content, beside = b"{'sha256': '" + BLANK.encode() + b"'} and more", b"weights"
    digest = hashlib.sha256(content + beside).hexdigest()
    assert sealed(content, beside) == content.replace(BLANK.encode(), digest.encode())
    assert is_whole(digest, sealed(content, beside), beside)
    for other in ((sealed(content, beside),), (sealed(content, beside), b"Weights"), (b"x", beside)):
        assert not is_whole(digest, *other)
    assert not is_whole(hashlib.sha256(b"").hexdigest(), sealed(content, beside), beside)


@pytest.mark.parametrize("digest", ["", "0", "é" * 64, BLANK + "0", BLANK.upper() + "\n", None, 7, [BLANK]])
def test_what_is_no_checksum_never_holds(digest):
    assert not is_whole(digest, b"0" * 100)


def parts_of(path):
    return [path] if path.suffix == ".onnx" else [path, path.with_suffix(".bin")]


@pytest.fixture
def copy_of(exported, tmp_path):
    """Copies the exported model of an ending, to be changed at will, and returns its path."""

    def copy(ending):
        for part in parts_of(exported(ending)):
            (tmp_path / part.name).write_bytes(part.read_bytes())
        return tmp_path / exported(ending).name

    return copy


@pytest.mark.parametrize("ending", NAMES)
def test_noise_anywhere_is_noticed(copy_of, ending):
    path, generator = copy_of(ending), np.random.default_rng(0)
    for part in parts_of(path):
        whole = part.read_bytes()
        places = [*generator.integers(0, len(whole) - 64, TRIALS), 0, len(whole) - 64]
        description = whole.find(b"destseg export")
        for place in (
            *places,
            *([] if description < 0 else range(description - 64, description + 1500, 300)),
        ):
            noise = generator.bytes(64)
            part.write_bytes(whole[:place] + noise + whole[place + 64 :])
            with pytest.raises(ValueError, match=rf"part\{ending} (is damaged|was not exported)"):
                read(path)
        part.write_bytes(whole)
    assert read(path).calibration is not None


@pytest.mark.parametrize("ending", NAMES)
def test_a_single_bit_of_a_weight_is_called_damage(copy_of, ending):
    path = copy_of(ending)
    part = parts_of(path)[-1]
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)
    also = ", or does not belong to part.bin" if ending == ".xml" else ""
    with pytest.raises(ValueError) as refused:
        destseg.load(path)
    words = f"is damaged{also}: its checksum does not hold; copy it again, or export it again"
    assert str(refused.value) == f"{path} {words}"


@pytest.mark.parametrize("ending", NAMES)
def test_a_digit_of_a_threshold_is_noticed(copy_of, ending):
    path = copy_of(ending)
    content = path.read_bytes()
    place = content.rindex(b"threshold") + content[content.rindex(b"threshold") :].index(b"0.") + 3
    path.write_bytes(content[:place] + (b"7" if content[place] != ord("7") else b"8") + content[place + 1 :])
    assert path.read_bytes() != content
    with pytest.raises(ValueError, match="its checksum does not hold"):
        read(path)


def test_a_graph_beside_weights_of_another_export_is_refused(copy_of):
    path = copy_of(".xml")
    weights = path.with_suffix(".bin")
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\x80\x3f")  # of equal size
    with pytest.raises(ValueError, match=r"part\.xml is damaged, or does not belong to part\.bin"):
        read(path)


class Killed(BaseException):
    """A process that is killed runs nothing more."""


def killed_after(renames, monkeypatch):
    rename = os.replace

    def replace(source, target):
        nonlocal renames
        if not renames:
            raise Killed
        renames -= 1
        rename(source, target)

    monkeypatch.setattr(os, "replace", replace)


@pytest.mark.parametrize("renames", [0, 1])
def test_a_kill_during_an_export_leaves_the_old_model_or_a_pair_that_is_refused(
    light, copy_of, monkeypatch, renames
):
    path = copy_of(".xml")
    graph, weights = (part.read_bytes() for part in parts_of(path))
    middle = len(weights) // 2
    others = weights[:middle] + bytes(64) + weights[middle + 64 :]
    model = pytest.importorskip("openvino").Core().read_model(graph, others)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        killed_after(renames, patch)
        FORMATS["openvino"].write(path, model, read(path))
    if renames == 0:
        assert read(path).calibration == light.calibration_
        return
    with pytest.raises(ValueError, match=r"part\.xml is damaged, or does not belong to part\.bin"):
        read(path)


@pytest.mark.parametrize("ending", NAMES)
@pytest.mark.parametrize("renames", [0, 1])
def test_new_thresholds_appear_whole_or_not_at_all(light, copy_of, monkeypatch, ending, renames):
    """Whenever the process is killed, the file loads: with the old thresholds or with the new."""
    path = copy_of(ending)
    model = destseg.load(path).calibrate(false_positive_rate=0.5)
    with monkeypatch.context() as patch:
        killed_after(renames, patch)
        if renames:
            model.save(path)  # a second rename would raise
        else:
            with pytest.raises(Killed):
                model.save(path)
    expected = model.calibration_ if renames else light.calibration_
    assert destseg.load(path).calibration_ == expected


def test_a_checksum_cannot_be_left_out(copy_of):
    onnx = pytest.importorskip("onnx")
    path = copy_of(".onnx")
    model = onnx.load(path)
    (entry,) = model.metadata_props
    content = json.loads(entry.value)
    cases = [(content | {"sha256": digest}, "its checksum does not hold") for digest in ("", BLANK, 5, None)]
    cases.append(({name: value for name, value in content.items() if name != "sha256"}, "it lacks sha256"))
    for changed, words in cases:
        entry.value = json.dumps(changed)
        onnx.save(model, path)
        with pytest.raises(ValueError, match=words):
            read(path)
