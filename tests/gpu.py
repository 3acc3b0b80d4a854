"""CuPy for the tests of its backend: the real one where there is a CUDA device, else the stand-in of cuda_emulation/.

A test file makes a fixture of `found`, whose end undoes what the stand-in changes in the process.
"""

import contextlib
import importlib.util
import itertools
import os
import sys
import tempfile
import warnings
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

import fastsoftmax
import oracles
import oracles_grads
import oracles_loss
from fastsoftmax import _registry, backends, cuda
from fastsoftmax.cuda import plan

EMULATION = Path(__file__).parent / "cuda_emulation"

# Exponentials and results below this are flushed to 0 but in float64.
TINY = float(np.finfo(np.float32).tiny)

ITEMSIZES = {"float32": 4, "float64": 8, "float16": 2, "bfloat16": 2}


def instances(dtypes):
    """Name every kernel that a plan may ask for, of these dtypes, and those that add up losses."""
    for operation, dtype in itertools.product(plan.OPERATIONS.values(), dtypes):
        few, many = plan.elements(operation, ITEMSIZES[dtype])
        op = f"{operation.template}<{plan.TYPES[dtype]}>"
        yield f"merge<{op}>"
        for access in ("WHOLE", "SPLIT", "SINGLE", "COLUMN"):
            yield from (f"slices<{op}, {held}, {access}>" for held in (few, many))
            if access != "COLUMN":
                yield from (f"long_slices<{op}, {many}, {access}, {cluster}>" for cluster in (1, 2, 4, 8))
    for terms, number in itertools.product(("Losses", "Shares", "Pieces"), ("float", "double")):
        yield f"total<{terms}<{number}>>"


def chunk(name, dtype, columns=False):
    """Give the length of the longest chunk."""
    operation = plan.OPERATIONS[name]
    threads = plan.COLUMN_GROUP if columns else plan.LONG_THREADS
    return threads * plan.elements(operation, ITEMSIZES[dtype])[1] * (1 if operation.writes else plan.LOOPS)


def lengths(name, dtype, columns=False):
    """Lengths around those at which a plan changes: vectors, groups of threads, chunks; a few slices of each."""
    few, many = plan.elements(plan.OPERATIONS[name], ITEMSIZES[dtype])
    together, limit = plan.VECTOR // ITEMSIZES[dtype], chunk(name, dtype, columns)
    groups = [plan.COLUMN_GROUP] if columns else [1 << k for k in range(9)]
    edges = {1, together, *(held * group for held in (few, many) for group in groups), limit}
    near = {edge + step for edge in edges for step in (-together, -1, 0, 1, together)}
    more = {2 * limit - 1, 2 * limit, 2 * limit + 1, 4 * limit, 4 * limit + 1, 8 * limit + together}
    if columns or dtype == "float64":
        more |= {16 * limit, 17 * limit - 3, 33 * limit + 2 * together, 70 * limit + 1}
    return sorted(n for n in near | more if n > 0)


def rows(n, dtype, batch=5):
    """Slices that tell: ordinary, far from 0, all equal, with an outlier, with impossible entries; cut to a batch."""
    x = oracles.normal((5, n), dtype, seed=n)
    x[1] += np.asarray(1000, x.dtype)
    x[2] = 3
    x[3, n // 2] = 80
    x[4, : n - 1 : 2] = -np.inf
    return np.ascontiguousarray(np.roll(x, n, axis=0)[:batch])


class Gpu:
    """CuPy, and what tests do with it: arrays on the host go in and come out."""

    def __init__(self, cupy, emulator=None):
        self.cupy = cupy
        self.emulated = emulator is not None
        self.backend = _registry.load("cupy")
        self._errs = True

    def put(self, x):
        """Copy an array to the device; what is none stays as it is."""
        return self.cupy.asarray(x) if isinstance(x, np.ndarray) else x

    def get(self, x):
        """Copy results, one or a tuple, to the host."""
        if isinstance(x, tuple):
            return tuple(map(self.get, x))
        assert isinstance(x, self.cupy.ndarray), type(x)
        return self.cupy.asnumpy(x)

    def __call__(self, function, *args, **kwargs):
        """Call a public function, by its name, on arrays or their copies; what is not out must be left as it was."""
        args, kwargs = [self.put(x) for x in args], {name: self.put(x) for name, x in kwargs.items()}
        inputs = [x for x in [*args, *kwargs.values()] if x is not kwargs.get("out")]
        inputs = [x for x in inputs if isinstance(x, self.cupy.ndarray)]
        before = [self.get(x).tobytes() for x in inputs]
        got = self.get(getattr(fastsoftmax, function)(*args, **kwargs))
        assert [self.get(x).tobytes() for x in inputs] == before
        return got

    def placed(self, values, offset=0, gap=0):
        """Copy a matrix to `offset` elements behind a vector's boundary, NaN before it, and `gap` of them after a row.

        Returns the copy and the whole buffer.
        """
        height, width = values.shape
        buffer = np.full(offset + height * (width + gap), np.nan, values.dtype)
        buffer[offset:].reshape(height, width + gap)[:, :width] = values
        buffer = self.put(buffer)
        assert buffer.data.ptr % plan.VECTOR == 0
        return buffer[offset:].reshape(height, width + gap)[:, :width], buffer

    def check(self, name, got, x, axis=-1, where=None):
        """Hold a result of softmax, log_softmax or logsumexp to the contract, as oracles.check does on the CPU."""
        bound = 6 if not self.emulated else 7 if self._errs else 4
        if got.dtype != np.float64 and np.any(np.abs(got) < 2.0**-80):
            shown = x if where is None else np.where(where, x, np.asarray(-np.inf, x.dtype))
            exact = oracles.answer(name, shown, axis)[0]
            got = forgiven(got, exact, 1 if name == "softmax" else x.size)
        limits = (mock.patch.dict(oracles.BOUNDS[f], float32=bound) for f in ("softmax", "log_softmax"))
        with contextlib.ExitStack() as stack:
            for limit in limits:
                stack.enter_context(limit)
            oracles.check(name, got, x, axis, where)

    def check_grad(self, name, got, g, y, axis=-1, where=None):
        """Hold a vector-Jacobian product to the contract, as oracles_grads.check does on the CPU."""
        exact, _ = oracles_grads.exact_and_size(name, g, y, axis, where)
        oracles_grads.check(name, forgiven(got, exact), g, y, axis, where)

    def orders(self):
        """Run threads in several orders, one for each turn of the loop."""
        if not self.emulated:
            yield "the device's own"
            return
        try:
            for order in (0, 1, 2, 3):
                self.cupy.emulation.set_order(order)
                yield order
        finally:
            self.cupy.emulation.set_order(0)

    @contextlib.contextmanager
    def exact_exp2(self):
        """Let the stand-in's exponential have no error of its own, for a while."""
        self._errs = not self.emulated
        if self.emulated:
            self.cupy.emulation.set_exp2_errs(False)
        try:
            yield
        finally:
            self._errs = True
            if self.emulated:
                self.cupy.emulation.set_exp2_errs(True)

    @contextlib.contextmanager
    def without_clusters(self):
        """Be a device of before compute capability 9.0, or do as if."""
        if self.emulated:
            patch = mock.patch.object(self.cupy.emulated, "compute_capability", "80")
        else:
            patch = mock.patch.object(self.backend, "_largest_cluster", return_value=1)
        self.backend._largest_cluster.cache_clear()
        try:
            with patch:
                yield
        finally:
            self.backend._largest_cluster.cache_clear()


def forgiven(got, exact, terms=1):
    """Put what is right in the place of what so many terms, flushed to 0, explain."""
    if got.dtype == np.float64:
        return got
    with np.errstate(invalid="ignore"):
        flushed = np.abs(got.astype(exact.dtype) - exact) <= terms * TINY
    return np.where(flushed, exact.astype(got.dtype), got)


def loss_problem(kind, dtype, layout="rows", n=10, batch=None, **kwargs):
    """Fewer slices where they are long."""
    batch = batch or (9 if n <= 300 else 5 if n <= 1500 else 3)
    return oracles_loss.problem(kind, dtype, layout, n, batch, **kwargs)


def assert_loss(got, exact, logits, context=()):
    oracles_loss.assert_loss(forgiven(got, exact.loss, logits.size), exact, logits.dtype, context)


def assert_grad(got, exact, logits, context=()):
    got = forgiven(got, exact.back(exact.grad), logits.size)
    oracles_loss.assert_grad(got, exact, logits.dtype, context)


def hold_losses(gpu, logits, labels, axis, reduction, given, context=()):
    """Hold everything that can be asked for to the exact results."""
    exact = oracles_loss.slices(logits, labels, axis, **given)
    given = {**given, "reduction": reduction}
    loss, grad, lse = gpu("cross_entropy_with_grad", logits, labels, axis, return_lse=True, **given)
    expected = oracles_loss.reduced(exact, reduction)
    assert_loss(loss, expected, logits, context)
    assert_grad(grad, expected, logits, context)
    oracles_loss.assert_lse(lse, expected, logits.dtype, context)
    own, own_lse = gpu("cross_entropy", logits, labels, axis, return_lse=True, **given)
    assert_loss(own, expected, logits, context)
    oracles_loss.assert_lse(own_lse, expected, logits.dtype, context)
    oracles.assert_same_bits(gpu("cross_entropy", logits, labels, axis, **given), own)
    oracles.assert_same_bits(gpu("cross_entropy_grad", logits, labels, axis, **given), grad)
    target = gpu.put(logits)
    got = fastsoftmax.cross_entropy_with_grad(target, gpu.put(labels), axis, out=target, **on_device(gpu, given))
    assert got[1] is target
    oracles.assert_same_bits(gpu.get(target), grad)
    oracles.assert_same_bits(gpu.get(got[0]), loss)

    above = oracles_loss.upstream(reduction, lse.shape)
    got = gpu("cross_entropy_grad", logits, labels, axis, grad_output=above, **given)
    assert_grad(got, oracles_loss.reduced(exact, reduction, above), logits, (*context, "grad_output"))
    del given["reduction"]
    lse = lse + np.linspace(0.1, 3, lse.size).reshape(lse.shape).astype(lse.dtype)  # it is taken at its word
    saved = oracles_loss.slices(logits, labels, axis, lse=lse, **given)
    for some in (None, above):
        got = gpu("cross_entropy_grad", logits, labels, axis, lse=lse, grad_output=some, reduction=reduction, **given)
        assert_grad(got, oracles_loss.reduced(saved, reduction, some), logits, (*context, "lse"))


def on_device(gpu, given):
    return {name: gpu.put(value) for name, value in given.items()}


def _real_cupy():
    """Import CuPy if it is installed and has a device."""
    if importlib.util.find_spec("cupy") is None:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a driver that is missing
        import cupy

        try:
            return cupy if cupy.cuda.runtime.getDeviceCount() else None
        except cupy.cuda.runtime.CUDARuntimeError:
            return None


def _of_the_stand_in(name):
    return name.partition(".")[0] in ("cupy", "emulator") or name == "fastsoftmax.backends.cupy"


@contextlib.contextmanager
def _stand_in(folder):
    """Put the stand-in in CuPy's place, its kernels compiled in a folder."""
    before = {name: sys.modules.pop(name) for name in [*sys.modules] if _of_the_stand_in(name)}
    sys.path.insert(0, str(EMULATION))
    _registry.load.cache_clear()
    try:
        emulator = importlib.import_module("emulator")
        if emulator.compiler() is None:
            pytest.skip("there is neither a CUDA device nor a C++ compiler for the emulation")
        cupy = importlib.import_module("cupy")
        sanitize, dtypes = (
            [*filter(None, os.environ.get(f"FASTSOFTMAX_{name}", "").split(","))]
            for name in ("SANITIZE_EMULATION", "EMULATED_DTYPES")
        )
        names, include = instances(dtypes or plan.TYPES), [Path(cuda.__file__).parent]
        cupy.emulation = emulator.build(names, ["totals.cuh"], folder, include=include, sanitize=sanitize)
        yield Gpu(cupy, emulator)
    finally:
        sys.path.remove(str(EMULATION))
        for name in [name for name in sys.modules if _of_the_stand_in(name)]:
            del sys.modules[name]
        sys.modules.update(before)
        vars(backends).pop("cupy", None)
        _registry.load.cache_clear()


@contextlib.contextmanager
def found(config):
    """Give a `Gpu` for a while; skips where there is neither a device nor what the stand-in needs."""
    cupy = _real_cupy()
    if cupy is not None:
        yield Gpu(cupy)
        return
    if not (EMULATION.parents[1] / "src").exists():
        pytest.skip("there is no CUDA device, and the same kernels run in the checkout")
    cache = getattr(config, "cache", None)  # None under -p no:cacheprovider
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory()) if cache is None else cache.mkdir("cuda_emulation")
        yield stack.enter_context(_stand_in(folder))
