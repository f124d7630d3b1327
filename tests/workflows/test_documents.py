"""Every command and every example of README and guide runs, in their order, on the demo's parts."""

import os
import re
import shlex
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from destseg import cli, settings
from destseg.demo.photographs import write_dataset

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = re.compile(r"`(--[a-z].*?)`")  # of the guide's table, each to be added to the fit


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder with everything that the documents name; training takes a step of each stage."""
    write_dataset(tmp_path / "parts", seed=0, train=24, good=3, flawed=1, progress=False)
    for name in ("more_good_parts", "new_pictures", "strips/train/good", "more_strips"):
        (tmp_path / name).mkdir(parents=True)
    for k, good in enumerate(sorted((tmp_path / "parts/train/good").iterdir())):
        picture = PIL.Image.open(good).transpose(PIL.Image.Transpose.FLIP_LEFT_RIGHT)
        for name in ("more_good_parts", "new_pictures"):
            picture.save(tmp_path / name / f"{k}.png")
        strip, crop = divmod(k, 2)
        for name in ("strips/train/good", "more_strips"):
            path = (
                tmp_path
                / name
                / (f"roll{strip}_{crop}.png" if "train" in name else f"roll{strip}/{crop}.png")
            )
            path.parent.mkdir(exist_ok=True)
            picture.save(path)
    (tmp_path / "parts/test/crack").mkdir()
    PIL.Image.open(tmp_path / "new_pictures/0.png").save(tmp_path / "parts/test/crack/001.png")
    (tmp_path / "parts/ground_truth/crack").mkdir()
    kept = sorted((tmp_path / "parts/test/good").iterdir())
    mask = np.zeros((256, 256), np.uint8)
    mask[80:120, 80:160] = 255
    PIL.Image.fromarray(mask).save(tmp_path / "parts/ground_truth/crack/001.png")
    (tmp_path / "marks.txt").write_text("# false alarms\nparts/test/good/" + kept[0].name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(settings.SCHEDULES, "fast", ((1, 1), 2))
    return tmp_path


def commands(text):
    """Return the indented commands of a document."""
    joined = text.replace("\\\n", " ")
    return [shlex.split(line)[1:] for line in re.findall(r"^ {4,6}(destseg .*)$", joined, re.M)]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("document", ["README.md", "docs/guide.md"])
def test_commands_and_examples_run(workplace, document):
    for engine in ("onnxruntime", "openvino", "onnxscript", "nncf"):
        pytest.importorskip(engine)
    text = (ROOT / document).read_text()
    found = commands(text)
    assert len(found) >= 3
    for arguments in found:
        if "part.onnx" in arguments and not os.path.exists("part.onnx"):
            cli.main(["export", "part.destseg", "part.onnx"])
        assert cli.main(arguments) in (None, 0), arguments
    for example in re.findall(r"```python\n(.*?)```", text, re.S):
        exec(example, {"picture": np.zeros((64, 64, 3), np.uint8)})


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_what_the_guide_advises_can_be_done(workplace):
    table = (ROOT / "docs/guide.md").read_text().split("## When it is bad")[1].split("\n## ")[0]
    options = OPTIONS.findall(table)
    assert len(options) >= 8
    for option in options:
        arguments = ["fit", "parts/train/good", "-o", "part.destseg", *shlex.split(option)]
        assert cli.main(arguments) in (None, 0), option
    for advice in re.findall(r"`destseg (.*?)`", table):
        assert cli.main(shlex.split(advice)) in (None, 0), advice
