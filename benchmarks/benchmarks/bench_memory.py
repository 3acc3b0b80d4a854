"""The largest resident size of a process that makes one call, beside one that only makes the arrays.

The library promises no temporary larger than a tile for each thread: the two differ by little more than a fresh result.
"""

import numpy as np

from . import common

STATEMENTS = {
    "arrays alone": "pass",
    "softmax": "softmax(x, out=out)",
    "softmax, axis 0": "softmax(x, axis=0, out=out)",
    "softmax, fresh": "softmax(x)",
    "logsumexp": "logsumexp(x)",
    "cross_entropy_with_grad": "cross_entropy_with_grad(x, labels, out=out)",
}


class Memory:
    params = (tuple(STATEMENTS), common.BACKENDS)
    param_names = ("operation", "backend")

    def setup(self, operation, backend):
        x = common.logits((16384, 1000), "float32")  # 66 MB
        arrays = {"x": x, "out": x.copy(), "labels": np.arange(len(x)) % 1000}
        self.timed = common.timer(STATEMENTS[operation], backend, arrays)

    def peakmem_call(self, operation, backend):
        self.timed.timeit(1)
