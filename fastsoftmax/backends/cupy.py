"""The CUDA C++ kernels, for CuPy arrays of float32, float64, float16 and bfloat16.

A call launches one to five kernels on CuPy's current stream, and never waits for the device. A kernel is compiled by
NVRTC when a plan (``cuda/plan.py``) first asks for it; CuPy keeps it on disk, and this module the loaded one, for each
device.

A CUDA graph can capture a call with out that needs no memory of its own (one launch: all but the losses and slices in
pieces) once there was one like it on the stream; what others take from CuPy's pool, it would give to the next comer.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import cupy
import numpy as np

from fastsoftmax import cuda
from fastsoftmax.cuda.plan import (
    OPERATIONS,
    PORTABLE_CLUSTER,
    THREADS,
    TYPES,
    VECTOR,
    WARP,
    plan,
    shared_bytes,
)

__all__ = [
    "cross_entropy",
    "describe",
    "log_softmax",
    "log_softmax_grad",
    "logsumexp",
    "mean_divisor",
    "reduced",
    "softmax",
    "softmax_grad",
]

# struct Job of job.cuh and TotalJob of totals.cuh, in which every field has eight bytes.
_JOB = struct.Struct("<3Q 9q q 3q q 2Q Qq 5Q Q 3d")
_TOTAL_JOB = struct.Struct("<2Qq Qqq 3Q")

# enum Phase of job.cuh.
_EVERYTHING, _PARTIAL, _FINISH = 0, 1, 2

# Terms that a block of totals.cuh adds up.
_PIECE = 8192

# Threads of a block of `merge`.
_MERGE_THREADS = 128


class _Loss(NamedTuple):
    """The fields of a Job that only the losses fill in."""

    labels: int = 0
    ignore_index: int = 0
    weight: int = 0
    sample_weight: int = 0
    given_lse: int = 0
    losses: int = 0
    lses: int = 0
    divisor: int = 0
    kept: float = 1.0
    spread: float = 0.0
    z_loss: float = 0.0


_NO_LOSS = _Loss()


def _address(array: Any) -> int:
    return 0 if array is None else array.data.ptr


def _on_device(divisor: Any) -> int:
    """Give the address of a divisor that is not 1."""
    return 0 if isinstance(divisor, float) else divisor.data.ptr


@functools.cache
def _kernel(device: int, name: str) -> Callable:
    """Compile a kernel for a device, the current one, or fetch it from CuPy's cache."""
    module = cupy.RawModule(code=cuda.source(), options=("-std=c++17",), name_expressions=(name,))
    return module.get_function(name)


@functools.cache
def _largest_cluster(device: int) -> int:
    """Give the most blocks that a cluster may have on the current device; 1 where there are none."""
    return PORTABLE_CLUSTER if int(cupy.cuda.Device(device).compute_capability) >= 90 else 1


def _launch(kernel: Callable, blocks: int, threads: int, job: bytes, shared: int) -> None:
    # A NumPy array of one element is passed by value.
    kernel((blocks,), (threads,), (np.frombuffer(job, f"V{len(job)}"),), shared_mem=shared)


def _steps(array: Any) -> tuple[int, int]:
    """Give the strides of an array, outer and along n, in elements."""
    return (0, 0) if array is None else (array.strides[0] // array.itemsize, array.strides[1] // array.itemsize)


def _is_aligned(array: Any) -> bool:
    """Whether every row begins at a multiple of a vector."""
    return array is None or (array.data.ptr % VECTOR == 0 and (array.shape[0] == 1 or array.strides[0] % VECTOR == 0))


def _run(name: str, x: Any, out: Any, y: Any = None, loss: _Loss = _NO_LOSS, from_saved: bool = False) -> None:
    """Run an operation over x, (outer, n, inner), on the current device; from_saved: no reduction is needed."""
    outer, n, inner = x.shape
    arrays = [a for a in (x, y, out) if a is not None]
    # One column is read as rows if its elements are neighbours.
    columns = any(a.shape[2] > 1 or (n > 1 and a.strides[1] != a.itemsize) for a in arrays)
    dtype = x.dtype
    device = x.device.id
    aligned = columns or all(_is_aligned(a) for a in arrays if a.dtype == dtype)
    how = plan(name, dtype.name, n, inner, columns, aligned, 1 if from_saved else _largest_cluster(device))
    operation, number = OPERATIONS[name], 8 if dtype.itemsize == 8 else 4
    state = operation.state * number
    shared = shared_bytes(operation.addends, operation.state, number)
    slices = outer * inner
    tiles = outer * (-(-inner // how.group)) if columns else outer
    blocks = -(-tiles * how.chunks // how.units)
    partials = merged = None
    split = how.split and not from_saved
    if split:
        partials = cupy.empty(slices * how.chunks * state, np.uint8)
        merged = cupy.empty(slices * state, np.uint8)

    def job(phase: int) -> bytes:
        return _JOB.pack(
            *(_address(a) for a in (x, y, out)),
            *(outer, n, inner),
            *(*_steps(x), *_steps(y), *_steps(out)),
            y is not None and y.dtype != dtype,
            *(how.chunk, how.chunks, how.group),
            phase,
            *(_address(partials), _address(merged)),
            *loss,
        )

    kernel = _kernel(device, how.kernel)
    if from_saved:
        _launch(kernel, blocks, how.threads, job(_FINISH), shared)
    elif not split:
        _launch(kernel, blocks, how.threads, job(_EVERYTHING), shared)
    else:
        _launch(kernel, blocks, how.threads, job(_PARTIAL), shared)
        merge = _kernel(device, f"merge<{operation.template}<{TYPES[dtype.name]}>>")
        _launch(merge, -(-slices // (_MERGE_THREADS // WARP)), _MERGE_THREADS, job(_FINISH), 0)
        if operation.writes:
            _launch(kernel, blocks, how.threads, job(_FINISH), shared)


def softmax(x: Any, out: Any, n_threads: int) -> None:
    """Write the softmax of every slice of x to out, which may be x."""
    _run("softmax", x, out)


def log_softmax(x: Any, out: Any, n_threads: int) -> None:
    """Write the log-softmax of every slice of x to out, which may be x."""
    _run("log_softmax", x, out)


def softmax_grad(grad_output: Any, probs: Any, out: Any, n_threads: int) -> None:
    """Write the vector-Jacobian product of softmax to out, which may be either input."""
    _run("softmax_grad", grad_output, out, probs)


def log_softmax_grad(grad_output: Any, log_probs: Any, out: Any, n_threads: int) -> None:
    """Write the vector-Jacobian product of log_softmax to out, which may be either input."""
    _run("log_softmax_grad", grad_output, out, log_probs)


def logsumexp(x: Any, lse: Any, n_threads: int) -> None:
    """Write the logsumexp of every slice of x to lse."""
    _run("cross_entropy", x, None, loss=_Loss(lses=_address(lse)))


def cross_entropy(
    x: Any,
    loss: Any,
    grad: Any,
    lse: Any,
    *,
    labels: Any,
    ignore_index: int,
    targets: Any,
    label_smoothing: float,
    z_loss: float,
    weight: Any,
    sample_weight: Any,
    given_lse: Any,
    divisor: Any,
    n_threads: int,
) -> None:
    """Write what is not None: each slice's loss and lse, and the gradient over divisor; grad may be x.

    labels are int64, checked by the kernel; divisor is an array of `mean_divisor`, or 1.
    """
    spread = targets is not None or label_smoothing != 0
    name = "cross_entropy" + ("_spread" if spread else "") + ("" if grad is None else "_grad")
    job = _Loss(
        _address(labels),
        ignore_index,
        *(_address(a) for a in (weight, sample_weight, given_lse, loss, lse)),
        _on_device(divisor),
        1 - label_smoothing,
        label_smoothing / x.shape[1],
        z_loss,
    )
    _run(name, x, grad, targets, job, from_saved=given_lse is not None and not spread)


def _total(terms: str, number: str, count: int, total: Any, divisor: Any = 1.0, **job: Any) -> Any:
    """Add up terms of totals.cuh, and write their sum over divisor to total."""
    device = total.device.id
    shared = shared_bytes(2, 2, 8)

    def launch(kernel: str, blocks: int, sums: Any, values: int, count: int, **rest: int) -> None:
        fields = (
            *(values, rest.get("labels", 0), rest.get("ignore_index", 0)),
            *(rest.get("weight", 0), rest.get("classes", 0), count),
            *(_address(sums), _on_device(divisor), _address(total)),
        )
        _launch(_kernel(device, kernel), blocks, THREADS, _TOTAL_JOB.pack(*fields), shared)

    blocks = -(-count // _PIECE)
    if blocks <= 1:
        launch(f"total<{terms}<{number}>>", 1, None, job.pop("values", 0), count, **job)
    else:
        sums = cupy.empty(2 * blocks, np.float64)
        launch(f"total<{terms}<{number}>>", blocks, sums, job.pop("values", 0), count, **job)
        launch(f"total<Pieces<{TYPES[total.dtype.name]}>>", 1, None, _address(sums), blocks)
    return total


def mean_divisor(labels: Any, ignore_index: int, weight: Any, sample_weight: Any, count: int) -> Any:
    """Give what divides the losses' sum in a mean: a float64 array () on the current device."""
    number = "double" if any(a is not None and a.dtype == np.float64 for a in (weight, sample_weight)) else "float"
    return _total(
        "Shares",
        number,
        count,
        cupy.empty((), np.float64),
        values=_address(sample_weight),
        labels=_address(labels),
        ignore_index=ignore_index,
        weight=_address(weight),
        classes=0 if weight is None else weight.size,
    )


def reduced(losses: Any, divisor: Any) -> Any:
    """Give the sum of C-contiguous losses, in a fixed order, over divisor: an array () of their dtype, 0 for 0."""
    total = cupy.empty((), losses.dtype)
    return _total("Losses", TYPES[losses.dtype.name], losses.size, total, divisor, values=_address(losses))


def describe() -> str:
    """Say what this backend runs on, in a line."""
    if not cupy.cuda.is_available():
        return f"CuPy {cupy.__version__}, no device"
    return f"CuPy {cupy.__version__}, compute capability {cupy.cuda.Device().compute_capability}"
