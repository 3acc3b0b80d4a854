"""logsumexp along rows."""

from . import common


class LogSumExp(common.Operation):
    statement = "logsumexp(x)"
