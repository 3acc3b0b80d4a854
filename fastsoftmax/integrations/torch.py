"""Softmax, log-softmax and cross-entropy for PyTorch, with gradients by fastsoftmax's kernels.

Each computation is a custom operator with a fake kernel, which tells ``torch.compile`` its shapes: so it is traced in
one piece. Cross-entropy computes the gradient with the loss, in one pass over the logits, and its backward pass hands
it on, but for float16: there only the backward pass knows the loss's scale, which keeps small numbers from vanishing.

An operator's kernel uses as many threads as PyTorch would: a worker of a DataLoader, where that is one, stays on one.
"""

from __future__ import annotations

from typing import Any

import torch

import fastsoftmax
from fastsoftmax._arguments import check_index
from fastsoftmax.adapters import type_name
from fastsoftmax.adapters.torch import has_tangent

__all__ = ["CrossEntropyLoss", "cross_entropy", "log_softmax", "softmax"]


def _operator(name: str, schema: str, mutates: tuple[str, ...] = ()) -> Any:
    """Decorate a function of tensors as fastsoftmax::name, which never sees autograd."""

    def decorate(function: Any) -> Any:
        return torch.library.custom_op(
            f"fastsoftmax::{name}", torch.no_grad()(function), mutates_args=mutates, schema=schema
        )

    return decorate


def _threads() -> int:
    return min(fastsoftmax.get_num_threads(), torch.get_num_threads())


@_operator("softmax", "(Tensor x, int axis) -> Tensor")
def _softmax(x: torch.Tensor, axis: int) -> torch.Tensor:
    return fastsoftmax.softmax(x, axis, out=torch.empty_like(x), n_threads=_threads())


@_operator("log_softmax", "(Tensor x, int axis) -> Tensor")
def _log_softmax(x: torch.Tensor, axis: int) -> torch.Tensor:
    return fastsoftmax.log_softmax(x, axis, out=torch.empty_like(x), n_threads=_threads())


@_operator("softmax_grad", "(Tensor grad_output, Tensor probs, int axis) -> Tensor")
def _softmax_grad(grad_output: torch.Tensor, probs: torch.Tensor, axis: int) -> torch.Tensor:
    return fastsoftmax.softmax_grad(grad_output, probs, axis, out=torch.empty_like(probs), n_threads=_threads())


@_operator("log_softmax_grad", "(Tensor grad_output, Tensor log_probs, int axis) -> Tensor")
def _log_softmax_grad(grad_output: torch.Tensor, log_probs: torch.Tensor, axis: int) -> torch.Tensor:
    return fastsoftmax.log_softmax_grad(
        grad_output, log_probs, axis, out=torch.empty_like(log_probs), n_threads=_threads()
    )


for _operation in (_softmax, _log_softmax):
    _operation.register_fake(lambda x, axis: torch.empty_like(x))
for _operation in (_softmax_grad, _log_softmax_grad):
    _operation.register_fake(lambda grad_output, saved, axis: torch.empty_like(saved))


def _save_output(ctx: Any, inputs: tuple, output: torch.Tensor) -> None:
    ctx.save_for_backward(output)
    ctx.axis = inputs[1]


def _save_inputs(ctx: Any, inputs: tuple, output: torch.Tensor) -> None:
    *saved, ctx.axis = inputs
    ctx.save_for_backward(*saved)


def _softmax_backward(ctx: Any, grad_output: torch.Tensor) -> tuple:
    return _softmax_grad(grad_output, ctx.saved_tensors[0], ctx.axis), None


def _log_softmax_backward(ctx: Any, grad_output: torch.Tensor) -> tuple:
    return _log_softmax_grad(grad_output, ctx.saved_tensors[0], ctx.axis), None


def _softmax_grad_backward(ctx: Any, above: torch.Tensor) -> tuple:
    g, p = ctx.saved_tensors
    g_p, above_p = ((t * p).sum(ctx.axis, keepdim=True) for t in (g, above))
    return p * (above - above_p), above * (g - g_p) - above_p * g, None


def _log_softmax_grad_backward(ctx: Any, above: torch.Tensor) -> tuple:
    g, log_p = ctx.saved_tensors
    p = log_p.exp()
    above_p = above * p
    return above - above_p.sum(ctx.axis, keepdim=True), -above_p * g.sum(ctx.axis, keepdim=True), None


_softmax.register_autograd(_softmax_backward, setup_context=_save_output)
_log_softmax.register_autograd(_log_softmax_backward, setup_context=_save_output)
_softmax_grad.register_autograd(_softmax_grad_backward, setup_context=_save_inputs)
_log_softmax_grad.register_autograd(_log_softmax_grad_backward, setup_context=_save_inputs)


_LOSS_INPUTS = (
    "Tensor labels, Tensor? weight, Tensor? sample_weight, int axis, int ignore_index, float label_smoothing, "
    "float z_loss, str reduction"
)


def _options(
    labels: Any,
    weight: Any,
    sample_weight: Any,
    axis: int,
    ignore_index: int,
    label_smoothing: float,
    z_loss: float,
    reduction: str,
) -> dict[str, Any]:
    """Name what the operators of the loss have in common."""
    return {**locals(), "n_threads": _threads()}


@_operator("cross_entropy", f"(Tensor logits, {_LOSS_INPUTS}) -> Tensor")
def _cross_entropy(logits: torch.Tensor, *rest: Any) -> torch.Tensor:
    return fastsoftmax.cross_entropy(logits, **_options(*rest)).contiguous()


@_operator("cross_entropy_grad", f"(Tensor logits, Tensor grad_output, {_LOSS_INPUTS}) -> Tensor")
def _cross_entropy_grad(logits: torch.Tensor, grad_output: torch.Tensor, *rest: Any) -> torch.Tensor:
    out = torch.empty_like(logits)
    return fastsoftmax.cross_entropy_grad(logits, grad_output=grad_output, out=out, **_options(*rest))


@_operator("cross_entropy_with_grad", f"(Tensor logits, {_LOSS_INPUTS}) -> (Tensor, Tensor)")
def _cross_entropy_with_grad(logits: torch.Tensor, *rest: Any) -> tuple[torch.Tensor, torch.Tensor]:
    loss, grad = fastsoftmax.cross_entropy_with_grad(logits, out=torch.empty_like(logits), **_options(*rest))
    return loss.contiguous(), grad


@_operator("cross_entropy_", f"(Tensor(a!) logits, {_LOSS_INPUTS}) -> Tensor", mutates=("logits",))
def _cross_entropy_in_place(logits: torch.Tensor, *rest: Any) -> torch.Tensor:
    return fastsoftmax.cross_entropy_with_grad(logits, out=logits, **_options(*rest))[0].contiguous()


def _loss_like(logits: torch.Tensor, labels: Any, weight: Any, sample_weight: Any, axis: int, *rest: Any) -> Any:
    batch = [n for d, n in enumerate(logits.shape) if d != axis % logits.ndim]
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    return logits.new_empty(batch if rest[-1] == "none" else (), dtype=dtype)


_cross_entropy.register_fake(_loss_like)
_cross_entropy_in_place.register_fake(_loss_like)
_cross_entropy_grad.register_fake(lambda logits, grad_output, *rest: torch.empty_like(logits))
_cross_entropy_with_grad.register_fake(lambda logits, *rest: (_loss_like(logits, *rest), torch.empty_like(logits)))


def _traced(x: torch.Tensor) -> bool:
    """Whether x has no numbers: while something is compiled or exported."""
    return torch.compiler.is_compiling() or type(x) is not torch.Tensor


def _refuse_second_derivatives() -> None:
    """Refuse a backward pass that is recorded for another one."""
    if torch.is_grad_enabled():
        raise RuntimeError("cross_entropy has no second derivative: compose the loss of log_softmax, which has one")


def _scaled(grad: torch.Tensor, grad_output: torch.Tensor, axis: int, in_place: bool) -> torch.Tensor:
    """Give a loss's gradient times what comes from above; in place, or by a factor of 1, that is grad itself."""
    # (With as many dimensions as the gradient, a factor is not rounded to its dtype first.)
    factor = grad_output.reshape([1] * grad.ndim) if grad_output.ndim == 0 else grad_output.unsqueeze(axis)
    if _traced(grad_output):
        return (grad * factor).to(grad.dtype)  # which the compiler makes one loop of
    # A single factor is looked at where that is cheap, as it is not on a GPU: 1 saves a pass over the gradient.
    if grad_output.device.type == "cpu" and grad_output.ndim == 0 and grad_output.item() == 1:
        return grad
    return torch.mul(grad, factor, out=grad if in_place else torch.empty_like(grad))


class _Loss(torch.autograd.Function):
    """The loss, and its gradient with it: in an array of its own, or in the logits' place."""

    @staticmethod
    def forward(ctx: Any, in_place: bool, logits: torch.Tensor, *rest: Any) -> torch.Tensor:
        if in_place:
            loss, grad = _cross_entropy_in_place(logits, *rest), logits.detach()
        else:
            loss, grad = _cross_entropy_with_grad(logits, *rest)
        ctx.save_for_backward(grad)
        ctx.in_place, ctx.axis, ctx.handed_on = in_place, rest[3], False
        return loss

    @staticmethod
    def backward(ctx: Any, grad_output: torch.Tensor) -> tuple:
        _refuse_second_derivatives()
        if ctx.handed_on and ctx.in_place:
            raise RuntimeError("cross_entropy with inplace=True has one backward pass: its gradient has been taken")
        (grad,) = ctx.saved_tensors
        if ctx.handed_on:  # whoever has it may change it
            grad = grad.clone()
        scaled = _scaled(grad, grad_output, ctx.axis, ctx.in_place)
        ctx.handed_on = ctx.in_place or scaled is grad
        return None, scaled, *(None,) * 8


class _LateLoss(torch.autograd.Function):
    """The loss, and its gradient in the backward pass."""

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, *rest: Any) -> torch.Tensor:
        ctx.save_for_backward(logits, *rest[:3])
        ctx.rest = rest[3:]
        return _cross_entropy(logits, *rest)

    @staticmethod
    def backward(ctx: Any, grad_output: torch.Tensor) -> tuple:
        _refuse_second_derivatives()
        logits, *others = ctx.saved_tensors
        return _cross_entropy_grad(logits, grad_output, *others, *ctx.rest), *(None,) * 8


def _check(x: torch.Tensor, name: str) -> None:
    """Refuse what has no gradient here."""
    if not isinstance(x, torch.Tensor) or not x.is_floating_point():
        got = x.dtype if isinstance(x, torch.Tensor) else type_name(x)
        raise TypeError(f"{name}: expected a tensor of a floating dtype, got {got}")
    if not torch.compiler.is_compiling() and has_tangent(x):
        raise NotImplementedError(f"{name}: there is no forward-mode derivative: the tensor's tangent would be lost")


def _check_beside(x: torch.Tensor | None, name: str) -> None:
    """Refuse what is no tensor, or wants a gradient that there is none of."""
    if x is not None and not isinstance(x, torch.Tensor):
        raise TypeError(f"{name}: expected a tensor, got {type_name(x)}")
    if x is not None and x.requires_grad and torch.is_grad_enabled():
        raise ValueError(f"{name}: only the logits get a gradient; pass {name}.detach()")


def _check_place(logits: torch.Tensor) -> None:
    """Refuse logits whose memory cannot take the gradient."""
    base = logits if logits._base is None else logits._base
    if logits.dtype == torch.float16:
        got = "float16 logits, whose gradient comes in the backward pass"
    elif base.is_leaf and base.requires_grad:
        got = "a leaf that requires grad, or a view of one"
    elif not torch.compiler.is_compiling() and logits.is_neg():
        got = "a view that negates another's memory"
    else:
        return
    raise ValueError(f"inplace: expected logits whose memory can take their gradient, got {got}")


def softmax(x: torch.Tensor, axis: int = -1) -> torch.Tensor:
    """Probabilities along an axis, as `fastsoftmax.softmax`, with gradients.

    Parameters
    ----------
    x : torch.Tensor
        Of any shape, float32, float64, float16 or bfloat16, on the CPU or a CUDA device.
    axis : int, optional
        Axis that sums to 1.

    Returns
    -------
    torch.Tensor
        Of the shape, dtype and device of x. It has first and second derivatives.

    Examples
    --------
    >>> import torch
    >>> from fastsoftmax.integrations.torch import softmax
    >>> x = torch.zeros(2, requires_grad=True)
    >>> softmax(x)[0].backward()
    >>> x.grad
    tensor([ 0.2500, -0.2500])
    """
    _check(x, "x")
    return _softmax(x, check_index(axis, "axis"))


def log_softmax(x: torch.Tensor, axis: int = -1) -> torch.Tensor:
    """Log-probabilities along an axis, as `fastsoftmax.log_softmax`, with gradients.

    Parameters
    ----------
    x : torch.Tensor
        As in `softmax`.
    axis : int, optional
        Axis whose exponentials sum to 1.

    Returns
    -------
    torch.Tensor
        Of the shape, dtype and device of x, in nats. It has first and second derivatives.

    Examples
    --------
    >>> import torch
    >>> from fastsoftmax.integrations.torch import log_softmax
    >>> log_softmax(torch.zeros(2))
    tensor([-0.6931, -0.6931])
    """
    _check(x, "x")
    return _log_softmax(x, check_index(axis, "axis"))


def cross_entropy(
    logits: torch.Tensor,
    labels: torch.Tensor,
    axis: int = -1,
    *,
    weight: torch.Tensor | None = None,
    sample_weight: torch.Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    reduction: str = "mean",
    inplace: bool = False,
) -> torch.Tensor:
    """Cross-entropy as `fastsoftmax.cross_entropy`, with a gradient with respect to the logits.

    Parameters
    ----------
    logits : torch.Tensor
        As x in `softmax`, with the classes along axis.
    labels : torch.Tensor
        Class indices or probabilities.
    axis, weight, sample_weight, ignore_index, label_smoothing, z_loss, reduction
        As in `fastsoftmax.cross_entropy`; weights are tensors.
    inplace : bool, optional
        Let the gradient take the place of the logits, at once, which saves their memory: for logits that nobody reads
        again (take an argmax before) and whose own computation needs no look at them in its backward pass (as that of a
        linear layer). Without a gradient to compute they stay as they are.

    Returns
    -------
    torch.Tensor
        The loss in nats: float64 for float64 logits, else float32.

    Raises
    ------
    ValueError
        For labels or weights that require a gradient; for inplace with float16 logits, or a leaf or a view of one.
    NotImplementedError
        For logits with a tangent of forward mode.
    IndexError, TypeError, ValueError
        As in `fastsoftmax.cross_entropy`.

    Notes
    -----
    The gradient is computed with the loss, in one pass over the logits, and kept for the backward pass. For float16 it
    is computed in the backward pass, from the logits, so that a scaled loss keeps what would vanish. It has no gradient
    itself.

    Examples
    --------
    >>> import torch
    >>> from fastsoftmax.integrations.torch import cross_entropy
    >>> logits = torch.zeros(1, 2, requires_grad=True)
    >>> cross_entropy(logits, torch.tensor([1])).backward()
    >>> logits.grad
    tensor([[ 0.5000, -0.5000]])
    """
    _check(logits, "logits")
    for name, value in (("labels", labels), ("weight", weight), ("sample_weight", sample_weight)):
        _check_beside(value, name)
    axis = check_index(axis, "axis")
    arguments = labels, weight, sample_weight, axis, ignore_index, label_smoothing, z_loss, reduction
    if not (torch.is_grad_enabled() and logits.requires_grad):
        return _cross_entropy(logits, *arguments)
    if inplace:
        _check_place(logits)
    if logits.dtype == torch.float16:
        return _LateLoss.apply(logits, *arguments)
    return _Loss.apply(inplace, logits, *arguments)


class CrossEntropyLoss(torch.nn.CrossEntropyLoss):
    """`torch.nn.CrossEntropyLoss` by fastsoftmax: the same arguments, and two more.

    The classes are along dimension 1 of the input (0 of one of a single dimension). Other than PyTorch's, the mean over
    nothing is 0 rather than NaN, the loss of half precision is float32, and no gradient flows to probability targets.

    Parameters
    ----------
    weight, size_average, ignore_index, reduce, reduction, label_smoothing
        As in `torch.nn.CrossEntropyLoss`.
    z_loss : float, optional
        As in `fastsoftmax.cross_entropy`.
    inplace : bool, optional
        As in `cross_entropy`.

    Examples
    --------
    >>> import torch
    >>> from fastsoftmax.integrations.torch import CrossEntropyLoss
    >>> CrossEntropyLoss(label_smoothing=0.1)(torch.zeros(4, 2), torch.tensor([0, 1, 1, 0]))
    tensor(0.6931)
    """

    def __init__(
        self,
        weight: torch.Tensor | None = None,
        size_average: bool | None = None,
        ignore_index: int = -100,
        reduce: bool | None = None,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
        *,
        z_loss: float = 0.0,
        inplace: bool = False,
    ) -> None:
        super().__init__(weight, size_average, ignore_index, reduce, reduction, label_smoothing)
        self.z_loss = z_loss
        self.inplace = inplace

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Give the loss of the input, (N, C, ...) or (C), and the target: (N, ...) or (), or probabilities."""
        return cross_entropy(
            input,
            target,
            1 if input.ndim > 1 else 0,
            weight=self.weight,
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
            z_loss=self.z_loss,
            reduction=self.reduction,
            inplace=self.inplace,
        )
