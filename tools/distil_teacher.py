"""Train the embedded teacher: a network of ResNet18's shape learns its features, direction by direction.

    python tools/distil_teacher.py --photographs DIR --textures DIR -o embedded_teacher.pt --steps 4500

Every 1000 steps it appends the cosine similarity with ResNet18 on held-out pictures to OUTPUT's .log, and
writes a checkpoint beside it, from which the same command continues. It sees no picture of any test set.
"""

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
from teacher_pictures import drawings, read_folder, views
from torch import Tensor
from tqdm import trange

from destseg.model.networks import ResNet18, Teacher
from destseg.model.teachers import teacher_state
from destseg.model.tensorfile import read_tensors, write_tensors
from destseg.ops.similarity import cosine_distances
from destseg.training.muon import Muon

HELD_OUT = 100  # photographs, and as many textures, that are measured but not trained on
SIDES = (96, 128, 128, 128, 160, 192)  # sides of the views in pixels; each batch draws one
SHARES = (0.5, 0.3, 0.2)  # shares of photographs, textures and drawings in a batch
RATE, WARM_UP = 2e-3, 200
AVERAGING = 0.999


def main() -> None:
    options = arguments()
    torch.manual_seed(options.seed)
    pools, held_out = pictures(options)
    teacher = Teacher().to(memory_format=torch.channels_last)
    teacher.load_state_dict(teacher_state("resnet18", options.teacher_weights))
    network = ResNet18(stages=3).to(memory_format=torch.channels_last)
    average = torch.optim.swa_utils.AveragedModel(
        network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(AVERAGING), use_buffers=True
    )
    optimizer = Muon(network.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1, step / WARM_UP) * 0.5 * (1 + math.cos(math.pi * step / options.steps))
    )
    parts = {"network": network, "average": average, "optimizer": optimizer, "schedule": schedule}
    checkpoint = options.output.with_suffix(".checkpoint")
    first = 0
    if checkpoint.exists():
        state = read_tensors(checkpoint)
        first = state.pop("step")
        for name, part in parts.items():
            part.load_state_dict(state[name])
    started = time.monotonic()
    for step in trange(first, options.steps, initial=first, total=options.steps, disable=None):
        generator = np.random.default_rng([options.seed, step])
        batch = views(draw(pools, options.batch_size, generator), int(generator.choice(SIDES)), generator)
        network.train()
        loss = distance(teacher, network, batch).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        average.update_parameters(network)
        if (step + 1) % 1000 == 0 or step + 1 == options.steps:
            line = {"step": step + 1, "minutes": round((time.monotonic() - started) / 60, 1)}
            line |= {"loss": round(loss.item(), 4), "held out": agreement(teacher, average.module, held_out)}
            with open(options.output.with_suffix(".log"), "a") as log:
                log.write(json.dumps(line) + "\n")
            write_tensors(
                checkpoint, {"step": step + 1} | {k: part.state_dict() for k, part in parts.items()}
            )
    half = {name: v.half() if v.is_floating_point() else v for name, v in average.module.state_dict().items()}
    write_tensors(options.output, half)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--photographs", type=Path, required=True, help="folder of natural photographs")
    parser.add_argument("--textures", type=Path, required=True, help="folder of textures")
    parser.add_argument("--teacher-weights", help="ResNet18's weights (default: as destseg finds them)")
    parser.add_argument("-o", "--output", type=Path, required=True, help="file of half-precision weights")
    parser.add_argument("--steps", type=int, default=4500)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def pictures(options: argparse.Namespace) -> tuple[list[Tensor], Tensor]:
    """Return the pools from which views are drawn, and the held-out views."""
    order = np.random.default_rng(options.seed)
    pools, held_out = [], []
    for folder in (options.photographs, options.textures):
        pool = torch.from_numpy(order.permutation(read_folder(folder)))
        held_out.append(pool[:HELD_OUT])
        pools.append(pool[HELD_OUT:])
    pools.append(torch.from_numpy(drawings(1000, options.seed)))
    return pools, views(torch.cat(held_out), 128, np.random.default_rng(options.seed))


def draw(pools: list[Tensor], count: int, generator: np.random.Generator) -> Tensor:
    """Draw pictures from the pools, (count, 256, 256, 3) uint8."""
    kinds = generator.choice(len(pools), count, p=SHARES)
    return torch.stack([pools[kind][generator.integers(len(pools[kind]))] for kind in kinds])


def distance(teacher: Teacher, network: ResNet18, batch: Tensor) -> Tensor:
    """Return the mean cosine distance at each level, (3,)."""
    with torch.autocast("cpu", torch.bfloat16):
        taught, learnt = teacher(batch), network(batch)
    levels = cosine_distances([t.float() for t in taught], [s.float() for s in learnt])
    return torch.stack([level.mean() for level in levels])


@torch.no_grad()
def agreement(teacher: Teacher, network: ResNet18, batch: Tensor) -> list[float]:
    """Return the mean cosine similarity at each level, in float32."""
    network.eval()
    levels = [cosine_distances(teacher(part), network(part)) for part in batch.split(50)]
    return [round(1 - torch.cat(level).mean().item(), 4) for level in zip(*levels, strict=True)]


if __name__ == "__main__":
    main()
