"""The type stubs of the compiled modules hold what the modules' own docstrings say."""

import ast
import importlib
import pathlib
import re

import pytest

import destseg

PACKAGE = pathlib.Path(destseg.__file__).parent


def dtypes(annotation):
    """Return the array types in an annotation, in numpy's names."""
    return re.findall(r"\b(?:float|u?int)\d+\b", ast.unparse(annotation))


def described(function):
    """Return an ast.FunctionDef's arguments, by name and with their array types, and those it returns."""
    arguments = function.args
    assert not (arguments.vararg or arguments.kwarg or arguments.kwonlyargs or arguments.posonlyargs)
    assert not arguments.defaults
    return [(one.arg, dtypes(one.annotation)) for one in arguments.args], dtypes(function.returns)


def of_stub(path):
    """Return what each function of a stub takes and returns, by name, overload after overload."""
    functions = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)]
    found = {}
    for function in functions:
        found.setdefault(function.name, []).append(described(function))
    for function in functions:
        decorators = [ast.unparse(decorator) for decorator in function.decorator_list]
        assert decorators == (["overload"] if len(found[function.name]) > 1 else []), function.name
    return found


def of_module(module):
    """Return the same of a compiled module; pybind11 writes every overload's signature into the docstring."""
    found = {}
    for name in dir(module):
        if not name.startswith("_"):
            signatures = re.findall(
                rf"^(?:\d+\. )?({name}\(.*\) -> .*)$", getattr(module, name).__doc__, re.MULTILINE
            )
            found[name] = [described(ast.parse(f"def {signature}: ...").body[0]) for signature in signatures]
    return found


@pytest.mark.parametrize("name", ["_C", "_C_cuda"])
def test_stubs_agree_with_the_compiled_modules(name):
    try:
        module = importlib.import_module(f"destseg.{name}")
    except ImportError as error:
        pytest.skip(f"not built: {error}")
    assert of_stub(PACKAGE / f"{name}.pyi") == of_module(module)


def test_the_stub_for_gpus_agrees_with_the_sources(emulated_kernels):
    assert of_stub(PACKAGE / "_C_cuda.pyi") == of_module(emulated_kernels)
