"""log_softmax along rows."""

from . import common


class LogSoftmax(common.Operation):
    statement = "log_softmax(x, out=out)"
