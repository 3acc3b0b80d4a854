"""Softmax, log-softmax and cross-entropy for PyTorch, with gradients by fastsoftmax's kernels.

Each computation is a custom operator (``operators``), so that ``torch.compile`` traces it in one piece. Cross-entropy
computes the gradient with the loss, in one pass over the logits, and its backward pass hands it on, but for float16:
there only the backward pass knows the loss's scale, which keeps small numbers from vanishing.
"""

from __future__ import annotations

import torch

from fastsoftmax._arguments import check_index
from fastsoftmax.adapters import type_name
from fastsoftmax.adapters.torch import has_tangent
from fastsoftmax.integrations.torch import operators

__all__ = ["CrossEntropyLoss", "cross_entropy", "log_softmax", "softmax"]


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
    return operators.softmax(x, check_index(axis, "axis"))


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
    return operators.log_softmax(x, check_index(axis, "axis"))


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
        return operators.cross_entropy(logits, *arguments)
    if inplace:
        _check_place(logits)
    if logits.dtype == torch.float16:
        return operators.LateLoss.apply(logits, *arguments)
    return operators.Loss.apply(inplace, logits, *arguments)


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
