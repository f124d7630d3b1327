"""The table of formats of model files: no other place asks which kind of file this is."""

import logging
from pathlib import Path

from destseg.artifacts import destseg_file, onnx_file, openvino_file
from destseg.artifacts.artifact import Artifact, Format
from destseg.files import FilePath, as_path

logger = logging.getLogger("destseg")

FORMATS = {form.name: form for form in (destseg_file.FORMAT, onnx_file.FORMAT, openvino_file.FORMAT)}
EXPORTED = {name: form for name, form in FORMATS.items() if form.build}
NO_MODELS = {  # endings that no model's file may have, and why
    ".bin": "it holds the weights of an OpenVINO model only: name the .xml beside it",
    ".pt2": "torch unpickles such files, which can run any code, so destseg neither writes nor loads them",
}


def format_of(path: FilePath) -> Format:
    """Return the format that a file's name tells; every name of no exported format is a fitted model's.

    Raises ValueError for names that no model may have.
    """
    ending = as_path(path).suffix.lower()
    if ending in NO_MODELS:
        raise ValueError(f"{path} is no model: {NO_MODELS[ending]}")
    exported = {form.ending: form for form in FORMATS.values() if form.build}
    return exported.get(ending, destseg_file.FORMAT)


def read(path: FilePath) -> Artifact:
    """Read a model's file in any format; warn in the log if damage to it would go unnoticed.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: the package that runs the model is missing or too old; the message names what to install.
        ValueError: the file is damaged, or no model of this version of destseg.
    """
    artifact = format_of(path).read(as_path(path))
    if not artifact.has_checksum:
        logger.warning(
            "%s was exported by an earlier version of destseg and has no checksum: damage would go "
            "unnoticed; export it again",
            path,
        )
    return artifact


def check_name(path: FilePath, wanted: Format) -> None:
    """Raise ValueError if a file of this name would not be read as one of the wanted format."""
    found = format_of(path)
    if found is wanted:
        return
    if wanted is destseg_file.FORMAT:
        fitting = Path(path).with_suffix(".destseg").name
        raise ValueError(
            f"{path}: names that end in {found.ending} are for exported models; save a fitted one as "
            f"{fitting}, and then export it"
        )
    raise ValueError(f"the name of an exported file of this format must end in {wanted.ending}, got {path}")
