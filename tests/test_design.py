"""The design held over the syntax tree: who may import whom, and what is written in one place only."""

import ast
import functools
import pathlib

import pytest

import destseg

PACKAGE = pathlib.Path(destseg.__file__).parent
TESTS = pathlib.Path(__file__).parent
CSRC = TESTS.parent / "csrc"
LONGEST_FILE = 300  # lines
SUFFIXES = (".py", ".h", ".cpp", ".cu")  # of the files this holds for

# From the bottom up: a module imports from its own layer and those before it.
LAYERS = (
    {"ops._native", "ops._features"},
    {"ops.*"},
    {"files", "images", "folders", "result"},
    {"curves", "tensor_curves", "ground_truth", "normal_scores", "gathering", "metrics"},
    {"roi", "framing", "store", "textures", "synthesis", "resident"},
    {"networks", "losses", "teachers", "presets", "scoring", "evaluation", "cuda_graph"},
    {"processes", "muon", "optimisation", "checkpoints", "training", "estimate"},
    {"calibration", "prediction", "modelfile", "graph"},
    {"sample", "sample.rendering", "sample.chip", "sample.flaws", "sample.pictures"},
    {"engines", "quantising", "exporting"},
    {"detector"},
    {"loading", "bench"},
    {"demo"},
    {"options"},
    {"cli", "__main__"},
)
WITHOUT_NETWORKS = (
    *("images", "folders", "metrics", "result"),
    *("roi", "framing", "store", "textures", "synthesis", "resident", "sample.pictures"),
)
COMPILED = {"_C", "_C_cuda"}
FACADE = ""  # the package itself: its version may be asked for by the layers of model files and above


def module_files():
    """Every module of the package by its name below it: "ops.perlin", or "" for the package itself."""
    files = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return files


FILES = module_files()
MODULES = sorted(FILES.keys() - {FACADE, "ops"})


@functools.cache
def tree(module):
    return ast.parse(FILES[module].read_text())


def imported_names(nodes):
    """Full dotted names of everything that the import statements among the nodes import."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports within the package are written out in full"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imports(module):
    """The modules of the package that a module imports, anywhere in its code."""
    found = set()
    for name in imported_names(ast.walk(tree(module))):
        if name.split(".")[0] == "destseg":
            parts = name.split(".")[1:]
            while parts and ".".join(parts) not in FILES | dict.fromkeys(COMPILED):
                parts.pop()
            found.add(".".join(parts))
    return found


def everything_behind(module):
    found, open_ends = set(), [module]
    while open_ends:
        for name in imports(open_ends.pop()) - found - {FACADE} - COMPILED:
            found.add(name)
            open_ends.append(name)
    return found


def layer_of(module):
    for level, names in enumerate(LAYERS):
        if module in names or ("ops.*" in names and module.startswith("ops.")):
            return level
    pytest.fail(f"{module} has no place in LAYERS: decide where it belongs")


@pytest.mark.parametrize("module", MODULES)
def test_modules_import_from_their_own_layer_and_below(module):
    own = layer_of(module)
    above = {name for name in imports(module) - {FACADE} - COMPILED if layer_of(name) > own}
    assert not above


@pytest.mark.parametrize("module", MODULES)
def test_no_module_is_behind_itself(module):
    assert module not in everything_behind(module)


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith("ops.")])
def test_operations_do_not_import_one_another(module):
    shared = {"ops._native", "ops._features"}
    assert imports(module) <= (COMPILED if module == "ops._native" else shared)


@pytest.mark.parametrize("module", WITHOUT_NETWORKS)
def test_usable_without_any_network(module):
    assert "networks" not in everything_behind(module)


def test_the_compiled_modules_are_imported_in_one_place():
    assert [module for module in MODULES if COMPILED & imports(module)] == ["ops._native"]


def test_the_package_itself_imports_nothing_of_it_before_it_is_asked():
    statements = [node for node in tree(FACADE).body if isinstance(node, (ast.Import, ast.ImportFrom))]
    assert not [name for name in imported_names(statements) if name.startswith(("destseg", "torch", "numpy"))]
    assert all(layer_of(module) >= layer_of("modelfile") for module in MODULES if FACADE in imports(module))


def calls(module):
    """Each call's function as it is written, and its keyword arguments."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}


def test_torch_files_are_read_in_one_place_and_never_unpickled():
    found = [(module, words) for module in MODULES for name, words in calls(module) if name == "torch.load"]
    assert [module for module, _ in found] == ["files"]
    assert all(words.get("weights_only") == "True" for _, words in found)


@pytest.mark.parametrize("module", MODULES)
def test_nothing_that_executes_files_is_imported(module):
    unwanted = {"pickle", "dill", "joblib", "shelve", "marshal"}
    assert not {name.split(".")[0] for name in imported_names(ast.walk(tree(module)))} & unwanted
    assert not {name for name, _ in calls(module)} & {"eval", "exec"}


@pytest.mark.parametrize("module", [name for name in MODULES if name != "cli"])
def test_only_the_command_line_prints(module):
    assert "print" not in {name for name, _ in calls(module)}


@pytest.mark.parametrize("header", sorted(CSRC.glob("**/*.h")), ids=lambda path: path.name)
def test_kernels_know_neither_python_nor_torch_and_print_nothing(header):
    included = {line.split()[1] for line in header.read_text().splitlines() if line.startswith("#include")}
    foreign = ("pybind11", "Python.h", "torch", "ATen", "iostream", "cstdio", "stdio.h")
    assert not {name for name in included if name.strip('<>"').startswith(foreign)}


def sources():
    folders = (PACKAGE, CSRC, TESTS)
    return sorted(path for folder in folders for path in folder.rglob("*") if path.suffix in SUFFIXES)


@pytest.mark.parametrize("path", sources(), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_no_file_is_too_long_to_be_read_at_once(path):
    assert len(path.read_text().splitlines()) <= LONGEST_FILE


def test_the_readme_tells_about_every_module():
    readme = TESTS.parent / "README.md"
    named = " ".join(line for line in readme.read_text().splitlines() if line.startswith("| `"))
    names = [path.name for path in PACKAGE.glob("*.py") if not path.name.startswith("_")]
    assert len(names) > 30 and not [name for name in names if f"{name}`" not in named]
    assert "`tools/`" in named
