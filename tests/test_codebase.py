"""Holds the code base to its rules: who may include and import whom, and what a docstring has."""

import ast
import doctest
import inspect
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import fastsoftmax
import fastsoftmax.compat.scipy
from fastsoftmax import _native

CHECKOUT = Path(__file__).resolve().parents[1]
SRC = CHECKOUT / "src"
PACKAGE = CHECKOUT / "fastsoftmax"

CUDA = PACKAGE / "cuda"

in_checkout = pytest.mark.skipif(not (SRC.exists() and PACKAGE.exists()), reason="the tests lie outside a checkout")


def files(folder, *suffixes):
    found = [path for suffix in suffixes for path in folder.rglob(f"*.{suffix}")]
    return sorted(path.relative_to(folder).as_posix() for path in found)


def rule_for(name, rules):
    """Return the one rule whose pattern is a file's name: a new kind of file needs its own."""
    (rule,) = [rule for pattern, rule in rules if re.fullmatch(pattern, name)] or [None]
    assert rule is not None, f"no rule says what {name} may use: add it to the table"
    return rule


# What each file of src/ may include, own files from src/ on. isa -> kernels, vec_*; slices ->
# dispatch, parallel. What an ISA's file includes inside its target region takes no header of the
# standard library: compiled there, it may hold instructions that another machine lacks.
MAY_INCLUDE = [
    (r"fastsoftmax\.h", r"<stdint\.h"),
    (r"kernels/types\.h", r"fastsoftmax\.h"),
    (r"kernels/(?!types)\w+\.h", r"kernels/\w+\.h"),
    (r"isa/vec_\w+\.h", r"isa/vec_\w+\.h"),
    (r"isa/\w+\.cpp", r"isa/vec_\w+\.h|kernels/\w+\.h|<(emmintrin|immintrin|stdlib)\.h"),
    (r"(dispatch|parallel)\.h", r"kernels/types\.h"),
    (r"dispatch\.cpp", r"dispatch\.h|<\w+|<cpuid\.h"),
    (r"parallel\.cpp", r"parallel\.h|<\w+|<(omp|pthread)\.h"),
    (r"slices\.cpp", r"(dispatch|parallel)\.h|<\w+|<unistd\.h"),
]

# The CUDA C++ has no headers but its own: so it compiles in tens of milliseconds.
CUDA_MAY_INCLUDE = [
    (r"(device|job)", r"(?!)"),
    (r"numbers", r"device"),
    (r"states", r"numbers"),
    (r"operation", r"job|states"),
    (r"normalizers|vjp", r"operation"),
    (r"cross_entropy", r"normalizers"),
    (r"places", r"job|numbers"),
    (r"meeting", r"places|states"),
    (r"slices", r"cross_entropy|meeting|vjp"),
    (r"totals", r"slices"),
]

# Patterns that only the files of the second pattern may hold.
RESERVED = [
    (r"\bomp\b|\bomp_|pthread|std::thread", r"parallel\.cpp"),
    (r"\b_mm\d*_|[ei]mmintrin|GCC target|clang attribute", r"isa/.*"),
    (r"\bstd::", r"(dispatch|parallel|slices)\.cpp"),
    # Compilers do not define these in a target region.
    (r"\b__(AVX|SSE|FMA|F16C|BMI|ARM_)\w*", r"(?!)"),
    (r"\bPy[A-Z]\w+|\bnumpy\b|\bNPY_", r"(?!)"),
]


def cxx_code(name):
    """Return a C++ file without its comments."""
    text = (SRC / name).read_text()
    return re.sub(r"//[^\n]*|/\*.*?\*/", "", text, flags=re.DOTALL)


def includes(name):
    """List what a C++ file includes: <header as it stands, own files from src/ on."""
    found = []
    for bracket, target in re.findall(r'#\s*include\s*([<"])([^>"]+)', cxx_code(name)):
        if bracket == "<":
            found.append("<" + target)
        else:
            beside = (SRC / name).parent / target
            own = (beside if beside.exists() else SRC / target).resolve()
            assert own.exists(), f"{name} includes {target}, which is not in src/"
            found.append(own.relative_to(SRC).as_posix())
    return found


@in_checkout
@pytest.mark.parametrize("name", files(SRC, "h", "cpp"))
def test_cxx_includes(name):
    allowed = rule_for(name, MAY_INCLUDE)
    assert [target for target in includes(name) if not re.fullmatch(allowed, target)] == []


@in_checkout
@pytest.mark.parametrize("name", files(SRC, "h", "cpp"))
@pytest.mark.parametrize(("pattern", "owners"), RESERVED)
def test_cxx_words_of_one_layer(name, pattern, owners):
    if not re.fullmatch(owners, name):
        assert re.findall(pattern, cxx_code(name)) == []


@in_checkout
@pytest.mark.parametrize("name", files(CUDA, "cuh"))
def test_cuda_layers(name):
    allowed = rule_for(name.removesuffix(".cuh"), CUDA_MAY_INCLUDE)
    text = (CUDA / name).read_text()
    assert [file for file in re.findall(r"#include <(.*)\.cuh>", text) if not re.fullmatch(allowed, file)] == []
    assert text.count("#include") == len(re.findall(r"#include <\w+\.cuh>", text))
    if name != "device.cuh":  # which the emulation on the CPU stands for
        assert not re.search(r"\basm\b|__shfl|__syncthreads|__shared__|__CUDA_ARCH__(?! >= 1[02]00)", text)


@in_checkout
def test_header_guards_differ():
    """A guard copied from another header would make the compiler drop this one in silence."""
    guard = re.compile(r"^#ifndef (\w+)\n#define \1\n", re.MULTILINE)
    guards = {name: guard.findall((SRC / name).read_text()) for name in files(SRC, "h")}
    assert all(len(found) == 1 for found in guards.values()), guards
    assert len({found[0] for found in guards.values()}) == len(guards), guards


# What each Python file may import beside the standard library.
MAY_IMPORT = [
    (r"__init__", r"fastsoftmax\._(api|api_grad|api_loss|control|registry)"),
    (r"_api", r"numpy.*|fastsoftmax(\.(_arguments|_front|_layout|_threads|adapters|reference))?"),
    (r"_api_grad", r"numpy.*|fastsoftmax(\.(_api|_arguments|_front|_layout|_threads|adapters|reference))?"),
    (r"_api_loss", r"numpy|fastsoftmax(\.(_arguments|_entropy|_front|adapters))?"),
    (r"_entropy", r"numpy.*|fastsoftmax(\.(_arguments|_layout|_loss_arguments|_threads|reference))?"),
    (r"_front", r"fastsoftmax\._native"),
    (r"_threads", r"fastsoftmax\._front"),
    (r"_loss_arguments", r"numpy.*|fastsoftmax\._arguments"),
    (r"_arguments", r"numpy.*|fastsoftmax(\.(_layout|_registry|adapters))?"),
    (r"_control", r"numpy|fastsoftmax(\._(registry|threads))?"),
    (r"_layout", r"numpy.*"),
    (r"_registry", r"fastsoftmax\.(_front|backends\..*)"),
    (r"reference", r"numpy.*"),
    (r"adapters/__init__", r"cupy|numpy|fastsoftmax\._(front|layout|registry)"),
    (
        r"adapters/(?!__init__)\w+",
        r"cupy|jax|ml_dtypes|numba|numpy|pandas|torch|xarray|fastsoftmax\.(_registry|adapters)",
    ),
    (r"backends/__init__", r"(?!)"),
    (r"backends/native", r"numpy.*|fastsoftmax\._(layout|native)"),
    (r"backends/cupy", r"numpy|cupy|fastsoftmax(\.cuda(\.plan)?)?"),
    (r"cuda/\w+", r"(?!)"),
    (r"backends/numba/__init__", r"numpy|numba.*|fastsoftmax\.(_layout|backends\.numba\..*)"),
    (r"backends/numba/(?!__init__)\w+", r"numpy|numba.*|llvmlite|fastsoftmax\.backends\.numba\..*"),
    (r"backends/numba_cuda/\w+", r"numpy|numba.*|cupy|fastsoftmax\.backends\.numba_cuda(\..*)?"),
    (r"compat/__init__", r"(?!)"),
    (r"compat/\w+(?<!__)", r"numpy.*|fastsoftmax(\.(reference|_arguments))?"),
    (r"integrations/numba/\w+", r"numpy|numba.*|fastsoftmax\.(_front|(backends|integrations)\.numba\..*)"),
    (r"integrations/numba_cuda", r"numpy|numba.*|fastsoftmax\.backends\.numba_cuda(\..*)?"),
    (r"integrations/torch/\w+", r"torch|fastsoftmax(\.(_arguments|adapters.*|integrations\.torch\..*))?"),
    (r"integrations/__init__", r"(?!)"),
]


def imports(path, package=PACKAGE):
    """List the modules that a Python file imports anywhere, in full, but the standard library's."""
    found = []
    home = ("fastsoftmax", *path.relative_to(package).parent.parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(home[: len(home) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, [base, node.module]))
            for alias in node.names:
                part = package.parent.joinpath(*module.split("."), alias.name)
                is_module = part.is_dir() or [*part.parent.glob(f"{alias.name}.py*")]
                found.append(f"{module}.{alias.name}" if is_module else module)
    return [name for name in found if name.partition(".")[0] not in sys.stdlib_module_names]


@in_checkout
@pytest.mark.parametrize("name", files(PACKAGE, "py"))
def test_python_imports(name):
    allowed = rule_for(name.removesuffix(".py"), MAY_IMPORT)
    assert [module for module in imports(PACKAGE / name) if not re.fullmatch(allowed, module)] == []


@in_checkout
def test_the_extension_imports_numpy_alone():
    lines = (PACKAGE / "_native.pyx").read_text().splitlines()
    words = [line.split() for line in lines if re.match(r"\s*(from|c?import)\s", line)]
    tops = {line[1].partition(".")[0] for line in words} - sys.stdlib_module_names
    assert tops == {"numpy", "libc", "cpython", "fastsoftmax"}  # its own _core.pxd


@in_checkout
def test_build_names_no_fast_math():
    source = (CHECKOUT / "setup.py").read_text()
    code = ast.unparse(ast.parse(source))  # without the comments, which warn of it
    assert "-O2" in code
    assert not re.search(r"fast-math|-Ofast|unsafe-math|-march|-mavx|-mfma", code)


@in_checkout
def test_one_version_of_ruff():
    found = {
        name: set(re.findall(r"\bruff==[\d.]+", (CHECKOUT / name).read_text()))
        for name in ("pyproject.toml", ".pre-commit-config.yaml")
    }
    assert len(found["pyproject.toml"]) == 1
    assert found["pyproject.toml"] == found[".pre-commit-config.yaml"]


SOURCES = [
    f"{folder}/{name}"
    for folder in ("src", "fastsoftmax", "tests", "examples", "benchmarks", "docs")
    for name in files(CHECKOUT / folder, "h", "cpp", "cuh", "py", "pyi", "pyx")
]


@in_checkout
@pytest.mark.parametrize("name", SOURCES)
def test_source_file(name):
    text = (CHECKOUT / name).read_text()
    unfinished = "|".join(["TO" + "DO", "FIX" + "ME", "X" + "XX"])  # not to be found in this file
    assert not re.search(rf"\b({unfinished})\b", text)
    assert text.count("\n") <= 600, "longer than a reader can hold: split it by topic"


PUBLIC = {name: getattr(fastsoftmax, name) for name in fastsoftmax.__all__}
ARRAY_FUNCTIONS = [
    name
    for name, function in PUBLIC.items()
    if {"x", "logits", "grad_output"} & set(inspect.signature(function).parameters)
]


def sections(docstring):
    """Split a numpydoc docstring: the text under each heading, by heading."""
    parts = re.split(r"^(\w[\w ]+)\n-+\n", inspect.cleandoc(docstring), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("name", PUBLIC)
def test_docstring(name):
    function = PUBLIC[name]
    found = sections(function.__doc__)
    parameters = list(inspect.signature(function).parameters)
    described = re.findall(r"^(\w+(?:, \w+)*)(?: : .+)?$", found.get("Parameters", ""), re.MULTILINE)
    assert sorted(name for group in described for name in group.split(", ")) == sorted(parameters)
    assert ">>> " in found["Examples"]


@pytest.mark.parametrize("name", ARRAY_FUNCTIONS)
def test_docstring_of_an_array_function(name):
    assert sections(PUBLIC[name].__doc__).keys() >= {"Parameters", "Returns", "Raises", "Examples"}


def test_array_functions_are_found():
    assert {"softmax", "logsumexp", "cross_entropy_with_grad", "softmax_grad"} <= set(ARRAY_FUNCTIONS)


EXAMPLES = [
    test
    for module in (fastsoftmax, fastsoftmax.compat.scipy)
    for name in getattr(module, "__all__", [])
    for test in doctest.DocTestFinder().find(getattr(module, name), f"{module.__name__}.{name}", globs={})
    if test.examples
]


@pytest.mark.skipif(np.lib.NumpyVersion(np.__version__) < "2.0.0", reason="the examples print as NumPy 2 does")
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_examples_of_docstrings(example):
    output = []
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    runner.run(example, out=output.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(output)


def signatures(names):
    """Give the parameters of every function among the names of a module: names, kinds and defaults."""
    return {
        name: [(p.name, p.kind, p.default) for p in inspect.signature(value).parameters.values()]
        for name, value in names.items()
        if inspect.isroutine(value)
    }


def test_stub_agrees_with_the_extension():
    stub = (Path(_native.__file__).parent / "_native.pyi").read_text()
    stubbed = {}
    exec("from __future__ import annotations\n" + stub, stubbed)
    assert signatures(stubbed) == signatures(vars(_native))
