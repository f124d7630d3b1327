"""What tools/measure_gpu.py measures: each step is a function, and runs in a process of its own.

    python tools/gpu_steps.py STEP PACK ROWS SECONDS [--dry FOLDER]

A step prints each row of its table as soon as it is measured, and adds it to the file ROWS as a line of JSON.
With --dry it runs on the CPU, with tiny sizes and with the kernels for GPUs emulated, so that no error in it
costs time on a machine with a GPU; the numbers then mean nothing.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

SLACK = 15.0  # seconds for reading pictures, calibrating, evaluating and timing, beside training itself


class Job:
    """Sizes and places of a run, and its rows.

    Attributes:
        pack: the folder that `measure_gpu.py pack` made.
        dry: the folder of the emulated kernels; None on a GPU.
        device: where tensors lie.
        side, batch, repeats: sides of an input, inputs in a batch, and how often a call is timed.
    """

    def __init__(self, pack: Path, rows: Path, seconds: float, dry: Path | None = None) -> None:
        self.pack, self.rows, self.dry, self.end = pack, rows, dry, time.monotonic() + seconds
        self.device = "cpu" if dry else "cuda"
        self.side, self.batch, self.repeats = (64, 2, 2) if dry else (256, 32, 100)
        self._columns: tuple[str, ...] = ()

    def left(self) -> float:
        """Return the seconds that are left."""
        return self.end - time.monotonic()

    def row(self, **values: Any) -> None:
        """Print and keep a row; the header comes again when its columns change."""
        if tuple(values) != self._columns:
            self._columns = tuple(values)
            print("", *header(values), sep="\n", flush=True)
        print(as_cells(values.values()), flush=True)
        with open(self.rows, "a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")


def header(columns: Iterable[str]) -> list[str]:
    """Return the first two lines of a table in Markdown."""
    names = [name.replace("_", " ") for name in columns]
    return [as_cells(names), "|---" * len(names) + "|"]


def as_cells(values: Iterable[Any]) -> str:
    """Return a line of a table in Markdown."""
    return "| " + " | ".join(f"{v:.4g}" if isinstance(v, float) else str(v) for v in values) + " |"


def build(job: Job) -> None:
    """Build the kernels in place: all of them must build."""
    begun = time.perf_counter()
    if job.dry:
        emulate(job)
    else:
        import torch

        major, minor = torch.cuda.get_device_capability()
        wishes = {"DESTSEG_EXT": "1", "CUDAARCHS": f"{major}{minor}"}  # for this GPU only: it takes less time
        command = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
        subprocess.run(command, cwd=ROOT, env=os.environ | wishes, check=True)
        subprocess.run([sys.executable, "-c", "from destseg import _C, _C_cuda"], cwd=ROOT, check=True)
    job.row(built_in_s=time.perf_counter() - begun)


TESTS = (
    *("tests/ops/test_corruption.py", "tests/ops/test_similarity.py", "tests/model/test_gpu_scorer.py"),
    *("tests/model/test_torch_scorer.py", "tests/training/test_resident.py"),
    "tests/training/test_trainer.py",
)


def tests(job: Job) -> None:
    """Run the tests that need a GPU, and tell which fail."""
    chosen = (TESTS[:1], "cpu") if job.dry else (TESTS, "cuda or gpu or waits")
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        command = [sys.executable, "-m", "pytest", "-q", "--tb=short", "-o", "addopts=", "-m", "not slow"]
        command += ["-o", f"cache_dir={folder}", f"--junitxml={report}", "-k", chosen[1], *chosen[0]]
        status = subprocess.run(command, cwd=ROOT, check=False).returncode
        cases = list(xml.etree.ElementTree.parse(report).iter("testcase"))
    kinds = [{child.tag for child in case} for case in cases]
    failed = [
        case.get("name") for case, kind in zip(cases, kinds, strict=True) if kind & {"failure", "error"}
    ]
    skipped = sum("skipped" in kind for kind in kinds)
    job.row(passed=len(cases) - len(failed) - skipped, skipped=skipped, failed=", ".join(map(str, failed)))
    if status:
        raise RuntimeError(f"pytest ended with {status}")


def milliseconds(job: Job, call: Callable[[], object], repeats: int | None = None) -> float:
    """Return the median time of a call; on a GPU by its own clock, its caches written over between calls.

    Writing takes so long that the processor has started all of the call before the GPU comes to it.
    """
    import torch

    times = []
    if job.dry:
        for _ in range(job.repeats):
            begun = time.perf_counter()
            call()
            times.append(1e3 * (time.perf_counter() - begun))
        return statistics.median(times)
    flush = torch.empty(4 << 30, dtype=torch.uint8, device="cuda")
    for _ in range(5):
        call()
    for _ in range(repeats or job.repeats):
        flush.zero_()
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        call()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    return statistics.median(times)


def copy_bandwidth(job: Job) -> float:
    """Return what a copy within the GPU's memory reaches in bytes a second, reading and writing counted."""
    import torch

    size = 1 << (20 if job.dry else 30)
    source, target = (torch.empty(size, dtype=torch.uint8, device=job.device) for _ in range(2))
    return 2 * size / milliseconds(job, lambda: target.copy_(source), 20) * 1e3


def machine(job: Job) -> None:
    """Tell what this machine is, and what its GPU reaches."""
    import torch

    side = 64 if job.dry else 8192
    pair = [torch.randn(side, side, device=job.device, dtype=torch.bfloat16) for _ in range(2)]
    taken = milliseconds(job, lambda: pair[0] @ pair[1], 20)
    job.row(
        GPU="none" if job.dry else torch.cuda.get_device_name(),
        torch=torch.__version__,
        processors=os.cpu_count(),
        copy_GB_per_s=copy_bandwidth(job) / 1e9,
        bfloat16_product_TFLOP_per_s=2 * side**3 / taken / 1e9,
    )


def kernels(job: Job) -> None:
    """Time every kernel beside its floor and eager torch, then beside torch.compile while time is left.

    The floor counts every input read once and every output written once, at the bandwidth of a copy in the
    same run. Each kernel is first compared with its reference.
    """
    from gpu_kernels import cases

    bandwidth, compiled, slower = copy_bandwidth(job), [], 0
    for name, case in cases(job):
        floor = case.moved / bandwidth * 1e3
        error = case.check()
        slower += error is not None
        taken = milliseconds(job, case.ours)
        job.row(
            **name,
            ms=taken,
            floor_ms=floor,
            share_of_copy=floor / taken,
            eager_times_as_long=milliseconds(job, case.eager, 20) / taken,
            agrees=error or "yes",
        )
        if case.compiled is not None:
            compiled.append((name, case.compiled, taken))
    for name, make, taken in compiled:
        if job.left() < 10:
            print(f"no time was left to compile {' '.join(map(str, name.values()))}", flush=True)
        else:
            job.row(**name, ms=taken, compile_times_as_long=milliseconds(job, make()) / taken)
    if slower:
        raise RuntimeError(f"{slower} kernels do not agree with their references")


def scoring(job: Job) -> None:
    """Time the way from bytes to maps, copies included, for one picture and for a batch."""
    import numpy as np
    import torch

    from destseg.model.construction import random_network
    from destseg.model.gpu_scorer import Lane, in_precision
    from destseg.model.normalisation import normalise
    from destseg.settings import Settings

    size = (job.side, job.side)
    for preset in ("paper", "fast"):
        network = random_network(Settings(preset)).eval().requires_grad_(False).to(job.device)
        for precision in ("float16", "bfloat16", "float32"):
            half = in_precision(network, getattr(torch, precision))
            for count in (1, job.batch):
                pixels = np.random.default_rng(0).integers(0, 256, (count, *size, 3), np.uint8)
                lane = Lane(half, size, count)
                with torch.inference_mode():
                    expected = network.maps(normalise(torch.from_numpy(pixels).to(job.device))).cpu().numpy()
                difference = float(np.abs(lane.maps(pixels) - expected).max())
                times = []
                for _ in range(job.repeats * (5 if count == 1 else 1)):
                    begun = time.perf_counter()
                    lane.maps(pixels)
                    times.append(1e3 * (time.perf_counter() - begun))
                job.row(
                    preset=preset,
                    precision=precision,
                    pictures=count,
                    median_ms=statistics.median(times),
                    ms_of_99_in_100=statistics.quantiles(times, n=100)[98],
                    largest_difference=difference,
                )
        if preset == "paper":
            images = torch.randn(job.batch, 3, *size, device=job.device)
            for tf32 in (False, True):
                torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = (
                    tf32  # of this process
                )
                with torch.inference_mode():  # the teacher runs twice, as in the published code
                    taken = milliseconds(job, lambda n=network, x=images: (n.teacher_net(x), n(x)), 20)
                job.row(eager="published, float32", TF32=tf32, pictures=job.batch, median_ms=taken)


def folder(job: Job) -> None:
    """Time a folder's pictures, from files to predictions, beside the network alone on a resident batch."""
    import numpy as np
    import PIL.Image
    import torch

    from destseg import DeSTSeg
    from destseg.inference.calibration import Calibration
    from destseg.model.construction import random_network
    from destseg.model.gpu_scorer import in_precision
    from destseg.model.normalisation import normalise
    from destseg.settings import Settings

    precision, count = ("float32", 4) if job.dry else ("float16", 16 * job.batch)
    network = random_network(Settings("paper")).eval().requires_grad_(False)
    with tempfile.TemporaryDirectory() as name:
        torch.save(network.state_dict(), Path(name, "network.pckl"))
        model = DeSTSeg.from_checkpoint(
            Path(name, "network.pckl"), image_size=job.side, device=job.device, inference_precision=precision
        )
        model.calibration_ = Calibration((0.5,), (0.5,), 0.5)
        half = in_precision(network.to(job.device), getattr(torch, precision))
        pixels = torch.randint(0, 256, (job.batch, job.side, job.side, 3), dtype=torch.uint8)
        images = normalise(pixels.to(job.device)).to(getattr(torch, precision))
        with torch.inference_mode():
            call = replayed(job, lambda: half.logits(*half.features(images)))
            alone = 1e3 * job.batch / milliseconds(job, call, 20)
        for form in ("jpg", "png"):
            pictures = Path(name, form)
            pictures.mkdir()
            random = np.random.default_rng(0).integers(0, 256, (count, 24, 24, 3), np.uint8)
            for k, coarse in enumerate(random):
                picture = PIL.Image.fromarray(coarse).resize((2 * job.side, 2 * job.side))
                picture.save(pictures / f"{k}.{form}", **({"compress_level": 1} if form == "png" else {}))
            rates = []
            for _ in range(4):
                begun = time.perf_counter()
                results = [result for _, result in model.predict_each(pictures, progress=False)]
                rates.append(count / (time.perf_counter() - begun))
                errors = [result for result in results if isinstance(result, Exception)]
                if errors:
                    raise errors[0]
            job.row(
                precision=precision,
                pictures=f"{count} {form} of {2 * job.side} x {2 * job.side}",
                files_to_predictions_per_s=statistics.median(rates[1:]),
                network_alone_per_s=alone,
                share=statistics.median(rates[1:]) / alone,
            )


def replayed(job: Job, call: Callable[[], object]) -> Callable[[], object]:
    """Return a call that does the same as one graph on a GPU, so that starting it takes no time."""
    if job.dry:
        return call
    import torch

    with torch.cuda.stream(torch.cuda.Stream()):
        call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def published(job: Job) -> None:
    """Fit the published network to transistor by the published schedule, and evaluate it."""
    fit(job, "paper", (1000, 4000), 32)


def fast(job: Job) -> None:
    """Fit the light network by its own schedule, and by the published one."""
    fit(job, "fast", (600, 800), 8)
    fit(job, "fast", (1000, 4000), 32)


def fit(job: Job, preset: str, steps: tuple[int, int], batch: int) -> None:
    """Time steps of both stages; then fit, with fewer steps if time would not suffice, and evaluate."""
    from destseg.bench.cells import measure
    from destseg.bench.matrix import Cell
    from destseg.pictures.store import MEMORY

    batch = job.batch if job.dry else batch
    pace = [step_milliseconds(job, preset, stage, batch) for stage in (0, 1)]
    predicted = sum(count * taken / 1e3 for count, taken in zip(steps, pace, strict=True))
    job.row(
        preset=preset,
        batch=batch,
        student_step_ms=pace[0],
        segmentation_step_ms=pace[1],
        predicted_s=predicted,
    )
    share = min(1.0, max(0.0, job.left() - SLACK) / predicted) if not job.dry else 0.0
    chosen = [max(1, int(share * count)) for count in steps]
    settings = {
        **{"preset": preset, "image_size": job.side, "steps": chosen, "batch_size": batch},
        "texture_source": str(job.pack / "textures"),
        **({"teacher_weights": str(job.pack / "weights.pth")} if preset == "paper" else {}),
    }
    category = next((job.pack / "data").iterdir())
    found = measure(Cell(category.name, category, preset, 0, settings), job.device, MEMORY)
    row = {
        "preset": preset,
        "steps": " + ".join(map(str, chosen)),
        "batch": batch,
        "share_of_schedule": share,
    }
    row |= {"fit_s": 60 * found["fit_minutes"], "ms_a_picture": found["milliseconds"]}
    for protocol, report in found["reports"].items():
        row |= {f"{name} {protocol}": 100 * report[name] for name in ("image_auroc", "pixel_ap", "iap")}
    job.row(**row)


def step_milliseconds(job: Job, preset: str, stage: int, batch: int) -> float:
    """Return the time of a training step and its batch, in the student stage, 0, or the other, 1."""
    import numpy as np
    import torch

    from destseg.model.construction import random_network
    from destseg.pictures.folders import Source
    from destseg.pictures.framing import Framing
    from destseg.pictures.store import PictureStore
    from destseg.settings import Settings
    from destseg.training.checkpoint import plan_of
    from destseg.training.resident import ResidentSynthesis
    from destseg.training.synthesis import Synthesis
    from destseg.training.textures import PictureTextures
    from destseg.training.trainer import Trainer

    pictures = np.random.default_rng(0).integers(0, 256, (2 * batch, job.side, job.side, 3), np.uint8)
    sources = [Source(str(k), picture) for k, picture in enumerate(pictures)]
    store = PictureStore(sources, Framing((job.side, job.side)), progress=False)
    synthesis = Synthesis(store, PictureTextures(store), batch)
    network = random_network(Settings(preset)).to(job.device)
    steps = (10**6, 0) if stage == 0 else (0, 10**6)
    plan = plan_of(network, synthesis, steps, "bfloat16", Settings(preset).parts)
    trainer = Trainer(network, synthesis, plan, 4 << 30)
    count, first = (2, 1) if job.dry else (30, 10)
    resident = ResidentSynthesis(synthesis, torch.device(job.device), 4 << 30)
    batches = resident.batches(range(first + count), workers=4)

    def train(numbers: range) -> float:
        losses = [trainer.step(step, made) for step, made in zip(numbers, batches, strict=False)]
        return losses[-1].item()  # which waits for the GPU

    train(range(first))
    begun = time.perf_counter()
    loss = train(range(first, first + count))
    taken = 1e3 * (time.perf_counter() - begun) / count
    if not math.isfinite(loss):
        raise RuntimeError(f"the loss of preset {preset}, stage {stage}, is {loss}")
    if not job.dry:
        torch.cuda.set_sync_debug_mode("error")  # a step and its batch wait for nothing
        trainer.step(first + count, resident.batch(resident.draft(first + count)))
        torch.cuda.set_sync_debug_mode("default")
    return taken


STEPS = {step.__name__: step for step in (build, tests, machine, kernels, scoring, folder, published, fast)}


def emulate(job: Job) -> None:
    """Let tensors in CPU memory take the kernels for GPUs."""
    sys.path.append(str(ROOT / "tests"))
    import emulation

    assert job.dry is not None  # on a GPU nothing is emulated
    emulation.emulate(emulation.compiled(job.dry))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("step", choices=STEPS)
    parser.add_argument("pack", type=Path)
    parser.add_argument("rows", type=Path)
    parser.add_argument("seconds", type=float)
    parser.add_argument("--dry", type=Path, metavar="FOLDER")
    options = parser.parse_args()
    job = Job(options.pack, options.rows, options.seconds, options.dry)
    if job.dry:
        emulate(job)
    STEPS[options.step](job)


if __name__ == "__main__":
    main()
