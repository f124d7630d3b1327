"""Where the teacher's weights come from: each way, in its order, and what is said when a way fails."""

import hashlib
import http.server
import io
import pickle
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from destseg.model.networks import Teacher
from destseg.model.normalisation import normalise
from destseg.model.teachers import EMBEDDED, VARIABLE, download, find_weights, teacher_state
from destseg.ops.similarity import cosine_distances
from destseg.pictures.decoding import resize, to_rgb

CONTENT = bytes(range(256)) * 5000  # more than one read's worth
LEAST_AGREEMENT = (0.98, 0.95, 0.92)  # cosine similarity of each level
DIGEST = hashlib.sha256(CONTENT).hexdigest()[:8]


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    """No variable, an empty torch hub cache, no network; returns the cache's folder of weights."""
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    return tmp_path / "torch" / "hub" / "checkpoints"


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT under every name, except that the folder of the path says what goes wrong."""

    def do_GET(self):
        if self.path.startswith("/missing/"):
            self.send_error(404)
        elif self.path.startswith("/garbage/"):
            self.wfile.write(b"this is no HTTP\r\n\r\n")
        else:
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            cut = len(CONTENT) // 2 if self.path.startswith("/truncated/") else len(CONTENT)
            self.wfile.write(CONTENT[:cut])

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def server():
    """The address of a file server on this machine."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_explicit_file(nowhere, teacher_weights):
    expected = torch.load(teacher_weights, weights_only=True)
    for path in (teacher_weights, str(teacher_weights)):
        state = teacher_state("resnet18", path)
        assert state.keys() == {f"encoder.{name}" for name in expected}
        assert all(torch.equal(state[f"encoder.{name}"], expected[name]) for name in expected)


def test_explicit_state_dict(nowhere, teacher_weights):
    given = torch.load(teacher_weights, weights_only=True)
    found = teacher_state("resnet18", given)
    assert torch.equal(found["encoder.conv1.weight"], given["conv1.weight"])


def test_recorded_weights_fit(shared, nowhere):
    (path,) = (shared / "weights").glob("resnet18*.pth")
    assert teacher_state("resnet18", path)["encoder.layer3.1.conv2.weight"].shape == (256, 256, 3, 3)


def test_the_variable_comes_before_the_cache(nowhere, teacher_weights, monkeypatch):
    nowhere.mkdir(parents=True)
    (nowhere / "resnet18-f37072fd.pth").write_bytes(b"not looked at")
    monkeypatch.setenv(VARIABLE, str(teacher_weights))
    assert len(teacher_state("resnet18")) > 0
    assert find_weights() == teacher_weights


def test_the_cache_of_torch_hub(nowhere, teacher_weights):
    nowhere.mkdir(parents=True)
    cached = nowhere / "resnet18-f37072fd.pth"
    cached.write_bytes(teacher_weights.read_bytes())
    assert find_weights() == cached
    assert len(teacher_state("resnet18")) > 0


def test_download_into_the_cache(nowhere, server):
    path = find_weights(f"{server}/resnet18-{DIGEST}.pth")
    assert path == nowhere / f"resnet18-{DIGEST}.pth"
    assert path.read_bytes() == CONTENT
    assert list(nowhere.iterdir()) == [path]


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("resnet18-00000000.pth", rf"SHA-256 must begin with 00000000, got {DIGEST}"),
        (f"truncated/resnet18-{DIGEST}.pth", rf"SHA-256 must begin with {DIGEST}, got|IncompleteRead"),
        (f"missing/resnet18-{DIGEST}.pth", "HTTP Error 404"),
        (f"garbage/resnet18-{DIGEST}.pth", "this is no HTTP"),
    ],
)
def test_failed_downloads_leave_nothing_behind(nowhere, server, file, words):
    with pytest.raises(OSError, match=rf"^no teacher weights\..*({words})"):
        find_weights(f"{server}/{file}")
    assert not nowhere.exists() or list(nowhere.iterdir()) == []


def test_a_failed_download_leaves_an_older_file_alone(server, tmp_path):
    path = tmp_path / "resnet18-00000000.pth"
    path.write_bytes(b"older")
    with pytest.raises(OSError, match="SHA-256 must begin with 00000000"):
        download(f"{server}/resnet18-00000000.pth", path)
    assert path.read_bytes() == b"older"
    assert list(tmp_path.iterdir()) == [path]


def test_without_anything_every_way_is_named(nowhere):
    address = "http://127.0.0.1:9/resnet18-f37072fd.pth"  # nothing listens there
    with pytest.raises(OSError) as failure:
        find_weights(address)
    for way in (
        "teacher_weights=PATH",
        f"{VARIABLE}=PATH",
        str(nowhere / "resnet18-f37072fd.pth"),
        address,
        "embedded",
    ):
        assert way in str(failure.value)


@pytest.mark.parametrize("from_variable", [False, True])
def test_a_named_file_that_is_not_there(nowhere, tmp_path, monkeypatch, from_variable):
    gone = tmp_path / "gone.pth"
    if from_variable:
        monkeypatch.setenv(VARIABLE, str(gone))
    with pytest.raises(FileNotFoundError, match=r"gone\.pth"):
        teacher_state("resnet18", None if from_variable else gone)


def test_the_embedded_teacher_needs_nothing(nowhere):
    state = teacher_state("embedded")
    network = Teacher()
    network.load_state_dict(state)
    assert all(value.dtype in (torch.float32, torch.int64) for value in state.values())
    levels = network(torch.rand(1, 3, 64, 96))
    assert [tuple(level.shape[1:]) for level in levels] == [(64, 16, 24), (128, 8, 12), (256, 4, 6)]
    assert EMBEDDED.stat().st_size <= 6e6


def test_the_embedded_teacher_is_the_one_of_its_card():
    card = (Path(__file__).parents[2] / "docs" / "embedded_teacher.md").read_text()
    assert hashlib.sha256(EMBEDDED.read_bytes()).hexdigest() in card


def test_the_embedded_teacher_agrees_with_the_one_it_learnt_from(shared):
    """On pictures of a test set, which it never saw."""
    (teacher_weights,) = (shared / "weights").glob("resnet18*.pth")
    paths = sorted((shared / "data" / "transistor_256" / "test" / "good").iterdir())[:8]
    pictures = normalise(np.stack([resize(to_rgb(path), (128, 128)) for path in paths]))
    levels = []
    for teacher, weights in (("resnet18", teacher_weights), ("embedded", None)):
        network = Teacher()
        network.load_state_dict(teacher_state(teacher, weights))
        levels.append(network(pictures))
    for distance, least in zip(cosine_distances(*levels), LEAST_AGREEMENT, strict=True):
        assert 1 - distance.mean() > least


def test_another_embedded_teacher(tmp_path):
    state = Teacher().encoder.state_dict()
    torch.save({k: v.half() if v.is_floating_point() else v for k, v in state.items()}, tmp_path / "mine.pt")
    found = teacher_state("embedded", tmp_path / "mine.pt")
    expected = {f"encoder.{name}": value for name, value in state.items()}
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    with pytest.raises(ValueError, match=r"lacks the tensor bn1\.weight"):
        teacher_state("embedded", {k: v for k, v in state.items() if k != "bn1.weight"})


def test_unknown_teacher():
    with pytest.raises(ValueError, match=r"teacher must be one of resnet18.*, got 'resnet999'"):
        teacher_state("resnet999")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        (
            "layer2.0.conv1.weight",
            None,
            r"lacks the tensor layer2\.0\.conv1\.weight of shape \(128, 64, 3, 3\)",
        ),
        ("bn1.running_var", "text", r"lacks the tensor bn1\.running_var of shape \(64,\)"),
        (
            "layer3.0.downsample.0.weight",
            torch.zeros(256, 128),
            r"layer3\.0\.downsample\.0\.weight must have shape \(256, 128, 1, 1\), got \(256, 128\)",
        ),
    ],
)
def test_missing_and_misshapen_tensors_are_named(teacher_weights, tmp_path, name, value, words):
    state = torch.load(teacher_weights, weights_only=True)
    state[name] = value
    path = tmp_path / "mine.pth"
    torch.save(state, path)
    with pytest.raises(ValueError, match=rf"mine\.pth.*{words}"):
        teacher_state("resnet18", path)


def test_further_tensors_and_missing_counters_are_fine(teacher_weights):
    state = torch.load(teacher_weights, weights_only=True)
    given = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    given |= {"layer4.0.conv1.weight": torch.zeros(512, 256, 3, 3), "fc.bias": torch.zeros(1000)}
    found = teacher_state("resnet18", given)
    assert found.keys() == {f"encoder.{name}" for name in state}
    assert found["encoder.bn1.num_batches_tracked"].item() == 0


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def torch_bytes(content):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("written", "refusal"),
    [
        (torch_bytes, r"cannot be loaded: .*; nothing of it was executed$"),
        (lambda content: pickle.dumps(content, 2), r"is damaged, .* \(torch\.save did not write it\)$"),
    ],
    ids=["torch", "pickle"],
)
def test_code_in_a_file_is_refused_and_not_executed(tmp_path, written, refusal):
    path, sprung = tmp_path / "trap.pth", tmp_path / "sprung"
    path.write_bytes(written({"conv1.weight": Trap(sprung)}))
    with pytest.raises(ValueError, match=r"trap\.pth " + refusal):
        teacher_state("resnet18", path)
    assert not sprung.exists()


@pytest.mark.parametrize("kept", [0, 100, 0.5, 0.99])
def test_truncated_files_are_refused(teacher_weights, tmp_path, kept):
    whole = teacher_weights.read_bytes()
    path = tmp_path / "cut.pth"
    path.write_bytes(whole[: int(kept * len(whole)) if kept < 1 else kept])
    with pytest.raises(ValueError, match=r"cut\.pth is damaged, truncated"):
        teacher_state("resnet18", path)


def test_a_file_of_something_else_is_refused(tmp_path):
    path = tmp_path / "list.pth"
    path.write_bytes(torch_bytes([torch.zeros(2)]))
    with pytest.raises(ValueError, match=r"list\.pth must hold a dict of tensors, got list"):
        teacher_state("resnet18", path)
