"""The overhead of a call: arrays so small that little else is left."""

import numpy as np

from . import common

# Name -> the line of code, as users write it.
CALLS = {
    "softmax, positional": "softmax(row)",
    "softmax, axis and out": "softmax(row, axis=1, out=out)",
    "softmax, 1-D": "softmax(row[0])",
    "softmax, a list": "softmax([1.0, 2.0, 3.0])",
    "softmax, integers": "softmax(integers)",
    "log_softmax": "log_softmax(row, axis=1)",
    "logsumexp": "logsumexp(row, axis=1)",
    "cross_entropy": "cross_entropy(row, labels)",
    "cross_entropy_with_grad": "cross_entropy_with_grad(row, labels)",
    "softmax_grad": "softmax_grad(row, out)",
}


class Calls(common.Operation):
    params = (tuple(CALLS), ("float32",), common.BACKENDS)
    param_names = ("call", "dtype", "backend")
    statement = ""  # setup knows it

    def arrays(self, call, dtype):
        row = common.logits((1, 10), dtype)
        out = np.full_like(row, 0.1)
        return {"x": row, "row": row, "out": out, "labels": np.array([3]), "integers": np.arange(10)}

    def setup(self, call, dtype, backend):
        self.statement = CALLS[call]
        super().setup(call, dtype, backend)

    track_ns_per_element = None  # what matters here is the call

    def track_ns_per_call(self, call, dtype, backend):
        return common.nanoseconds(self.timed)

    track_ns_per_call.unit = "ns per call"
