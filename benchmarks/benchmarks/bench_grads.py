"""Vector-Jacobian products along rows and columns, from the saved output."""

import numpy as np

from . import common

COLUMNS = (1000, 1024)


class SoftmaxGrad(common.Operation):
    """`x` is the upstream gradient; `probs` and `log_probs` are what was saved."""

    params = ((*common.SHAPES, COLUMNS), ("float32", "float64"), common.BACKENDS)
    statement = "softmax_grad(x, probs, axis, out=out)"

    def arrays(self, shape, dtype):
        axis = 0 if shape == COLUMNS else 1
        names = super().arrays(shape, dtype)
        log_probs = common.baseline().log_softmax(names["x"], axis)
        return {**names, "axis": axis, "probs": np.exp(log_probs), "log_probs": log_probs}


class LogSoftmaxGrad(SoftmaxGrad):
    statement = "log_softmax_grad(x, log_probs, axis, out=out)"
