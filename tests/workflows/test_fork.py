"""Processes forked from one that uses a model: torch would wait for ever for threads that are not there."""

import os
import subprocess
import sys

import numpy as np
import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")

PATIENCE = 60  # seconds after which a process hangs
PARENT = """
import os, sys
import numpy as np
import destseg

picture = np.full((64, 96, 3), 100, np.uint8)
path, other = sys.argv[1:]
{before}
child = os.fork()
if child == 0:
    try:
        {inside}
        print("done", flush=True)
    except RuntimeError as error:
        print(error, flush=True)
    os._exit(0)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
LOAD = "model = destseg.load(path, 'cpu')"
FIT = "destseg.DeSTSeg(image_size=64, device='cpu').fit([picture] * 4, (0, 0), false_positive_rate=0.4)"


def output(before, inside, path, other="none", threads=2):
    """What a forked process prints; pytest.fail where it hangs."""
    code = PARENT.format(before=before, inside=inside)
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    return run([sys.executable, "-W", "ignore", "-c", code, str(path), str(other)], environment)


def run(command, environment=None):
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True
    ) as parent:
        try:
            return parent.communicate(timeout=PATIENCE)[0].strip()
        except subprocess.TimeoutExpired:
            os.killpg(parent.pid, 9)
            pytest.fail("it hangs")


@pytest.fixture(scope="module")
def fitted_file(light, tmp_path_factory):
    path = tmp_path_factory.mktemp("fork") / "m.destseg"
    light.save(path)
    return path


@pytest.mark.parametrize(
    ("before", "inside"),
    [
        (LOAD, "model.predict(picture)"),
        (f"{LOAD}; model.predict(picture)", "destseg.load(path, 'cpu').predict(picture)"),
        (LOAD, FIT),
        (FIT, f"{LOAD}; model.predict(picture)"),
    ],
    ids=["predict", "load", "fit", "fit before"],
)
def test_it_says_what_to_do_instead_of_hanging(fitted_file, before, inside):
    words = output(before, inside, fitted_file)
    assert words.startswith("this process was forked from one that had used a model, and torch would wait")
    assert "after the fork" in words and "spawn" in words and "torch.set_num_threads(1)" in words


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "inside", "threads"),
    [
        ("", f"{LOAD}; model.predict(picture)", 2),
        ("import destseg.detector, torch", f"{LOAD}; model.predict(picture)", 2),
        (LOAD, "import torch; torch.set_num_threads(1); model.predict(picture)", 2),
        (LOAD, "model.predict(picture)", 1),
    ],
    ids=["nothing before", "imports before", "one thread then", "one thread"],
)
def test_what_works_after_a_fork_still_works(fitted_file, before, inside, threads):
    assert output(before, inside, fitted_file, threads=threads) == "done"


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_exported_models_work_after_a_fork(light, fitted_file, tmp_path, engine):
    pytest.importorskip(engine)
    pytest.importorskip("onnxscript")
    path = tmp_path / {"onnxruntime": "m.onnx", "openvino": "m.xml"}[engine]
    light.export(path)
    before = "model = destseg.load(path); model.predict(picture)"
    assert output(before, "model.predict(picture)", path) == "done"
    with_torch = f"model = destseg.load(path); {LOAD.replace('path', 'other').replace('model', 'second')}"
    assert output(with_torch, "model.predict(picture)", path, fitted_file) == "done"


WHILE_DECODING = """
import io, os, threading
import PIL.Image
from destseg.pictures.decoding import to_rgb

file = io.BytesIO()
PIL.Image.new("RGB", (8, 8)).save(file, "PNG")

def decode():
    to_rgb(file.getvalue())
    to_rgb(PIL.Image.open(io.BytesIO(file.getvalue())))

def decode_for_ever():
    while True:
        decode()

for _ in range(4):
    threading.Thread(target=decode_for_ever, daemon=True).start()
for _ in range(40):
    child = os.fork()
    if child == 0:
        decode()
        assert PIL.Image.MAX_IMAGE_PIXELS is not None
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
print("done", flush=True)
os._exit(0)
"""


def test_a_fork_while_threads_decode_leaves_no_lock_behind():
    assert run([sys.executable, "-W", "ignore", "-c", WHILE_DECODING]) == "done"


def test_a_model_in_its_own_process_is_never_refused(light):
    assert light.predict(np.zeros((64, 96, 3), np.uint8)).score >= 0
