"""The functions inside a user's own compiled code."""

import functools

import numpy as np
import pytest

import fastsoftmax
import fastsoftmax.reference
import oracles

numba = pytest.importorskip("numba", reason="Numba is not installed")

SHAPES = [(1, 1), (3, 2), (5, 17), (40, 33), (300, 7), (2, 3000), (3000, 2), (0, 4), (4, 0)]


@functools.cache
def compiled(name, axis):
    """A function of fastsoftmax along a literal axis: (x), or (x, out)."""
    function = getattr(fastsoftmax, name)
    if axis == 0:
        return numba.njit(lambda x: function(x, 0)), numba.njit(lambda x, out: function(x, axis=0, out=out))
    return numba.njit(lambda x: function(x)), numba.njit(lambda x, out: function(x, axis=1, out=out))


def arrangements(x):
    """The same matrix in memory in several ways; the last are contiguous in none."""
    spread = np.zeros((2 * x.shape[0], 3 * x.shape[1]), x.dtype)[::2, ::3]
    spread[...] = x
    wide = np.zeros((x.shape[0], x.shape[1] + 3), x.dtype)[:, 1:-2]
    wide[...] = x
    yield x
    yield np.asfortranarray(x)
    yield np.ascontiguousarray(x[::-1])[::-1]
    yield wide
    yield wide.copy(order="F").T.copy(order="C").T
    yield spread


@pytest.mark.parametrize(("name", "dtype", "axis"), [("softmax", "float32", 0), ("log_softmax", "float64", 1)])
def test_normalized(name, dtype, axis):
    fresh, into = compiled(name, axis)
    for shape in SHAPES:
        x = oracles.normal(shape, dtype)
        for same in arrangements(x):
            before = same.copy()
            got = fresh(same)
            assert got.dtype == x.dtype
            assert np.array_equal(same, before)
            oracles.check(name, got, x, axis)
        for same, order in [(x, "C"), (np.asfortranarray(x), "C"), (np.repeat(x, 2, axis=1)[:, ::2], "F")]:
            out = np.full(shape, 7, dtype, order=order)
            into(same, out)
            oracles.check(name, out, x, axis)
        into(x, x)
        oracles.check(name, x, before, axis)


def test_no_text_is_compiled():
    """Numba's assignment of a whole array to another would compile that of an error: ten seconds of a first call."""
    from numba.core import event

    modules = set()

    class Listener(event.Listener):
        def on_start(self, start):
            modules.add(start.data["dispatcher"].py_func.__module__)

        def on_end(self, end):
            pass

    with event.install_listener("numba:compile", Listener()):
        numba.njit(lambda x: fastsoftmax.softmax(x, axis=1))(np.ones((4, 6), "float32")[::2, ::3])
        numba.njit(lambda x: fastsoftmax.log_softmax(x))(np.ones(6, "float32")[::3])
    assert "fastsoftmax.integrations.numba.arrays" in modules
    assert "numba.cpython.unicode" not in modules


@pytest.mark.parametrize("axis", [0, 1])
def test_logsumexp(axis):
    logsumexp, _ = compiled("logsumexp", axis)
    for shape in SHAPES:
        x = oracles.normal(shape, "float32")
        for same in arrangements(x):
            got = logsumexp(same)
            assert got.dtype == x.dtype
            if shape[axis]:
                oracles.check("logsumexp", got, x, axis)
            else:
                assert got.shape == (shape[1 - axis],)
                assert np.all(got == -np.inf)


def test_vectors():
    @numba.njit
    def all_of(x):
        return fastsoftmax.softmax(x), fastsoftmax.log_softmax(x, axis=-1), fastsoftmax.logsumexp(x, 0)

    for n in (0, 1, 2, 10, 33, 1000):
        x = oracles.normal(n, "float32")
        for same in (x, np.repeat(x, 2)[::2], x[::-1].copy()[::-1]):
            p, logs, lse = all_of(same)
            if n:
                oracles.check("softmax", p, x)
                oracles.check("log_softmax", logs, x)
                oracles.check("logsumexp", np.float32(lse), x)
            else:
                assert p.shape == logs.shape == (0,)
                assert lse == -np.inf


def test_special_values():
    inf, nan = np.inf, np.nan
    x = np.array([[inf, 0, 1], [nan, 0, inf], [-inf, -inf, -inf], [-inf, 0, 0], [1e30, -1e30, 0]], "float32")
    for name in ("softmax", "log_softmax", "logsumexp"):
        for axis in (0, 1):
            with np.errstate(all="ignore"):
                expected = getattr(fastsoftmax.reference, name)(x.astype("float64"), axis)
            np.testing.assert_allclose(compiled(name, axis)[0](x), expected, rtol=1e-6)


def test_fastmath_of_the_caller():
    """Is none of the kernels' concern: it would reorder their sums and forget NaN."""

    @numba.njit(fastmath=True)
    def both(x):
        return fastsoftmax.softmax(x, axis=1), fastsoftmax.logsumexp(x, axis=0)

    x = oracles.normal((50, 300), "float32")
    x[3, 4], x[5], x[6, 7] = np.nan, -np.inf, np.inf
    p, lse = both(x)
    oracles.check("softmax", p, x)
    oracles.check("logsumexp", lse, x, 0)


@pytest.mark.parametrize("offset", [-3, -1, 1, 3])
def test_an_out_that_overlaps_the_input_in_part(offset):
    x = oracles.normal(100, "float64")
    _, into = compiled("softmax", 0)
    one, other = x[max(offset, 0) : 97 + max(offset, 0)], x[max(-offset, 0) : 97 + max(-offset, 0)]
    before = x.copy()
    with pytest.raises(ValueError, match="out: expected the input itself or no part of it"):
        into(one, other)
    assert np.array_equal(x, before)
    into(x[:50], x[50:])
    oracles.check("softmax", x[50:], before[:50])


# Cross-entropy.


@numba.njit
def mean(x, y, w, e, z):
    return fastsoftmax.cross_entropy_with_grad(x, y, weight=w, label_smoothing=e, z_loss=z)


@numba.njit
def each(x, y, w, e, z):
    return fastsoftmax.cross_entropy_with_grad(x, y, 1, weight=w, label_smoothing=e, z_loss=z, reduction="none")


@numba.njit
def columns(x, y, w, e, z):
    loss, grad = fastsoftmax.cross_entropy_with_grad(x.T, y, axis=0, weight=w, z_loss=z, reduction="sum")
    return loss, grad.T


@numba.njit
def losses(x, y, w, e, z):
    return (
        fastsoftmax.cross_entropy(x, y, weight=w, z_loss=z, ignore_index=-100),
        fastsoftmax.cross_entropy(x, y, -1, weight=w, z_loss=z, reduction="none"),
    )


@pytest.mark.parametrize(
    ("function", "dtype", "reduction", "smoothing", "weighted", "everywhere"),
    [
        (mean, "float32", "mean", 0.1, True, False),
        (mean, "float64", "mean", 0.1, False, False),
        (each, "float32", "none", 0.1, False, True),
        (columns, "float64", "sum", 0.0, True, False),
        (columns, "float32", "sum", 0.0, False, False),
    ],
)
def test_cross_entropy_with_grad(function, dtype, reduction, smoothing, weighted, everywhere):
    tolerance = {"rtol": 1e-5 if dtype == "float32" else 1e-13, "atol": 1e-7 if dtype == "float32" else 1e-15}
    for shape, z_loss in [((1, 1), 0.0), ((5, 17), 0.25), ((40, 3), 0.0), ((600, 5), 0.25), ((3, 1000), 0.25)]:
        x, labels, weight = cross_entropy_case(shape, dtype, weighted)
        options = {"weight": weight, "label_smoothing": smoothing, "z_loss": z_loss, "reduction": reduction}
        expected = fastsoftmax.cross_entropy_with_grad(x, labels, **options)
        for same in arrangements(x) if everywhere else [x]:
            loss, grad = function(same, labels, weight, smoothing, z_loss)
            assert grad.dtype == x.dtype
            np.testing.assert_allclose(loss, expected[0], **tolerance)
            np.testing.assert_allclose(grad, expected[1], **tolerance)


@pytest.mark.parametrize("weighted", [False, True])
def test_cross_entropy(weighted):
    for shape in [(1, 1), (5, 17), (600, 5)]:
        x, labels, weight = cross_entropy_case(shape, "float32", weighted)
        options = {"weight": weight, "z_loss": 0.25}
        got = losses(x, labels.astype("int32"), weight, 0.0, 0.25)
        for value, reduction in zip(got, ("mean", "none"), strict=True):
            expected = fastsoftmax.cross_entropy(x, labels, reduction=reduction, **options)
            np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-7)


def cross_entropy_case(shape, dtype, weighted):
    labels = np.arange(shape[0]) % shape[1]
    labels[1::4] = -100
    return oracles.normal(shape, dtype), labels, np.linspace(0.5, 2, shape[1]).astype(dtype) if weighted else None


def test_nothing_counts():
    x = oracles.normal((4, 3), "float32")
    loss, grad = mean(x, np.full(4, -100), None, 0.0, 0.0)
    assert loss == 0
    assert not grad.any()
    loss, grad = mean(x[:0], np.zeros(0, int), None, 0.0, 0.0)
    assert loss == 0
    assert grad.shape == (0, 3)


def test_a_single_label():
    @numba.njit
    def both(x, label, out):
        return fastsoftmax.cross_entropy(x, label), *fastsoftmax.cross_entropy_with_grad(x, label, out=out)

    x = oracles.normal(7, "float64")
    out = np.empty(7)
    alone, loss, grad = both(x, 3, out)
    expected = fastsoftmax.cross_entropy_with_grad(x, 3)
    np.testing.assert_allclose([alone, loss], expected[0], rtol=1e-15)
    np.testing.assert_allclose(out, expected[1], rtol=1e-14)
    np.testing.assert_array_equal(grad, out)


@numba.njit
def in_place(x, y):
    return fastsoftmax.cross_entropy_with_grad(x, y, out=x)


@pytest.mark.parametrize("labels", [[0, 3, 1], [0, 1, -1], [2**40, 0, 0]])
def test_labels_out_of_range(labels):
    """Raise before anything is written."""
    x = oracles.normal((3, 3), "float32")
    before = x.copy()
    with pytest.raises(IndexError, match="label is out of range"):
        in_place(x, np.array(labels))
    assert np.array_equal(x, before)


def test_unsigned_labels():
    x = oracles.normal((3, 3), "float64")
    with pytest.raises(IndexError):
        losses(x, np.array([0, 1, 2**64 - 1], "uint64"), None, 0.0, 0.0)
    got = losses(x, np.array([0, 1, 2], "uint64"), None, 0.0, 0.0)
    np.testing.assert_allclose(got[0], fastsoftmax.cross_entropy(x, [0, 1, 2]), rtol=1e-15)


@numba.njit
def alone(x, labels):
    return fastsoftmax.cross_entropy(x, labels[0])


@numba.njit
def in_array(x, labels):
    return fastsoftmax.cross_entropy(x, labels)


@pytest.mark.parametrize("dtype", ["uint8", "uint32", "uint64", "int8"])
def test_a_label_of_any_integer_dtype(dtype):
    """Taken for what it is, alone and in an array: 156 is not -100 in eight bits."""
    x = oracles.normal((1, 300), "float32")
    for label in [0, 100, 156, 200, 2**16 - 100, 2**32 - 100, 2**64 - 100]:
        if label > np.iinfo(dtype).max:
            continue
        labels = np.array([label], dtype)
        if label < 300:
            expected = fastsoftmax.cross_entropy(x, labels)
            np.testing.assert_allclose(alone(x[0], labels), expected, rtol=1e-6)
            np.testing.assert_allclose(in_array(x, labels), expected, rtol=1e-6)
        else:
            with pytest.raises(IndexError):
                alone(x[0], labels)
            with pytest.raises(IndexError):
                in_array(x, labels)


def test_a_mean_of_weight_0_has_no_gradient():
    """Whatever the slices hold."""
    x = np.array([[np.inf, 0, 1], [np.nan, 1, 2], [1, 2, 3]], "float32")
    loss, grad = mean(x, np.zeros(3, int), np.array([0, 1, 1], "float32"), 0.0, 0.0)
    assert loss == 0
    assert not grad.any()


def test_wrong_sizes():
    x = np.zeros((3, 4), "float32")
    with pytest.raises(ValueError, match="labels"):
        mean(x, np.zeros(4, int), None, 0.0, 0.0)
    with pytest.raises(ValueError, match="weight"):
        mean(x, np.zeros(3, int), np.ones(3, "float32"), 0.0, 0.0)
    with pytest.raises(ValueError, match="out"):
        compiled("softmax", 1)[1](x, np.zeros((4, 3), "float32"))
    with pytest.raises(ValueError, match="label_smoothing"):
        mean(x, np.zeros(3, int), None, 1.5, 0.0)
    with pytest.raises(ValueError, match="z_loss"):
        mean(x, np.zeros(3, int), None, 0.0, np.inf)


def test_parallel():
    """In the body of a prange too, where each thread has a stack of its own."""

    @numba.njit(parallel=True)
    def rows(x, labels):
        out, loss = np.empty_like(x), np.empty(len(x), x.dtype)
        for i in numba.prange(len(x)):
            loss[i] = fastsoftmax.cross_entropy(x[i], labels[i])
            fastsoftmax.softmax(x[i], axis=0, out=out[i])
        return out, loss

    x = oracles.normal((500, 33), "float32")
    labels = np.arange(500) % 33
    out, loss = rows(x, labels)
    oracles.check("softmax", out, x)
    expected = fastsoftmax.cross_entropy(x, labels, reduction="none")
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


@pytest.fixture
def allocations():
    """Count what a second call of a compiled function allocates."""
    from numba.core.runtime import _nrt_python

    def count(function, *arguments):
        function(*arguments)
        before = _nrt_python.memsys_get_stats_alloc()
        function(*arguments)
        return _nrt_python.memsys_get_stats_alloc() - before

    _nrt_python.memsys_enable_stats()
    yield count
    _nrt_python.memsys_disable_stats()


def test_nothing_is_allocated_but_the_result(allocations):
    @numba.njit
    def numbers(x, y):
        fastsoftmax.softmax(x, axis=0, out=x)
        return fastsoftmax.logsumexp(x[0]) + fastsoftmax.cross_entropy(x, y)

    x, labels = oracles.normal((300, 40), "float32"), np.zeros(300, int)
    arguments = allocations(numba.njit(lambda x, y: 0), x, labels)  # what Numba itself keeps of them
    assert allocations(numba.njit(lambda x, y: np.empty(3)), x, labels) == arguments + 1
    assert allocations(numbers, x, labels) == arguments
    softmax, _ = compiled("softmax", 0)
    for array in arrangements(x):
        assert allocations(columns, array, labels, None, 0.0, 0.0) == arguments + 1
        assert allocations(softmax, array) == arguments  # one argument less, one result


CACHED = """
    import sys, json
    sys.path.insert(0, sys.argv[1])
    import users
    import numpy as np
    users.loss(np.zeros((4, 3)), np.zeros(4, np.int64))
    print(json.dumps([sum(users.loss.stats.cache_hits.values()), sum(users.loss.stats.cache_misses.values())]))
"""

USERS = """
import fastsoftmax
import numba

@numba.njit(cache=True)
def loss(x, labels):
    return fastsoftmax.cross_entropy(x, labels) + fastsoftmax.logsumexp(x, axis=0).sum()
"""


def test_cache_of_the_users_function(run_python, tmp_path):
    (tmp_path / "users.py").write_text(USERS)
    variables = {"NUMBA_CACHE_DIR": tmp_path / "cache"}
    assert run_python(CACHED, tmp_path, **variables).stdout.strip() == "[0, 1]"
    assert run_python(CACHED, tmp_path, **variables).stdout.strip() == "[1, 0]"


def test_importing_fastsoftmax_is_enough_and_does_not_import_numba(run_python):
    code = """
        import sys
        import fastsoftmax
        assert "numba" not in sys.modules
        import numba, numpy as np
        f = numba.njit(lambda x: fastsoftmax.softmax(x, axis=0))
        print(f(np.zeros(4)))
    """
    assert run_python(code).stdout.strip() == "[0.25 0.25 0.25 0.25]"
