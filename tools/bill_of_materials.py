"""Prints a bill of materials, CycloneDX 1.5 as JSON, of the versions pinned in constraints.txt.

    python tools/bill_of_materials.py > destseg.cdx.json

Pins that hold for some versions of Python only are listed with that condition as a property.
"""

import json
import pathlib
import re

ROOT = pathlib.Path(__file__).parents[1]
PIN = re.compile(r"(?P<name>[A-Za-z0-9_.-]+)==(?P<version>[^;\s]+)(?:\s*;\s*(?P<condition>.+))?")


def components(pins: str) -> list[dict[str, object]]:
    """Return a component for each pin. Raises ValueError for a line that is no exact pin."""
    found: list[dict[str, object]] = []
    for line in pins.splitlines():
        text = line.partition("#")[0].strip()
        if not text:
            continue
        pin = PIN.fullmatch(text)
        if pin is None:
            raise ValueError(f"a line must be an exact pin, NAME==VERSION, got {line!r}")
        name = re.sub(r"[-_.]+", "-", pin["name"]).lower()
        address = f"pkg:pypi/{name}@{pin['version']}"
        part = {
            "type": "library",
            "bom-ref": address,
            "name": name,
            "version": pin["version"],
            "purl": address,
        }
        if pin["condition"]:
            part["properties"] = [{"name": "condition", "value": pin["condition"].strip()}]
        found.append(part)
    return sorted(found, key=lambda part: str(part["bom-ref"]))


def bill() -> dict[str, object]:
    """Return the bill of materials of this folder's constraints.txt."""
    found = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert found is not None
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {"type": "library", "name": "destseg", "version": found[1]}},
        "components": components((ROOT / "constraints.txt").read_text()),
    }


if __name__ == "__main__":
    print(json.dumps(bill(), indent=2))
