"""The demo: makes pictures of parts, fits a model to them, tests it, and leaves everything in a folder."""

import shlex
from dataclasses import dataclass
from pathlib import Path

import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont

from destseg.demo.photographs import write_dataset
from destseg.detector import DeSTSeg
from destseg.files import as_path, write_whole
from destseg.inference.report import Report
from destseg.pictures.dataset import Sample, read_mvtec
from destseg.pictures.masks import read_mask
from destseg.settings import Schedule, whole_number

FALSE_POSITIVE_RATE = 0.05  # 24 pictures for calibration can guarantee it
SHOWN = 2  # pictures of each kind on the sheet, with their overlays
MODEL, PARTS = "chip.destseg", "parts"

GAP, HEADER, LABEL = 8, 34, 26  # of the sheet, in pixels
PAPER, INK = (22, 23, 26), (225, 225, 228)
TITLES = ("picture", "ground truth", "found")


@dataclass(frozen=True)
class Outcome:
    """The result of the demo."""

    folder: Path
    report: Report

    def text(self) -> str:
        """Tell what was measured, what lies where, and what to run next."""
        folder = shlex.quote(str(self.folder))
        return f"""{self.report.table()}

In {folder}:
  sheet.png      look at this first: pictures, their true defects, and what was found
  overlays/      the same pictures, one by one
  {PARTS}/         all pictures, made for this demo, in the MVTec layout
  {MODEL}   the model
  table.txt, report.json   the table above, and a score for each picture

Next, the model on pictures that it has not seen:
  destseg predict {folder}/{MODEL} {folder}/{PARTS}/test -o results

Then your own parts: a hundred pictures of good ones in my_parts/train/good are enough to begin with;
evaluate wants more in my_parts/test, with masks in my_parts/ground_truth, laid out as in {folder}/{PARTS}:
  destseg fit my_parts/train/good -o my_part.destseg
  destseg predict my_part.destseg new_pictures -o my_results
  destseg evaluate my_part.destseg my_parts"""


def run(  # noqa: PLR0913 - each is an option of the command
    folder: str | Path = "destseg-demo",
    seed: int = 0,
    steps: tuple[int, int] = (500, 350),
    *,
    image_size: int | tuple[int, int] = 192,
    batch_size: int | None = None,
    pictures: int = 120,
    teacher: str | None = None,
    device: str = "auto",
    overwrite: bool = False,
    progress: bool = True,
) -> Outcome:
    """Do the whole demo. It writes nothing outside `folder` and deletes nothing.

    Args:
        folder: folder to make and fill, see `Outcome.text`.
        seed: seed of the parts and of training.
        steps, image_size, batch_size, teacher, device: see `destseg.DeSTSeg` and its `fit`.
        pictures: number of normal parts to fit to, at least 2. For testing, a fifth as many other normal
            parts are made, and a fifteenth as many with each defect.
        overwrite: take a folder that is not empty, and replace the files of an earlier demo.
        progress: as for `fit`.

    Raises:
        FileExistsError: the folder is not empty.
        ValueError, OSError: see `DeSTSeg` and `fit`; ValueError also if a folder to be overwritten holds
            other pictures among the parts. All of these come before any work.
    """
    folder = as_path(folder)
    model = DeSTSeg(teacher=teacher, image_size=image_size, seed=seed, device=device)
    Schedule.of(model.preset, steps, batch_size)  # raises for wrong values before any work
    whole_number("pictures", pictures, least=2)

    from destseg.model.construction import torch_device
    from destseg.model.teachers import teacher_state

    torch_device(model.device)
    teacher_state(model.teacher, progress=progress)  # if a download is needed, it comes, or fails, first
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file; a folder to fill is wanted")
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise FileExistsError(
            f"{folder} is not empty: name another folder, or pass overwrite (--overwrite) to replace the "
            "files of an earlier demo there"
        )
    test_good, test_defect = max(1, pictures // 5), max(1, pictures // 15)
    write_dataset(folder / PARTS, seed, pictures, test_good, test_defect, progress=progress)
    model.fit(
        folder / PARTS / "train" / "good",
        steps=steps,
        batch_size=batch_size,
        progress=progress,
        false_positive_rate=FALSE_POSITIVE_RATE,
    )
    model.save(folder / MODEL)
    report = model.evaluate(folder / PARTS, progress=progress)
    report.to_json(folder / "report.json")
    write_whole(folder / "table.txt", lambda file: file.write(f"{report.table()}\n".encode()))
    shown = _shown_samples(read_mvtec(folder / PARTS))
    overlays = [model.predict(sample.path, progress=progress).overlay() for sample in shown]
    for sample, overlay in zip(shown, overlays, strict=True):
        _write(folder / "overlays" / f"{sample.defect}_{sample.path.stem}.png", overlay)
    _write(folder / "sheet.png", contact_sheet(shown, overlays))
    return Outcome(folder, report)


def _shown_samples(samples: list[Sample]) -> list[Sample]:
    """Return the first samples of each kind, whatever was found in them."""
    kinds: dict[str, list[Sample]] = {}
    for sample in samples:
        kinds.setdefault(sample.defect, []).append(sample)
    return [sample for kind in kinds.values() for sample in kind[:SHOWN]]


def contact_sheet(samples: list[Sample], overlays: list[PIL.Image.Image]) -> PIL.Image.Image:
    """Draw each sample as three panels: picture, true defect in white, overlay; SHOWN samples to a line."""
    with PIL.Image.open(samples[0].path) as first:
        width, height = first.size
    block = 3 * (width + GAP) + 2 * GAP
    lines = -(-len(samples) // SHOWN)
    size = (GAP + min(SHOWN, len(samples)) * block - 2 * GAP, HEADER + lines * (LABEL + height + GAP))
    sheet = PIL.Image.new("RGB", size, PAPER)
    draw = PIL.ImageDraw.Draw(sheet)
    small, large = PIL.ImageFont.load_default(15), PIL.ImageFont.load_default(18)
    for k, (sample, overlay) in enumerate(zip(samples, overlays, strict=True)):
        left, top = GAP + k % SHOWN * block, HEADER + k // SHOWN * (LABEL + height + GAP) + LABEL
        draw.text((left, top - LABEL / 2), sample.defect.replace("_", " "), INK, large, anchor="lm")
        with PIL.Image.open(sample.path) as picture:
            panels = (picture.convert("RGB"), _truth(picture.convert("RGB"), sample), overlay)
        for title, panel in zip(TITLES, panels, strict=True):
            if k < SHOWN:
                draw.text((left + width / 2, HEADER / 2), title, INK, small, anchor="mm")
            sheet.paste(panel, (left, top))
            left += width + GAP
    return sheet


def _truth(picture: PIL.Image.Image, sample: Sample) -> PIL.Image.Image:
    """Paint the true defect in white on the darkened picture."""
    picture = picture.point(lambda level: level // 3)
    if sample.mask_path is not None:
        picture.paste((255, 255, 255), mask=PIL.Image.fromarray(read_mask(sample.mask_path)))
    return picture


def _write(path: Path, image: PIL.Image.Image) -> None:
    write_whole(path, lambda file: image.save(file, format="PNG"))
