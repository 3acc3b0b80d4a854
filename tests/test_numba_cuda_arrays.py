"""Numba device arrays at the public functions' doors, and what stands for them inside."""

import operator
from pathlib import Path

import numpy as np
import pytest

import fastsoftmax
import numba_arrays
import oracles
from oracles import NAMES

EMULATION = Path(__file__).parent / "cuda_emulation"

pytestmark = numba_arrays.QUIET


@pytest.fixture(scope="module")
def gpu():
    return numba_arrays.found()


@pytest.fixture(scope="module")
def put(gpu):
    """Give what makes a NumPy array one of those that stand for Numba's."""
    return lambda x: gpu.backend.DeviceArray.of(gpu.put(x))


class TestDoors:
    @pytest.mark.parametrize("name", NAMES)
    def test_integers_are_computed_in_float64(self, gpu, name):
        for dtype in ("bool", "int8", "uint8", "int32", "uint64"):
            x = np.random.default_rng(0).integers(0, 2 if dtype == "bool" else 100, (3, 4)).astype(dtype)
            if dtype != "bool":
                x[1, 3], x[2, :2] = np.iinfo(dtype).min, np.iinfo(dtype).max
            gpu.check(name, gpu(name, x, 0), x, 0)

    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0)])
    def test_empty(self, gpu, name, shape):
        for dtype in ("float32", "float16", "int64"):
            x = np.zeros(shape, dtype)
            for axis in (0, -1, None):
                got = gpu(name, x, axis)
                expected = getattr(fastsoftmax, name)(x, axis)
                assert got.dtype == expected.dtype
                np.testing.assert_array_equal(got, expected)

    @pytest.mark.parametrize("name", NAMES)
    def test_numbers(self, gpu, name):
        for axis in (-1, 0, None):
            got = gpu(name, np.array(3, "float32"), axis)
            assert got.shape == ()
            assert got == {"softmax": 1, "log_softmax": 0, "logsumexp": 3}[name]

    @pytest.mark.parametrize("axis", [0, -1, (0, 2), None])
    def test_masks_broadcast(self, gpu, axis):
        x = oracles.normal((2, 3, 4), "float32")
        for shape in [(2, 3, 4), (4,), (3, 1), (2, 1, 1), ()]:
            where = np.random.default_rng(3).random(shape) < 0.6
            got = gpu("log_softmax", x, axis, where=where)
            gpu.check("log_softmax", got, x, axis, where)
            oracles.assert_same_bits(gpu("log_softmax", x, axis, where=where.tolist()), got)

    @pytest.mark.parametrize("axis", [0, (0, 2), None])
    def test_shape_sign_and_out_of_logsumexp(self, gpu, axis):
        for dtype in ("float32", "bfloat16"):
            x = oracles.normal((2, 3, 4), dtype)
            x[0, 0, 0], x[1], x[:, 2] = np.nan, -np.inf, np.inf
            for keepdims in (False, True):
                got, sign = gpu("logsumexp", x, axis, keepdims=keepdims, return_sign=True)
                expected = fastsoftmax.logsumexp(x, axis, keepdims=keepdims, return_sign=True)
                assert got.shape == sign.shape == np.shape(expected[0])
                assert sign.dtype == x.dtype
                np.testing.assert_array_equal(sign.astype("f4"), np.asarray(expected[1], "f4"))
                out = gpu.put(np.full(got.shape, 7, x.dtype))
                assert fastsoftmax.logsumexp(gpu.put(x), axis, keepdims=keepdims, out=out) is out
                oracles.assert_same_bits(gpu.get(out), got)

    def test_out_may_overlap_the_input(self, gpu):
        """Any way but exactly: as if there were no overlap."""
        values = oracles.normal((13,), "float32")
        for first, last in [(0, 1), (1, 0), (0, 3)]:
            buffer = gpu.put(values)
            x, out = (buffer[i : i + 10].reshape(2, 5) for i in (first, last))
            expected = gpu("softmax", values[first : first + 10].reshape(2, 5))
            assert fastsoftmax.softmax(x, out=out) is out
            oracles.assert_same_bits(gpu.get(out), expected)

    def test_the_same_array_twice(self, gpu):
        g = oracles.normal((3, 4), "float32")
        array = gpu.put(g)
        got = gpu.get(fastsoftmax.softmax_grad(array, array))
        np.testing.assert_allclose(got, fastsoftmax.softmax_grad(g, g), rtol=1e-6)

    def test_results_are_on_the_stream_of_the_input(self, gpu):
        stream = gpu.cuda.stream()
        x = gpu.put(oracles.normal((3, 4), "float32")).bind(stream)
        assert fastsoftmax.softmax(x).stream is stream
        assert fastsoftmax.cross_entropy(x, [0, 1, 2]).stream is stream

    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            (
                {"labels": np.zeros(3, int)},
                TypeError,
                r"labels: expected an array on the GPU.*got numpy",
            ),
            ({"weight": np.ones(4)}, TypeError, r"weight: expected an array on the GPU.*got numpy"),
            ({"labels": [0, 1]}, ValueError, r"labels: expected shape \(3,\)"),
            ({"labels": ["a", "b", "c"]}, TypeError, "expected real numbers beside an array on a GPU, got dtype <U1"),
            (
                {"out": np.zeros((3, 4), "f4")},
                TypeError,
                r"out: expected a numba\.cuda\..*Array, as the first argument is, got numpy",
            ),
        ],
    )
    def test_errors(self, gpu, arguments, error, message):
        x = gpu.put(oracles.normal((3, 4), "float32"))
        with pytest.raises(error, match=message):
            fastsoftmax.cross_entropy_grad(x, **{"labels": [0, 1, 2], **arguments})

    def test_errors_of_out(self, gpu):
        x = gpu.put(oracles.normal((3, 4), "float32"))
        for shape, dtype, error in [((4, 3), "f4", ValueError), ((3, 4), "f8", TypeError)]:
            with pytest.raises(error, match="out: expected"):
                fastsoftmax.softmax(x, out=gpu.put(np.zeros(shape, dtype)))
        with pytest.raises(TypeError, match="out: expected a NumPy array, got"):
            fastsoftmax.softmax(np.zeros((3, 4), "f4"), out=x)

    def test_what_there_is_no_kernel_for(self, gpu):
        x = gpu.put(np.ones((3, 4)))
        with pytest.raises(TypeError, match=r"b: not supported beside a numba\.cuda\..*Array"):
            fastsoftmax.logsumexp(x, b=[1, 2, 3, 4])
        with pytest.raises(TypeError, match="x: expected a real or integer dtype, got complex128"):
            fastsoftmax.logsumexp(gpu.put(np.ones(3, complex)))
        with pytest.raises(TypeError, match="x: expected a real or integer dtype, got complex128"):
            fastsoftmax.softmax(gpu.put(np.ones(3, complex)))
        with pytest.raises(TypeError, match="byte order"):
            fastsoftmax.softmax(gpu.put(np.ones(3, ">f4")))


class TestDeviceArray:
    SHAPE = (2, 3, 2, 1, 4)

    def views(self, x):
        """Ways to look at an array of SHAPE, of which some have more dimensions than a kernel."""
        return {
            "C": x,
            "transposed": x.transpose(),
            "no two dimensions merge": x.transpose(4, 1, 3, 0, 2),
            "one dimension": x.reshape(-1),
            "other dimensions": x.reshape(6, 8),
            "copied to be reshaped": x.transpose(1, 0, 2, 3, 4).reshape(3, 16),
        }

    def test_views_and_copies(self, put):
        x = oracles.normal(self.SHAPE, "float32")
        expected = self.views(x)
        for name, view in self.views(put(x)).items():
            same = expected[name]
            np.testing.assert_array_equal(view.get(), same, err_msg=name)
            assert view.strides == same.strides
            assert view.flags.c_contiguous == same.flags.c_contiguous
            for order in "KC":
                copy = view.copy(order)
                steps = [s for s, n in zip(same.copy(order).strides, same.shape, strict=True) if n > 1]
                assert [s for s, n in zip(copy.strides, copy.shape, strict=True) if n > 1] == steps
                np.testing.assert_array_equal(copy.get(), same)
                assert not np.may_share_memory(copy, view)
            assert np.empty_like(view).shape == same.shape

    def test_broadcast(self, put):
        x = oracles.normal((3, 1), "float64")
        view = np.broadcast_to(put(x), (2, 3, 4))
        assert view.strides == np.broadcast_to(x, (2, 3, 4)).strides
        np.testing.assert_array_equal(view.get(), np.broadcast_to(x, (2, 3, 4)))
        assert np.atleast_1d(put(np.array(2.0))).shape == (1,)
        assert np.ndim(view) == 3

    @pytest.mark.parametrize("source", ["bool", "int8", "uint16", "int64", "uint64", "float32", "bfloat16"])
    def test_conversions(self, put, source):
        x = (np.arange(6) * 29).astype(oracles.dtype_of(source))
        for target in ("int64", "float64", "float32", "float16", "bfloat16"):
            if source in ("float32", "bfloat16") and target == "int64":
                continue
            oracles.assert_same_bits(put(x).astype(oracles.dtype_of(target)).get(), x.astype(oracles.dtype_of(target)))
        assert put(x).astype(x.dtype, copy=False).dtype == x.dtype

    def test_rounding_of_bfloat16(self, put):
        """To nearest, ties to even, NaN to NaN and the largest to infinity."""
        bits = np.array([0x3F808000, 0x3F818000, 0x3F808001, 0x7F7FFFFF, 0x7F800000, 0xFF800001, 0x7FFFFFFF], "u4")
        x = np.append(bits, np.arange(0x80000000, 0x80030000, 0x2F01, dtype="u4")).view("f4")
        bfloat16 = oracles.dtype_of("bfloat16")
        got, expected = put(x).astype(bfloat16).get(), x.astype(bfloat16)
        nan = np.isnan(x)
        assert np.isnan(got[nan].astype("f4")).all()
        oracles.assert_same_bits(got[~nan], expected[~nan])

    def test_operators(self, put):
        a, b = np.array([[1, -2, 3]]), np.array([[3], [-2]])
        for name in ("lt", "le", "gt", "ge", "eq", "ne", "sub", "mul", "and_"):
            compute = getattr(operator, name)
            for x, y in [(a, b), (a, 3), (b, np.int64(-2))]:
                beside = put(y) if isinstance(y, np.ndarray) else y
                oracles.assert_same_bits(compute(put(x), beside).get(), compute(x, y))
        x = put(a)
        x ^= np.int64(5)
        x &= put(np.array([[7, -1, 2]], "i1"))
        np.testing.assert_array_equal(x.get(), (a ^ 5) & [[7, -1, 2]])
        np.testing.assert_array_equal((~put(a == 3)).get(), a != 3)

    def test_several_blocks(self, put):
        """Each entry is met once."""
        x = put(np.arange(5000))
        x ^= np.int64(5)
        np.testing.assert_array_equal(x.get(), np.arange(5000) ^ 5)

    def test_assignment(self, put):
        for dtype in ("float32", "bfloat16", "int64"):
            x = np.arange(12).reshape(3, 4).astype(oracles.dtype_of(dtype))
            array, mask = put(x), x % np.asarray(3, x.dtype) == 0
            array[put(mask)] = 7
            np.testing.assert_array_equal(array.get(), np.where(mask, 7, x.astype("f8")))
            array[...] = put(x)
            np.testing.assert_array_equal(array.get(), x)
            array.transpose()[...] = 5
            np.testing.assert_array_equal(array.get(), np.full((3, 4), 5))

    def test_made_from_sequences(self, put):
        beside = put(np.zeros(1))
        for values in ([1, 2, 3], [[True], [False]], 2.5, []):
            oracles.assert_same_bits(np.asarray(values, like=beside).get(), np.asarray(values))
        np.testing.assert_array_equal(np.zeros((2, 3), np.float32, like=beside).get(), np.zeros((2, 3)))

    def test_numba_arrays_of_the_same_memory(self, gpu, put):
        for dtype in ("float32", "bfloat16"):
            x = oracles.normal((3, 4), dtype)
            array = put(x)
            given = array.numba
            assert type(given) is gpu.type
            assert given.dtype == x.dtype
            array[...] = 3
            np.testing.assert_array_equal(gpu.get(given).astype("f4"), np.full((3, 4), 3))

    def test_no_way_to_look_at_an_array_reads_it(self, gpu, run_python):
        """Or writes it: where it is claimed to be, there is no memory."""
        run_python(
            """
            import numpy as np
            from fastsoftmax._layout import Order, arrange, output_like, same_elements
            from fastsoftmax._arguments import check_out
            from fastsoftmax.backends.numba_cuda.arrays import DeviceArray, _shadow

            x = DeviceArray(_shadow(1 << 20, (4, 5, 6), (320, 64, 8), np.dtype("f8")), None, 0, None)
            for view in (x, x.transpose(2, 0, 1), np.broadcast_to(x, (2, 4, 5, 6)), x.view("i8"), np.atleast_1d(x)):
                assert np.may_share_memory(view, x)
                assert same_elements(view, view)
                if view.strides[0]:
                    check_out(view, x, view.shape, view.dtype)
            assert Order((0, 1), (2,), ()).view(x).shape == (20, 6, 1)
            assert x.reshape(4, 1, 5, 6).shape == (4, 1, 5, 6)
            source, order = arrange(x, (2,))
            assert source is x
            assert output_like(x, order, x, [x]) is x
            """,
            NUMBA_ENABLE_CUDASIM="1",
        )


@pytest.mark.skipif(not EMULATION.exists(), reason="the stand-in for CuPy is in the checkout alone")
def test_cupy_arrays(gpu, run_python):
    """On the stand-in for CuPy, in whose memory the simulator's kernels work; a process of its own."""
    run_python(
        """
        import sys, warnings
        sys.path[:0] = sys.argv[1:]
        warnings.simplefilter("ignore")
        import cupy, fastsoftmax, oracles
        import numpy as np

        fastsoftmax.set_backend("numba_cuda")
        assert fastsoftmax.get_backend("gpu") == "numba_cuda"
        for dtype in ("float32", "bfloat16"):
            x = oracles.normal((3, 10), dtype)
            array = cupy.asarray(x)
            for name in oracles.NAMES:
                for axis in (0, 1):
                    got = getattr(fastsoftmax, name)(array, axis)
                    assert isinstance(got, cupy.ndarray)
                    oracles.check(name, cupy.asnumpy(got), x, axis)
            assert fastsoftmax.softmax(array[::-1, ::-2], out=array[:, 5:]) is not None
            labels = [1, 9, -100]
            for given in ({}, {"label_smoothing": 0.1, "weight": [1.0] * 10}, {"sample_weight": [1.0, 2, 3]}):
                for reduction in ("mean", "none"):
                    got = fastsoftmax.cross_entropy_with_grad(cupy.asarray(x), labels, reduction=reduction, **given)
                    expected = fastsoftmax.cross_entropy_with_grad(x, labels, reduction=reduction, **given)
                    for one, same in zip(got, expected):
                        np.testing.assert_allclose(
                            cupy.asnumpy(one).astype("f8"), np.asarray(same, "f8"), rtol=0.01, atol=1e-6
                        )
        assert not cupy.launches
        """,
        EMULATION,
        EMULATION.parent,
        timeout=100,
        NUMBA_ENABLE_CUDASIM="1",
    )
