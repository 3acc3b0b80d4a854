"""Print how fast and how accurate fastsoftmax is beside the libraries that are installed, as a Markdown table.

    python benchmarks/peers/table.py [--threads 1 2] [--seconds 0.4] [--only softmax]

Every cell is measured in one process: the contestants take turns (so that a busy machine slows all of them), each
figure is the median of its turns, and only ratios are to be trusted from one machine to another. Ratios are the peer's
time over ours: above 1 we are faster. Data and outputs are made before; "out" means that every contestant that can do
so writes into an array that is there already.
"""

from __future__ import annotations

import argparse
import functools
import platform
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

import fastsoftmax
from fastsoftmax import _native, reference

try:
    import torch
except ImportError:
    torch = None
try:
    import scipy.special
except ImportError:
    scipy = None

Call = Callable[[], object]


class Case(NamedTuple):
    """One row of the table."""

    op: str
    shape: tuple[int, int]
    axis: int = 1
    dtype: str = "float32"
    fresh: bool = False

    def __str__(self) -> str:
        axis = ", axis 0" if self.axis == 0 else ""
        return f"{self.op} {self.shape}{axis}{', fresh' if self.fresh else ''}"


SHAPES = [(32, 10), (65536, 10), (128, 1000), (4096, 1000), (64, 32000), (256, 128256)]
CASES = [
    Case("softmax", (1, 10), fresh=True),
    Case("softmax", (32, 10), fresh=True),
    Case("softmax", (65536, 10)),
    Case("softmax", (65536, 10), dtype="float64"),
    Case("softmax", (40000, 37)),
    Case("softmax", (128, 1000)),
    Case("softmax", (4096, 1000)),
    Case("softmax", (64, 32000)),
    Case("softmax", (64, 32000), dtype="float64"),
    Case("softmax", (256, 128256)),
    Case("softmax", (256, 128256), fresh=True),
    Case("softmax", (1000, 4096), axis=0),
    Case("softmax", (10, 65536), axis=0),
    Case("softmax", (32000, 64), axis=0),
    Case("softmax", (4096, 1000), dtype="float16"),
    *(Case("log_softmax", shape) for shape in SHAPES),
    *(Case("logsumexp", shape, fresh=True) for shape in SHAPES),
    *(Case("cross_entropy_with_grad", shape, fresh=True) for shape in SHAPES),
]


def contestants(case: Case, threads: int) -> dict[str, Call]:
    """Make a call per library that computes this case; ours first."""
    rng = np.random.default_rng(0)
    x = rng.normal(0, 5, case.shape).astype(case.dtype)
    labels = rng.integers(0, case.shape[1], case.shape[0])
    ours = getattr(fastsoftmax, case.op)
    numpy_ = getattr(reference, case.op)
    calls: dict[str, Call] = {}
    if case.op == "cross_entropy_with_grad":
        calls["ours"] = functools.partial(ours, x, labels, n_threads=threads)
        calls["NumPy"] = functools.partial(numpy_, x, labels)
    elif case.fresh:
        calls["ours"] = functools.partial(ours, x, axis=case.axis, n_threads=threads)
        calls["NumPy"] = functools.partial(numpy_, x, axis=case.axis)
    else:
        out = np.empty_like(x)
        calls["ours"] = functools.partial(ours, x, axis=case.axis, out=out, n_threads=threads)
        calls["NumPy"] = functools.partial(numpy_, x, axis=case.axis)
        calls["copy"] = functools.partial(np.copyto, np.empty_like(x), x)
    if scipy is not None and case.op != "cross_entropy_with_grad":
        calls["SciPy"] = functools.partial(getattr(scipy.special, case.op), x, axis=case.axis)
    if torch is not None:
        calls["PyTorch"] = torch_call(case, x, labels)
    return calls


def torch_call(case: Case, x: np.ndarray, labels: np.ndarray) -> Call:
    """PyTorch's way to compute a case."""
    tensor = torch.from_numpy(x)
    if case.op == "cross_entropy_with_grad":
        tensor.requires_grad_(True)
        target = torch.from_numpy(labels)

        def forward_and_backward() -> object:
            tensor.grad = None
            torch.nn.functional.cross_entropy(tensor, target).backward()
            return tensor.grad

        return forward_and_backward
    function = getattr(torch, case.op)
    if case.fresh:
        return functools.partial(function, tensor, case.axis)
    return functools.partial(function, tensor, case.axis, out=torch.empty_like(tensor))


def measure(calls: dict[str, Call], seconds: float) -> dict[str, float]:
    """Median seconds per call; the contestants take turns of a millisecond or more."""
    repeats, times = {}, {name: [] for name in calls}
    for name, call in calls.items():
        call()
        start = time.perf_counter()
        call()
        repeats[name] = max(1, int(1e-3 / max(time.perf_counter() - start, 1e-7)))
    end = time.perf_counter() + seconds * len(calls)
    while time.perf_counter() < end or len(times["ours"]) < 5:
        for name, call in calls.items():
            start = time.perf_counter()
            for _ in range(repeats[name]):
                call()
            times[name].append((time.perf_counter() - start) / repeats[name])
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=0.4, help="for each contestant and case")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    options = parser.parse_args()
    peers = ["PyTorch", "NumPy", "SciPy", "copy"]
    print(f"{platform.processor() or platform.machine()}, {_native.isa()}, NumPy {np.__version__}", end="")
    print(f", SciPy {scipy.__version__}" if scipy else "", f", PyTorch {torch.__version__}" if torch else "", sep="")
    print(f"\n| case | dtype | threads | ours, us | {' | '.join(peers)} |")
    print("|---|---|---|---|" + "---|" * len(peers))
    for case in CASES:
        if options.only not in str(case):
            continue
        for threads in options.threads:
            if torch is not None:
                torch.set_num_threads(threads)
            times = measure(contestants(case, threads), options.seconds)
            ratios = [f"{times[peer] / times['ours']:.2f}" if peer in times else "" for peer in peers]
            row = [str(case), case.dtype, str(threads), f"{times['ours'] * 1e6:.3g}", *ratios]
            print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
