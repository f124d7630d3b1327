"""Damaged and crafted files of every kind: a clear error, or the very same model; tools/mutate_files.py."""

import pathlib
import sys

import pytest

from destseg.model.tensorfile import read_tensors, write_tensors

COUNT = 75  # of each kind; a recorded run takes 10,000
TOOLS = pathlib.Path(__file__).parents[2] / "tools"


@pytest.fixture
def tool(monkeypatch):
    for package in ("onnx", "onnxruntime", "openvino"):
        pytest.importorskip(package)
    if sys.platform != "linux":
        pytest.skip("bounds its memory as Linux does")
    monkeypatch.syspath_prepend(str(TOOLS))
    import mutate_files

    return mutate_files


@pytest.mark.parametrize("kind", ["destseg", "checkpoint", "onnx", "openvino"])
def test_a_mutated_file_is_refused_or_the_very_same_model(tool, tmp_path, kind):
    counts = tool.run(kind, tool.make(kind, tmp_path), range(COUNT))
    assert not [found for found in counts if found.startswith("WRONG")]
    assert sum(counts.values()) == COUNT and counts["error"] > COUNT / 2


def test_what_is_wrong_is_told(tool, tmp_path, monkeypatch):
    """Here what comes of a reader that takes other bytes, one that raises anything, and one that hangs."""
    original, real = tool.make("destseg", tmp_path), tool.content_of

    def outcome():
        return tool.outcome("destseg", original, expected, on_purpose=False)

    def raise_key_error(kind, path):
        raise KeyError("settings")

    expected = real("destseg", original)
    assert outcome() == "same"
    monkeypatch.setattr(tool, "content_of", lambda *_: expected | {"losses": [0.5, 0.5]})
    assert outcome() == "WRONG: other content"
    monkeypatch.setattr(tool, "content_of", raise_key_error)
    assert outcome() == "WRONG: KeyError: 'settings'"
    monkeypatch.setattr(tool, "SECONDS", 0)
    assert outcome().startswith("WRONG: WRONG: KeyError: 'settings' took")


def without(content, *names):
    return {name: value for name, value in content.items() if name not in names}


CHECKPOINTS = {
    "no network": (
        lambda c: c | {"network": {}},
        r"its network lacks the tensor student_net\.weight of shape",
    ),
    "no optimizer": (lambda c: c | {"optimizer": {}}, "its optimizer must tell its options and momentum"),
    "no momentum": (
        lambda c: c | {"optimizer": c["optimizer"] | {"state": {}}},
        "its optimizer has other options, or keeps other things",
    ),
    "momentum of some": (
        lambda c: c | {"optimizer": c["optimizer"] | {"state": without(c["optimizer"]["state"], 1)}},
        r"its optimizer lacks the tensor 1 of shape \(2,\)",
    ),
    "momentum of more": (
        lambda c: c | {"optimizer": c["optimizer"] | {"state": c["optimizer"]["state"] | {9: {"a": 1}}}},
        "its optimizer has other options, or keeps other things",
    ),
    "another rate": (
        lambda c: c | {"optimizer": c["optimizer"] | {"param_groups": [{"lr": 1.0, "params": [0]}]}},
        "its optimizer has other options",
    ),
    "no average": (lambda c: c | {"average": {}}, "its average lacks the tensor n_averaged"),
    "average of more": (
        lambda c: c | {"average": c["average"] | {"n_averaged": c["average"]["n_averaged"] + 1}},
        "its average must be that of 1 steps",
    ),
    "average before its time": (
        lambda c: c | {"losses": c["losses"][:5]},
        "its average must be that of 0 steps",
    ),
    "too many losses": (
        lambda c: c | {"losses": c["losses"].repeat(2)},
        "its losses must be up to 8 finite numbers",
    ),
    "no losses": (lambda c: without(c, "losses"), "its losses must be one number for each step"),
    "no plan": (lambda c: without(c, "plan"), "its plan must be a dict, got NoneType"),
    "strange plan": (
        lambda c: c | {"plan": c["plan"] | {"seed": c["losses"]}},
        "belongs to another run: seed was tensor",
    ),
    "a tensor within the plan": (
        lambda c: c | {"plan": c["plan"] | {"steps": [c["losses"], 8]}},
        r"belongs to another run: steps was \[tensor",
    ),
    "a tensor for the optimizer": (
        lambda c: c | {"optimizer": c["optimizer"] | {"state": c["losses"]}},
        "its optimizer must tell its options and momentum",
    ),
    "infinite weight": (
        lambda c: c | {"network": c["network"] | {"student_net.bias": c["losses"][:2] / 0}},
        r"its network: the tensor student_net\.bias must be finite",
    ),
    "a tensor more": (
        lambda c: c | {"network": c["network"] | {"more": c["losses"]}},
        "its network does not belong to this network: it has more",
    ),
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_checkpoint_that_would_go_on_to_other_weights_is_refused(tool, tmp_path, name):
    from small_files import small_trainer

    change, words = CHECKPOINTS[name]
    path = tool.make("checkpoint", tmp_path)
    small_trainer().resume(path)
    write_tensors(path, change(read_tensors(path)))
    with pytest.raises(ValueError, match=rf"model\.checkpoint:? {words}"):
        small_trainer().resume(path)
