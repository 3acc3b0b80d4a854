"""What the arrays of PyTorch, JAX, pandas and xarray have of their own: gradients, tracers, labels, dimensions."""

import numpy as np
import pytest

import fastsoftmax
import libraries
import oracles
from libraries import example

X = example("softmax")["x"]


class TestTorch:
    @pytest.fixture(autouse=True)
    def torch(self):
        libraries.library("torch.Tensor")
        return pytest.importorskip("torch", reason="torch is not installed")

    def test_a_tensor_that_requires_grad(self, torch):
        x = torch.from_numpy(X.copy()).requires_grad_()
        with pytest.raises(TypeError, match=r"x: a tensor that requires grad .* fastsoftmax\.integrations\.torch"):
            fastsoftmax.softmax(x)
        with pytest.raises(TypeError, match=r"labels: .*integrations"):
            fastsoftmax.cross_entropy(X, x)
        with pytest.raises(TypeError, match=r"out: .*integrations"):
            fastsoftmax.softmax(x.detach(), out=x)
        with torch.no_grad():
            oracles.assert_same_bits(fastsoftmax.softmax(x).numpy(), fastsoftmax.softmax(X))
        got = fastsoftmax.softmax(x.detach())
        assert not got.requires_grad
        assert got.grad_fn is None

    def test_what_was_saved_for_a_backward_pass_is_not_overwritten_unseen(self, torch):
        x = torch.zeros(3, requires_grad=True)
        y = x.exp()  # saves its result
        fastsoftmax.softmax(y.detach(), out=y.detach())
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.sum().backward()

    def test_inference_mode(self, torch):
        with torch.inference_mode():
            x = torch.from_numpy(X.copy()) + 0
            assert fastsoftmax.softmax(x, out=x) is x
        oracles.assert_same_bits(x.numpy(), fastsoftmax.softmax(X))

    def test_views(self, torch):
        x = torch.randn(4, 6, 5, generator=torch.Generator().manual_seed(1))
        for view in (x[::2], x[:, ::2, 1:], x.permute(2, 0, 1), x[0].T, x[:, :1].expand(4, 6, 5)):
            for axis in (0, -1):
                expected = fastsoftmax.softmax(view.numpy(), axis=axis)
                oracles.assert_same_bits(fastsoftmax.softmax(view, axis=axis).numpy(), expected)
        memory = torch.zeros(4, 6, 5)
        out = memory[:, ::2]
        assert fastsoftmax.softmax(x[:, ::2], out=out) is out
        oracles.assert_same_bits(out.numpy(), fastsoftmax.softmax(x[:, ::2].numpy()))
        assert not memory[:, 1::2].any()

    def test_bits_that_say_negate(self, torch):
        y = torch.complex(torch.ones(2), torch.tensor([1.0, 2.0])).conj().imag
        assert y.is_neg()
        oracles.assert_same_bits(fastsoftmax.softmax(y).numpy(), fastsoftmax.softmax(np.array([-1, -2], "f4")))
        with pytest.raises(ValueError, match=r"out: .*negates"):
            fastsoftmax.softmax(torch.zeros(2), out=y)

    def test_an_inference_tensor_elsewhere(self, torch):
        with torch.inference_mode():
            out = torch.zeros(2)
        with pytest.raises(ValueError, match=r"out: .*inference_mode"):
            fastsoftmax.softmax(torch.zeros(2), out=out)
        assert not out.any()

    def test_what_is_no_tensor_or_has_no_numbers(self, torch):
        oracles.assert_same_bits(fastsoftmax.softmax(torch.Size([1, 2])), fastsoftmax.softmax([1, 2]))
        with pytest.raises(TypeError, match=r"x: expected a torch\.Tensor, got torch"):
            fastsoftmax.softmax(torch.nn.Linear(2, 2))
        with torch._subclasses.FakeTensorMode():
            fake = torch.zeros(2)
        with pytest.raises(TypeError, match=r"x: expected a tensor that NumPy can read, got .*FakeTensor"):
            fastsoftmax.softmax(fake)

    def test_refused(self, torch):
        dense = torch.zeros(2, 2)
        for x, what in ((dense.to_sparse(), "sparse_coo"), (dense.to("meta"), "meta")):
            with pytest.raises(TypeError, match=f"x: expected a dense tensor .*, got .*{what}"):
                fastsoftmax.softmax(x)
        with pytest.raises(TypeError, match=r"out: expected a torch\.Tensor, as the first argument is, got numpy"):
            fastsoftmax.softmax(dense, out=np.zeros((2, 2), "f4"))
        with pytest.raises(TypeError, match="x: expected a real or integer dtype, got complex64"):
            fastsoftmax.softmax(dense.to(torch.complex64))

    def test_logsumexp_of_complex_numbers(self, torch):
        x = torch.complex(torch.from_numpy(X.copy()), torch.ones(X.shape))
        oracles.assert_same_bits(fastsoftmax.logsumexp(x).numpy(), fastsoftmax.logsumexp(x.numpy()))

    def test_bfloat16_without_ml_dtypes(self, torch, monkeypatch):
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(ImportError, match=r"ml_dtypes: pip install .*fastsoftmax\[torch\]"):
            fastsoftmax.softmax(torch.zeros(2, dtype=torch.bfloat16))


class TestJax:
    @pytest.fixture(autouse=True)
    def jax(self):
        return pytest.importorskip("jax", reason="jax is not installed")

    def test_traced(self, jax):
        for transform in (jax.jit, jax.grad, jax.vmap):
            with pytest.raises(TypeError, match="x: a traced array has no data yet"):
                transform(fastsoftmax.logsumexp)(jax.numpy.zeros(3))

    def test_where_it_was(self, jax):
        x = jax.device_put(X)
        got = fastsoftmax.softmax(x)
        assert got.sharding == x.sharding
        assert fastsoftmax.logsumexp(x).devices() == x.devices()

    def test_no_array_of_data(self, jax):
        with pytest.raises(TypeError, match=r"x: expected a jax\.Array, got jax"):
            fastsoftmax.softmax(jax.ShapeDtypeStruct((2, 3), "float32"))


class TestPandas:
    @pytest.fixture(autouse=True)
    def pd(self):
        return pytest.importorskip("pandas", reason="pandas is not installed")

    @pytest.fixture
    def frame(self):
        return libraries.LIBRARIES["pandas"].make(X.copy())

    def test_labels_are_kept(self, pd, frame):
        got = fastsoftmax.softmax(frame, axis=0)
        assert got.index.equals(frame.index)
        assert got.columns.equals(frame.columns)
        assert (got.dtypes == "float32").all()
        over = fastsoftmax.logsumexp(frame, axis=0)
        assert over.index.equals(frame.columns)
        assert over.name is None
        over = fastsoftmax.logsumexp(frame, axis=1)
        assert over.index.equals(frame.index)
        kept = fastsoftmax.logsumexp(frame, axis=1, keepdims=True)
        assert kept.index.equals(frame.index)
        assert list(kept.columns) == [0]
        assert type(fastsoftmax.logsumexp(frame, axis=None)) is np.float32
        series = fastsoftmax.softmax(frame["class2"])
        assert series.name == "class2"
        assert series.index.equals(frame.index)
        loss, grad = fastsoftmax.cross_entropy_with_grad(
            frame, pd.Series([0] * 5, index=list("edcba")), reduction="none"
        )
        assert loss.index.equals(frame.index)
        assert grad.columns.equals(frame.columns)
        assert loss.name is None

    def test_dtypes_of_its_own(self, pd):
        x = pd.DataFrame({"a": pd.array([1, None, 3], "Int64"), "b": pd.array([1.5, 2.5, 0.5], "Float32")})
        got = fastsoftmax.softmax(x)
        values = np.array([[1, 1.5], [np.nan, 2.5], [3, 0.5]], order="F")  # as a frame has them
        oracles.assert_same_bits(got.to_numpy(), fastsoftmax.softmax(values))
        oracles.assert_same_bits(
            fastsoftmax.softmax(x["b"]).to_numpy(), fastsoftmax.softmax(np.array([1.5, 2.5, 0.5], "f4"))
        )
        mixed = pd.DataFrame({"a": np.zeros(2, "f4"), "b": np.ones(2, "i8")})
        oracles.assert_same_bits(fastsoftmax.softmax(mixed).to_numpy(), fastsoftmax.softmax(np.array([[0, 1]] * 2)))
        for wrong in (pd.Series(["a", "b"]), pd.Series(["a", "b"], dtype="category"), pd.Series([1, "b"])):
            with pytest.raises(TypeError, match=r"x: expected columns of numbers, got dtype .* in None"):
                fastsoftmax.softmax(wrong)

    def test_nullable_labels_and_masks(self, pd):
        labels = pd.Series([0, 6, 2, 1, 3], dtype="Int64")
        assert fastsoftmax.cross_entropy(X, labels) == fastsoftmax.cross_entropy(X, labels.tolist())
        where = pd.Series([True, False] * 3 + [True], dtype="boolean")
        oracles.assert_same_bits(fastsoftmax.softmax(X, where=where), fastsoftmax.softmax(X, where=where.tolist()))

    def test_columns_of_different_kinds(self, pd):
        numbers = pd.array([1, 2], "Int64")
        x = pd.DataFrame({"a": [True, False], "b": [0.5, 2]})
        expected = fastsoftmax.softmax(np.array([[1, 0.5], [0, 2]], order="F"))
        oracles.assert_same_bits(fastsoftmax.softmax(x).to_numpy(), expected)
        for other in ([1j, 2], np.array(["1.5", "2"], object), pd.to_timedelta([1, 2]), pd.to_datetime([1, 2])):
            with pytest.raises(TypeError, match=r"x: expected columns of numbers, got dtype .* in 'b'"):
                fastsoftmax.softmax(pd.DataFrame({"a": numbers, "b": other}))

    def test_factors_that_add_what_has_no_labels(self, pd):
        x = pd.Series([0.0, 0.0], index=["cat", "dog"])
        with pytest.raises(ValueError, match=r"b: expected a shape that broadcasts to \(2,\), that of x, got \(2, 2\)"):
            fastsoftmax.logsumexp(x, b=[[1.0, 1.0], [2.0, 2.0]])
        assert fastsoftmax.logsumexp(x, b=[1.0, 3.0]) == fastsoftmax.logsumexp(x.to_numpy(), b=[1.0, 3.0])

    def test_an_axis_of_size_1_that_is_reduced(self, pd):
        x = pd.DataFrame({"a": [1.0, 2.0]})
        assert list(fastsoftmax.logsumexp(x, axis=1, keepdims=True).columns) == [0]
        assert list(fastsoftmax.softmax(x, axis=1).columns) == ["a"]

    def test_what_is_no_frame_nor_series(self, pd):
        assert type(fastsoftmax.softmax(pd.Index([1.0, 2.0]))) is np.ndarray


class TestXArray:
    @pytest.fixture(autouse=True)
    def xr(self):
        return pytest.importorskip("xarray", reason="xarray is not installed")

    @pytest.fixture
    def x(self, xr):
        return xr.DataArray(
            np.random.default_rng(2).normal(size=(3, 4, 4)),
            {
                "time": [10, 20, 30],
                "class": list("abcd"),
                "run": 7,
                "area": (("time", "class"), np.ones((3, 4))),
                "height": ("level", np.arange(4.0)),
            },
            ("time", "class", "level"),
            "logits",
            {"units": "none"},
        )

    def test_axis_by_name(self, x):
        for axis, number in (("class", 1), (("time", "level"), (0, 2)), (["level"], 2), (("level", 0), (0, 2))):
            got = fastsoftmax.softmax(x, axis=axis)
            oracles.assert_same_bits(got.data, fastsoftmax.softmax(x.data, axis=number))
            assert got.dims == x.dims
            assert set(got.coords) == set(x.coords)
            assert got.name == "logits"
            assert got.attrs == {}
        with pytest.raises(
            ValueError, match=r"axis: expected one of the dimensions \('time', 'class', 'level'\), got 'x'"
        ):
            fastsoftmax.softmax(x, axis="x")
        with pytest.raises(TypeError, match="axis"):
            fastsoftmax.softmax(x.data, axis="class")

    def test_what_a_reduction_leaves(self, x):
        got = fastsoftmax.logsumexp(x, axis="class")
        assert got.dims == ("time", "level")
        assert set(got.coords) == {"time", "run", "height"}
        got = fastsoftmax.logsumexp(x, axis="class", keepdims=True)
        assert got.dims == x.dims
        assert set(got.coords) == {"time", "run", "height"}
        got = fastsoftmax.logsumexp(x, axis=None)
        assert got.dims == ()
        assert set(got.coords) == {"run"}

    def test_the_others_go_by_the_names_of_their_dimensions(self, xr, x):
        labels = xr.DataArray(np.arange(12).reshape(4, 3) % 4, dims=("level", "time"))
        expected = fastsoftmax.cross_entropy(x.data, labels.data.T, axis=1, reduction="none")
        got = fastsoftmax.cross_entropy(x, labels, axis="class", reduction="none")
        oracles.assert_same_bits(got.data, expected)
        assert got.dims == ("time", "level")
        where = xr.DataArray(np.arange(16).reshape(4, 4) % 3 > 0, dims=("level", "class"))
        expected = fastsoftmax.softmax(x.data, axis=1, where=where.data.T[np.newaxis])
        oracles.assert_same_bits(fastsoftmax.softmax(x, axis="class", where=where).data, expected)
        oracles.assert_same_bits(fastsoftmax.softmax(x, axis="class", where=where.data.T).data, expected)
        factors = xr.DataArray([1.0, 2.0, 3.0], dims="time")
        expected = fastsoftmax.logsumexp(x.data, axis=1, b=np.array([1.0, 2.0, 3.0]).reshape(3, 1, 1))
        oracles.assert_same_bits(fastsoftmax.logsumexp(x, axis="class", b=factors).data, expected)
        match = r"labels: expected the dimensions \(.time., .level.\) or \(.*, got \(.day., .level.\)"
        with pytest.raises(ValueError, match=match):
            fastsoftmax.cross_entropy(x, labels.rename(time="day").transpose(), axis="class")

    @pytest.mark.parametrize(
        ("function", "name", "dims"),
        [
            ("cross_entropy", "weight", "time"),
            ("cross_entropy", "sample_weight", "class"),
            ("cross_entropy", "labels", "class"),
            ("cross_entropy_grad", "lse", "class"),
            ("cross_entropy_grad", "grad_output", "class"),
            ("logsumexp", "out", "class"),
        ],
    )
    def test_the_others_have_the_right_dimensions(self, xr, function, name, dims):
        """By name: where all sizes are equal, no shape tells."""
        square = xr.DataArray(X[:3, :3].copy(), dims=("time", "class"))
        given = {} if function == "logsumexp" else {"labels": xr.DataArray([0, 1, 2], dims="time")}
        if name == "grad_output":
            given["reduction"] = "none"
        value = np.array([0, 1, 2]) if name == "labels" else np.ones(3, "f4")
        right = {"class": "time", "time": "class"}[dims]
        getattr(fastsoftmax, function)(square, axis="class", **given | {name: xr.DataArray(value, dims=right)})
        with pytest.raises(ValueError, match=rf"{name}: expected the dimensions \(.*, got \('{dims}',\)"):
            getattr(fastsoftmax, function)(square, axis="class", **given | {name: xr.DataArray(value, dims=dims)})

    def test_factors_that_add_what_has_no_coordinates(self, xr):
        x = xr.DataArray(np.zeros(4), {"c": list("abcd")}, "c")
        with pytest.raises(ValueError, match=r"b: expected a shape that broadcasts to \(4,\)"):
            fastsoftmax.logsumexp(x, b=np.ones((4, 4)))

    def test_out(self, x):
        out = (x * 0).transpose("level", "time", "class")
        assert fastsoftmax.softmax(x, axis="class", out=out) is out
        oracles.assert_same_bits(out.transpose(*x.dims).data, fastsoftmax.softmax(x.data, axis=1))
        with pytest.raises(TypeError, match=r"out: expected an xarray\.DataArray"):
            fastsoftmax.softmax(x, out=x.data)

    def test_other_data_in_it(self, xr, x):
        with pytest.raises(TypeError, match=r"x: expected an xarray\.DataArray, got xarray"):
            fastsoftmax.softmax(xr.Dataset({"x": x}))
        inside = xr.DataArray(libraries.library("array API").make(X.copy()), dims=("row", "class"))
        oracles.assert_same_bits(fastsoftmax.softmax(inside).data, fastsoftmax.softmax(X))

    def test_coordinates_of_several_levels(self, xr):
        pd = pytest.importorskip("pandas", reason="pandas is not installed")
        levels = pd.MultiIndex.from_product([list("ab"), [1, 2]], names=("letter", "number"))
        x = xr.DataArray(X[:, :4], dims=("row", "class")).assign_coords(
            xr.Coordinates.from_pandas_multiindex(levels, "class")
        )
        assert fastsoftmax.softmax(x).indexes["class"].equals(levels)
        assert fastsoftmax.logsumexp(x, "row").indexes["class"].equals(levels)
        assert not fastsoftmax.logsumexp(x, "class").coords
