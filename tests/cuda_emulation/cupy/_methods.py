"""Methods and operators of `cupy.ndarray` that NumPy's arrays have too, by tables of names and CuPy's parameters."""

import inspect

import numpy as np

from ._array import compute, ndarray


def forwarded(function, parameters):
    """Give a function with CuPy's parameters that calls NumPy's."""
    signature = inspect.signature(eval(f"lambda {parameters}: None"))

    def call(*args, **kwargs):
        bound = signature.bind(*args, **kwargs)
        return compute(function, bound.args, bound.kwargs)

    call.__name__ = call.__qualname__ = function.__name__
    call.__signature__ = signature
    return call


_METHODS = {
    "all": "self, axis=None, out=None, keepdims=False",
    "any": "self, axis=None, out=None, keepdims=False",
    "clip": "self, min=None, max=None, out=None",
    "cumsum": "self, axis=None, dtype=None, out=None",
    "flatten": "self, order='C'",
    "max": "self, axis=None, out=None, keepdims=False",
    "mean": "self, axis=None, dtype=None, out=None, keepdims=False",
    "min": "self, axis=None, out=None, keepdims=False",
    "prod": "self, axis=None, dtype=None, out=None, keepdims=False",
    "ravel": "self, order='C'",
    "repeat": "self, repeats, axis=None",
    "reshape": "self, *shape, order='C', copy=None",
    "round": "self, decimals=0, out=None",
    "squeeze": "self, axis=None",
    "sum": "self, axis=None, dtype=None, out=None, keepdims=False",
    "swapaxes": "self, axis1, axis2",
    "take": "self, indices, axis=None, out=None",
    "transpose": "self, *axes",
}
for _name, _parameters in _METHODS.items():
    setattr(ndarray, _name, forwarded(getattr(np.ndarray, _name), _parameters))

_OPERATORS = {
    "add": "add",
    "sub": "subtract",
    "mul": "multiply",
    "truediv": "true_divide",
    "floordiv": "floor_divide",
    "mod": "remainder",
    "pow": "power",
    "matmul": "matmul",
    "and": "bitwise_and",
    "or": "bitwise_or",
    "xor": "bitwise_xor",
    "lshift": "left_shift",
    "rshift": "right_shift",
}
_COMPARISONS = {
    "lt": "less",
    "le": "less_equal",
    "eq": "equal",
    "ne": "not_equal",
    "gt": "greater",
    "ge": "greater_equal",
}
_UNARY = {"neg": "negative", "pos": "positive", "abs": "absolute", "invert": "invert"}


# NumPy's functions call __array_ufunc__.


def _operator(ufunc):
    return lambda x, y: ufunc(x, y)


def _reflected(ufunc):
    return lambda x, y: ufunc(y, x)


def _comparison(ufunc, name):
    def compare(x, y):
        if name in ("eq", "ne") and (y is None or type(y).__eq__ is object.__eq__):
            return compute(np.full, [x.shape, name == "ne"], {})
        return ufunc(x, y)

    return compare


def _in_place(ufunc):
    return lambda x, y: compute(ufunc, [x, y], {"out": x})


def _unary(ufunc):
    return lambda x: compute(ufunc, [x], {})


for _name, _ufunc in _OPERATORS.items():
    _ufunc = getattr(np, _ufunc)
    setattr(ndarray, f"__{_name}__", _operator(_ufunc))
    setattr(ndarray, f"__r{_name}__", _reflected(_ufunc))
    setattr(ndarray, f"__i{_name}__", _in_place(_ufunc))
for _name, _ufunc in _COMPARISONS.items():
    setattr(ndarray, f"__{_name}__", _comparison(getattr(np, _ufunc), _name))
for _name, _ufunc in _UNARY.items():
    setattr(ndarray, f"__{_name}__", _unary(getattr(np, _ufunc)))
