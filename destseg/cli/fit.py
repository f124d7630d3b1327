"""`destseg fit`: fits a model to normal pictures and writes its file."""

import argparse
import shlex
from collections.abc import Mapping

import destseg
from destseg.cli.arguments import (
    PICTURES,
    SIDES,
    add_device,
    add_false_positive_rate,
    add_group,
    add_inference_precision,
    add_progress,
    add_roi,
    add_steps,
    add_strict,
    add_teacher,
    fields_of,
    read_lists,
    read_number,
    read_sides,
    read_whole_number,
    wrong_usage,
)
from destseg.cli.output import check_output, save
from destseg.progress import say
from destseg.settings import (
    AUGMENTATIONS,
    FLIPS,
    OWN_TEACHERS,
    PRECISIONS,
    PRESETS,
    SCHEDULES,
    Schedule,
    Settings,
    check_amounts,
    check_device,
    check_groups,
    whole_number,
)

HELP = "Learn what normal parts look like and write a model."
EXAMPLE = "destseg fit parts/train/good -o part.destseg"
HINT = "the same command with --resume goes on from the last checkpoint"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("normal", nargs="+", metavar="NORMAL", help=PICTURES)
    add("-o", "--output", required=True, help="model file to write")
    presets = "a light network (fast), the published one (paper), or the baseline that both build on (stpm)"
    add("--preset", default=Settings.preset, choices=PRESETS, help=presets)
    add_teacher(parser, _by_preset(OWN_TEACHERS))
    weights = "file of the teacher's weights, which is resnet18 then unless --teacher names another "
    weights += "(default for resnet18: a file found on this machine, or else a download)"
    add("--teacher-weights", metavar="PATH", help=weights)
    add(
        "--size",
        dest="image_size",
        type=read_sides,
        default=Settings.image_size,
        metavar="SIZE",
        help=f"input size {SIDES}",
    )
    tile = f"cut large pictures into overlapping tiles of this side {SIDES}"
    add("--tile", type=read_sides, metavar="SIDE", help=tile)
    overlap = "share of a tile's side that neighbouring tiles have in common"
    add("--overlap", type=read_number, default=Settings.overlap, metavar="SHARE", help=overlap)
    add("--keep-aspect", action="store_true", help="scale pictures alike in both directions, and pad them")
    depth = "bits of the camera, if files of 16 bits hold fewer, such as 12 (default: learnt from NORMAL)"
    add("--bit-depth", type=read_whole_number, metavar="BITS", help=depth)
    add_roi(parser)
    steps = {preset: f"{student} {later}" for preset, ((student, later), _) in SCHEDULES.items()}
    add_steps(parser, _by_preset(steps))
    batch = _by_preset({preset: str(batch_size) for preset, (_, batch_size) in SCHEDULES.items()})
    add("--batch-size", type=read_whole_number, help=f"pictures per step (default: {batch})")
    textures = "pictures that lend their texture to synthetic anomalies (default: made from NORMAL)"
    add("--texture-source", metavar="DIR", help=textures)
    turn = 'rotate pictures by up to this many degrees either way; "90": by quarter turns, +-5 degrees'
    turn += '; "auto": in any direction if the parts seem to lie so (default: auto with preset fast, else 0)'
    add("--rotate", help=turn)
    add("--flip", default=Schedule.flip, choices=FLIPS, help="train on mirrored pictures, too")
    light = '"light": train on pictures whose light and place change a little, too'
    add("--augment", default=Schedule.augment, choices=AUGMENTATIONS, help=light)
    add("--seed", type=read_whole_number, default=Settings.seed, help="seed of all random numbers")
    add("--precision", default=Settings.precision, choices=PRECISIONS, help="precision of training")
    add_inference_precision(parser, "precision of prediction, on a GPU", Settings.inference_precision)
    add("--workers", type=read_whole_number, default=2, help="threads that prepare batches")
    minutes = "time between two checkpoints of an unfinished run"
    add("--checkpoint-minutes", type=read_number, default=10.0, metavar="MINUTES", help=minutes)
    add("--resume", action="store_true", help="continue an interrupted run with the same output")
    share = "share of the pictures kept for calibration, at most 0.5; at least 10 if there are 20 or more"
    add("--held-out", type=read_number, default=Schedule.held_out, metavar="SHARE", help=share)
    outliers = "train on normal pictures that stand far out, too, which may be defective"
    add("--keep-outliers", dest="drop_outliers", action="store_false", help=outliers)
    add_false_positive_rate(parser)
    add_group(parser)
    add_strict(parser)
    add_device(parser)
    add_progress(parser)


def run(options: argparse.Namespace) -> int:
    settings, schedule = fields_of(Settings, options), fields_of(Schedule, options)
    with wrong_usage():
        Settings(**settings)
        Schedule.of(options.preset, **schedule)
        check_device(options.device)
        whole_number("workers", options.workers)
        check_amounts(checkpoint_minutes=options.checkpoint_minutes)
        check_groups(options.groups)
        normal = read_lists(options.normal)

    from destseg.artifacts.formats import FORMATS
    from destseg.files import as_path

    check_output(options.output, FORMATS["destseg"])
    output = as_path(options.output)
    checkpoint = output.with_name(output.name + ".checkpoint")
    check_output(str(checkpoint))
    if options.resume and not checkpoint.exists():
        raise FileNotFoundError(f"there is no {checkpoint} to go on with: leave out --resume to begin anew")
    if checkpoint.exists() and not options.resume:
        raise ValueError(
            f"{checkpoint} is left of an interrupted run: go on with --resume, or delete it to begin anew"
        )
    model = destseg.DeSTSeg(**settings, device=options.device, teacher_weights=options.teacher_weights)
    try:
        model.fit(
            normal if len(normal) > 1 else normal[0],
            **schedule,
            groups=options.groups,
            texture_source=options.texture_source,
            progress=options.progress,
            resume=checkpoint if options.resume else None,
            checkpoint=checkpoint,
            checkpoint_minutes=options.checkpoint_minutes,
            workers=options.workers,
            strict=options.strict,
        )
    except KeyboardInterrupt:
        if not checkpoint.exists():
            raise
        raise KeyboardInterrupt(HINT) from None
    try:
        save(model, output)
    except OSError as error:
        raise OSError(f"{error}; {HINT}" if checkpoint.exists() else str(error)) from error
    checkpoint.unlink(missing_ok=True)
    following = f"destseg predict {shlex.quote(str(output))} PICTURES -o results"
    say(f"wrote {output}; next: {following}", options.progress)
    return 0


def _by_preset(texts: Mapping[str, str]) -> str:
    """Return the default preset's text, followed by those of presets that differ."""
    usual = texts[Settings.preset]
    others = dict.fromkeys(text for text in texts.values() if text != usual)
    named = [f"{text} for {' and '.join(name for name in texts if texts[name] == text)}" for text in others]
    return "; ".join([usual, *named])
