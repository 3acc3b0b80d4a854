"""CuPy's functions of arrays: what only hands on to NumPy by tables of names and CuPy's parameters."""

from importlib import import_module

import numpy as np

from ._array import compute, ndarray, unwrap
from ._methods import forwarded
from ._records import operations, synchronisations


class ufunc:  # noqa: N801
    """An elementwise function."""

    def __init__(self, function):
        self.__name__ = self.name = function.__name__
        self.nin, self.nout = function.nin, function.nout
        self._function = function

    def __repr__(self):
        return f"<ufunc '{self.name}'>"

    def __call__(self, *args, **kwargs):
        wrong = kwargs.keys() - {"out", "dtype", "casting"}
        if wrong:
            raise TypeError(f"Wrong arguments {sorted(wrong)}")
        if not self.nin <= len(args) <= self.nin + self.nout:
            raise TypeError(f"Wrong number of arguments for {self.name!r}")
        if len(args) > self.nin:
            args, kwargs["out"] = args[: self.nin], args[self.nin]
        if kwargs.get("out") is not None and not isinstance(kwargs["out"], ndarray):
            raise TypeError("Output arguments type must be cupy.ndarray")
        return compute(self._function, args, kwargs)


_UFUNCS = """
    abs absolute add arctan bitwise_and bitwise_or bitwise_xor cbrt ceil copysign cos cosh divide equal exp exp2 expm1
    fabs floor floor_divide fmax fmin fmod greater greater_equal invert isfinite isinf isnan ldexp left_shift less
    less_equal log log10 log1p log2 logaddexp logical_and logical_not logical_or logical_xor maximum minimum multiply
    negative nextafter not_equal positive power reciprocal remainder right_shift rint sign signbit sin sinh sqrt square
    subtract tan tanh true_divide trunc
"""
_FORWARDED = {
    "all": "a, axis=None, out=None, keepdims=False",
    "amax": "a, axis=None, out=None, keepdims=False",
    "amin": "a, axis=None, out=None, keepdims=False",
    "any": "a, axis=None, out=None, keepdims=False",
    "atleast_1d": "*arys",
    "broadcast_arrays": "*args",
    "broadcast_to": "array, shape",
    "concatenate": "tup, axis=0, out=None, *, dtype=None, casting='same_kind'",
    "count_nonzero": "a, axis=None",
    "cumsum": "a, axis=None, dtype=None, out=None",
    "expand_dims": "a, axis",
    "flip": "a, axis=None",
    "isclose": "a, b, rtol=1e-05, atol=1e-08, equal_nan=False",
    "max": "a, axis=None, out=None, keepdims=False",
    "mean": "a, axis=None, dtype=None, out=None, keepdims=False",
    "min": "a, axis=None, out=None, keepdims=False",
    "moveaxis": "a, source, destination",
    "prod": "a, axis=None, dtype=None, out=None, keepdims=False",
    "ravel": "a, order='C'",
    "repeat": "a, repeats, axis=None",
    "reshape": "a, newshape, order='C', *, copy=None",
    "squeeze": "a, axis=None",
    "stack": "tup, axis=0, out=None, *, dtype=None, casting='same_kind'",
    "sum": "a, axis=None, dtype=None, out=None, keepdims=False",
    "swapaxes": "a, axis1, axis2",
    "take": "a, indices, axis=None, out=None",
    "take_along_axis": "a, indices, axis",
    "tile": "A, reps",
    "transpose": "a, axes=None",
}


def copyto(dst, src, casting="same_kind", where=None):
    np.copyto(unwrap(dst), unwrap(src), casting=casting, where=True if where is None else unwrap(where))
    operations.append("copyto")


def where(condition, x=None, y=None):
    if (x is None) != (y is None):
        raise ValueError("Must provide both 'x' and 'y' or neither.")
    if x is None:
        return nonzero(condition)
    # CuPy has no bfloat16 here: the first type that holds it is float32.
    x, y = (v.astype(np.float32) if _dtype_name(v) == "bfloat16" else v for v in (x, y))
    return compute(np.where, [condition.astype(bool, copy=False), x, y], {})


def nonzero(a):
    synchronisations.append("nonzero")
    return compute(np.nonzero, [a], {})


def flatnonzero(a):
    return nonzero(a.ravel())[0]


def iscomplexobj(x):
    return np.iscomplexobj(x._inside if isinstance(x, ndarray) else x)


def result_type(*arrays_and_dtypes):
    return np.result_type(*(x._inside if isinstance(x, ndarray) else x for x in arrays_and_dtypes))


def may_share_memory(a, b, max_work=None):
    if max_work is not None:
        raise NotImplementedError("Only supported for `max_work` is `None`")
    return np.may_share_memory(unwrap(a), unwrap(b))


def shares_memory(a, b, max_work=None):
    synchronisations.append("shares_memory")
    return np.shares_memory(unwrap(a), unwrap(b))


def shape(a):
    return a.shape if isinstance(a, ndarray) else np.shape(a)


def ndim(a):
    return a.ndim if isinstance(a, ndarray) else np.ndim(a)


def get_array_module(*args):
    return import_module(__package__) if any(isinstance(x, ndarray) for x in args) else np


def _dtype_name(x):
    return getattr(getattr(x, "dtype", None), "name", None)


_NUMPYS_OWN = """
    bool_ can_cast dtype finfo float16 float32 float64 iinfo inf int8 int16 int32 int64 isscalar nan newaxis
    promote_types uint8 uint16 uint32 uint64
"""
# All of them, by name: some of the names are Python's own.
FUNCTIONS = {
    **{name: getattr(np, name) for name in _NUMPYS_OWN.split()},
    **{name: ufunc(getattr(np, name)) for name in _UFUNCS.split()},
    **{name: forwarded(getattr(np, name), parameters) for name, parameters in _FORWARDED.items()},
    "copyto": copyto,
    "flatnonzero": flatnonzero,
    "get_array_module": get_array_module,
    "iscomplexobj": iscomplexobj,
    "matmul": forwarded(np.matmul, "x1, x2, /, *, out=None"),
    "may_share_memory": may_share_memory,
    "ndim": ndim,
    "nonzero": nonzero,
    "result_type": result_type,
    "shape": shape,
    "shares_memory": shares_memory,
    "ufunc": ufunc,
    "where": where,
}
