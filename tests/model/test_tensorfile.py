"""Files of tensors: what is written is read again, the rest is refused, and nothing in a file is executed."""

import datetime
import io
import pathlib
import pickle
import re
import time
import traceback
import warnings
import zipfile
from fractions import Fraction

import numpy as np
import pytest
import torch

from destseg.model import tensorfile, torchfile
from destseg.model.tensorfile import SEALED, matching_tensors, read_tensors, write_tensors


def test_what_is_written_is_read_again(tmp_path):
    content = {
        "weights": {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([1, 2], dtype=torch.int64)},
        "half": torch.ones(3, dtype=torch.float16),
        "plain": [1, 2.5, "text", True, None, (3, "four")],
        7: {"nested": {"deeper": []}},
    }
    path = tmp_path / "folder" / "file"
    write_tensors(path, content)
    found = read_tensors(path)
    assert found["plain"] == content["plain"] and found[7] == content[7]
    assert type(found["plain"][5]) is tuple
    torch.testing.assert_close(found["weights"], content["weights"], rtol=0, atol=0)
    assert found["half"].dtype == torch.float16
    assert list(tmp_path.rglob("*")) == [path.parent, path]


def test_what_numpy_makes_becomes_plain(tmp_path):
    content = {
        "array": np.arange(4, dtype=np.float64).reshape(2, 2),
        "numbers": [np.float64(0.5), np.int64(3), np.bool_(True), np.str_("text")],
        np.str_("key"): 1,
    }
    write_tensors(str(tmp_path / "file"), content)
    found = read_tensors(str(tmp_path / "file"))
    assert torch.equal(found["array"], torch.arange(4, dtype=torch.float64).reshape(2, 2))
    assert found["numbers"] == [0.5, 3, True, "text"] and found["key"] == 1
    assert [type(value) for value in found["numbers"]] == [float, int, bool, str]
    assert {type(key) for key in found} == {str}


@pytest.mark.parametrize("value", [pathlib.PurePosixPath("a"), Fraction(1, 2), {1}, b"bytes"], ids=repr)
def test_what_could_not_be_read_again_is_not_written(tmp_path, value):
    words = rf"content\['a'\]\[1\] must be a tensor, array, number, string, .* got .*{type(value).__name__}$"
    with pytest.raises(TypeError, match=words):
        write_tensors(tmp_path / "file", {"a": [0, value]})
    assert not list(tmp_path.iterdir())


def test_a_key_that_could_not_be_read_again_is_not_written(tmp_path):
    with pytest.raises(TypeError, match=r"^a key of content\['a'\] must be .*got fractions\.Fraction$"):
        write_tensors(tmp_path / "file", {"a": {Fraction(1, 2): 0}})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["numbers", "texts"])
def test_what_would_be_too_much_to_read_is_not_written(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(tensorfile, "MOST_OPERATIONS", 1000)
    monkeypatch.setattr(torchfile, "MOST_OPERATIONS", 1000)
    values = [0.5] if kind == "numbers" else [f"text {k}" for k in range(2000)]
    write = lambda count: write_tensors(tmp_path / "file", {"a": (values * count)[:count]})  # noqa: E731
    least, most = 100, 2000  # the first is written and read again, the second is refused
    while most - least > 1:
        middle = (least + most) // 2
        try:
            write(middle)
        except ValueError as error:
            assert re.search(
                r"file cannot be written: it may hold at most 1000 values, .*, got \d+$", str(error)
            )
            most = middle
        else:
            assert len(read_tensors(tmp_path / "file")["a"]) == middle
            least = middle
    assert 400 < least < 1000
    assert len(read_tensors(tmp_path / "file")["a"]) <= least  # what is refused leaves the old file


def test_a_file_that_would_be_too_large_to_read_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(tensorfile, "MOST_BYTES", 10_000)
    write_tensors(tmp_path / "file", {"a": torch.zeros(1000)})
    with pytest.raises(ValueError, match="file cannot be written: it may have at most 10000 bytes, got"):
        write_tensors(tmp_path / "file", {"a": torch.zeros(3000)})
    assert len(read_tensors(tmp_path / "file")["a"]) == 1000
    size = (tmp_path / "file").stat().st_size
    monkeypatch.setattr(tensorfile, "MOST_BYTES", size)
    write_tensors(tmp_path / "file", {"a": torch.ones(1000)})
    assert read_tensors(tmp_path / "file")["a"].sum() == 1000
    monkeypatch.setattr(tensorfile, "MOST_BYTES", size - 1)
    with pytest.raises(ValueError, match=f"got {size}$"):
        write_tensors(tmp_path / "file", {"a": torch.ones(1000)})


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_tensors(path, {"a": 1})
    before = path.read_bytes()
    monkeypatch.setattr(torch, "save", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_tensors(path, {"a": 2})
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_code_in_a_file_is_refused_and_not_executed(tmp_path):
    path, sprung = tmp_path / "trap", tmp_path / "sprung"
    torch.save({"a": Trap(sprung)}, path)
    with pytest.raises(ValueError, match="trap cannot be loaded: it holds other things than tensors"):
        read_tensors(path)
    assert not sprung.exists()


@pytest.mark.parametrize("kept", [0, 100, 0.5, 0.99])
def test_truncated_files_are_refused(tmp_path, kept):
    path = tmp_path / "cut"
    write_tensors(path, {"a": torch.arange(10000)})
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole)) if kept < 1 else kept])
    with pytest.raises(ValueError, match="cut is damaged, truncated or not a file of tensors"):
        read_tensors(path)


def test_one_wrong_bit_in_a_tensor_is_found(tmp_path):
    """Torch writes checksums, and never looks at them."""
    path = tmp_path / "file"
    write_tensors(path, {"a": torch.arange(10000)})
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 1
    path.write_bytes(whole)
    assert torch.load(path, weights_only=True)["a"].shape == (10000,)  # as if nothing were wrong
    with pytest.raises(ValueError, match=r"file is damaged, .*checksum|file is damaged, .*CRC"):
        read_tensors(path)


def test_files_of_old_torch_versions_are_read(tmp_path):
    path = tmp_path / "old"
    torch.save({"a": torch.arange(3)}, path, _use_new_zipfile_serialization=False)
    assert not zipfile.is_zipfile(path)
    assert torch.equal(read_tensors(path)["a"], torch.arange(3))


def test_a_file_of_something_else_is_refused(tmp_path):
    torch.save([torch.zeros(2)], tmp_path / "list")
    with pytest.raises(ValueError, match="list must hold a dict of tensors, got list"):
        read_tensors(tmp_path / "list")
    with pytest.raises(FileNotFoundError, match=r"no such file: .*missing"):
        read_tensors(tmp_path / "missing")
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_tensors(tmp_path)


def test_a_forbidden_file_is_not_called_damaged(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError("not yours")

    write_tensors(tmp_path / "file", {"a": 1})
    monkeypatch.setattr("builtins.open", refuse)  # root may open everything
    with pytest.raises(PermissionError, match="not yours"):
        read_tensors(tmp_path / "file")


EXPECTED = {
    "weight": torch.zeros(2, 3),
    "norm.num_batches_tracked": torch.tensor(0),
}


def test_matching_tensors_have_the_expected_dtypes_and_nothing_more():
    given = {"weight": torch.ones(2, 3, dtype=torch.float16), "norm.num_batches_tracked": torch.tensor(4)}
    found = matching_tensors(EXPECTED, given | {"more": torch.zeros(9)}, "part.pth")
    assert found.keys() == EXPECTED.keys()
    assert torch.equal(found["weight"], torch.ones(2, 3)) and found["weight"].dtype == torch.float32
    assert found["norm.num_batches_tracked"].item() == 4


def test_exact_tensors_are_those_and_no_others():
    given = {"weight": torch.ones(2, 3), "more": torch.zeros(9)}
    with pytest.raises(ValueError, match=r"^part\.pth does not belong to this network: it has more$"):
        matching_tensors(EXPECTED, given, "part.pth", exact=True)
    del given["more"]
    assert matching_tensors(EXPECTED, given, "part.pth", exact=True).keys() == EXPECTED.keys()


def test_counters_of_batches_may_be_missing():
    found = matching_tensors(EXPECTED, {"weight": torch.ones(2, 3)}, "part.pth")
    assert found["norm.num_batches_tracked"].item() == 0
    assert found["norm.num_batches_tracked"].dtype == torch.int64


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, r"^part\.pth lacks the tensor weight of shape \(2, 3\)$"),
        ({"weight": "text"}, r"^part\.pth lacks the tensor weight of shape \(2, 3\)$"),
        ({"weight": torch.zeros(6)}, r"^part\.pth: the tensor weight must have shape \(2, 3\), got \(6,\)$"),
        (
            {"weight": torch.zeros(2, 3).int()},
            r"^part\.pth: .* weight must be of torch.float32, got torch.int32$",
        ),
        (
            {"weight": torch.zeros(2, 3) + 0j},
            r"^part\.pth: .* weight must be of torch.float32, got torch.complex",
        ),
        (
            {"weight": torch.full((2, 3), torch.nan)},
            r"^part\.pth: .* weight must be finite, got NaN or infinity",
        ),
    ],
)
def test_missing_and_misshapen_tensors_are_named(given, words):
    with pytest.raises(ValueError, match=words):
        matching_tensors(EXPECTED, given, "part.pth")


def test_what_is_refused_comes_with_no_advice_to_load_it_unsafely(tmp_path):
    path = tmp_path / "foreign"
    torch.save({"a": Trap(tmp_path / "sprung"), "b": datetime.date(2026, 1, 1)}, path)
    with pytest.raises(ValueError) as refused:
        read_tensors(path)
    shown = "".join(traceback.format_exception(refused.value))
    assert "weights_only" not in shown and "trust" not in shown and "safe_globals" not in shown
    name = f"{open.__module__}.open"  # Python versions differ
    words = f"it holds other things than tensors and plain values ({name}); nothing of it was executed"
    assert str(refused.value) == f"{path} cannot be loaded: {words}"


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_an_old_pickle_is_refused_in_the_same_words(tmp_path):
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps({"a": datetime.date(2026, 1, 1)}))
    with pytest.raises(ValueError) as refused:
        read_tensors(path)
    assert "weights_only" not in "".join(traceback.format_exception(refused.value))


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(1).expand(10**6, 10**6),
        torch.zeros(4, dtype=torch.bool).as_strided((10**6, 4), (0, 1)),
        torch.sparse_coo_tensor([[0], [0]], [1.0], (10**6, 10**6), check_invariants=True),
        torch.empty(10**6, 10**6, device="meta"),
    ],
    ids=["expanded", "partly", "sparse", "without values"],
)
def test_tensors_larger_than_their_bytes_are_refused(tmp_path, tensor):
    """A list or an array of such a tensor would take all memory."""
    kind = "sparse" if tensor.is_sparse else "meta"
    words = (
        rf"\(it holds a tensor of shape \(1000000, .* that is larger than its bytes|_rebuild_{kind}_tensor"
    )
    for content in ({"a": tensor}, {"a": [{"b": (1, tensor)}]}):
        torch.save(content, tmp_path / "m")
        with pytest.raises(ValueError, match=words):
            read_tensors(tmp_path / "m")


def test_parts_of_tensors_are_read(tmp_path):
    whole = torch.arange(12.0).reshape(3, 4)
    parts = [whole.T, whole[1:, ::2], torch.nn.Parameter(whole), whole[:0], torch.tensor(5)]
    torch.save({"a": parts}, tmp_path / "m")
    found = read_tensors(tmp_path / "m")["a"]
    assert all(torch.equal(a, b) and a.stride() == b.stride() for a, b in zip(found, parts, strict=True))


def doubled(times, pair):
    """Return a value of a few bytes a doubling in a file, and without end for who prints or compares it."""
    value = pair(0, 1)
    for _ in range(times):
        value = pair(value, value)
    return value


def test_content_without_end_is_refused_at_once(tmp_path):
    around: list[object] = [1]
    around.append(around)
    started = time.monotonic()
    for value in (doubled(100, lambda *pair: pair), doubled(100, lambda *pair: [*pair]), around):
        torch.save({"a": value}, tmp_path / "m")
        assert (tmp_path / "m").stat().st_size < 5000
        with pytest.raises(ValueError, match=r"m is damaged, .*it holds more than 500000 values, or a list "):
            read_tensors(tmp_path / "m")
    (tmp_path / "m").write_bytes(pickled_archive(b"\x80\x02}" + b"K\x01K\x02s" * 300_000 + b"."))
    with pytest.raises(ValueError, match=r"m is damaged, .*it holds more than 500000 values\)"):
        read_tensors(tmp_path / "m")
    assert time.monotonic() - started < 8


def pickled_archive(pickled):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
    return file.getvalue()


@pytest.mark.parametrize(
    "program",
    [
        b"}" + b"(K\x00K\x01t" * 2 + b"K\x05s",  # a tuple as a key
        b"N(K\x00K\x01tR",  # a call of nothing
        b"K\x01K\x02s",
        b"}K\x01a",
        b"\x85",
        b"}}b}bK\x01",
        b"cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R",
        b"ctorch\nfloat32\n",
        b"ccollections\nOrderedDict\n(K\x01tR",
    ],
)
def test_what_torch_save_never_writes_is_refused(tmp_path, program):
    (tmp_path / "m").write_bytes(pickled_archive(b"\x80\x02" + program + b"."))
    with pytest.raises(
        ValueError, match=r"m (is damaged, truncated|cannot be loaded: it holds other things)"
    ):
        read_tensors(tmp_path / "m")


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "m", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
        archive.writestr("archive/data/0", bytes(1 << 20))
    with pytest.raises(ValueError, match=r"m is damaged, .*its records are compressed"):
        read_tensors(tmp_path / "m")
    whole = pickled_archive(b"\x80\x02}.")
    place = whole.index(b"PK\x01\x02") + 20  # the two sizes in the list of records
    (tmp_path / "m").write_bytes(whole[:place] + b"\xff\xff\xff\x7f" * 2 + whole[place + 8 :])
    with pytest.raises(ValueError, match=r"m is damaged, .*its records lie over one another"):
        read_tensors(tmp_path / "m")


def test_records_exchanged_or_named_twice_are_found(tmp_path):
    """Each has a checksum of its own, which holds."""
    path = tmp_path / "m"
    write_tensors(path, {"a": torch.zeros(100), "b": torch.ones(100)})
    whole = path.read_bytes()
    for names, words in (
        ({"archive/data/0": "archive/data/1", "archive/data/1": "archive/data/0"}, "checksum does not hold"),
        ({"archive/data/0": "archive/data/1"}, "two of its records have the same name"),
        ({}, "checksum does not hold"),  # a file that is packed anew has lost it
    ):
        with zipfile.ZipFile(io.BytesIO(whole)) as given, zipfile.ZipFile(path, "w") as changed:
            for name in given.namelist():
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    changed.writestr(names.get(name, name), given.read(name))
        with pytest.raises(ValueError, match=f"m is damaged, .*{words}"):
            read_tensors(path)
    attributes = bytearray(whole)
    attributes[whole.index(b"PK\x01\x02") + 38] ^= 0x10  # "a folder": torch would not read its bytes
    path.write_bytes(attributes)
    with pytest.raises(ValueError, match=r"m is damaged, .*checksum does not hold"):
        read_tensors(path)
    path.write_bytes(whole)
    assert read_tensors(path).keys() == torch.load(path, weights_only=True).keys() - {SEALED} == {"a", "b"}


def test_a_bit_of_an_entry_changes_no_tensor_of_an_earlier_version(tmp_path):
    """They have no checksum of all; torch takes uninitialised memory for what it holds to be a folder."""
    path, values = tmp_path / "m", torch.arange(100.0)
    torch.save({"a": values}, path)
    whole = bytearray(path.read_bytes())
    place = -1
    while (place := whole.find(b"PK\x01\x02", place + 1)) >= 0:
        whole[place + 38] ^= 0x10
    path.write_bytes(whole)
    assert torch.equal(read_tensors(path)["a"], values)


def test_a_file_larger_than_any_model_is_not_read(tmp_path):
    with open(tmp_path / "m", "wb") as file:
        file.truncate(3 << 30)
    with pytest.raises(ValueError, match=r"m must have at most 2147483648 bytes, got 3221225472"):
        read_tensors(tmp_path / "m")
