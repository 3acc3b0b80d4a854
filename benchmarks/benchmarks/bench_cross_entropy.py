"""Cross-entropy of class labels, alone and with its gradient."""

from . import common


class CrossEntropy(common.Operation):
    statement = "cross_entropy(x, labels)"


class CrossEntropyWithGrad(common.Operation):
    statement = "cross_entropy_with_grad(x, labels, out=out)"
