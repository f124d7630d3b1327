"""Hands the compiled part of the package to CMake; everything else stands in pyproject.toml.

DESTSEG_EXT says what to do about the kernels: unset = build them if a compiler is there, 1 = they must
build, 0 = leave them out. The package works without them, more slowly and with the same results. Those for
NVIDIA GPUs, destseg._C_cuda, are built where CMake finds nvcc; where it does not, nothing is missed.
"""

import os
import pathlib
import subprocess
import sys

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

WISH = os.environ.get("DESTSEG_EXT", "")
if WISH not in ("", "0", "1"):
    raise SystemExit(f"DESTSEG_EXT must be unset, 0 (skip the kernels) or 1 (require them), got {WISH!r}")


class CMakeBuild(build_ext):
    """Configure and build with CMake, into the place where setuptools expects the module."""

    failed = False  # what keeps the first module from being built keeps the second one, too

    def build_extension(self, extension: Extension) -> None:
        path = pathlib.Path(self.get_ext_fullpath(extension.name)).resolve()
        if self.failed:
            return
        try:
            self.run_cmake(path.parent, extension.name.removeprefix("destseg."))
        except (ImportError, OSError, subprocess.CalledProcessError):
            if WISH == "1":
                raise
            self.failed = True
            which = "the kernels for GPUs" if extension.name.endswith("_cuda") else "compiled kernels"
            notice = f"installing without {which}, results stay the same; DESTSEG_EXT=1 tells why"
            sys.stderr.write(f"destseg: {notice}\n")

    def run_cmake(self, output: pathlib.Path, target: str) -> None:
        import pybind11  # only here: it is a build requirement, and DESTSEG_EXT=0 does without

        root = pathlib.Path(__file__).resolve().parent
        build = pathlib.Path(self.build_temp).resolve()
        configure = [
            *("-S", root, "-B", build),
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
            f"-DDESTSEG_OUTPUT={output}",
            "-DCMAKE_BUILD_TYPE=Release",
        ]
        errors = None if WISH == "1" else subprocess.DEVNULL  # one line of notice is enough
        make = ["--build", build, "--config", "Release", "--parallel", "--target", target]
        for arguments in (configure, make):
            subprocess.run(["cmake", *arguments], check=True, stderr=errors)

    def get_outputs(self) -> list[str]:
        """Only what was really built: without a compiler there is nothing to record or install."""
        return [path for path in super().get_outputs() if os.path.exists(path)]

    def copy_extensions_to_source(self) -> None:
        """For an editable install: copy what was built, if anything was."""
        built = pathlib.Path(self.build_lib)
        self.extensions = [e for e in self.extensions if (built / self.get_ext_filename(e.name)).exists()]
        super().copy_extensions_to_source()


setup(
    ext_modules=[]
    if WISH == "0"
    else [Extension(f"destseg.{name}", sources=[]) for name in ("_C", "_C_cuda")],
    cmdclass={"build_ext": CMakeBuild},
)
