"""Cross-entropy of class labels, alone and with its gradient; and a step of training, where it is used."""

import numpy as np

from . import common


class CrossEntropy(common.Operation):
    statement = "cross_entropy(x, labels)"


class CrossEntropyWithGrad(common.Operation):
    statement = "cross_entropy_with_grad(x, labels, out=out)"


class TrainingStep:
    """One step of softmax regression on a batch of 28 x 28 pictures; the products of matrices are NumPy's."""

    params = common.BACKENDS
    param_names = ("backend",)

    def setup(self, backend):
        self.loss = common.functions(backend)["cross_entropy_with_grad"]
        self.pictures = np.abs(common.logits((512, 784), "float32")) / 25
        self.labels = np.arange(512) % 10
        self.weights = np.zeros((784, 10), np.float32)

    def time_step(self, backend):
        for _ in range(20):  # asv sets up anew before each sample
            _, grad = self.loss(self.pictures @ self.weights, self.labels)
            self.weights -= 0.1 * (self.pictures.T @ grad)
