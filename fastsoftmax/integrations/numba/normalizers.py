"""softmax and log_softmax in compiled code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba.extending import overload

from fastsoftmax import _front
from fastsoftmax.backends.numba.compiled import helper
from fastsoftmax.backends.numba.markers import LOG_SOFTMAX, SOFTMAX
from fastsoftmax.backends.numba.memory import pointer
from fastsoftmax.integrations.numba.arrays import geometry, run, source_of, target_for, way_of
from fastsoftmax.integrations.numba.checks import check_array, check_axis, check_out, refuse, target_type


@helper
def _normalize(op, x, target, axis, way):
    source = source_of(x, target)
    shape, target_shape = geometry(source, axis), geometry(target, axis)
    if x.size > 0:
        run(way, op, pointer(source), pointer(target), None, shape, target_shape, 0, shape[0])


def _normalizer(function: str, op: Any, x: Any, axis: Any, where: Any, out: Any, n_threads: Any) -> Callable:
    refuse(function, where=(where, None), n_threads=(n_threads, None))
    check_array(function, "x", x)
    along = check_axis(function, axis, x.ndim)
    way = way_of(target_type(x, check_out(function, out, x)), along)

    def implementation(x, axis=-1, where=None, out=None, n_threads=None):
        target = target_for(x, out)
        _normalize(op, x, target, along, way)
        return target

    return implementation


@overload(_front.public("softmax"))
def _softmax(x, axis=-1, where=None, out=None, n_threads=None):
    return _normalizer("softmax", SOFTMAX, x, axis, where, out, n_threads)


@overload(_front.public("log_softmax"))
def _log_softmax(x, axis=-1, where=None, out=None, n_threads=None):
    return _normalizer("log_softmax", LOG_SOFTMAX, x, axis, where, out, n_threads)
