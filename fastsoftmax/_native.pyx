"""The binding of the C++ core, and the public functions' fast path.

A public function sends a plain call (a C-contiguous ndarray of a native dtype, one axis, no option that changes the
formula) straight to a kernel: the work of a tiny call is its argument handling. Everything else goes to the function of
the same name in ``_api``, which registers itself here with its docstring (``register``), and which comes back through
``run`` with arrays of three dimensions, (outer, n, inner).
"""

import os

import numpy as np

cimport numpy as cnp
from cpython.long cimport PyLong_CheckExact
from libc.stdint cimport int64_t
from libc.string cimport memset

from fastsoftmax._core cimport (
    FS_BFLOAT16, FS_CROSS_ENTROPY, FS_CROSS_ENTROPY_GRAD, FS_CROSS_ENTROPY_SPREAD, FS_CROSS_ENTROPY_SPREAD_GRAD,
    FS_FLOAT16, FS_FLOAT32, FS_FLOAT64, FS_LOGSUMEXP, FS_LOG_SOFTMAX, FS_LOG_SOFTMAX_GRAD, FS_NO_MEMORY, FS_OK,
    FS_OPS, FS_SOFTMAX, FS_SOFTMAX_GRAD, FS_UNSUPPORTED, fs_call, fs_check_labels, fs_default_threads, fs_dtype,
    fs_exp, fs_isa, fs_log1p, fs_op, fs_openmp, fs_run, fs_select_isa, fs_set_cache_size, fs_status, fs_strides, fs_sum,
    fs_supported_isa, fs_thread_limit, fs_writes,
)

cnp.import_array()

cdef extern from "Python.h":
    int PyErr_CheckSignals() noexcept

SOFTMAX = FS_SOFTMAX
LOG_SOFTMAX = FS_LOG_SOFTMAX
LOGSUMEXP = FS_LOGSUMEXP
CROSS_ENTROPY = FS_CROSS_ENTROPY
CROSS_ENTROPY_GRAD = FS_CROSS_ENTROPY_GRAD
CROSS_ENTROPY_SPREAD = FS_CROSS_ENTROPY_SPREAD
CROSS_ENTROPY_SPREAD_GRAD = FS_CROSS_ENTROPY_SPREAD_GRAD
SOFTMAX_GRAD = FS_SOFTMAX_GRAD
LOG_SOFTMAX_GRAD = FS_LOG_SOFTMAX_GRAD

# Below so many elements (a few microseconds) a call keeps the GIL: giving it up and taking it back costs as much.
cdef int64_t KEEP_GIL = 4096

cdef int MOST_PLAIN_THREADS = 2**16

# Index labels and ignore_index travel in 64 bits.
cdef object MAX_INDEX = 2**63 - 1

# Threads of a call that names no number; 0: OpenMP's own.
cdef int default_threads = 0

# NumPy's number of bfloat16, whose package registers it; none until an array of it has come through _api.
cdef int bfloat16_number = -1

# False while a backend other than this one may be in use: every call then goes through _api.
cdef bint fast_path_open = True

# The general functions of _api, by name.
cdef dict fallbacks = {}


cdef int interrupted() noexcept with gil:
    return PyErr_CheckSignals() != 0


cdef int execute(fs_call *call) except -1:
    cdef fs_status status
    if call.outer * call.n * call.inner < KEEP_GIL:
        status = fs_run(call)
    else:
        call.interrupted = &interrupted
        with nogil:
            status = fs_run(call)
    if status == FS_OK:
        return 0
    if status == FS_NO_MEMORY:
        raise MemoryError("no memory for a kernel's tile")
    if status == FS_UNSUPPORTED:
        raise ValueError("the strides of this array are none that a kernel reads")
    return -1  # interrupted: the signal's handler has set the exception


cdef inline fs_dtype dtype_of(cnp.ndarray x) except *:
    cdef int number = cnp.PyArray_TYPE(x)
    if number == cnp.NPY_FLOAT32:
        return FS_FLOAT32
    if number == cnp.NPY_FLOAT64:
        return FS_FLOAT64
    if number == cnp.NPY_FLOAT16:
        return FS_FLOAT16
    if number == bfloat16_number:
        return FS_BFLOAT16
    raise TypeError(f"no kernel for dtype {x.dtype}")


cdef inline fs_strides strides_of(cnp.ndarray x):
    cdef fs_strides s
    cdef int64_t size = cnp.PyArray_ITEMSIZE(x)
    s.outer = cnp.PyArray_STRIDE(x, 0) // size
    s.n = cnp.PyArray_STRIDE(x, 1) // size
    s.inner = cnp.PyArray_STRIDE(x, 2) // size
    return s


cdef int refuse_unless(bint condition, str expected) except -1:
    if not condition:
        raise ValueError(f"expected {expected}")
    return 0


cdef int cross_entropy_op(fs_op op) noexcept:
    return FS_CROSS_ENTROPY <= op <= FS_CROSS_ENTROPY_SPREAD_GRAD


cdef void start(fs_call *call) noexcept:
    """Fill in everything but the operation and the view: no option, no output."""
    memset(call, 0, sizeof(fs_call))
    call.grad_scale = 1
    call.n_threads = default_threads


cdef void *data_of(cnp.ndarray x):
    return NULL if x is None else cnp.PyArray_DATA(x)


def run(int op, cnp.ndarray x not None, cnp.ndarray out=None, *, cnp.ndarray lse=None, cnp.ndarray loss=None,
        cnp.ndarray labels=None, int64_t ignore_index=0, cnp.ndarray y=None, cnp.ndarray weight=None,
        cnp.ndarray sample_weight=None, cnp.ndarray given_lse=None, double label_smoothing=0.0, double z_loss=0.0,
        double grad_scale=1.0, int n_threads=0):
    """Run one operation on arrays (outer, n, inner) that a kernel reads; see fastsoftmax.h."""
    cdef fs_call call
    refuse_unless(0 <= op < FS_OPS, "an operation")
    refuse_unless(x.ndim == 3, "logits of three dimensions")
    start(&call)
    call.op = <fs_op>op
    slices = (<object>x).shape[0] * (<object>x).shape[2]
    computing = np.dtype(np.float64 if x.dtype == np.float64 else np.float32)
    refuse_unless((out is not None) == bool(fs_writes(call.op)), "out if and only if the operation writes one")
    refuse_unless(out is None or ((<object>out).shape == (<object>x).shape and out.dtype == x.dtype), "out as x")
    refuse_unless(y is None or ((<object>y).shape == (<object>x).shape and y.dtype in (x.dtype, computing)), "y as x")
    if cross_entropy_op(call.op):
        refuse_unless((labels is None) != (y is None), "labels of one kind")
        refuse_unless(labels is None or labels.dtype == np.int64, "int64 labels")
    elif op == FS_SOFTMAX_GRAD or op == FS_LOG_SOFTMAX_GRAD:
        refuse_unless(y is not None and y.dtype == x.dtype, "the saved output")
    for per_slice in (lse, loss, labels, sample_weight, given_lse):
        refuse_unless(per_slice is None or (per_slice.size == slices and per_slice.flags.c_contiguous),
                      "one contiguous number per slice")
    refuse_unless(weight is None or (weight.size == (<object>x).shape[1] and weight.flags.c_contiguous),
                  "one contiguous weight per class")
    for numbers in (lse, loss, weight, sample_weight, given_lse):
        refuse_unless(numbers is None or numbers.dtype == computing, "numbers of the computing dtype")
    call.dtype = dtype_of(x)
    call.outer = cnp.PyArray_DIM(x, 0)
    call.n = cnp.PyArray_DIM(x, 1)
    call.inner = cnp.PyArray_DIM(x, 2)
    call.x = cnp.PyArray_DATA(x)
    call.x_strides = strides_of(x)
    if out is not None:
        call.out = cnp.PyArray_DATA(out)
        call.out_strides = strides_of(out)
    if y is not None:
        call.y = cnp.PyArray_DATA(y)
        call.y_dtype = dtype_of(y)
        call.y_strides = strides_of(y)
    call.lse = data_of(lse)
    call.loss = data_of(loss)
    call.labels = <const int64_t *>data_of(labels)
    call.ignore_index = ignore_index
    call.weight = data_of(weight)
    call.sample_weight = data_of(sample_weight)
    call.given_lse = data_of(given_lse)
    call.label_smoothing = label_smoothing
    call.z_loss = z_loss
    call.grad_scale = grad_scale
    call.n_threads = n_threads
    execute(&call)


cdef fs_dtype computing_dtype(cnp.ndarray x) except *:
    """The dtype of a C-contiguous float32 or float64 array."""
    cdef fs_dtype dtype = dtype_of(x)
    if not ((dtype == FS_FLOAT32 or dtype == FS_FLOAT64) and cnp.PyArray_ISCARRAY_RO(x)):
        raise TypeError(f"expected a C-contiguous float32 or float64 array, got dtype {x.dtype}")
    return dtype


def reduced(cnp.ndarray losses not None, double divisor):
    """Give the sum of C-contiguous losses, in a fixed order, over divisor: a scalar of their dtype, 0 for divisor 0."""
    cdef fs_dtype dtype = computing_dtype(losses)
    cdef const void *values = cnp.PyArray_DATA(losses)
    cdef int64_t count = cnp.PyArray_SIZE(losses)
    cdef double value
    if count < KEEP_GIL:
        value = fs_sum(dtype, values, count)
    else:
        with nogil:
            value = fs_sum(dtype, values, count)
    value = value / divisor if divisor else 0.0
    # Rounded in C: NumPy would warn of an overflow.
    return np.float64(value) if dtype == FS_FLOAT64 else np.float32(<float>value)


# The fast path.

cdef inline bint plain(object x):
    """Whether x is an ndarray itself, C-contiguous, aligned and in native byte order, of a native dtype, not empty."""
    if not cnp.PyArray_CheckExact(x):
        return False
    cdef cnp.ndarray a = <cnp.ndarray>x
    cdef int number = cnp.PyArray_TYPE(a)
    return ((number == cnp.NPY_FLOAT32 or number == cnp.NPY_FLOAT64 or number == cnp.NPY_FLOAT16
             or number == bfloat16_number)
            and cnp.PyArray_ISCARRAY_RO(a) and cnp.PyArray_NDIM(a) > 0 and cnp.PyArray_SIZE(a) > 0)


cdef inline bint clear_of(cnp.ndarray a, cnp.ndarray b):
    """Whether two contiguous arrays share no memory."""
    cdef char *first = <char *>cnp.PyArray_DATA(a)
    cdef char *second = <char *>cnp.PyArray_DATA(b)
    return first + cnp.PyArray_NBYTES(a) <= second or second + cnp.PyArray_NBYTES(b) <= first


cdef inline bint plain_out(object out, cnp.ndarray x):
    """Whether out is as plain as x, writeable, of its shape and dtype, and x itself or clear of it."""
    if not cnp.PyArray_CheckExact(out):
        return False
    cdef cnp.ndarray a = <cnp.ndarray>out
    return (cnp.PyArray_ISCARRAY(a) and cnp.PyArray_TYPE(a) == cnp.PyArray_TYPE(x) and cnp.PyArray_SAMESHAPE(a, x)
            and (cnp.PyArray_DATA(a) == cnp.PyArray_DATA(x) or clear_of(a, x)))


cdef inline bint plain_view(fs_call *call, cnp.ndarray x, object axis):
    """Fill in the view of a plain x; False if axis is not simply an int in range."""
    cdef int ndim = cnp.PyArray_NDIM(x)
    cdef int i
    cdef long a
    if not PyLong_CheckExact(axis):
        return False
    try:
        a = axis
    except OverflowError:
        return False
    if a < 0:
        a += ndim
    if a < 0 or a >= ndim:
        return False
    start(call)
    call.outer = 1
    for i in range(<int>a):
        call.outer *= cnp.PyArray_DIM(x, i)
    call.n = cnp.PyArray_DIM(x, <int>a)
    call.inner = 1
    for i in range(<int>a + 1, ndim):
        call.inner *= cnp.PyArray_DIM(x, i)
    call.dtype = dtype_of(x)
    call.x = cnp.PyArray_DATA(x)
    call.x_strides = fs_strides(call.n * call.inner, call.inner, 1)
    return True


cdef inline bint plain_slices_out(object out, cnp.ndarray x, long axis):
    """Whether out is as plain as x, writeable, of its dtype, of its shape less the axis, and clear of it."""
    if not cnp.PyArray_CheckExact(out):
        return False
    cdef cnp.ndarray a = <cnp.ndarray>out
    cdef int ndim = cnp.PyArray_NDIM(x)
    cdef int i
    if not (cnp.PyArray_ISCARRAY(a) and cnp.PyArray_TYPE(a) == cnp.PyArray_TYPE(x)
            and cnp.PyArray_NDIM(a) == ndim - 1 and clear_of(a, x)):
        return False
    axis = axis + ndim if axis < 0 else axis
    for i in range(ndim - 1):
        if cnp.PyArray_DIM(a, i) != cnp.PyArray_DIM(x, i + (i >= axis)):
            return False
    return True


cdef inline bint plain_threads(fs_call *call, object n_threads):
    """Fill in n_threads, which the core clamps; False if it is neither None nor a small int that counts threads."""
    if n_threads is None:
        return True
    if not (PyLong_CheckExact(n_threads) and 1 <= n_threads <= MOST_PLAIN_THREADS):
        return False
    call.n_threads = n_threads
    return True


cdef inline cnp.ndarray empty_like(cnp.ndarray x):
    return cnp.PyArray_EMPTY(cnp.PyArray_NDIM(x), cnp.PyArray_DIMS(x), cnp.PyArray_TYPE(x), 0)


cdef inline cnp.ndarray empty_slices(fs_call *call):
    """An array for one number per slice: float64 for float64, else float32."""
    cdef cnp.npy_intp count = call.outer * call.inner
    return cnp.PyArray_EMPTY(1, &count, cnp.NPY_FLOAT64 if call.dtype == FS_FLOAT64 else cnp.NPY_FLOAT32, 0)


cdef object normalized(fs_op op, object x, object saved, object axis, object out, object n_threads):
    """Softmax, log_softmax or (from what they saved) their gradients, of a plain call; None if it is not one."""
    cdef fs_call call
    cdef cnp.ndarray result
    cdef bint grad = op == FS_SOFTMAX_GRAD or op == FS_LOG_SOFTMAX_GRAD
    if not (fast_path_open and plain(x) and plain_view(&call, <cnp.ndarray>x, axis)
            and plain_threads(&call, n_threads)):
        return None
    if grad:
        if not (plain(saved) and cnp.PyArray_TYPE(<cnp.ndarray>saved) == cnp.PyArray_TYPE(<cnp.ndarray>x)
                and cnp.PyArray_SAMESHAPE(<cnp.ndarray>saved, <cnp.ndarray>x)):
            return None
        call.y = cnp.PyArray_DATA(<cnp.ndarray>saved)
        call.y_dtype = call.dtype
        call.y_strides = call.x_strides
    if out is None:
        result = empty_like(<cnp.ndarray>x)
    elif plain_out(out, <cnp.ndarray>x) and (not grad or plain_out(out, <cnp.ndarray>saved)):
        result = <cnp.ndarray>out
    else:
        return None
    call.op = op
    call.out = cnp.PyArray_DATA(result)
    call.out_strides = call.x_strides
    execute(&call)
    return result


def softmax(x, axis=-1, *, where=None, out=None, n_threads=None):
    if where is None:
        result = normalized(FS_SOFTMAX, x, None, axis, out, n_threads)
        if result is not None:
            return result
    return fallbacks["softmax"](x, axis, where=where, out=out, n_threads=n_threads)


def log_softmax(x, axis=-1, *, where=None, out=None, n_threads=None):
    if where is None:
        result = normalized(FS_LOG_SOFTMAX, x, None, axis, out, n_threads)
        if result is not None:
            return result
    return fallbacks["log_softmax"](x, axis, where=where, out=out, n_threads=n_threads)


def logsumexp(x, axis=-1, *, b=None, keepdims=False, return_sign=False, where=None, out=None, n_threads=None):
    cdef fs_call call
    cdef cnp.ndarray lse
    # Half precision is rounded to its dtype afterwards, which is not worth a path of its own.
    if (fast_path_open and b is None and keepdims is False and return_sign is False and where is None
            and plain(x) and cnp.PyArray_ITEMSIZE(<cnp.ndarray>x) > 2
            and plain_view(&call, <cnp.ndarray>x, axis) and plain_threads(&call, n_threads)
            and (out is None or plain_slices_out(out, <cnp.ndarray>x, axis))):
        lse = empty_slices(&call) if out is None else <cnp.ndarray>out
        call.op = FS_LOGSUMEXP
        call.lse = cnp.PyArray_DATA(lse)
        execute(&call)
        return without_axis(lse, <cnp.ndarray>x, axis) if out is None else out
    return fallbacks["logsumexp"](x, axis, b=b, keepdims=keepdims, return_sign=return_sign, where=where,
                                  out=out, n_threads=n_threads)


cdef object without_axis(cnp.ndarray per_slice, cnp.ndarray x, long axis):
    """One number per slice in the shape of x less its axis: a scalar for 1-D x."""
    cdef int ndim = cnp.PyArray_NDIM(x)
    if ndim == 1:
        return per_slice[0]
    if ndim == 2:
        return per_slice
    return per_slice.reshape(shape_without(x, axis))


cdef object entropy(object logits, object labels, object axis, object ignore_index, object reduction,
                    bint return_loss, bint return_grad, bint return_lse, object out, object n_threads):
    """Cross-entropy of a plain call, loss, gradient and lse as asked for; None if it is not one."""
    cdef fs_call call
    if not (fast_path_open and plain(logits) and cnp.PyArray_CheckExact(labels)
            and plain_view(&call, <cnp.ndarray>logits, axis) and plain_threads(&call, n_threads)):
        return None
    cdef cnp.ndarray x = <cnp.ndarray>logits
    cdef cnp.ndarray y = <cnp.ndarray>labels
    # Labels of another shape, dtype or order are brought into this one, or refused, by _api.
    if not (cnp.PyArray_TYPE(y) == cnp.NPY_INT64 and cnp.PyArray_ISCARRAY_RO(y)
            and (<object>y).shape == shape_without(x, axis)
            and PyLong_CheckExact(ignore_index) and -MAX_INDEX <= ignore_index <= MAX_INDEX
            and isinstance(reduction, str) and (reduction == "mean" or reduction == "sum" or reduction == "none")):
        return None
    cdef cnp.ndarray grad, loss, lse
    if return_grad:
        if out is None:
            grad = empty_like(x)
        elif plain_out(out, x) and clear_of(<cnp.ndarray>out, y):
            grad = <cnp.ndarray>out
        else:
            return None
        call.out = cnp.PyArray_DATA(grad)
        call.out_strides = call.x_strides
    call.op = FS_CROSS_ENTROPY_GRAD if return_grad else FS_CROSS_ENTROPY
    call.labels = <const int64_t *>cnp.PyArray_DATA(y)
    call.ignore_index = ignore_index
    cdef int64_t valid = 0, position, slices = cnp.PyArray_SIZE(y)
    if slices < KEEP_GIL:
        position = fs_check_labels(call.labels, slices, call.n, call.ignore_index, &valid)
    else:
        with nogil:
            position = fs_check_labels(call.labels, slices, call.n, call.ignore_index, &valid)
    if position >= 0:
        return None  # _api says where
    cdef int64_t divisor = valid if reduction == "mean" else 1
    call.grad_scale = 1.0 / divisor if divisor else 0.0
    if return_loss:
        loss = empty_slices(&call)
        call.loss = cnp.PyArray_DATA(loss)
    if return_lse:
        lse = empty_slices(&call)
        call.lse = cnp.PyArray_DATA(lse)
    execute(&call)
    results = []
    if return_loss:
        results.append(without_axis(loss, x, axis) if reduction == "none" else reduced(loss, divisor))
    if return_grad:
        results.append(grad)
    if return_lse:
        results.append(without_axis(lse, x, axis))
    return results[0] if len(results) == 1 else tuple(results)


cdef object shape_without(cnp.ndarray x, long axis):
    shape = (<object>x).shape
    axis %= cnp.PyArray_NDIM(x)
    return shape[:axis] + shape[axis + 1:]


cdef inline bint unweighted(weight, sample_weight, label_smoothing, z_loss):
    return (weight is None and sample_weight is None and label_smoothing.__class__ is float and label_smoothing == 0.0
            and z_loss.__class__ is float and z_loss == 0.0)


def cross_entropy(logits, labels, axis=-1, *, weight=None, sample_weight=None, ignore_index=-100, label_smoothing=0.0,
                  z_loss=0.0, reduction="mean", return_lse=False, n_threads=None, validate=None):
    if unweighted(weight, sample_weight, label_smoothing, z_loss):
        result = entropy(logits, labels, axis, ignore_index, reduction, True, False, return_lse, None, n_threads)
        if result is not None:
            return result
    return fallbacks["cross_entropy"](
        logits, labels, axis, weight=weight, sample_weight=sample_weight, ignore_index=ignore_index,
        label_smoothing=label_smoothing, z_loss=z_loss, reduction=reduction, return_lse=return_lse,
        n_threads=n_threads, validate=validate)


def cross_entropy_grad(logits, labels, axis=-1, *, weight=None, sample_weight=None, ignore_index=-100,
                       label_smoothing=0.0, z_loss=0.0, reduction="mean", n_threads=None, validate=None, lse=None,
                       grad_output=None, out=None):
    if unweighted(weight, sample_weight, label_smoothing, z_loss) and lse is None and grad_output is None:
        result = entropy(logits, labels, axis, ignore_index, reduction, False, True, False, out, n_threads)
        if result is not None:
            return result
    return fallbacks["cross_entropy_grad"](
        logits, labels, axis, weight=weight, sample_weight=sample_weight, ignore_index=ignore_index,
        label_smoothing=label_smoothing, z_loss=z_loss, reduction=reduction, n_threads=n_threads, validate=validate,
        lse=lse, grad_output=grad_output, out=out)


def cross_entropy_with_grad(logits, labels, axis=-1, *, weight=None, sample_weight=None, ignore_index=-100,
                            label_smoothing=0.0, z_loss=0.0, reduction="mean", return_lse=False, n_threads=None,
                            validate=None, out=None):
    if unweighted(weight, sample_weight, label_smoothing, z_loss):
        result = entropy(logits, labels, axis, ignore_index, reduction, True, True, return_lse, out, n_threads)
        if result is not None:
            return result
    return fallbacks["cross_entropy_with_grad"](
        logits, labels, axis, weight=weight, sample_weight=sample_weight, ignore_index=ignore_index,
        label_smoothing=label_smoothing, z_loss=z_loss, reduction=reduction, return_lse=return_lse,
        n_threads=n_threads, validate=validate, out=out)


def softmax_grad(grad_output, probs, axis=-1, *, where=None, out=None, n_threads=None):
    if where is None:
        result = normalized(FS_SOFTMAX_GRAD, grad_output, probs, axis, out, n_threads)
        if result is not None:
            return result
    return fallbacks["softmax_grad"](grad_output, probs, axis, where=where, out=out, n_threads=n_threads)


def log_softmax_grad(grad_output, log_probs, axis=-1, *, where=None, out=None, n_threads=None):
    if where is None:
        result = normalized(FS_LOG_SOFTMAX_GRAD, grad_output, log_probs, axis, out, n_threads)
        if result is not None:
            return result
    return fallbacks["log_softmax_grad"](grad_output, log_probs, axis, where=where, out=out, n_threads=n_threads)


def register(function):
    """Decorate a function of _api with the compiled public one of its name, which falls back on it."""
    fallbacks[function.__name__] = function
    public = globals()[function.__name__]
    public.__doc__ = function.__doc__
    public.__module__ = "fastsoftmax"
    return public


def set_bfloat16(int number):
    """Tell NumPy's number of bfloat16."""
    global bfloat16_number
    bfloat16_number = number


def set_fast(bint enabled):
    """Allow or forbid the fast path: it knows no backend but this one."""
    global fast_path_open
    fast_path_open = enabled


# Control.

def set_default_threads(int n_threads):
    """Set the threads of calls that name no number; 0: OpenMP's own."""
    global default_threads
    default_threads = n_threads


def num_threads(int n_threads):
    """Give the threads that a call for so many may use; 0: for OpenMP's own number."""
    return min(n_threads or fs_default_threads(), fs_thread_limit())


def has_openmp():
    """Whether the core was built with OpenMP."""
    return bool(fs_openmp())


def isa():
    """Name of the ISA whose kernels run."""
    return fs_isa().decode()


def supported_isas():
    """Names of the ISAs that this machine can run, best first."""
    names = []
    while fs_supported_isa(len(names)) is not NULL:
        names.append(fs_supported_isa(len(names)).decode())
    return names


def _exp(cnp.ndarray x not None):
    """Compute the kernels' exponential of a C-contiguous float32 or float64 array: for the tests."""
    cdef cnp.ndarray out = empty_like(x)
    fs_exp(computing_dtype(x), cnp.PyArray_DATA(x), cnp.PyArray_DATA(out), cnp.PyArray_SIZE(x))
    return out


def _log1p(cnp.ndarray x not None):
    """Compute the kernels' log1p of a C-contiguous float32 or float64 array of numbers >= 0: for the tests."""
    cdef cnp.ndarray out = empty_like(x)
    fs_log1p(computing_dtype(x), cnp.PyArray_DATA(x), cnp.PyArray_DATA(out), cnp.PyArray_SIZE(x))
    return out


def _set_cache_size(int64_t size):
    """Let outputs be written as on a machine with a last-level cache of size bytes; negative: as on this one."""
    fs_set_cache_size(size)


def _select_isa(name):
    cdef bytes encoded = name.encode()
    if fs_select_isa(encoded) != FS_OK:
        raise ImportError(f"FASTSOFTMAX_ISA={name!r} is not to be had here: expected one of "
                          f"{', '.join(supported_isas())}")


if not supported_isas():
    raise ImportError("fastsoftmax was built for other instruction sets alone than this machine has (FASTSOFTMAX_ISAS)")
if os.environ.get("FASTSOFTMAX_ISA"):
    _select_isa(os.environ["FASTSOFTMAX_ISA"])
