"""Measure the errors of fastsoftmax and of other libraries, and write docs/accuracy.md.

    pip install -e ".[test]" torch onnx onnxruntime
    python docs/accuracy.py

Each instruction set that runs here is measured in a process of its own, then the other libraries that are installed: a
few minutes in all.
Bounds, units and exact answers are those of the tests (tests/oracles.py), whose packages this needs. What the page says
beside the figures is in accuracy_text.py.
"""

import argparse
import contextlib
import datetime
import functools
import importlib.metadata
import itertools
import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

import fastsoftmax
from fastsoftmax import _native, reference

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]

import accuracy_text  # noqa: E402

import oracles  # noqa: E402
from oracles import BOUNDS  # noqa: E402

DTYPES = [*oracles.DTYPES, *oracles.HALVES]
KERNELS = ["exp", "log1p"]
FUNCTIONS = [name for name in BOUNDS if name not in KERNELS]

# A contestant computes some of FUNCTIONS: (logits, axis, labels) -> result.
Contestant = dict[str, Callable[[np.ndarray, int, np.ndarray], np.ndarray]]
# The largest error by function, dtype and family; None where there is no result.
Errors = dict[str, dict[str, dict[str, float | None]]]


def search(rng: np.random.Generator, dtype: str) -> list[np.ndarray]:
    """Draw rows of two values (equal exponentials err alike, so that errors add up) and normal rows of any scale."""
    arrays = []
    for i in range(200):
        n = int(2 ** rng.uniform(1, 11.5))
        high = rng.uniform(-3, 3, (12, 1)) * rng.choice([1, 90, 1000])
        low = high - 10 ** rng.uniform(-3, 1.5, (12, 1))
        if i % 2:
            rows = np.where(rng.random((12, n)) < rng.random((12, 1)), high, low)
        else:
            rows = rng.normal(high, np.abs(high - low), (12, n))
        arrays.append(rows.astype(dtype))
    return arrays


def dominant(rng: np.random.Generator, dtype: str) -> list[np.ndarray]:
    """One logit ahead of all others, until their exponentials are subnormal; it is the label."""
    arrays = []
    for n in (2, 10, 64, 1000):
        gap = np.linspace(0.5, -np.log(float(oracles.finfo(np.dtype(dtype)).tiny)), 200)[:, np.newaxis]
        rows = 3.5 - np.log(n) - gap - rng.uniform(0, 3, (200, n))
        rows[:, 0] = 3.5
        arrays.append(rows.astype(dtype))
    return arrays


def subnormal(rng: np.random.Generator, dtype: str) -> list[np.ndarray]:
    info = oracles.finfo(np.dtype(dtype))
    low, high = np.log(float(info.smallest_subnormal)) - 1, np.log(float(info.tiny))
    rows = rng.uniform(low, high, (40, 200))
    rows[:, 7] = 0
    return [rows.astype(dtype)]


def normal(rng: np.random.Generator, dtype: str, shape: tuple[int, int], offset: float = 0) -> list[np.ndarray]:
    return [(rng.normal(0, 5, shape) + offset).astype(dtype)]


def uniform(rng: np.random.Generator, dtype: str, shape: tuple[int, int], low: float, high: float) -> list[np.ndarray]:
    return [rng.uniform(low, high, shape).astype(dtype)]


def constant(rng: np.random.Generator, dtype: str) -> list[np.ndarray]:
    return [np.full((1, n), 0.7, dtype) for n in [*range(2, 65), 1000, 4096, 65_537, 1_000_000]]


# Each draws arrays of logits, one slice a row.
FAMILIES: dict[str, Callable[[np.random.Generator, np.dtype], list[np.ndarray]]] = {
    "normal, sd 5, n = 10": functools.partial(normal, shape=(5000, 10)),
    "normal, sd 5, n = 1000": functools.partial(normal, shape=(60, 1000)),
    "normal, sd 5, n = 128256": functools.partial(normal, shape=(3, 128_256)),
    "uniform -1 to 1, n = 1000000": functools.partial(uniform, shape=(1, 1_000_000), low=-1, high=1),
    "uniform -80 to 0, n = 1000": functools.partial(uniform, shape=(60, 1000), low=-80, high=0),
    "normal, sd 5, about 10000, n = 1000": functools.partial(normal, shape=(60, 1000), offset=1e4),
    "subnormal results": subnormal,
    "constant rows, n to 1000000": constant,
    "one dominant logit": dominant,
    "worst of a random search": search,
}


def ours() -> Contestant:
    functions = {name: getattr(fastsoftmax, name) for name in oracles.NAMES}
    cross_entropy = functools.partial(fastsoftmax.cross_entropy, reduction="none")
    grad = functools.partial(fastsoftmax.cross_entropy_grad, reduction="none")
    return {
        **{name: lambda x, axis, _, f=f: f(x, axis=axis) for name, f in functions.items()},
        "cross_entropy": lambda x, axis, labels: cross_entropy(x, labels, axis),
        "cross_entropy_grad": lambda x, axis, labels: grad(x, labels, axis),
    }


def numpy_baseline() -> Contestant:
    functions = {name: getattr(reference, name) for name in oracles.NAMES}
    return {
        **{name: lambda x, axis, _, f=f: f(x, axis=axis) for name, f in functions.items()},
        "cross_entropy": lambda x, axis, labels: reference.cross_entropy(x, labels, axis, reduction="none"),
        "cross_entropy_grad": lambda x, axis, labels: reference.cross_entropy_grad(x, labels, axis, reduction="none"),
    }


def scipy() -> Contestant:
    from scipy import special

    functions = {name: getattr(special, name) for name in oracles.NAMES}
    return {name: lambda x, axis, _, f=f: f(x, axis=axis) for name, f in functions.items()}


def pytorch() -> Contestant:
    import torch

    # NumPy's bfloat16 and PyTorch's know each other by their bits alone.
    def tensor(x: np.ndarray) -> torch.Tensor:
        if x.dtype.name == "bfloat16":
            return torch.from_numpy(x.view("i2")).view(torch.bfloat16)
        return torch.from_numpy(x)

    def array(t: torch.Tensor) -> np.ndarray:
        if t.dtype == torch.bfloat16:
            return t.contiguous().view(torch.int16).numpy().view(oracles.dtype_of("bfloat16"))
        return t.numpy()

    def loss(x: torch.Tensor, axis: int, labels: np.ndarray) -> torch.Tensor:
        target = torch.from_numpy(labels)
        return torch.nn.functional.cross_entropy(x.movedim(axis, 1), target, reduction="none")

    def grad(x: np.ndarray, axis: int, labels: np.ndarray) -> np.ndarray:
        leaf = tensor(x).clone().requires_grad_()
        loss(leaf, axis, labels).sum().backward()
        return array(leaf.grad)

    functions = {name: getattr(torch, name) for name in oracles.NAMES}
    return {
        **{name: lambda x, axis, _, f=f: array(f(tensor(x), axis)) for name, f in functions.items()},
        "cross_entropy": lambda x, axis, labels: array(loss(tensor(x), axis, labels)),
        "cross_entropy_grad": grad,
    }


def onnx_runtime() -> Contestant:
    import onnx
    import onnxruntime

    @functools.cache
    def session(operator: str, dtype: np.dtype, axis: int) -> onnxruntime.InferenceSession:
        element = onnx.helper.np_dtype_to_tensor_dtype(dtype)
        option = {"axes": [axis], "keepdims": 0} if operator == "ReduceLogSumExp" else {"axis": axis}
        node = onnx.helper.make_node(operator, ["x"], ["y"], **option)
        values = [onnx.helper.make_tensor_value_info(name, element, None) for name in "xy"]
        graph = onnx.helper.make_graph([node], "graph", values[:1], values[1:])
        opset = onnx.helper.make_opsetid("", 13)
        model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        return onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])

    operators = {"softmax": "Softmax", "log_softmax": "LogSoftmax", "logsumexp": "ReduceLogSumExp"}
    return {
        name: lambda x, axis, _, operator=operator: session(operator, x.dtype, axis).run(None, {"x": x})[0]
        for name, operator in operators.items()
    }


PEERS: dict[str, tuple[str | None, Callable[[], Contestant]]] = {
    "NumPy": ("numpy", numpy_baseline),
    "SciPy": ("scipy", scipy),
    "PyTorch": ("torch", pytorch),
    "ONNX Runtime": ("onnxruntime", onnx_runtime),
}


def error_of(name: str, got: np.ndarray, x: np.ndarray, axis: int, labels: np.ndarray, answers: dict) -> float | None:
    """The largest error of one result in the unit of BOUNDS; None if it is not of the dtype that it should be."""
    if name == "cross_entropy" and x.dtype.itemsize == 2:
        got = got.astype(np.float32)  # as ours is, so that the units are alike
    elif got.dtype != x.dtype:
        return None
    if name == "sum of softmax":
        return float(np.max(oracles.distance_of_sums_from_1(got, axis)) / np.finfo(x.dtype).eps)
    if name not in answers:
        answers[name] = oracles.answer(name, x, axis, labels)
    return float(oracles.errors(name, got, *answers[name]).max())


def measure(contestants: dict[str, Contestant], dtypes=DTYPES, families=FAMILIES, refusal=()) -> dict[str, Errors]:
    """The largest errors of each contestant, over slices that are rows and slices that are columns.

    `refusal` is what a contestant raises that does not take an argument.
    """
    found = {who: {name: {dtype: {} for dtype in BOUNDS[name]} for name in FUNCTIONS} for who in contestants}
    for dtype, (family, draw) in itertools.product(dtypes, families.items()):
        rng = np.random.default_rng(0)
        for rows in draw(rng, oracles.dtype_of(dtype)):
            labels = np.zeros(len(rows), int) if draw is dominant else rng.integers(0, rows.shape[1], len(rows))
            for layout in ("rows", "columns"):
                x, axis = oracles.arrange(rows, layout)
                answers: dict = {}
                for who, name in itertools.product(contestants, FUNCTIONS):
                    call = contestants[who].get("softmax" if name == "sum of softmax" else name)
                    cell = found[who][name].get(dtype)
                    if call is None or cell is None or (family in cell and cell[family] is None):
                        continue
                    error = None
                    with np.errstate(all="ignore"), contextlib.suppress(refusal):
                        error = error_of(name, np.asarray(call(x, axis % 2, labels)), x, axis % 2, labels, answers)
                    cell[family] = None if error is None else max(cell.get(family, 0.0), error)
    return found


def measure_kernels() -> dict[str, dict[str, float]]:
    """The largest errors of exp and log1p: over every float32, and over a sample of float64."""
    rng = np.random.default_rng(0)
    wide = {
        "exp": np.append(rng.uniform(-746, 709.7, 3_000_000), rng.uniform(-1, 1, 1_000_000)),
        "log1p": np.append(np.exp(rng.uniform(-40, 40, 2_000_000)), rng.uniform(0, 3, 2_000_000)),
    }
    found = {}
    for name, x in wide.items():
        function = getattr(_native, f"_{name}")
        exact = getattr(np, name)(x.astype(np.longdouble))
        found[name] = {
            "float32": oracles.worst_of_every_float32(name, function),
            "float64": oracles.worst(function(x), exact),
        }
    return found


def measure_isa(isa: str) -> dict:
    """What this script prints when it runs with one instruction set forced."""
    environment = {**os.environ, "FASTSOFTMAX_ISA": isa}
    command = [sys.executable, __file__, "--own"]
    return json.loads(subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE).stdout)


def versions(peers: list[str]) -> str:
    found = [f"fastsoftmax {fastsoftmax.__version__}"]
    for name in peers:
        found.append(f"{name} {importlib.metadata.version(PEERS[name][0])}")
        if name == "PyTorch":
            import torch

            found[-1] += f" ({torch.backends.cpu.get_cpu_capability()} kernels)"
    return ", ".join([*found, f"Python {platform.python_version()}"])


def shown(error: float | None) -> str:
    """Three digits, rounded up: no figure that is near a bound reads smaller than it was."""
    if error is None:
        return ""
    if not math.isfinite(error):
        return "∞"
    if error == 0:
        return "0"
    scale = 10.0 ** (2 - math.floor(math.log10(error)))
    # What is three digits already is not rounded up for the noise of the product.
    error = math.ceil(error * scale - 1e-9) / scale
    return f"{error:.1e}" if error >= 1e5 else f"{error:.0f}" if error >= 100 else f"{error:.3g}"


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def largest(errors: list[float | None]) -> float | None:
    known = [error for error in errors if error is not None]
    return max(known) if known else None


def page(kernels: dict[str, dict], own: dict[str, Errors], peers: dict[str, Errors], about: str) -> str:
    """Lay out the page from the errors of ours by instruction set, and of the others by library."""
    everyone = own | peers
    kernel_rows = [
        [f"`{name}`", dtype, accuracy_text.limit(name, dtype), *(shown(kernels[isa][name][dtype]) for isa in own)]
        for name in KERNELS
        for dtype in BOUNDS[name]
    ]
    summary, details = [], []
    for name in FUNCTIONS:
        for dtype in BOUNDS[name]:
            limit = accuracy_text.limit(name, dtype)
            worst_own = largest([e for errors in own.values() for e in errors[name][dtype].values()])
            others = [largest([*errors[name][dtype].values()]) for errors in peers.values()]
            title = accuracy_text.TITLES[name]
            summary.append([title, dtype, limit, shown(worst_own), *(shown(error) for error in others)])
            columns = {who: errors[name][dtype] for who, errors in everyone.items()}
            columns = {who: cells for who, cells in columns.items() if largest([*cells.values()]) is not None}
            rows = [[family, *(shown(cells.get(family)) for cells in columns.values())] for family in FAMILIES]
            details += [f"### {title}, {dtype}: at most {limit}", table(["logits", *columns], rows)]
    return accuracy_text.page(
        about=about,
        bounds=bounds_table(),
        summary=table(["function", "dtype", "bound", "fastsoftmax", *peers], summary),
        kernels=table(["function", "dtype", "bound", *own], kernel_rows),
        closer=closer(own, peers),
        details="\n\n".join(details),
    )


def closer(own: dict[str, Errors], peers: dict[str, Errors]) -> str:
    """Name the inputs on which another library was closer than ours by a tenth or more."""
    lines, cells = [], 0
    for name, dtype, family in itertools.product(FUNCTIONS, DTYPES, FAMILIES):
        if dtype not in BOUNDS[name]:
            continue
        cells += 1
        mine = largest([errors[name][dtype][family] for errors in own.values()])
        others = {who: errors[name][dtype].get(family) for who, errors in peers.items()}
        better = [f"{who} {shown(e)}" for who, e in others.items() if e is not None and mine > 0 and e <= 0.9 * mine]
        if better:
            lines.append(f"- {accuracy_text.TITLES[name]}, {dtype}, {family}: {', '.join(better)}, ours {shown(mine)}")
    head = f"By a tenth or more, in {len(lines)} of {cells} cases (ours on its worst instruction set):"
    return "\n".join([head, "", *lines])


def bounds_table() -> str:
    """The contract, from the table that the tests assert."""
    names = [f"`{name}` of the kernels" if name in KERNELS else accuracy_text.TITLES[name] for name in BOUNDS]
    rows = [
        [title, *(accuracy_text.limit(name, dtype) if dtype in BOUNDS[name] else "" for dtype in DTYPES)]
        for name, title in zip(BOUNDS, names, strict=True)
    ]
    return table(["function", *DTYPES], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--own", action="store_true", help="print the errors of this process's kernels as JSON")
    options = parser.parse_args()
    if np.finfo(np.longdouble).nmant <= np.finfo(np.float64).nmant:
        sys.exit("long double is no wider than float64 on this machine, so it cannot judge float64")
    if options.own:
        print(json.dumps({"kernels": measure_kernels(), "errors": measure({"ours": ours()})["ours"]}))
        return
    peers = {}
    for name, (_, make) in PEERS.items():
        with contextlib.suppress(ImportError):
            peers[name] = make()
    measured = {isa: measure_isa(isa) for isa in _native.supported_isas()}
    about = f"Measured on {datetime.date.today()} on {platform.machine()}, {platform.system()}: {versions([*peers])}."
    text = page(
        {isa: found["kernels"] for isa, found in measured.items()},
        {isa: found["errors"] for isa, found in measured.items()},
        measure(peers, refusal=Exception),  # each library has its own
        about,
    )
    (HERE / "accuracy.md").write_text(text)


if __name__ == "__main__":
    main()
