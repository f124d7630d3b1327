"""The kernels in the worker processes of data loaders, forked or spawned, after this process used them."""

import math
import multiprocessing
import signal

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from destseg.ops import kernels
from destseg.ops.components import components, split
from destseg.ops.corruption import Corruption, corrupt
from destseg.ops.destmap import destmap, destmap_of_features
from destseg.ops.perlin import perlin
from destseg.ops.ranking import count_above, rank
from destseg.ops.resizing import resize_maps
from destseg.ops.similarity import cosine_distances, similarity_input


class EveryKernel(Dataset):
    """Item k: what every kernel makes of seed k, on two threads where it uses threads."""

    def __len__(self):
        return 6

    def __getitem__(self, k):
        torch.set_num_threads(2)  # data loaders set 1, which would not start a thread in a worker
        generator = torch.Generator().manual_seed(k)
        pictures = torch.randint(0, 256, (4, 40, 50, 3), dtype=torch.uint8, generator=generator)
        angles = torch.rand(4, 6, generator=generator).numpy() * np.float32(2 * math.pi)
        corruptions = [Corruption(angles, 0.3 * i, 0.5) for i in range(4)]
        corrupted, masks = corrupt(pictures, pictures.flip(0), corruptions, (0.5,) * 3, (0.2,) * 3)
        taught, learnt = (
            [torch.rand(2, c, s, s, generator=generator) for c, s in [(64, 64), (32, 32)]] for _ in range(2)
        )
        distances = cosine_distances(taught, learnt)
        maps = destmap(distances, (80, 90)), destmap_of_features(taught, learnt, (80, 90))
        labels, _ = components(masks[:, 0].numpy())
        scores, mask = maps[0][0, 0].numpy(), maps[0][0, 0].numpy() > 0.1
        normals = np.empty(np.count_nonzero(~mask), np.float32)
        instances = split(scores, mask, normals)
        ranking = rank(instances.positives, instances.sizes)
        counts = count_above(np.sort(normals), ranking.scores)
        arrays = (labels, normals, instances.positives, instances.sizes, *ranking, *counts)
        arrays += (perlin(angles, (40, 50), 0.3), resize_maps(maps[0][:, 0].numpy(), (33, 44)))
        tensors = (corrupted, masks, similarity_input(taught, learnt), *maps)
        learnt = [level.requires_grad_() for level in learnt]
        gradients = torch.autograd.grad(cosine_distances(taught, learnt), learnt, distances)
        return *tensors, *distances, *gradients, *(torch.from_numpy(array) for array in arrays)


@pytest.fixture
def child_signals_as_before():
    """Take back the handler of SIGCHLD that a data loader leaves in place; other tests have children, too."""
    before = signal.getsignal(signal.SIGCHLD)
    yield
    signal.signal(signal.SIGCHLD, before)


@pytest.mark.usefixtures("child_signals_as_before")
@pytest.mark.skipif(kernels.cpu is None, reason="torch's own threads do not survive a fork")
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_results_in_data_workers_are_those_of_this_process(start):
    if start not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system does not {start}")
    before, dataset = torch.get_num_threads(), EveryKernel()
    try:
        expected = [dataset[k] for k in range(len(dataset))]
    finally:
        torch.set_num_threads(before)
    loader = DataLoader(dataset, None, num_workers=2, multiprocessing_context=start, timeout=120)
    for found, wanted in zip(loader, expected, strict=True):
        for ours, theirs in zip(found, wanted, strict=True):
            assert torch.equal(ours, theirs)
