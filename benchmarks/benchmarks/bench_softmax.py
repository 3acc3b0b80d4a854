"""softmax along rows, in every dtype."""

from . import common


class Softmax(common.Operation):
    statement = "softmax(x, out=out)"


class SoftmaxHalf(common.Operation):
    """Half precision, which plain NumPy converts, or computes in very slowly: fewer and smaller cases."""

    params = (((65536, 10), (1024, 1000)), ("float16", "bfloat16"), common.BACKENDS)
    statement = "softmax(x, out=out)"
