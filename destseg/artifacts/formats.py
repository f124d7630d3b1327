"""The formats of model files, in one table: the one place that asks which kind of file this is."""

from pathlib import Path

from destseg.artifacts import destseg_file, onnx_file, openvino_file
from destseg.artifacts.artifact import Artifact, Format
from destseg.files import FilePath

FORMATS = {one.name: one for one in (destseg_file.FORMAT, onnx_file.FORMAT, openvino_file.FORMAT)}
EXPORTED = {name: one for name, one in FORMATS.items() if one.build}
NO_MODELS = {  # endings that no file of a model may have, and why
    ".bin": "it holds the weights of an OpenVINO model only: name the .xml beside it",
    ".pt2": "torch unpickles such files, which can run any code, so destseg neither writes nor loads them",
}


def format_of(path: FilePath) -> Format:
    """Return the format that a file's name says; names of no exported format are those of fitted models.

    Raises ValueError for names that no model may have.
    """
    ending = Path(path).suffix.lower()
    if ending in NO_MODELS:
        raise ValueError(f"{path} is no model: {NO_MODELS[ending]}")
    exported = {one.ending: one for one in EXPORTED.values()}
    return exported.get(ending, destseg_file.FORMAT)


def read(path: FilePath) -> Artifact:
    """Read the file of a model, of whichever format.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: the package is missing that runs it; the message names the command that installs it.
        ValueError: it is damaged, or no model of this version of destseg.
    """
    return format_of(path).read(Path(path))


def check_name(path: FilePath, wanted: Format) -> None:
    """Raise ValueError where a file of the wanted format would not be read as one, because of its name."""
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
