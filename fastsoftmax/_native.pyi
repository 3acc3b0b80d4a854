from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

_Axis = int | Sequence[int] | None
_Reduction = Literal["mean", "sum", "none"]

SOFTMAX: int
LOG_SOFTMAX: int
LOGSUMEXP: int
CROSS_ENTROPY: int
CROSS_ENTROPY_GRAD: int
CROSS_ENTROPY_SPREAD: int
CROSS_ENTROPY_SPREAD_GRAD: int
SOFTMAX_GRAD: int
LOG_SOFTMAX_GRAD: int

def softmax(
    x: Any, axis: _Axis = -1, *, where: Any = None, out: np.ndarray | None = None, n_threads: int | None = None
) -> Any: ...
def log_softmax(
    x: Any, axis: _Axis = -1, *, where: Any = None, out: np.ndarray | None = None, n_threads: int | None = None
) -> Any: ...
def logsumexp(
    x: Any,
    axis: _Axis = -1,
    *,
    b: Any = None,
    keepdims: bool = False,
    return_sign: bool = False,
    where: Any = None,
    out: np.ndarray | None = None,
    n_threads: int | None = None,
) -> Any: ...
def cross_entropy(
    logits: Any,
    labels: Any,
    axis: int = -1,
    *,
    weight: Any = None,
    sample_weight: Any = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    reduction: _Reduction = "mean",
    return_lse: bool = False,
    n_threads: int | None = None,
    validate: bool | None = None,
) -> Any: ...
def cross_entropy_grad(
    logits: Any,
    labels: Any,
    axis: int = -1,
    *,
    weight: Any = None,
    sample_weight: Any = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    reduction: _Reduction = "mean",
    n_threads: int | None = None,
    validate: bool | None = None,
    lse: Any = None,
    grad_output: Any = None,
    out: np.ndarray | None = None,
) -> Any: ...
def cross_entropy_with_grad(
    logits: Any,
    labels: Any,
    axis: int = -1,
    *,
    weight: Any = None,
    sample_weight: Any = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    reduction: _Reduction = "mean",
    return_lse: bool = False,
    n_threads: int | None = None,
    validate: bool | None = None,
    out: np.ndarray | None = None,
) -> tuple[Any, ...]: ...
def softmax_grad(
    grad_output: Any,
    probs: Any,
    axis: _Axis = -1,
    *,
    where: Any = None,
    out: np.ndarray | None = None,
    n_threads: int | None = None,
) -> Any: ...
def log_softmax_grad(
    grad_output: Any,
    log_probs: Any,
    axis: _Axis = -1,
    *,
    where: Any = None,
    out: np.ndarray | None = None,
    n_threads: int | None = None,
) -> Any: ...
def run(
    op: int,
    x: np.ndarray,
    out: np.ndarray | None = None,
    *,
    lse: np.ndarray | None = None,
    loss: np.ndarray | None = None,
    labels: np.ndarray | None = None,
    ignore_index: int = 0,
    y: np.ndarray | None = None,
    weight: np.ndarray | None = None,
    sample_weight: np.ndarray | None = None,
    given_lse: np.ndarray | None = None,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    grad_scale: float = 1.0,
    n_threads: int = 0,
) -> None: ...
def reduced(losses: np.ndarray, divisor: float) -> np.floating: ...
def register(function: Callable[..., Any]) -> Callable[..., Any]: ...
def set_bfloat16(number: int) -> None: ...
def set_fast(enabled: bool) -> None: ...
def set_default_threads(n_threads: int) -> None: ...
def num_threads(n_threads: int) -> int: ...
def has_openmp() -> bool: ...
def isa() -> str: ...
def supported_isas() -> list[str]: ...
def _exp(x: np.ndarray) -> np.ndarray: ...
def _log1p(x: np.ndarray) -> np.ndarray: ...
def _set_cache_size(size: int) -> None: ...
def _select_isa(name: str) -> None: ...
