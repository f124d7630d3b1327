"""Measure what an installation costs: packages, disk space, time to the first verdict, memory in prediction.

Run it with the Python of each environment, and compare the lines:

    python tools/measure_runtime.py part.xml picture.png
    python tools/measure_runtime.py --anomalib model.xml picture.png   # anomalib's OpenVINO inference
"""

import argparse
import importlib.metadata
import sys
import sysconfig
import time
from pathlib import Path

PREDICTIONS = 20
NOT_COUNTED = ("pip", "setuptools", "wheel")  # every environment has them


def resident() -> float:
    """Return the megabytes of memory that this process holds now."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmRSS"].split()[0]) * 1024 / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("picture")
    parser.add_argument("--anomalib", action="store_true")
    options = parser.parse_args()
    start = time.perf_counter()
    if options.anomalib:
        from anomalib.deploy import OpenVINOInferencer

        imported = time.perf_counter()
        predict = OpenVINOInferencer(options.model).predict
    else:
        import destseg

        load = destseg.load  # imports the package's own modules, and torch only for a .destseg file
        imported = time.perf_counter()
        predict = load(options.model, "cpu").predict
    predict(options.picture)
    first = time.perf_counter()
    for _ in range(PREDICTIONS):
        predict(options.picture)
    site = Path(sysconfig.get_path("purelib"))
    size = sum(file.stat().st_size for file in site.rglob("*") if file.is_file() and not file.is_symlink())
    packages = importlib.metadata.distributions(path=[str(site)])
    names = {package.metadata["Name"].lower() for package in packages}
    counted = len(names - set(NOT_COUNTED))
    print(
        f"{counted} packages, {size / 1e6:.0f} MB on disk; import {imported - start:.2f} s, "
        f"first verdict {first - start:.2f} s after it began, {resident():.0f} MB resident while predicting; "
        f"torch {'loaded' if sys.modules.get('torch') else 'not loaded'}"
    )


if __name__ == "__main__":
    main()
