"""Fit anomalib's PatchCore to a data set, with destseg's pictures and metrics.

python tools/fit_patchcore.py DATA

Needs anomalib beside destseg. Prints the table of `destseg evaluate`, protocol full. With `--tile`, large
pictures are cut into tiles as destseg cuts them, and a picture scores as high as its highest tile.
Choosing patches then takes long: seven minutes for 60 fabric strips on two cores, and that grows with their
number squared.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from anomalib.models.image.patchcore.torch_model import PatchcoreModel
from tqdm import tqdm

from destseg.inference.evaluation import evaluate
from destseg.inference.scoring import Scored
from destseg.model.normalisation import normalise
from destseg.model.teachers import teacher_state
from destseg.pictures.dataset import read_mvtec
from destseg.pictures.decoding import to_rgb
from destseg.pictures.folders import Source, picture_paths
from destseg.pictures.framing import Framing

LAYERS = ["layer2", "layer3"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path, help="data set in the MVTec layout")
    parser.add_argument(
        "--weights",
        type=Path,
        help="ResNet18's weights (default: as `destseg fit --teacher resnet18` finds them)",
    )
    parser.add_argument("--size", type=int, default=256, help="side of the input in pixels")
    parser.add_argument("--tile", type=int, help="side of a tile in pixels of the picture (default: whole)")
    parser.add_argument("--share", type=float, default=0.01, help="share of the patches to keep")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.tile is not None and options.tile < 1:
        parser.error(f"--tile must be at least 1, got {options.tile}")
    torch.manual_seed(options.seed)
    model = PatchcoreModel(LAYERS, "resnet18", pre_trained=False)
    backbone = model.feature_extractor.feature_extractor
    state = teacher_state("resnet18", options.weights)
    backbone.load_state_dict({name.removeprefix("encoder."): values for name, values in state.items()})
    tile = None if options.tile is None else (options.tile, options.tile)
    framing = Framing((options.size, options.size), tile=tile)

    def model_input(pixels: np.ndarray) -> torch.Tensor:
        return normalise(torch.from_numpy(np.ascontiguousarray(pixels)[None]))

    model.train()
    model.feature_extractor.eval()
    for path in tqdm(picture_paths(options.data / "train" / "good"), "looking"):
        view = framing.view(to_rgb(path))
        for frame in framing.frames(view):
            model(model_input(framing.cut(view, frame)))
    model.subsample_embedding(options.share)
    model.eval()

    def score(path: Path) -> Scored:
        pixels = to_rgb(path)
        view = framing.view(pixels)
        whole = np.zeros(view.pixels.shape[:2], np.float32)
        scores = []
        for frame in framing.frames(view):
            with torch.inference_mode():
                output = model(model_input(framing.cut(view, frame)))
            whole[frame.rows, frame.columns] += frame.weights * output.anomaly_map[0, 0].numpy()[frame.inside]
            scores.append(float(output.pred_score))
        return Scored(pixels, view.size, whole, max(scores), 0.0)

    samples = read_mvtec(options.data)
    results = ((Source(str(sample.path), sample.path), score(sample.path)) for sample in samples)
    print(evaluate(samples, results).table())
    print(f"{len(model.memory_bank)} patches kept")


if __name__ == "__main__":
    main()
