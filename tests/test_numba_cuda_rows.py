"""The device functions of integrations/numba_cuda.py, in kernels as a user's are; in the simulator or on a device."""

import re
from pathlib import Path

import numpy as np
import pytest

import numba_arrays
import oracles

DOCS = Path(__file__).parents[1] / "docs" / "numba_cuda.md"

pytestmark = numba_arrays.QUIET


@pytest.fixture(scope="module")
def gpu():
    return numba_arrays.found()


@pytest.fixture(scope="module")
def kernel(gpu):
    """Give a user's kernel, of a block a row."""
    global cuda  # where the simulator looks for it
    from numba import cuda

    from fastsoftmax.integrations.numba_cuda import logsumexp_row, softmax_row

    @cuda.jit
    def kernel(x, out, lse):
        lse[cuda.blockIdx.x] = logsumexp_row(x[cuda.blockIdx.x])
        softmax_row(x[cuda.blockIdx.x], out[cuda.blockIdx.x])
        # Every thread may read what all have written.
        i = cuda.threadIdx.x
        if i < x.shape[1]:
            lse[x.shape[0] + i] = out[cuda.blockIdx.x, x.shape[1] - 1 - i]

    return kernel


class TestRows:
    @pytest.mark.parametrize("threads", [1, 7, 16, 33, 100])
    @pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
    def test_any_number_of_threads(self, gpu, kernel, threads, dtype):
        x = oracles.normal((2, 40), dtype)
        x[1, 3] = -np.inf
        out, lse = gpu.put(np.zeros_like(x)), gpu.put(np.zeros(2 + 40, "f4" if dtype == "float16" else dtype))
        kernel[2, threads](gpu.put(x), out, lse)
        got = gpu.get(lse)
        gpu.check("softmax", gpu.get(out), x)
        oracles.check("logsumexp", got[:2], x.astype(got.dtype))
        seen = min(threads, 40)
        np.testing.assert_array_equal(got[2:][:seen], gpu.get(out)[1, ::-1][:seen])

    def test_in_place_and_from_the_other_end(self, gpu, kernel):
        x = oracles.normal((1, 9), "float32")
        array, lse = gpu.put(x), gpu.put(np.zeros(10, "f4"))
        kernel[1, 4](array, array, lse)
        gpu.check("softmax", gpu.get(array), x)

    def test_the_example_of_the_page(self, gpu):
        if not DOCS.exists():
            pytest.skip("the documentation is in the checkout alone")
        (code,) = re.findall(r"```python\n(from numba import cuda\n.*?)```", DOCS.read_text(), re.DOTALL)
        names = {}
        exec(compile(code, str(DOCS), "exec"), names)
        scores, probs = (gpu.get(names[name]) for name in ("scores", "probs"))
        gpu.check("softmax", probs, scores)
