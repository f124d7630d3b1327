"""Training by several processes: the weights of one, who writes what, batches that cannot be shared."""

import os
import pathlib
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.distributed as dist

import destseg
from destseg import processes
from destseg.checkpoints import plan_of
from destseg.folders import as_pictures
from destseg.framing import Framing
from destseg.networks import DeSTSegNet
from destseg.presets import parts_of
from destseg.store import PictureStore
from destseg.synthesis import Synthesis
from destseg.textures import from_normals
from destseg.training import Trainer


def torchrun(count, *arguments, **environment):
    """Run a command in some processes, as torchrun does, and return what it says."""
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={count}", "--standalone"]
    environment = os.environ | {"PYTHONPATH": str(pathlib.Path(destseg.__file__).parents[1])} | environment
    process = subprocess.run(
        [*command, *map(str, arguments)], env=environment, capture_output=True, text=True, timeout=600
    )
    return process


@pytest.fixture(scope="module")
def fitted_by_two(few_parts, teacher_weights, tmp_path_factory):
    """The file that two processes write, told on the command line, and what they said."""
    output = tmp_path_factory.mktemp("shared") / "part.destseg"
    command = ["-m", "destseg", "fit", few_parts, "-o", output, "--preset", "fast", "--size", "64"]
    command += [
        "--steps",
        "1",
        "1",
        "--batch-size",
        "8",
        "--teacher-weights",
        teacher_weights,
        "--precision",
        "float32",
    ]
    process = torchrun(2, *command, "--device", "cpu", "--false-positive-rate", "0.1")
    assert process.returncode == 0, process.stderr
    return output, process


def test_the_command_line_trains_in_two_processes_as_in_one(fitted_by_two, few_parts, teacher_weights):
    settings = {"image_size": 64, "precision": "float32", "device": "cpu"}
    alone = destseg.DeSTSeg("fast", **settings, teacher_weights=teacher_weights)
    alone.fit(few_parts, steps=(1, 1), batch_size=8, progress=False, false_positive_rate=0.1)
    both = destseg.load(fitted_by_two[0], "cpu")
    assert both.losses_ == pytest.approx(alone.losses_, rel=1e-3)
    assert both.threshold_ == pytest.approx(alone.threshold_, abs=5e-3)


def test_the_first_process_alone_writes(fitted_by_two):
    output, process = fitted_by_two
    assert [path.name for path in output.parent.iterdir()] == ["part.destseg"]
    assert process.stdout == ""


class DoubleSynthesis(Synthesis):
    """Batches in double precision, so that sums taken in another order make no visible difference."""

    def batch(self, step):
        batch = super().batch(step)
        return batch._replace(corrupted=batch.corrupted.double(), clean=batch.clean.double())

    def clean(self, indices):
        return super().clean(indices).double()


def new_trainer():
    """Of a light network in double precision, four steps in either stage."""
    store = noise()
    synthesis = DoubleSynthesis(store, from_normals(store), 4)
    torch.manual_seed(0)
    parts = parts_of("fast")
    network = DeSTSegNet(**parts).double()
    return Trainer(network, synthesis, plan_of(network, synthesis, (4, 4), "float32", parts), 1 << 30)


def train(number, count, port, folder):
    """Train as one of some processes, and write the weights."""
    os.environ |= {"RANK": str(number), "WORLD_SIZE": str(count)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    trainer = new_trainer()
    network = trainer.network
    losses = trainer.run(workers=0, progress=False, checkpoint=folder / f"checkpoint of {number}")
    assert not dist.is_initialized()
    assert not any(isinstance(module, processes.SharedBatchNorm2d) for module in network.modules())
    torch.save({"losses": torch.tensor(losses), **network.state_dict()}, folder / f"{number} of {count}.pt")


def test_two_processes_give_the_weights_of_one(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "environ", os.environ.copy())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(train, (2, port, tmp_path), nprocs=2)
    assert [path.name for path in tmp_path.glob("checkpoint*")] == ["checkpoint of 0"]  # the first's alone
    train(0, 1, port, tmp_path)
    one, first, second = (
        torch.load(tmp_path / name, weights_only=True) for name in ("0 of 1.pt", "0 of 2.pt", "1 of 2.pt")
    )
    for name, expected in one.items():
        torch.testing.assert_close(first[name], expected, rtol=1e-6, atol=1e-8, msg=name)
        assert torch.equal(first[name], second[name]), name


def test_what_is_asked_of_another_process_stops_this_one(tmp_path, monkeypatch):
    trainer, raised = new_trainer(), []
    monkeypatch.setattr(trainer, "_stop_asked", lambda step, requests: step == 1)
    monkeypatch.setattr(signal, "raise_signal", raised.append)
    with pytest.raises(KeyboardInterrupt, match=r"stopped at step 2 of 8; go on with resume='.*checkpoint'"):
        trainer.run(workers=0, progress=False, checkpoint=tmp_path / "checkpoint")
    assert raised == [signal.SIGTERM]
    assert len(trainer.losses) == 2 and (tmp_path / "checkpoint").exists()


def noise(count=7):
    """Pictures of which the odd ones are padded by a half."""
    generator = np.random.default_rng(0)
    pictures = [generator.integers(0, 256, (64, (64, 32)[k % 2], 3), np.uint8) for k in range(count)]
    return PictureStore(as_pictures(pictures), Framing((64, 64), keep_aspect=True), progress=False)


def share_of(number, count, batch_size=6):
    store = noise()
    synthesis = Synthesis(store, from_normals(store), batch_size)
    synthesis.share = number, count
    return synthesis.batch(5)


def test_shares_make_up_the_batch():
    whole, shares = share_of(0, 1), [share_of(number, 3) for number in range(3)]
    for number, share in enumerate(shares):
        assert share.indices == whole.indices[number::3]
        for part, all_of_it in zip(share[:3], whole[:3], strict=True):
            assert torch.equal(part, all_of_it[number::3])


def normalise_in_two(number, file, x, slope, expected):
    """One of two processes: its half of a batch through a shared batch normalisation, and its gradients."""
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=number, world_size=2)
    norm = torch.nn.BatchNorm2d(3)
    torch.nn.init.uniform_(norm.weight, generator=torch.Generator().manual_seed(0))
    norm.__class__ = processes.SharedBatchNorm2d
    half = x[number::2].clone().requires_grad_()
    output = norm(half)
    (output * slope[number::2]).sum().backward()
    outputs, gradients, weight, mean, variance = expected
    close = {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(output, outputs[number::2], **close)
    torch.testing.assert_close(half.grad, gradients[number::2], **close)
    torch.testing.assert_close(processes.summed(norm.weight.grad) * 1.0, weight, **close)
    torch.testing.assert_close(norm.running_mean, mean, **close)
    torch.testing.assert_close(norm.running_var, variance, **close)
    norm.eval()
    assert torch.isfinite(norm(half)).all()
    dist.destroy_process_group()


def test_normalisation_over_two_processes_is_that_over_the_batch(tmp_path, monkeypatch):
    generator = torch.Generator().manual_seed(1)
    # A mean far from 0 beside the deviation: a variance from the mean of squares would be lost in rounding.
    x = 3 + 0.1 * torch.randn(6, 3, 5, 4, generator=generator)
    slope = torch.randn(6, 3, 5, 4, generator=generator)
    norm = torch.nn.BatchNorm2d(3)
    torch.nn.init.uniform_(norm.weight, generator=torch.Generator().manual_seed(0))
    whole = x.clone().requires_grad_()
    output = norm(whole)
    (output * slope).sum().backward()
    expected = [output.detach(), whole.grad, norm.weight.grad, norm.running_mean, norm.running_var]
    expected = [value.detach().clone() for value in expected]
    monkeypatch.setenv("WORLD_SIZE", "2")
    torch.multiprocessing.spawn(normalise_in_two, (tmp_path / "meet", x, slope, expected), nprocs=2)


def test_one_process_is_no_group():
    network = DeSTSegNet()
    with processes.joined(torch.device("cpu"), network):
        assert not dist.is_initialized()
        assert not any(isinstance(m, processes.SharedBatchNorm2d) for m in network.modules())
    assert processes.current() == processes.Processes(0, 1)
    value = torch.tensor(2.0)
    assert processes.summed(value) == 2 and processes.any_asked(True, torch.device("cpu"))


@pytest.mark.parametrize("batch_size", [3, 2, 1])
def test_batches_that_cannot_be_shared(few_parts, teacher_weights, monkeypatch, batch_size):
    monkeypatch.setenv("WORLD_SIZE", "2")
    model = destseg.DeSTSeg(image_size=64, teacher_weights=teacher_weights, device="cpu")
    with pytest.raises(ValueError, match=f"2 processes as many pictures, at least 2, got {batch_size}"):
        model.fit(few_parts, steps=(1, 1), batch_size=batch_size, progress=False)
