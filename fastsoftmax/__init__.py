"""Softmax, log-softmax, log-sum-exp and cross-entropy with gradients: fast, accurate, reproducible to the bit."""

from fastsoftmax._api import log_softmax, logsumexp, softmax
from fastsoftmax._api_grad import log_softmax_grad, softmax_grad
from fastsoftmax._api_loss import cross_entropy, cross_entropy_grad, cross_entropy_with_grad
from fastsoftmax._control import get_num_threads, set_num_threads, show_config
from fastsoftmax._registry import get_backend, set_backend, use_backend

__version__ = "0.1.0"

__all__ = [
    "cross_entropy",
    "cross_entropy_grad",
    "cross_entropy_with_grad",
    "get_backend",
    "get_num_threads",
    "log_softmax",
    "log_softmax_grad",
    "logsumexp",
    "set_backend",
    "set_num_threads",
    "show_config",
    "softmax",
    "softmax_grad",
    "use_backend",
]
