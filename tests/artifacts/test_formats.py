"""The table of formats: what a file's name says, and which names a format refuses."""

from pathlib import Path

import pytest

from destseg.artifacts.formats import EXPORTED, FORMATS, check_name, format_of, read

ENDINGS = {"": "destseg", ".destseg": "destseg", ".model": "destseg", ".pt": "destseg", ".pckl": "destseg"}
ENDINGS |= {".onnx": "onnx", ".xml": "openvino"}
NO_MODELS = {
    ".bin": r"part{} is no model: it holds the weights of an OpenVINO model only: name the \.xml beside it",
    ".pt2": r"part{} is no model: torch unpickles such files, which can run any code, so destseg neither .*",
}


def both_cases(endings):
    return [case for ending in endings for case in dict.fromkeys((ending, ending.upper()))]


def test_the_table():
    assert list(FORMATS) == ["destseg", "onnx", "openvino"]
    assert list(EXPORTED) == ["onnx", "openvino"]
    assert all(form.name == name for name, form in FORMATS.items())
    assert {form.name: form.ending for form in FORMATS.values()} == {
        "destseg": "",
        "onnx": ".onnx",
        "openvino": ".xml",
    }
    for form in FORMATS.values():  # only what holds a graph can be built and quantised
        assert (form.build is None) == (form.name not in EXPORTED)
        assert form.precisions == (("float32", "int8") if form.quantise else ())
    assert [len(form.files(Path("part"))) for form in FORMATS.values()] == [1, 1, 2]


@pytest.mark.parametrize("ending", both_cases(ENDINGS))
def test_the_name_says_the_format(ending, tmp_path):
    wanted = FORMATS[ENDINGS[ending.lower()]]
    for path in (f"part{ending}", f"folder.xml/part{ending}", tmp_path / f"part.onnx.2{ending or '.x'}"):
        assert format_of(path) is wanted


@pytest.mark.parametrize("ending", both_cases(NO_MODELS))
def test_names_that_no_model_has_are_refused_with_the_reason(ending, tmp_path):
    path, words = tmp_path / f"part{ending}", NO_MODELS[ending.lower()].format(ending)
    path.write_bytes(b"anything")
    for refuse in (format_of, read, *(lambda path, f=form: check_name(path, f) for form in FORMATS.values())):
        with pytest.raises(ValueError, match=words):
            refuse(path)


@pytest.mark.parametrize("ending", both_cases(ENDINGS))
def test_a_format_takes_only_names_that_are_read_as_its_own(ending):
    path, own = f"part{ending}", ENDINGS[ending.lower()]
    for name, form in FORMATS.items():
        if name == own:
            check_name(path, form)
            continue
        if name == "destseg":
            words = (
                rf"part{ending}: names that end in {ending.lower()} are for exported .* as part\.destseg, "
            )
        else:
            words = (
                rf"the name of an exported file of this format must end in {form.ending}, got part{ending}"
            )
        with pytest.raises(ValueError, match=words):
            check_name(path, form)


@pytest.mark.parametrize("ending", ["", ".destseg", ".onnx", ".xml"])
def test_a_missing_file_is_called_missing(ending, tmp_path):
    if ending in (".onnx", ".xml"):
        pytest.importorskip({".onnx": "onnxruntime", ".xml": "openvino"}[ending])
    with pytest.raises(FileNotFoundError, match=r"no such file: .*part"):
        read(tmp_path / f"part{ending}")
