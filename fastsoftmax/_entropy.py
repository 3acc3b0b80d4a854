"""The cross-entropy family, computed: its arguments are checked, then brought before a kernel, as ``_api`` does it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.exceptions import AxisError

from fastsoftmax import _threads, reference
from fastsoftmax._arguments import as_real, backend_for, check_index, check_out, on_gpu, plain, result
from fastsoftmax._layout import (
    arrange,
    arrange_beside,
    is_native,
    loss_dtype,
    normalize_axes,
    output_like,
    plain_output,
    plain_slices,
)
from fastsoftmax._loss_arguments import (
    check_labels,
    check_number,
    check_numbers,
    check_reduction,
    mean_divisor,
)


def entropy(
    logits: Any,
    labels: Any,
    axis: int,
    *,
    weight: Any,
    sample_weight: Any,
    ignore_index: int,
    label_smoothing: float,
    z_loss: float,
    reduction: str,
    n_threads: int | None,
    validate: bool | None,
    out: np.ndarray | None = None,
    given_lse: Any = None,
    grad_output: Any = None,
    loss: bool,
    grad: bool,
    lse: bool,
) -> Any:
    """Compute what is asked for of loss, gradient and lse: one alone, or a tuple of them."""
    logits = as_real(logits, "logits")
    axis = check_index(axis, "axis")
    if logits.ndim == 0:  # no axis to hold classes, where softmax takes -1 and 0
        raise AxisError(axis, 0)
    (axis,) = normalize_axes(axis, logits.ndim)
    dtype = logits.dtype.newbyteorder("=")
    by_kernels = is_native(dtype) or logits.size == 0
    computing = loss_dtype(dtype) if is_native(dtype) else dtype
    batch = logits.shape[:axis] + logits.shape[axis + 1 :]
    gpu = on_gpu(logits)
    indices, targets, ignore_index = check_labels(labels, logits, axis, ignore_index, not gpu or bool(validate))
    check_reduction(reduction)
    label_smoothing = check_number(label_smoothing, "label_smoothing", 0, 1)
    z_loss = check_number(z_loss, "z_loss")
    weight = check_numbers(weight, "weight", logits.shape[axis : axis + 1], computing, logits)
    sample_weight = check_numbers(sample_weight, "sample_weight", batch, computing, logits)
    given_lse = check_numbers(given_lse, "lse", batch, computing, logits)
    if grad_output is not None:
        per_slice = reduction == "none" and np.ndim(grad_output) > 0
        grad_output = check_numbers(grad_output, "grad_output", batch if per_slice else (), computing, logits)
    slices = plain_slices(logits, axis) if targets is None else None
    target = plain_output(out, logits) if slices and grad else None
    if target is None:
        check_out(out, logits, logits.shape, dtype)
    n_threads = _threads.requested(n_threads)
    backend = backend_for(logits)
    options = {"label_smoothing": label_smoothing, "z_loss": z_loss, "weight": weight}

    if not by_kernels:
        options |= {"sample_weight": sample_weight, "ignore_index": ignore_index, "reduction": reduction}
        arguments = logits, targets if indices is None else indices, axis
        if loss:
            values = list(reference.cross_entropy_with_grad(*arguments, return_lse=True, **options))
        else:
            values = [None, None, None]
            values[1] = reference.cross_entropy_grad(*arguments, lse=given_lse, grad_output=grad_output, **options)
        if grad:
            values[1] = result(values[1], out)
    else:
        divisor = 1.0
        if reduction == "mean" and logits.size:
            count = math.prod(batch)
            if gpu:  # where it stays: the kernels divide
                divisor = backend.mean_divisor(indices, ignore_index, weight, sample_weight, count)
            else:
                terms = mean_divisor(indices, weight, sample_weight, count)
                divisor = float(terms if np.ndim(terms) == 0 else backend.reduced(terms.reshape(-1), 1))
        # The chain rule's factors beside the losses' own.
        scales = {"divisor": divisor} if gpu else {"grad_scale": 1 / divisor if divisor else 0.0}
        if grad_output is not None and grad_output.ndim == 0 and not gpu:
            scales["grad_scale"] *= float(grad_output)
        elif grad_output is not None:
            factors = grad_output if sample_weight is None else sample_weight * grad_output
            sample_weight = np.broadcast_to(factors, batch)
        source, order = arrange(logits, (axis,))

        def in_order(numbers: np.ndarray | None) -> np.ndarray | None:
            if numbers is None:
                return None
            flat = order.slices(numbers).reshape(-1)
            return flat if flat.flags.c_contiguous else flat.copy()  # (a broadcast one has no strides)

        def in_slices(a: np.ndarray) -> np.ndarray:
            return a.reshape(slices) if slices else order.view(a)

        if targets is not None:
            if targets.dtype.newbyteorder("=") != dtype:
                targets = targets.astype(computing, copy=False)
            targets = arrange_beside(targets, order)
        count = order.batch_size(source)
        losses = np.empty(count, computing, like=source) if loss else None
        lses = np.empty(count, computing, like=source) if lse else None
        if grad and target is None:
            target = output_like(source, order, None if out is None else plain(out), [source], apart=targets)
        if logits.size == 0:
            if losses is not None:
                losses[...] = 0
            if lses is not None:
                lses[...] = -np.inf
        else:
            backend.cross_entropy(
                in_slices(source),
                losses,
                None if target is None else in_slices(target),
                lses,
                labels=in_order(indices),
                ignore_index=ignore_index,
                targets=None if targets is None else order.view(targets),
                sample_weight=in_order(sample_weight),
                given_lse=in_order(given_lse),
                n_threads=n_threads,
                **scales,
                **options,
            )
        if target is not None and not gpu and divisor == 0:
            target[...] = 0  # of nothing that counts, whatever it holds
        if losses is None:
            loss_value = None
        elif reduction == "none":
            loss_value = order.restore(losses, source.shape)[()]
        elif logits.size:
            loss_value = backend.reduced(losses, divisor)
        else:
            loss_value = np.zeros((), computing, like=source)[()]
        values = [
            loss_value,
            None if target is None else result(target, out),
            None if lses is None else order.restore(lses, source.shape)[()],
        ]
    chosen = [value for value, wanted in zip(values, (loss, grad, lse), strict=True) if wanted]
    return chosen[0] if len(chosen) == 1 else tuple(chosen)
