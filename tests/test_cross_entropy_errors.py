"""Wrong options of cross-entropy: which exception, what it says, and that nothing is written."""

import itertools

import numpy as np
import pytest

from fastsoftmax import cross_entropy, cross_entropy_grad, cross_entropy_with_grad

pytestmark = pytest.mark.usefixtures("backend")

FUNCTIONS = [cross_entropy, cross_entropy_grad, cross_entropy_with_grad]
OF_THE_GRADIENT_ALONE = ("lse", "grad_output")


class Thing:
    """No array."""


def refused(error, function, match, **kwargs):
    """Call on logits of shape (5, 3): nothing may be written. Returns what the error says."""
    kwargs.setdefault("labels", np.zeros(5, int))
    out = np.full((5, 3), 7.0)
    if function is not cross_entropy:
        kwargs["out"] = out
    with pytest.raises(error, match=match) as caught:
        function(np.zeros((5, 3)), **kwargs)
    assert np.all(out == 7)
    return str(caught.value)


RIGHT_SHAPES = {"weight": (3,), "sample_weight": (5,), "lse": (5,), "grad_output": (5,), "labels": (5, 3)}
# Each array that a function takes, with the shape that fits logits of shape (5, 3).
ARRAYS = [
    pytest.param(function, name, shape, id=f"{function.__name__}-{name}")
    for function in FUNCTIONS
    for name, shape in RIGHT_SHAPES.items()
    if function is cross_entropy_grad or name not in OF_THE_GRADIENT_ALONE
]


@pytest.mark.parametrize(("function", "name", "right"), ARRAYS)
class TestArrays:
    def test_shapes(self, function, name, right):
        wrong = {(4,), (3,), (5,), (1,), (), (5, 1), (1, 3), (5, 3), (5, 4), (3, 5), (5, 3, 1)} - {right}
        if name == "labels":
            wrong -= {(5,)}
        if name == "grad_output":
            wrong -= {()}
        for shape in wrong:
            said = refused(ValueError, function, name, reduction="none", **{name: np.ones(shape, int)})
            assert str(right) in said
            assert str(shape) in said

    @pytest.mark.parametrize("dtype", ["complex64", "object", "<U1", "datetime64[s]"])
    def test_dtypes(self, function, name, right, dtype):
        said = refused(TypeError, function, name, reduction="none", **{name: np.zeros(right, dtype)})
        assert any(word in said for word in (dtype, np.dtype(dtype).name))

    def test_types(self, function, name, right):
        for wrong in (np.ma.ones(right), Thing()):
            refused(TypeError, function, name, reduction="none", **{name: wrong})


@pytest.mark.parametrize("function", FUNCTIONS)
class TestNumbers:
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("label_smoothing", -1e-9),
            ("label_smoothing", 1.0000001),
            ("label_smoothing", np.nan),
            ("label_smoothing", -np.inf),
            ("z_loss", np.nan),
            ("z_loss", np.inf),
            ("z_loss", -np.inf),
        ],
    )
    def test_ranges(self, function, name, value):
        for labels in (np.zeros(5, int), np.zeros((5, 3))):
            said = refused(ValueError, function, name, labels=labels, **{name: value})
            assert "expected" in said
            assert str(float(value)) in said

    @pytest.mark.parametrize("name", ["label_smoothing", "z_loss"])
    @pytest.mark.parametrize("value", ["0.1", None, [0.1, 0.2], 0.1j, np.zeros(3)])
    def test_no_numbers(self, function, name, value):
        refused((TypeError, ValueError), function, name, **{name: value})

    def test_numbers_of_every_kind(self, function):
        x = np.zeros((2, 3))
        for name, value in itertools.product(["label_smoothing", "z_loss"], [0, 1]):
            expected = function(x, [0, 1], **{name: float(value)})
            for same in (value, np.float32(value), np.int8(value), np.array(float(value)), bool(value)):
                np.testing.assert_equal(function(x, [0, 1], **{name: same}), expected)

    def test_saved_lse_and_upstream_belong_to_the_gradient(self, function):
        for name in OF_THE_GRADIENT_ALONE:
            if function is not cross_entropy_grad:
                refused(TypeError, function, name, **{name: np.ones(5)})

    def test_labels_are_checked_beside_any_option(self, function):
        for given in ({"weight": np.ones(3)}, {"sample_weight": np.ones(5)}, {"label_smoothing": 0.1}, {"z_loss": 0.1}):
            for label in (3, -1):
                said = refused(IndexError, function, str(label), labels=[0, 1, label, 0, 0], **given)
                assert "2" in said  # the position


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_gradient_of_a_reduced_loss_takes_one_number(reduction):
    for shape in ((5,), (1,), (5, 3)):
        said = refused(ValueError, cross_entropy_grad, "grad_output", reduction=reduction, grad_output=np.ones(shape))
        assert "()" in said
        assert str(shape) in said


@pytest.mark.parametrize("name", ["sample_weight", "lse", "grad_output"])
def test_one_dimensional_logits_take_scalars(name):
    with pytest.raises(ValueError, match=name) as caught:
        cross_entropy_grad(np.zeros(3), 0, reduction="none", **{name: np.ones(1)})
    assert "()" in str(caught.value)
    assert "(1,)" in str(caught.value)
