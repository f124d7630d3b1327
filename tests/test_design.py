"""The design, held over the syntax tree: who may import whom, where torch may stand, what is said once."""

import ast
import functools
import inspect
import pathlib
import subprocess
import sys

import pytest

import destseg
from destseg.artifacts.formats import EXPORTED, NO_MODELS

PACKAGE = pathlib.Path(destseg.__file__).parent
ROOT = pathlib.Path(__file__).parents[1]
CSRC = ROOT / "csrc"

# Leftwards only: a module imports from its own wing and from those before it.
WINGS = (
    {"settings", "files", "packages", "progress", "ops"},
    {"pictures", "metrics", "page"},
    {"inference"},
    {"model"},
    {"training"},
    {"artifacts"},
    {"detector"},
    {"demo", "bench"},
    {"cli", "__main__"},
)
DOORS = ("model", "training")  # torch stands behind them
TENSOR_OPS = {"ops.tensors", "ops.features", "ops.similarity", "ops.destmap", "ops.corruption"}
COMPILED = {"_C", "_C_cuda"}
FACADE = ""  # the package itself: those that write or show its version may ask for it


def module_files():
    """Every module of the package by its name below it: "ops.perlin", or "" for the package itself."""
    files = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return files


FILES = module_files()
MODULES = sorted(FILES.keys() - {FACADE})


@functools.cache
def tree(module):
    return ast.parse(FILES[module].read_text())


def statements(module, at_start_only=False):
    """The import statements of a module; those for type checkers alone do not count."""

    def visit(node):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
                continue
            if at_start_only and isinstance(child, (ast.FunctionDef, ast.Lambda)):
                continue
            if isinstance(child, (ast.Import, ast.ImportFrom)):
                yield child
            yield from visit(child)

    return list(visit(tree(module)))


def imported_names(nodes):
    """Full dotted names of everything that import statements import."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        else:
            assert node.level == 0, "imports within the package are written out in full"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@functools.cache
def imports(module, at_start_only=False):
    """The modules of the package that a module imports, anywhere in its code or when it is imported."""
    found = set()
    for name in imported_names(statements(module, at_start_only)):
        if name.split(".")[0] == "destseg":
            parts = name.split(".")[1:]
            while parts and ".".join(parts) not in FILES | dict.fromkeys(COMPILED):
                parts.pop()
            found.add(".".join(parts))
    return frozenset(found)


def everything_behind(module, at_start_only=False):
    found, open_ends = set(), [module]
    while open_ends:
        for name in imports(open_ends.pop(), at_start_only) - found - {FACADE} - COMPILED:
            found.add(name)
            open_ends.append(name)
    return found


def wing_of(module):
    for place, wings in enumerate(WINGS):
        if module.split(".")[0] in wings:
            return place
    pytest.fail(f"{module} has no place in WINGS: decide where it belongs")


@pytest.mark.parametrize("module", MODULES)
def test_modules_import_leftwards_only(module):
    own = wing_of(module)
    to_the_right = {name for name in imports(module) - {FACADE} - COMPILED if wing_of(name) > own}
    assert not to_the_right


@pytest.mark.parametrize("module", MODULES)
def test_no_module_is_behind_itself(module):
    assert module not in everything_behind(module)


@pytest.mark.parametrize("module", MODULES)
def test_torch_stands_behind_two_doors(module):
    named = {name.split(".")[0] for name in imported_names(statements(module))}
    assert "torch" not in named or module.split(".")[0] in DOORS or module in TENSOR_OPS


@pytest.mark.parametrize("module", MODULES)
def test_tensor_operations_are_for_those_behind_the_doors(module):
    assert not imports(module) & TENSOR_OPS or module.split(".")[0] in DOORS or module in TENSOR_OPS


def test_what_a_factory_pc_runs_imports_no_torch_when_it_is_imported():
    runtime = ("detector", "metrics", "cli", "artifacts.formats", "inference.stream")
    for module in runtime:
        behind = everything_behind(module, at_start_only=True)
        assert not [name for name in behind if name.split(".")[0] in DOORS or name in TENSOR_OPS]


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith("ops.")])
def test_operations_import_only_what_they_share(module):
    shared = {"ops", "ops.kernels", "ops.tensors", "ops.features"}
    shared |= {"ops.perlin"} if module == "ops.corruption" else set()  # it is made of noise
    assert imports(module) <= shared | (COMPILED if module == "ops.kernels" else set())


def test_the_compiled_modules_are_imported_in_one_place():
    assert [module for module in MODULES if COMPILED & imports(module)] == ["ops.kernels"]


def test_the_package_itself_imports_nothing_of_it_before_it_is_asked():
    assert list(imported_names(statements(FACADE))) == [
        "importlib",
        "logging",
        "typing.TYPE_CHECKING",
        "typing.Any",
    ]


def calls(module):
    """Each call's function as it is written, and its keyword arguments."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}


def test_torch_files_are_never_left_to_torch():
    """It trusts them; destseg.model.torchfile reads them."""
    assert not [module for module in MODULES for name, _ in calls(module) if name == "torch.load"]


@pytest.mark.parametrize("module", MODULES)
def test_nothing_that_executes_files_is_imported(module):
    unwanted = {"pickle", "dill", "joblib", "shelve", "marshal"}
    assert not {name.split(".")[0] for name in imported_names(statements(module))} & unwanted
    assert not {name for name, _ in calls(module)} & {"eval", "exec"}


@pytest.mark.parametrize(
    "module", [name for name in MODULES if name.split(".")[0] not in ("cli", "progress")]
)
def test_only_the_command_line_and_messages_print(module):
    assert "print" not in {name for name, _ in calls(module)}


def test_one_place_shows_bars_and_knows_terminals():
    for module in MODULES:
        named = {name.split(".")[0] for name in imported_names(statements(module))}
        asked = {node.attr for node in ast.walk(tree(module)) if isinstance(node, ast.Attribute)}
        assert module == "progress" or ("tqdm" not in named and not asked & {"isatty", "stderr"})


@pytest.mark.parametrize("verb", ["fit", "predict", "evaluate", "calibrate", "export", "bench", "demo"])
def test_every_verb_that_takes_long_has_the_switch_for_progress(verb):
    from destseg.cli import VERBS
    from destseg.cli import parser as command_parser

    assert VERBS.keys() - {"info"} == {"fit", "predict", "evaluate", "calibrate", "export", "bench", "demo"}
    needed = {
        "fit": ["x", "-o", "y"],
        "predict": ["x", "y"],
        "evaluate": ["x", "y"],
        "export": ["x", "y"],
    } | {"bench": ["speed"]}
    for switch, expected in (([], True), (["--no-progress"], False)):
        arguments = [verb, *needed.get(verb, ["x"]), *switch]
        assert command_parser().parse_args(arguments).progress is expected


def test_every_method_that_takes_long_has_the_argument_for_progress():
    for name in ("fit", "calibrate", "predict", "predict_each", "evaluate", "export"):
        assert inspect.signature(getattr(destseg.DeSTSeg, name)).parameters["progress"].default is True


@pytest.mark.parametrize("module", MODULES)
def test_nobody_asks_what_kind_of_network_or_scorer_there_is(module):
    kinds = {"DeSTSegNet", "TorchScorer", "GpuScorer", "OnnxScorer", "OpenVinoScorer", "Scorer"}
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "isinstance":
            assert not {name.id for name in ast.walk(node) if isinstance(name, ast.Name)} & kinds


def test_one_place_knows_which_kind_of_file_a_name_says():
    endings = {form.ending for form in EXPORTED.values()} | NO_MODELS.keys()
    for module in set(MODULES):
        constants = {node.value for node in ast.walk(tree(module)) if isinstance(node, ast.Constant)}
        belongs = module == "artifacts.formats" or (
            module.startswith("artifacts.") and module.endswith("_file")
        )
        assert belongs or not constants & endings, module


@pytest.mark.parametrize("header", sorted(CSRC.glob("**/*.h")), ids=lambda path: path.name)
def test_kernels_know_neither_python_nor_torch_and_print_nothing(header):
    included = {line.split()[1] for line in header.read_text().splitlines() if line.startswith("#include")}
    foreign = ("pybind11", "Python.h", "torch", "ATen", "iostream", "cstdio", "stdio.h")
    assert not {name for name in included if name.strip('<>"').startswith(foreign)}


def test_the_architecture_tells_about_every_module():
    text = (ROOT / "docs/architecture.md").read_text()
    names = [
        path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"
    ]
    assert len(names) > 40 and not [name for name in names if f"`{name}`" not in text]


@pytest.mark.parametrize("verb", ["--help", *("fit", "predict", "evaluate", "calibrate", "export", "info")])
def test_help_loads_neither_torch_nor_numpy(verb):
    arguments = ["--help"] if verb == "--help" else [verb, "--help"]
    code = (
        "import sys, destseg.cli\n"
        f"try: destseg.cli.main({arguments!r})\n"
        "except SystemExit: pass\n"
        "sys.exit(3 if {'torch', 'numpy'} & sys.modules.keys() else 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL).returncode == 0
