"""The operators that PyTorch knows the kernels by, and their gradients.

Each has a fake kernel, which tells ``torch.compile`` its shapes. The kernels use as many threads as PyTorch would: a
worker of a DataLoader, where that is one, stays on one.
"""

from __future__ import annotations

from typing import Any

import torch

import fastsoftmax


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
def softmax(x: torch.Tensor, axis: int) -> torch.Tensor:
    """Compute softmax; it has first and second derivatives."""
    return fastsoftmax.softmax(x, axis, out=torch.empty_like(x), n_threads=_threads())


@_operator("log_softmax", "(Tensor x, int axis) -> Tensor")
def log_softmax(x: torch.Tensor, axis: int) -> torch.Tensor:
    """Compute log-softmax; it has first and second derivatives."""
    return fastsoftmax.log_softmax(x, axis, out=torch.empty_like(x), n_threads=_threads())


@_operator("softmax_grad", "(Tensor grad_output, Tensor probs, int axis) -> Tensor")
def _softmax_grad(grad_output: torch.Tensor, probs: torch.Tensor, axis: int) -> torch.Tensor:
    return fastsoftmax.softmax_grad(grad_output, probs, axis, out=torch.empty_like(probs), n_threads=_threads())


@_operator("log_softmax_grad", "(Tensor grad_output, Tensor log_probs, int axis) -> Tensor")
def _log_softmax_grad(grad_output: torch.Tensor, log_probs: torch.Tensor, axis: int) -> torch.Tensor:
    return fastsoftmax.log_softmax_grad(
        grad_output, log_probs, axis, out=torch.empty_like(log_probs), n_threads=_threads()
    )


for _operation in (softmax, log_softmax):
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


softmax.register_autograd(_softmax_backward, setup_context=_save_output)
log_softmax.register_autograd(_log_softmax_backward, setup_context=_save_output)
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
def cross_entropy(logits: torch.Tensor, *rest: Any) -> torch.Tensor:
    """Compute the loss; it has no gradient."""
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


cross_entropy.register_fake(_loss_like)
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


class Loss(torch.autograd.Function):
    """The loss, and its gradient with it: in an array of its own, or in the logits' place."""

    @staticmethod
    def forward(ctx: Any, in_place: bool, logits: torch.Tensor, *rest: Any) -> torch.Tensor:
        """Compute both."""
        if in_place:
            loss, grad = _cross_entropy_in_place(logits, *rest), logits.detach()
        else:
            loss, grad = _cross_entropy_with_grad(logits, *rest)
        ctx.save_for_backward(grad)
        ctx.in_place, ctx.axis, ctx.handed_on = in_place, rest[3], False
        return loss

    @staticmethod
    def backward(ctx: Any, grad_output: torch.Tensor) -> tuple:
        """Hand the gradient on, scaled."""
        _refuse_second_derivatives()
        if ctx.handed_on and ctx.in_place:
            raise RuntimeError("cross_entropy with inplace=True has one backward pass: its gradient has been taken")
        (grad,) = ctx.saved_tensors
        if ctx.handed_on:  # whoever has it may change it
            grad = grad.clone()
        scaled = _scaled(grad, grad_output, ctx.axis, ctx.in_place)
        ctx.handed_on = ctx.in_place or scaled is grad
        return None, scaled, *(None,) * 8


class LateLoss(torch.autograd.Function):
    """The loss, and its gradient in the backward pass."""

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, *rest: Any) -> torch.Tensor:
        """Compute the loss."""
        ctx.save_for_backward(logits, *rest[:3])
        ctx.rest = rest[3:]
        return cross_entropy(logits, *rest)

    @staticmethod
    def backward(ctx: Any, grad_output: torch.Tensor) -> tuple:
        """Compute the gradient."""
        _refuse_second_derivatives()
        logits, *others = ctx.saved_tensors
        return _cross_entropy_grad(logits, grad_output, *others, *ctx.rest), *(None,) * 8
