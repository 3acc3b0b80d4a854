"""One call on logits that are in no cache, as a pass over much else leaves them; asv sets up anew before each call."""

import numpy as np

from . import common

STATEMENTS = {
    "softmax": "softmax(x, out=out)",
    "logsumexp": "logsumexp(x)",
    "cross_entropy_with_grad": "cross_entropy_with_grad(x, labels, out=out)",
}
MUCH_ELSE = np.zeros(2**26, np.uint8)  # more than the caches of most processors


class Cold:
    params = (tuple(STATEMENTS), common.BACKENDS)
    param_names = ("operation", "backend")

    def setup(self, operation, backend):
        x = common.logits((1024, 1000), "float32")
        arrays = {"x": x, "out": np.zeros_like(x), "labels": np.arange(len(x)) % 1000}
        self.timed = common.timer(STATEMENTS[operation], backend, arrays)
        MUCH_ELSE[:] += 1

    def time_call(self, operation, backend):
        self.timed.timeit(1)
