"""Fit anomalib's PatchCore to a data set, on the pictures and by the metrics that destseg has.

python tools/fit_patchcore.py DATA

Needs anomalib beside destseg. Prints the table of `destseg evaluate`, protocol full.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from anomalib.models.image.patchcore.torch_model import PatchcoreModel
from tqdm import tqdm

from destseg.evaluation import evaluate
from destseg.folders import picture_paths, read_mvtec
from destseg.images import normalise, resize, to_rgb
from destseg.scoring import Scored
from destseg.teachers import teacher_state

LAYERS = ["layer2", "layer3"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path, help="of the MVTec layout")
    parser.add_argument("--weights", type=Path, help="of the teacher; by default as `destseg fit` finds them")
    parser.add_argument("--size", type=int, default=256, help="side of its input in pixels")
    parser.add_argument("--share", type=float, default=0.01, help="of the patches that it keeps")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    model = PatchcoreModel(LAYERS, "resnet18", pre_trained=False)
    backbone = model.feature_extractor.feature_extractor
    state = teacher_state(weights=options.weights)
    backbone.load_state_dict({name.removeprefix("encoder."): values for name, values in state.items()})
    side = (options.size, options.size)

    def seen(path: Path) -> tuple[torch.Tensor, tuple[int, int]]:
        pixels = to_rgb(path)
        images = normalise(torch.from_numpy(np.ascontiguousarray(resize(pixels, side))[None]))
        return images, pixels.shape[:2]

    model.train()
    model.feature_extractor.eval()
    for path in tqdm(picture_paths(options.data / "train" / "good"), "looking"):
        model(seen(path)[0])
    model.subsample_embedding(options.share)
    model.eval()

    def score(path: Path) -> Scored:
        images, size = seen(path)
        with torch.inference_mode():
            found = model(images)
        return Scored(found.anomaly_map[0, 0], float(found.pred_score), 0.0, size)

    print(evaluate(read_mvtec(options.data), score).table())
    print(f"{len(model.memory_bank)} patches kept")


if __name__ == "__main__":
    main()
