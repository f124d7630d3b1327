"""Calls that every compiled function must take, drawn at random, and what its reference gives for them."""

import random

import numpy as np
import torch

from destseg.ops import components, corruption, destmap, perlin, ranking, similarity

LONG = (2**16, 2**31 - 65, 2**31 - 64, 2**31, 2**32, 2**40, 2**61)  # sides of empty arrays only


class Draw(random.Random):
    """Random arguments, of one block."""

    def __init__(self, block):
        super().__init__(block)
        values = np.random.default_rng(block)
        self.uniform_values = values.uniform(-2, 2, 1 << 17)
        self.ties = np.round(self.uniform_values * 4) / 4
        self.pixels = values.integers(0, 256, 1 << 17).astype(np.uint8)

    def side(self, least=1):
        return self.randint(least, 9) if self.random() < 0.9 else self.choice((15, 16, 17, 63, 64, 65, 130))

    def shape(self, dimensions):
        """Small sides; rarely an empty shape, of which some have long sides."""
        sides = [self.side() for _ in range(dimensions)]
        if self.random() < 0.1:
            for _ in range(self.randint(0, 2)):
                sides[self.randrange(dimensions)] = self.choice(LONG)
            sides[self.randrange(dimensions)] = 0
            if np.prod([float(side) for side in sides if side]) > 2**58:
                return [0] * dimensions
        return sides

    def part(self, pool, shape):
        size = int(np.prod(shape, dtype=object))
        first = self.randrange(len(pool) - min(size, len(pool) - 1))
        return np.resize(pool[first : first + size], shape) if size else np.zeros(shape, pool.dtype)

    def floats(self, *shape, dtype=np.float32):
        pool = self.ties if self.random() < 0.3 else self.uniform_values
        return self.part(pool, shape).astype(dtype)

    def mask(self, *shape):
        """Pixels of 0 and others, sparse or dense."""
        limit = self.randrange(256)
        return np.maximum(self.part(self.pixels, shape), limit) - np.uint8(limit)

    def threads(self):
        return self.choice((1, 1, 2, 3, 2**62, 0, -5))

    def angle(self):
        return self.choice((0.0, self.uniform(-7, 7), self.randint(-4, 4) * np.pi / 2, 1e-300, 1e300))

    def levels(self, c_first):
        """Features of teacher and student, none of them short, so that gradients are not steep."""
        n, shapes = (
            self.choice((0, 1, 1, 2, 3)),
            [[self.side() for _ in range(3)] for _ in range(self.randint(1, 4))],
        )
        if n == 0 and self.random() < 0.3:
            self.choice(shapes)[self.randrange(3)] = self.choice(LONG[:3])
        both = [], []
        for c, h, w in shapes:
            for features in both:
                values = self.floats(n, *((c, h, w) if c_first else (h, w, c)))
                features.append(values + np.copysign(np.float32(0.1), values))
        return both


def pixel_planes(levels, c_first):
    return [np.empty(x.shape[:1] + (x.shape[2:] if c_first else x.shape[1:3]), np.float32) for x in levels]


# For each function: what draws its arguments, and what gives pairs of a result and the expected one.


def draw_perlin(draw):
    return [
        draw.floats(1 + draw.side(), 1 + draw.side()) * 4,
        draw.angle(),
        np.empty(draw.shape(2), np.float32),
    ]


def check_perlin(arguments, _):
    angles, rotation, noise = arguments
    return [(noise, perlin.perlin_ref(angles, noise.shape, rotation))]


def draw_corrupt(draw):
    n, height, width = draw.shape(3)
    if n > 9:
        n = 0
    shape = (n, height, width)
    cells = np.array([(draw.side(), draw.side()) for _ in range(n)], np.int64).reshape(n, 2)
    return [
        draw.part(draw.pixels, (*shape, 3)),
        draw.part(draw.pixels, (*shape, 3)),
        draw.floats(int((cells + 1).prod(axis=1).sum())) * 4,
        cells,
        np.array([draw.angle() for _ in range(n)], np.float64),
        draw.floats(n),
        0.5,
        np.array([1, 1 / 2, 1 / 4], np.float32) / 255,
        np.array([-1, 1, 0], np.float32),
        draw.threads(),
        np.empty((*shape, 3), np.float32),
        np.empty(shape, np.uint8),
    ]


def check_corrupt(arguments, _):
    pictures, textures, lattices, cells, rotations, shares, *_, corrupted, masks = arguments
    ends = np.cumsum((cells + 1).prod(axis=1))
    angles = [part.reshape(size + 1) for part, size in zip(np.split(lattices, ends), cells, strict=False)]
    corruptions = [corruption.Corruption(*one) for one in zip(angles, rotations, shares, strict=True)]
    stacks = torch.from_numpy(pictures), torch.from_numpy(textures)
    expected, expected_masks = corruption.corrupt_ref(*stacks, corruptions, (1, -2, 0), (1, 2, 4))
    expected_masks = expected_masks[:, 0].numpy()
    same = masks == expected_masks  # but for noise that is the threshold up to rounding
    assert np.count_nonzero(~same) <= 1 + masks.size // 5000, "masks differ"
    return [(corrupted[same], expected.permute(0, 2, 3, 1).numpy()[same])]


def draw_components(draw):
    mask = draw.mask(*draw.shape(3))
    return [mask, draw.random() < 0.5, np.empty(mask.shape, np.int32)]


def check_components(arguments, sizes):
    masks, corners, labels = arguments
    return zip((labels, sizes), components.components_ref(masks, 8 if corners else 4), strict=True)


def draw_split(draw):
    mask, dtype = draw.mask(*draw.shape(2)), draw.choice((np.float32, np.float64))
    count = np.count_nonzero(mask)
    outputs = np.empty(mask.size - count, dtype), np.empty(count, dtype)
    return [draw.floats(*mask.shape, dtype=dtype), mask, *outputs]


def check_split(arguments, returned):
    scores, mask, normals, positives = arguments
    expected_normals = np.empty_like(normals)
    expected = components.split_ref(scores, mask != 0, expected_normals)
    return zip((normals, positives, *returned), (expected_normals, *expected), strict=True)


def draw_rank(draw):
    sizes = np.array([draw.side() for _ in range(draw.side(0))], np.int64)
    count = int(sizes.sum())
    outputs = (np.empty(count, dtype) for dtype in (np.float32, np.int64, np.float64))
    return [draw.floats(count), sizes, *outputs]


def check_rank(arguments, m):
    positives, sizes, *outputs = arguments
    return zip([output[:m] for output in outputs], ranking.rank_ref(positives, sizes), strict=True)


def draw_count_above(draw):
    dtype, m = draw.choice((np.float32, np.float64)), draw.side(0)
    rising, falling = (
        np.sort(draw.floats(draw.side(0), dtype=dtype)),
        np.sort(draw.floats(m, dtype=dtype))[::-1],
    )
    return [rising, falling.copy(), np.empty(m, np.int64), np.empty(m, np.int64)]


def check_count_above(arguments, _):
    return zip(arguments[2:], ranking.count_above_ref(*arguments[:2]), strict=True)


def draw_similarity_input(draw):
    c_first = draw.random() < 0.5
    taught, learnt = draw.levels(c_first)
    c_axis, sides = (1, slice(2, 4)) if c_first else (3, slice(1, 3))
    channels, (height, width) = sum(level.shape[c_axis] for level in taught), taught[0].shape[sides]
    shape = (channels, height, width) if c_first else (height, width, channels)
    return [taught, learnt, not c_first, draw.threads(), np.empty((len(taught[0]), *shape), np.float32)]


def tensors(levels, channels_last):
    """Features as the references take them: (n, c, h, w)."""
    return [torch.from_numpy(x).permute(0, 3, 1, 2) if channels_last else torch.from_numpy(x) for x in levels]


def check_similarity_input(arguments, _):
    taught, learnt, channels_last, _, output = arguments
    pair = tensors(taught, channels_last), tensors(learnt, channels_last)
    expected = similarity.similarity_input_ref(*pair)
    return [(tensors([output], channels_last)[0], expected)]


def draw_cosine_distances(draw):
    c_first = draw.random() < 0.5
    taught, learnt = draw.levels(c_first)
    return [taught, learnt, not c_first, draw.threads(), pixel_planes(taught, c_first)]


def check_cosine_distances(arguments, _):
    taught, learnt, channels_last, _, distances = arguments
    expected = similarity.cosine_distances_ref(tensors(taught, channels_last), tensors(learnt, channels_last))
    return [(found, one[:, 0]) for found, one in zip(distances, expected, strict=True)]


def draw_cosine_gradients(draw):
    c_first = draw.random() < 0.5
    taught, learnt = draw.levels(c_first)
    slopes = [draw.floats(*plane.shape) for plane in pixel_planes(taught, c_first)]
    return [taught, learnt, not c_first, draw.threads(), slopes, [np.empty_like(level) for level in learnt]]


def check_cosine_gradients(arguments, _):
    taught, learnt, channels_last, _, slopes, gradients = arguments
    students = [level.detach().requires_grad_() for level in tensors(learnt, channels_last)]
    distances = similarity.cosine_distances_ref(tensors(taught, channels_last), students)
    slopes = [torch.from_numpy(slope)[:, None] for slope in slopes]
    loss = sum((one * slope).sum() for one, slope in zip(distances, slopes, strict=True))
    expected = torch.autograd.grad(loss, students)
    return zip(tensors(gradients, channels_last), expected, strict=True)


def draw_destmap(draw):
    n, height, width = draw.shape(3)
    if n > 9:
        n = 0
    levels = [draw.floats(n, draw.side(), draw.side()) for _ in range(draw.randint(1, 4))]
    return [levels, draw.threads(), np.empty((n, height, width), np.float32)]


def check_destmap(arguments, _):
    levels, _, output = arguments
    levels = [torch.from_numpy(level)[:, None] for level in levels]
    return [(output, destmap.destmap_ref(levels, output.shape[1:])[:, 0])]


def draw_destmap_of_features(draw):
    c_first = draw.random() < 0.5
    taught, learnt = draw.levels(c_first)
    output = np.empty((len(taught[0]), *draw.shape(2)), np.float32)
    return [taught, learnt, not c_first, draw.threads(), output]


def check_destmap_of_features(arguments, _):
    taught, learnt, channels_last, _, output = arguments
    pair = tensors(taught, channels_last), tensors(learnt, channels_last)
    return [(output, destmap.destmap_of_features_ref(*pair, output.shape[1:])[:, 0])]


FUNCTIONS = {
    "perlin": (draw_perlin, check_perlin),
    "corrupt": (draw_corrupt, check_corrupt),
    "components": (draw_components, check_components),
    "split": (draw_split, check_split),
    "rank": (draw_rank, check_rank),
    "count_above": (draw_count_above, check_count_above),
    "similarity_input": (draw_similarity_input, check_similarity_input),
    "cosine_distances": (draw_cosine_distances, check_cosine_distances),
    "cosine_gradients": (draw_cosine_gradients, check_cosine_gradients),
    "destmap": (draw_destmap, check_destmap),
    "destmap_of_features": (draw_destmap_of_features, check_destmap_of_features),
}
