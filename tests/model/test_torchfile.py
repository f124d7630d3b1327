"""Files that do not hold what they declare of their tensors: refused before torch reads them, old or new."""

import io
import pickle
import pickletools
import re
import struct
import zipfile

import pytest
import torch

from destseg.model.tensorfile import read_tensors

VALUES = torch.arange(1000.0)
RECORD = VALUES.numpy().tobytes()


def rezipped(content, change):
    """Return a torch file's bytes with each record as `change` makes it; None leaves it out."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as given, zipfile.ZipFile(target, "w") as changed:
        for name in given.namelist():
            record = change(name.removeprefix("archive/"), given.read(name))
            if record is not None:
                changed.writestr(name, record)
    return target.getvalue()


def with_record(record):
    """Return a torch file with another first record than the one of 4000 bytes."""
    return rezipped(saved(), lambda name, given: record if name == "data/0" else given)


def with_pickle(change):
    """Return a torch file in which `change` has changed what tells of the tensors."""
    return rezipped(saved(), lambda name, given: change(given) if name == "data.pkl" else given)


def declaring(content, size):
    """Return pickled content that declares a size in bytes in place of 4000."""
    assert content.count(b"M\xe8\x03") == 2  # the storage's 1000 elements, and the shape
    return content.replace(b"M\xe8\x03", b"J" + struct.pack("<i", size // 4))


def text(value):
    """Return a string as a pickle has it."""
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def saved(**options):
    file = io.BytesIO()
    torch.save({"a": VALUES, "b": torch.tensor([True])}, file, **options)
    return file.getvalue()


def in_old_form(content=None):
    """Return the parts of a file in the form of before torch 1.6: start, content, list of storages, bytes."""
    file = io.BytesIO()
    torch.save(content or {"a": VALUES}, file, _use_new_zipfile_serialization=False)
    file.seek(0)
    ends = [0]
    for _ in range(5):
        for _ in pickletools.genops(file):
            pass
        ends.append(file.tell())
    whole = file.getvalue()
    return whole[: ends[3]], whole[ends[3] : ends[4]], whole[ends[4] : ends[5]], whole[ends[5] :]


def refused(path, content, words):
    path.write_bytes(content)
    with pytest.raises(
        ValueError, match=rf"^{re.escape(str(path))} is damaged, truncated or not .*\({words}"
    ):
        read_tensors(path)


@pytest.fixture
def unread(monkeypatch):
    """Nothing reaches torch: it has read out of bounds."""

    def fail(*_, **__):
        pytest.fail("torch was asked to load the file")

    monkeypatch.setattr(torch, "load", fail)


@pytest.mark.parametrize("size", [0, 4, 3996, 4004, 8000])
def test_a_record_of_another_size_than_declared_is_refused(tmp_path, unread, size):
    words = f"a tensor's 4000 bytes are stored in {size}"
    refused(tmp_path / "file", with_record((RECORD * 2)[:size]), words)


@pytest.mark.parametrize("declared", [4, 2_300_000, 3_000_000_000])
def test_a_declared_size_of_another_than_the_record_is_refused(tmp_path, unread, declared):
    words = f"a tensor's {declared} bytes are stored in 4000"
    refused(tmp_path / "file", with_pickle(lambda given: declaring(given, declared)), words)


def test_a_missing_record_is_named(tmp_path, unread):
    refused(tmp_path / "file", with_record(None), ".*no item named 'archive/data/0'")


def test_files_that_hold_what_they_declare_are_read(tmp_path):
    for content in (saved(), saved(_use_new_zipfile_serialization=False), with_record(RECORD)):
        (tmp_path / "file").write_bytes(content)
        found = read_tensors(tmp_path / "file")
        assert torch.equal(found["a"], VALUES) and found["b"].tolist() == [True]


KINDS = [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8]
KINDS += [torch.uint8, torch.bool, torch.complex64, torch.complex128]
NEW_KINDS = [torch.uint16, torch.uint64, torch.float8_e5m2]  # torch writes them in the form of today only


@pytest.mark.parametrize(
    ("dtype", "zipped"), [(dtype, True) for dtype in KINDS + NEW_KINDS] + [(dtype, False) for dtype in KINDS]
)
def test_tensors_of_every_dtype_are_read(tmp_path, dtype, zipped):
    path, counts = tmp_path / "file", (0, 1, 700, 70000)
    content = {f"{count}": torch.zeros(count, dtype=dtype) for count in counts}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    found = read_tensors(path)
    assert [(tensor.dtype, len(tensor)) for tensor in found.values()] == [(dtype, count) for count in counts]


def test_files_of_many_tensors_are_read_in_either_form(tmp_path):
    """Beyond 256 numbers pickles name what they refer to otherwise, and beyond 1000 a list comes in parts."""
    content = {"shared": torch.nn.Parameter(VALUES)} | {f"{k}": torch.full((k % 7,), k) for k in range(2500)}
    for zipped in (True, False):
        torch.save(content | {"again": VALUES}, tmp_path / "file", _use_new_zipfile_serialization=zipped)
        found = read_tensors(tmp_path / "file")
        assert found.keys() == content.keys() | {"again"} and found["2499"].tolist() == []
        assert found["2497"].tolist() == [2497] * 5


@pytest.mark.parametrize(
    "listed",
    [
        pickle.dumps([], protocol=2),
        b"\x80\x02]" + text("1") + text("") + b".",  # what is last counts, here as a list of no letters
        b"\x80\x02" + text("1") + b"].",
    ],
    ids=["empty", "text after a list", "list after a text"],
)
def test_what_an_old_file_leaves_out_is_not_taken_from_memory(tmp_path, unread, listed):
    """Torch hands out whatever is in memory for a tensor that is not in the list."""
    start, content, _, values = in_old_form()
    words = "(its tensors are not those that it lists|too many values to unpack)"
    refused(tmp_path / "file", start + content + listed + values, words)
    refused(tmp_path / "file", start + content + listed, "a tensor of 4000 bytes is declared")


def test_an_old_file_of_another_size_than_declared_is_refused(tmp_path, unread):
    start, content, listed, values = in_old_form()
    for changed in (values[:-1], values[:100], b"", values + b"\0"):
        words = f"(4008 bytes of tensors are declared, and {len(changed)} are|a tensor of 4000 bytes is decl)"
        refused(tmp_path / "file", start + content + listed + changed, words)
    words = "a tensor of 3000000000 bytes is declared, and the file has fewer"
    refused(tmp_path / "file", start + declaring(content, 3_000_000_000) + listed + values, words)


def test_a_zip_file_behind_an_old_one_hides_nothing(tmp_path, unread):
    """A zip file may begin anywhere; torch looks at the first bytes only."""
    start, content, _, _ = in_old_form()
    old = start + content + pickle.dumps([], protocol=2) + bytes(4000)
    with zipfile.ZipFile(tmp_path / "file", "w") as archive:
        archive.writestr("archive/version", b"3\n")
    refused(
        tmp_path / "file", old + (tmp_path / "file").read_bytes(), "its tensors are not those that it lists"
    )


PARTS = text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu")
STRANGE = {
    "another kind": b"(" + PARTS.replace(b"storage", b"storing") + b"K\x01tQ.",
    "a number": b"K\x01Q.",
    "nothing": b"(Q.",
    "an unknown type": b"(" + PARTS.replace(b"Float", b"QInt8") + b"K\x01tQ.",
    "too few": b"(" + PARTS + b"tQ.",
    "a number from a call": b"(" + PARTS + b"cbuiltins\nint\n)RtQ.",
    "a tuple as number": b"(" + PARTS + b"K\x01\x85tQ.",
    "what was not remembered": b"(" + PARTS + b"h\x09tQ.",
}


@pytest.mark.parametrize("program", STRANGE.values(), ids=STRANGE)
def test_what_names_a_tensor_in_a_strange_way_is_refused(tmp_path, unread, program):
    path = tmp_path / "file"
    path.write_bytes(with_pickle(lambda _: b"\x80\x02" + program))
    with pytest.raises(
        ValueError, match=r"file (is damaged, truncated|cannot be loaded: it holds other thi)"
    ):
        read_tensors(path)


def test_a_size_is_followed_through_what_the_pickle_remembers(tmp_path, unread):
    """Who writes a file may repeat parts of it by reference, here the whole name of a storage."""
    once = b"\x80\x02(" + PARTS + b"K\x02tq\x05Qh\x05Q."
    refused(tmp_path / "file", with_pickle(lambda _: once), "a tensor's 8 bytes are stored in 4000")
