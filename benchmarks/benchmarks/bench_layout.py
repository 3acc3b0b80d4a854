"""softmax along any axis, in any layout of memory."""

import numpy as np

from . import common

# Name -> the axis, and the array made of C-contiguous logits. About a million elements each.
LAYOUTS = {
    "rows": (1, (1024, 1000), np.asarray),
    "axis 0": (0, (1000, 1024), np.asarray),
    "axis 0, short": (0, (10, 65536), np.asarray),
    "axis 0, long": (0, (16384, 64), np.asarray),
    "axis in the middle": (1, (64, 128, 128), np.asarray),
    "both axes": ((0, 1), (1024, 1000), np.asarray),
    "Fortran order, axis 1": (1, (1024, 1000), np.asfortranarray),
    "rows with gaps": (1, (1024, 2000), lambda x: x[:, :1000]),
    "every second element": (1, (1024, 2000), lambda x: x[:, ::2]),
    "broadcast rows": (1, (1, 1000), lambda x: np.broadcast_to(x, (1024, 1000))),
}


class Layout(common.Operation):
    params = (tuple(LAYOUTS), ("float32",), common.BACKENDS)
    param_names = ("layout", "dtype", "backend")
    statement = "softmax(x, axis=axis, out=out)"

    def arrays(self, layout, dtype):
        axis, shape, arrange = LAYOUTS[layout]
        x = arrange(common.logits(shape, dtype))
        out = np.empty_like(x) if layout != "broadcast rows" else np.empty(x.shape, dtype)  # which has room for each
        return {"axis": axis, "x": x, "out": out}


class InPlace(common.Operation):
    """log_softmax of its own result is that result again; softmax's would be ever more equal numbers."""

    params = (common.SHAPES, ("float32",), common.BACKENDS)
    statement = "log_softmax(x, out=x)"

    def on(self, backend):
        statement = "x[...] = log_softmax(x)" if backend == "numpy" else self.statement
        return common.timer(statement, backend, self.names)


class Where(common.Operation):
    """Half of the entries are hidden."""

    params = (((65536, 10), (1024, 1000)), ("float32",), common.BACKENDS)
    statement = "softmax(x, where=shown, out=out)"

    def arrays(self, shape, dtype):
        return {**super().arrays(shape, dtype), "shown": common.logits(shape, dtype, seed=1) > 0}
