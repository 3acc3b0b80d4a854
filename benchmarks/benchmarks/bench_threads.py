"""What more threads bring: the time on several over that on one of them, the two taking turns."""

from timeit import Timer

import numpy as np

import fastsoftmax

from . import common

STATEMENTS = {
    "softmax": "softmax(x, out=out, n_threads={})",
    "cross_entropy_with_grad": "cross_entropy_with_grad(x, labels, out=out, n_threads={})",
}


class Threads:
    params = (tuple(STATEMENTS), ((65536, 10), (1024, 1000), (64, 32000), (64, 128256)), (2, 4, 8))
    param_names = ("operation", "shape", "threads")

    def setup(self, operation, shape, threads):
        fastsoftmax.set_num_threads(threads)
        if fastsoftmax.get_num_threads() < threads:
            raise NotImplementedError("fewer processors than threads, or a build without threads")
        x = common.logits(shape, "float32")
        names = {"x": x, "out": np.empty_like(x), "labels": np.arange(shape[0]) % shape[1], **vars(fastsoftmax)}
        self.timers = [Timer(STATEMENTS[operation].format(n), globals=names) for n in (threads, 1)]

    def track_ratio(self, operation, shape, threads):
        return common.ratio(*self.timers)

    track_ratio.unit = "of one thread's time"
