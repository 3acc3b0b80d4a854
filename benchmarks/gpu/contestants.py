"""The contestants: one adapter a library, which says what a user of that library would write for a case.

What an adapter gives is an expression of a set of arrays `s` (x, y, labels, out: arrays.py), as it stands in the
tables; it is what is timed. All see the same memory: PyTorch's tensors are the CuPy arrays, by DLPack. An adapter
answers None where its library has no such function. Results that a library allocates are kept until their set's next
turn, or the allocator would hand out the same, cached, memory again and again.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from arrays import Slot
from shared import dtype_of
from targets import Case

LOSS, LOSS_AND_GRAD, GRAD = "cross_entropy", "cross_entropy_with_grad", "softmax_grad"


class Contestant(NamedTuple):
    """A line of code for each set of arrays."""

    expression: str  # of s
    names: dict[str, object]  # the others in it
    slots: list[Slot]

    def caller(self) -> Callable[[int], object]:
        """Make the function that is timed, of the number of a set."""
        compute = eval(f"lambda s: {self.expression}", dict(self.names))
        slots, kept = self.slots, [None] * len(self.slots)

        def call(i: int) -> object:
            kept[i] = compute(slots[i])
            return kept[i]

        return call


class Library(NamedTuple):
    """A contestant in the cases that its adapter knows."""

    name: str
    adapter: Callable[[Case, list[Slot]], Contestant | None]
    modules: tuple[str, ...]  # what must be there; the first one tells the version


# ---- Arrays and tensors


def to_torch(array: Any) -> Any:
    """Share an array with PyTorch; bfloat16 as integers, which any version of DLPack knows."""
    import torch

    if array is None:
        return None
    if array.dtype.name == "bfloat16":
        return torch.from_dlpack(array.view("int16")).view(torch.bfloat16)
    return torch.from_dlpack(array)


def in_torch(slots: list[Slot]) -> list[Slot]:
    """Share sets of arrays with PyTorch."""
    return [Slot(*map(to_torch, slot)) for slot in slots]


def to_cupy(answer: Any) -> tuple[Any, np.dtype]:
    """Share an answer with CuPy: its bits, and the dtype that they have."""
    import cupy

    if not type(answer).__module__.startswith("torch"):
        return answer, answer.dtype
    answer = answer.detach()
    dtype = dtype_of(str(answer.dtype).removeprefix("torch."))
    if dtype.name == "bfloat16":
        import torch

        answer = answer.view(torch.int16)
    return cupy.from_dlpack(answer), dtype


# ---- The libraries


def call_ours(case: Case, slots: list[Slot]) -> Contestant:
    """The library itself, into arrays that are there already; of losses there are none."""
    import fastsoftmax

    expression = {
        LOSS: f"{LOSS}(s.x, s.labels, reduction='none')",
        LOSS_AND_GRAD: f"{LOSS_AND_GRAD}(s.x, s.labels, out=s.out)[1]",
        GRAD: f"{GRAD}(s.x, s.y, {case.axis}, out=s.out)",
    }.get(case.op, f"{case.op}(s.x, {case.axis}, out=s.out)")
    return Contestant(expression, {case.op: getattr(fastsoftmax, case.op)}, slots)


def call_numba_cuda(case: Case, slots: list[Slot]) -> Contestant:
    """The library's kernels in Numba-CUDA, of the same CuPy arrays."""
    import fastsoftmax

    ours = call_ours(case, slots)
    function = ours.names[case.op]

    def by_numba(*arguments: Any, **options: Any) -> Any:
        with fastsoftmax.use_backend("numba_cuda"):
            return function(*arguments, **options)

    return ours._replace(names={case.op: by_numba})


def torch_loss_and_grad(slots: list[Slot], loss: Callable[..., Any]) -> Contestant:
    """Forward and backward, by autograd."""
    import torch

    for slot in slots:
        slot.x.requires_grad_(True)
    names = {"grad": torch.autograd.grad, LOSS: loss}
    return Contestant(f"grad({LOSS}(s.x, s.labels), s.x)[0]", names, slots)


def call_torch(case: Case, slots: list[Slot]) -> Contestant:
    """PyTorch as it is; softmax's gradient is the operator that its autograd calls."""
    import torch

    slots = in_torch(slots)
    if case.op == LOSS_AND_GRAD:
        return torch_loss_and_grad(slots, torch.nn.functional.cross_entropy)
    if case.op == LOSS:
        return Contestant(f"{LOSS}(s.x, s.labels, reduction='none')", {LOSS: torch.nn.functional.cross_entropy}, slots)
    if case.op == GRAD:
        names = {"_softmax_backward_data": torch.ops.aten._softmax_backward_data.out}
        expression = f"_softmax_backward_data(s.x, s.y, {case.axis}, s.x.dtype, grad_input=s.out)"
        return Contestant(expression, names, slots)
    return Contestant(f"{case.op}(s.x, {case.axis}, out=s.out)", {case.op: getattr(torch, case.op)}, slots)


def call_compiled(case: Case, slots: list[Slot]) -> Contestant:
    """The same, compiled for the very shape; a compiled function has no out."""
    import torch

    torch.compiler.reset()  # or shapes beyond the eighth would not be compiled
    slots, axis = in_torch(slots), case.axis
    cross_entropy = torch.nn.functional.cross_entropy

    def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
        return torch.compile(function, dynamic=False)

    if case.op == LOSS_AND_GRAD:
        return torch_loss_and_grad(slots, compiled(lambda x, labels: cross_entropy(x, labels)))
    if case.op == LOSS:
        function = compiled(lambda x, labels: cross_entropy(x, labels, reduction="none"))
        return Contestant(f"{LOSS}(s.x, s.labels)", {LOSS: function}, slots)
    if case.op == GRAD:
        function = compiled(lambda g, p: torch.ops.aten._softmax_backward_data(g, p, axis, g.dtype))
        return Contestant("_softmax_backward_data(s.x, s.y)", {"_softmax_backward_data": function}, slots)
    operator = getattr(torch, case.op)
    return Contestant(f"{case.op}(s.x)", {case.op: compiled(lambda x: operator(x, axis))}, slots)


def call_cupyx(case: Case, slots: list[Slot]) -> Contestant | None:
    """cupyx.scipy.special; it has no out, no loss and no gradient."""
    import cupyx.scipy.special

    if case.op not in ("softmax", "log_softmax", "logsumexp"):
        return None
    return Contestant(f"{case.op}(s.x, {case.axis})", {case.op: getattr(cupyx.scipy.special, case.op)}, slots)


def call_triton(case: Case, slots: list[Slot]) -> Contestant | None:
    """A softmax of rows, written for this benchmark; it computes in float32."""
    if case.op != "softmax" or case.axis != 1 or case.dtype == "float64":
        return None
    from triton_softmax import softmax

    return Contestant("softmax(s.x, s.out)", {"softmax": softmax}, in_torch(slots))


def call_liger(case: Case, slots: list[Slot]) -> Contestant | None:
    """Liger; its cross-entropy writes the gradient over the logits, so it gets its own."""
    if case.axis != 1 or case.op not in ("softmax", LOSS, LOSS_AND_GRAD):
        return None
    slots = in_torch(slots)
    if case.op == "softmax":
        from liger_kernel.ops.softmax import LigerSoftmaxFunction

        return Contestant("softmax(s.x)", {"softmax": LigerSoftmaxFunction.apply}, slots)
    from liger_kernel.transformers.functional import liger_cross_entropy

    slots = [slot._replace(x=slot.x.clone()) for slot in slots]
    if case.op == LOSS_AND_GRAD:
        return torch_loss_and_grad(slots, liger_cross_entropy)
    return Contestant(f"{LOSS}(s.x, s.labels, reduction='none')", {LOSS: liger_cross_entropy}, slots)


OURS = Library("ours", call_ours, ("fastsoftmax",))
PYTORCH = Library("PyTorch", call_torch, ("torch",))
LIBRARIES = [
    OURS,
    Library("Numba-CUDA", call_numba_cuda, ("numba_cuda", "fastsoftmax")),
    PYTORCH,
    Library("torch.compile", call_compiled, ("torch", "triton")),
    Library("CuPy", call_cupyx, ("cupy", "cupyx.scipy.special")),
    Library("Triton", call_triton, ("triton", "torch")),
    Library("Liger", call_liger, ("liger_kernel", "triton", "torch")),
]


def missing(library: Library) -> str | None:
    """Say why a library cannot take part, if it cannot."""
    try:
        modules = [importlib.import_module(module) for module in library.modules]
    except ImportError as error:
        return str(error).strip().partition("\n")[0]
    torch = next((module for module in modules if module.__name__ == "torch"), None)
    if torch is not None and not torch.cuda.is_available():
        return "PyTorch finds no CUDA device"
    return None


def installed(without: list[str]) -> tuple[list[Library], dict[str, str]]:
    """Import what is there; return it, and why each of the others is not."""
    reasons = {library.name: "--without" if library.name in without else missing(library) for library in LIBRARIES}
    found = [library for library in LIBRARIES if reasons[library.name] is None]
    return found, {name: reason for name, reason in reasons.items() if reason is not None}


def versions(libraries: list[Library]) -> dict[str, str]:
    """Name the version of each."""
    modules = {library.name: importlib.import_module(library.modules[0]) for library in libraries}
    return {
        name: getattr(module, "__version__", None) or importlib.metadata.version(module.__name__)
        for name, module in modules.items()
    }
