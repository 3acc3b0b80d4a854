"""CuPy arrays: the cross-entropy family at its edges: wrong labels, slices that do not count, terms without weight."""

import itertools

import pytest

import gpu as helpers
import gpu_checks as checks

REDUCTIONS = ["mean", "sum", "none"]
KINDS = ["index", "ignored", "probabilities"]
# Layouts and sizes: rows of a few elements, of a warp, of two, of two blocks; columns of one chunk and of several.
CASES = [*(("rows", n) for n in (3, 10, 300, 1500, 17_000)), *(("columns", n) for n in (3, 10, 300, 1500))]


@pytest.fixture(scope="module")
def gpu(request):
    with helpers.found(request.config) as found:
        yield found


@pytest.mark.parametrize(("layout", "n"), CASES)
class TestEdges:
    @pytest.mark.parametrize("clusters", [True, False])
    @pytest.mark.parametrize("dtype", ["float32", "float16"])
    def test_labels_out_of_range(self, gpu, layout, n, dtype, clusters):
        """NaN in that slice alone; nothing is read where there is nothing."""
        wrong = [n, n + 1, -1, -101, 2**31, 2**40, -(2**62), 2**63 - 1, -(2**63)]
        for smoothing in [0, 0.1]:
            within = None if clusters else gpu.without_clusters()
            checks.labels_out_of_range(gpu, layout, n, wrong, dtype, smoothing, within)

    @pytest.mark.parametrize("special", ["nan", "inf", "-inf"])
    def test_slices_whose_softmax_is_nan(self, gpu, layout, n, special):
        """NaN whatever the weights, in that slice alone; but an ignored slice is 0."""
        for kind, (smoothing, z_loss) in itertools.product(["ignored", "probabilities"], [(0, 0), (0.1, 0.05)]):
            checks.slices_whose_softmax_is_nan(gpu, layout, n, float(special), kind, smoothing, z_loss)

    def test_ignored_slices_count_for_nothing(self, gpu, layout, n):
        """Whatever they, their weights and their upstream gradients hold."""
        for smoothing, reduction in itertools.product((0.0, 0.1), REDUCTIONS):
            checks.ignored_slices(gpu, layout, n, 9, smoothing, reduction)

    def test_terms_without_weight(self, gpu, layout, n):
        """0, also where the class is impossible and its share of the loss would be infinite."""
        kinds = [("index", "mean"), ("probabilities", "none")]
        cases = [(smoothing, *kind) for smoothing, kind in itertools.product((0.0, 0.1), kinds)]
        checks.terms_without_weight(gpu, layout, n, cases)

    def test_a_divisor_of_0(self, gpu, layout, n):
        """A mean over nothing is 0, not NaN, and so is its gradient."""
        for smoothing in (0.0, 0.1):
            checks.a_divisor_of_0(gpu, layout, n, smoothing)

    def test_digits_of_a_dominant_label(self, gpu, layout, n):
        """1 - p is 1e-12 at a gap of 28; p - 1 would have lost it. Also where other threads have the maximum."""
        for dtype, gap, smoothing in itertools.product(["float32", "float64", "float16"], [7, 28, 60], [0, 0.1]):
            checks.a_dominant_label(gpu, layout, n, dtype, gap, smoothing, 0.51 if dtype == "float16" else 8)

    def test_an_offset_costs_no_digits(self, gpu, layout, n):
        for kind, smoothing, offset in itertools.product(KINDS, (0, 0.1), (-300, 1e4)):
            checks.an_offset(gpu, layout, n, kind, smoothing, offset)
