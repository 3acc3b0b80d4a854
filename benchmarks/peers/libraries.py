"""The contestants: one adapter a library, which says what line of code a user of that library would write for a case.

That line is what is timed, as it stands; everything it names was made before. An adapter answers None where its library
has no such function. A library that is not installed is left out.
"""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

import fastsoftmax
from cases import PRODUCTS, Case, Data
from fastsoftmax import reference

LOSS = "cross_entropy_with_grad"


class Contestant(NamedTuple):
    """A line of code, and how to see what it computed."""

    statement: str
    names: dict[str, object]
    answer: str | None  # an expression for the result as an array; None for a yardstick
    out: bool = False  # it writes into an array that was there before


class Library(NamedTuple):
    """A contestant in the cases that its adapter knows."""

    name: str
    adapter: Callable[[Case, Data, int], Contestant | None]
    modules: tuple[str, ...] = ()  # what must be there; the first one tells the version
    # How its threads are set: "set" for a number, "one" where it never uses more, "every core" where a process cannot
    # change that: it is then timed only in rows of that many threads.
    threads: str = "one"
    set_threads: Callable[[int], object] | None = None  # for the process; None if the adapter does it


def cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def like_numpy(module: object, case: Case, data: Data, out: bool = False) -> Contestant:
    """Call a function of NumPy's form: op(x, axis=1, out=out)."""
    names = {case.op: getattr(module, case.op), "x": data.x, "saved": data.saved}
    given = "x, saved" if case.op in PRODUCTS else "x"
    if out:
        names["out"] = np.empty_like(data.x)
        return Contestant(f"{case.op}({given}, axis={case.axis}, out=out)", names, "out", out=True)
    statement = f"{case.op}({given}, axis={case.axis})"
    return Contestant(statement, names, statement)


def call_ours(case: Case, data: Data, threads: int) -> Contestant:
    """The library itself; set_num_threads sets the threads, as the option would cost a tiny call some of its time."""
    if case.op == LOSS:
        statement = f"{LOSS}(logits, labels)"
        names = {LOSS: getattr(fastsoftmax, LOSS), "logits": data.x, "labels": data.labels}
        return Contestant(statement, names, f"{statement}[1]")
    return like_numpy(fastsoftmax, case, data, case.out)


def call_ours_on_one_thread(case: Case, data: Data, threads: int) -> Contestant | None:
    """What a second thread brings, measured in turns like everything else."""
    if threads == 1:
        return None
    contestant = call_ours(case, data, threads)
    return contestant._replace(statement=contestant.statement[:-1] + ", n_threads=1)", answer=None)


def call_numba(case: Case, data: Data, threads: int) -> Contestant:
    """The Numba backend, through the same functions."""

    def there(answer: Callable[[], object]) -> object:
        with fastsoftmax.use_backend("numba"):
            return answer()

    ours = call_ours(case, data, threads)
    return ours._replace(
        statement=f"with use_backend('numba'): {ours.statement}",
        names={**ours.names, "use_backend": fastsoftmax.use_backend, "there": there},
        answer=f"there(lambda: {ours.answer})",
    )


def call_numpy(case: Case, data: Data, threads: int) -> Contestant:
    """The baseline, fastsoftmax.reference: what one writes by hand."""
    if case.op == LOSS:
        names = {LOSS: getattr(reference, LOSS), "logits": data.x, "labels": data.labels}
        return Contestant(f"{LOSS}(logits, labels)", names, f"{LOSS}(logits, labels)[1]")
    return like_numpy(reference, case, data)


def call_scipy(case: Case, data: Data, threads: int) -> Contestant | None:
    """scipy.special; it has no out= and no gradients."""
    import scipy.special

    return like_numpy(scipy.special, case, data) if hasattr(scipy.special, case.op) else None


def call_sklearn(case: Case, data: Data, threads: int) -> Contestant | None:
    """Rows of float32 and float64 only; copy=False would overwrite its input, which no other contestant does."""
    from sklearn.utils.extmath import softmax

    if case.op != "softmax" or case.axis != 1 or case.dtype not in ("float32", "float64"):
        return None
    return Contestant("softmax(x)", {"softmax": softmax, "x": data.x}, "softmax(x)")


def to_torch(a: np.ndarray) -> object:
    """Share an array with PyTorch, which does not know bfloat16 of ml_dtypes."""
    import torch

    if a.dtype.name == "bfloat16":
        return torch.from_numpy(a.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(a)


def call_torch(case: Case, data: Data, threads: int) -> Contestant:
    """PyTorch on the same memory; the loss by autograd, forward and backward."""
    import torch

    x = to_torch(data.x)
    if case.op == LOSS:
        names = {
            "logits": x.requires_grad_(True),
            "labels": torch.from_numpy(data.labels),
            "cross_entropy": torch.nn.functional.cross_entropy,
        }
        return Contestant("logits.grad = None; cross_entropy(logits, labels).backward()", names, "logits.grad.numpy()")
    if case.op in PRODUCTS:  # as autograd calls it
        name, out = f"_{PRODUCTS[case.op]}_backward_data", np.empty_like(data.x)
        target = "grad_input" if case.op == "softmax_grad" else "out"
        names = {name: getattr(torch.ops.aten, name).out, "x": x, "saved": to_torch(data.saved), "dtype": x.dtype}
        names |= {target: to_torch(out), "array": out}
        return Contestant(f"{name}(x, saved, {case.axis}, dtype, {target}={target})", names, "array", out=True)
    names = {case.op: getattr(torch, case.op), "x": x}
    if case.out:
        out = np.empty_like(data.x)
        names |= {"out": to_torch(out), "array": out}
        return Contestant(f"{case.op}(x, dim={case.axis}, out=out)", names, "array", out=True)
    statement = f"{case.op}(x, dim={case.axis})"
    return Contestant(statement, names, f"{statement}.numpy()")


def set_torch_threads(threads: int) -> None:
    """Set the threads of PyTorch's operations."""
    importlib.import_module("torch").set_num_threads(threads)


def call_onnx_runtime(case: Case, data: Data, threads: int) -> Contestant | None:
    """A model of one node. With out, input and output are bound beforehand: no copy, no allocation.

    The session has no bfloat16 kernels, and gradients are in another package.
    """
    import onnxruntime
    from onnx import TensorProto, helper

    node = {"softmax": "Softmax", "log_softmax": "LogSoftmax", "logsumexp": "ReduceLogSumExp"}.get(case.op)
    dtypes = {"float16": TensorProto.FLOAT16, "float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE}
    if node is None or case.dtype not in dtypes:
        return None
    axis = {"axes": [case.axis], "keepdims": 0} if node.startswith("Reduce") else {"axis": case.axis}
    dtype = dtypes[case.dtype]
    graph = helper.make_graph(
        [helper.make_node(node, ["x"], ["y"], **axis)],
        case.op,
        [helper.make_tensor_value_info("x", dtype, case.shape)],
        [helper.make_tensor_value_info("y", dtype, None)],
    )
    # Opset 13 is the first in which softmax is along one axis; IR 8 is old enough for any runtime that knows it.
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    if not case.out:
        statement = 'run(None, {"x": x})'
        return Contestant(statement, {"run": session.run, "x": data.x}, f"{statement}[0]")
    out = np.empty_like(data.x)
    shared = onnxruntime.OrtValue.ortvalue_from_numpy(data.x)  # the array's own memory
    binding = session.io_binding()
    binding.bind_ortvalue_input("x", shared)
    binding.bind_output("y", "cpu", 0, out.dtype, out.shape, out.ctypes.data)
    names = {"run": session.run_with_iobinding, "binding": binding, "out": out, "shared": shared}
    return Contestant("run(binding)", names, "out", out=True)


@functools.cache
def jax_function(op: str, axis: int) -> Callable[..., object]:
    """Compile, once for every shape."""
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)  # or float64 would be computed in float32

    def mean_loss(logits: object, labels: object) -> object:
        of_labels = jnp.take_along_axis(jax.nn.log_softmax(logits, axis=1), labels[:, jnp.newaxis], axis=1)
        return -of_labels.mean()

    return jax.jit(jax.value_and_grad(mean_loss) if op == LOSS else functools.partial(getattr(jax.nn, op), axis=axis))


def call_jax(case: Case, data: Data, threads: int) -> Contestant | None:
    """Compiled by jit; block_until_ready, or only the start of the call would be timed.

    (Its products begin with the logits.)
    """
    if case.op in PRODUCTS:
        return None
    function = jax_function(case.op, case.axis)
    import jax.numpy as jnp

    names = {case.op: function, "x": jnp.asarray(data.x), "asarray": np.asarray}
    if case.op == LOSS:
        names = {LOSS: function, "logits": names["x"], "labels": jnp.asarray(data.labels), "asarray": np.asarray}
        call = f"{LOSS}(logits, labels)[1]"
    else:
        call = f"{case.op}(x)"
    return Contestant(f"{call}.block_until_ready()", names, f"asarray({call})")


def call_copy(case: Case, data: Data, threads: int) -> Contestant | None:
    """np.copyto: what memory allows those who write as much as they read, on one thread."""
    if not case.out:
        return None
    x = data.x.view(np.uint16) if data.x.itemsize == 2 else data.x  # of ml_dtypes' numbers NumPy copies each by itself
    return Contestant("copyto(out, x)", {"copyto": np.copyto, "x": x, "out": np.empty_like(x)}, None, out=True)


def call_read(case: Case, data: Data, threads: int) -> Contestant | None:
    """A pure read on one thread: the maximum of the bits as integers, the fastest reduction that NumPy has."""
    if case.op != "logsumexp":
        return None
    return Contestant("x.max()", {"x": data.x.view(f"int{8 * data.x.itemsize}")}, None)


OURS = Library("ours", call_ours, ("fastsoftmax",), "set", fastsoftmax.set_num_threads)
LIBRARIES = [
    OURS,
    Library("Numba backend", call_numba, ("numba",), "set", fastsoftmax.set_num_threads),
    Library("PyTorch", call_torch, ("torch",), "set", set_torch_threads),
    Library("ONNX Runtime", call_onnx_runtime, ("onnxruntime", "onnx"), "set"),
    Library("JAX", call_jax, ("jax",), "every core"),
    Library("NumPy", call_numpy, ("numpy",)),
    Library("SciPy", call_scipy, ("scipy.special",)),
    Library("scikit-learn", call_sklearn, ("sklearn.utils.extmath",)),
    Library("copy", call_copy),
    Library("read", call_read),
    Library("1 thread", call_ours_on_one_thread),
]
# Beside a forced instruction set only those who have one to force, and the baseline.
BESIDE_FORCED = {"ours", "PyTorch", "NumPy"}


def installed(only: set[str] | None = None) -> tuple[list[Library], dict[str, str]]:
    """Import what is there; return it, and why each of the others is not."""
    found, absent = [], {}
    for library in LIBRARIES:
        if only is not None and library.name not in only:
            continue
        try:
            for module in library.modules:
                importlib.import_module(module)
            found.append(library)
        except ImportError as error:
            absent[library.name] = str(error)
    return found, absent


def versions(libraries: list[Library]) -> dict[str, str]:
    """Name the version of each."""
    packages = {library.name: library.modules[0].partition(".")[0] for library in libraries if library.modules}
    return {name: importlib.import_module(package).__version__ for name, package in packages.items()}
