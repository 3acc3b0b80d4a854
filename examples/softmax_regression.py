"""Softmax regression from scratch: images in ten classes, with NumPy and fastsoftmax.

The model is one matrix and one vector. An image, its pixels in a row x, gets a score z_c (a
"logit") for every class c, and softmax turns the scores into probabilities p_c:

    z = x W + b                     p_c = exp(z_c) / sum_k exp(z_k)

The loss of an image of class y is the cross-entropy -log p_y, in nats: how much the truth
surprises the model. Its gradient is as plain as could be, the probabilities less a one at the
true class, and the chain rule carries it on to the parameters:

    dloss/dz = p - onehot(y)        dloss/dW = x^T dloss/dz        dloss/db = dloss/dz

So a step of training is two matrix products with `fastsoftmax.cross_entropy_with_grad` between
them: see `train`. Run it on scikit-learn's small digits, or on a directory that holds the four
files of MNIST or Fashion-MNIST:

    python examples/softmax_regression.py
    python examples/softmax_regression.py --data fashion-mnist
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import fastsoftmax
import fastsoftmax.reference
import idx

try:
    from matplotlib.figure import Figure
    from tqdm import tqdm
except ModuleNotFoundError as error:
    sys.exit(f'{error}: run pip install "fastsoftmax[examples]"')

CLASSES = {
    "digits": tuple("0123456789"),
    "fashion": (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
}
N_CLASSES = 10


# ---- The data


@dataclass(frozen=True)
class Split:
    """Images, each one a row of float32 pixels from 0 to 1, and the class of each."""

    images: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class DataSet:
    train: Split
    test: Split
    image_shape: tuple[int, ...]


def to_split(images: np.ndarray, labels: np.ndarray, white: int) -> Split:
    rows = images.reshape(len(images), -1)
    return Split(np.divide(rows, white, dtype=np.float32), labels.astype(np.int64))


def load_digits() -> DataSet:
    """Return scikit-learn's 1797 digits of 8 x 8 pixels, 360 of them held out as the test set."""
    try:
        from sklearn import datasets
    except ModuleNotFoundError as error:
        sys.exit(f'{error}: run pip install "fastsoftmax[examples]"')
    digits = datasets.load_digits()
    # The same split whatever --seed says, so that the accuracies of two seeds compare.
    test, train = np.split(np.random.default_rng(0).permutation(len(digits.target)), [360])
    return DataSet(
        to_split(digits.images[train], digits.target[train], white=16),
        to_split(digits.images[test], digits.target[test], white=16),
        digits.images.shape[1:],
    )


def load_idx(directory: Path) -> DataSet:
    """Return the MNIST or Fashion-MNIST in `directory`; raise `idx.IdxError` if it is not one."""
    train, test = idx.read_data_set(directory, n_classes=N_CLASSES)
    return DataSet(to_split(*train, white=255), to_split(*test, white=255), train[0].shape[1:])


def guess_classes(directory: Path) -> str:
    """Go by the directory's name: the files of the two data sets agree in names and sizes."""
    directory = directory.resolve()
    if directory.name == "raw":  # torchvision unpacks to FashionMNIST/raw
        directory = directory.parent
    return "fashion" if "fashion" in directory.name.lower() else "digits"


# ---- The model


class Model:
    """The weights W and the bias b.

    They start at zero, where all classes are equally probable and the loss is log 10. A network
    of several layers must start at random, lest its hidden units stay alike; this one has none.
    """

    def __init__(self, n_inputs: int) -> None:
        self.weights = np.zeros((n_inputs, N_CLASSES), np.float32)
        self.bias = np.zeros(N_CLASSES, np.float32)

    def logits(self, images: np.ndarray) -> np.ndarray:
        return images @ self.weights + self.bias

    def predict(self, images: np.ndarray) -> np.ndarray:
        # The largest logit has the largest probability: to choose takes no softmax.
        return self.logits(images).argmax(axis=1)

    def evaluate(self, split: Split) -> tuple[float, float]:
        """Return the mean loss in nats and the accuracy."""
        logits = self.logits(split.images)
        loss = fastsoftmax.cross_entropy(logits, split.labels)
        return float(loss), float(np.mean(logits.argmax(axis=1) == split.labels))


# The two implementations of the softmax part, (logits, labels) -> (loss, d loss / d logits).
LossAndGrad = Callable[[np.ndarray, np.ndarray], tuple[np.floating, np.ndarray]]


def fast_loss_and_grad(logits: np.ndarray, labels: np.ndarray) -> tuple[np.floating, np.ndarray]:
    # Nobody needs the logits of a step again, so the gradient may take their place.
    return fastsoftmax.cross_entropy_with_grad(logits, labels, out=logits)


plain_loss_and_grad: LossAndGrad = fastsoftmax.reference.cross_entropy_with_grad


def train(
    model: Model,
    split: Split,
    loss_and_grad: LossAndGrad,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
) -> Iterator[float]:
    """Train `model` in place by minibatch stochastic gradient descent.

    Yields
    ------
    float
        After each epoch, the seconds that `loss_and_grad` took in it.
    """
    rng = np.random.default_rng(seed)
    for _ in range(epochs):
        seconds = 0.0
        order = rng.permutation(len(split.labels))
        for first in range(0, len(order), batch_size):
            batch = order[first : first + batch_size]
            images, labels = split.images[batch], split.labels[batch]
            logits = model.logits(images)

            start = time.perf_counter()
            _, grad = loss_and_grad(logits, labels)
            seconds += time.perf_counter() - start

            # The loss is the mean over the batch, so its gradient is divided by the batch's size.
            model.weights -= learning_rate * (images.T @ grad)
            model.bias -= learning_rate * grad.sum(axis=0)
        yield seconds


# ---- The figure


def draw_figure(history: np.ndarray, data: DataSet, predicted: np.ndarray, names: tuple[str, ...]) -> Figure:
    """Draw the learning curves, and beside them a grid of test images.

    `history[epoch]` holds the (loss, accuracy) of the training set and of the test set.
    """
    # A Figure made without pyplot opens no window and needs no display: it saves through Agg.
    figure = Figure(figsize=(13, 7), dpi=110, layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(4, 7), wspace=0.04)
    draw_curves(left, history)
    draw_images(right, data, predicted, names)
    return figure


def draw_curves(figure: Figure, history: np.ndarray) -> None:
    loss, accuracy = figure.subplots(2, 1, sharex=True)
    for split, (name, style) in enumerate({"training set": "-", "test set": "--"}.items()):
        loss.plot(history[:, split, 0], style, label=name)
        accuracy.plot(100 * history[:, split, 1], style, label=name)
    loss.set(ylabel="mean cross-entropy (nats)", ylim=(0, None))
    accuracy.set(ylabel="accuracy (%)", ylim=(0, 102), xlabel="epochs of training")
    accuracy.xaxis.get_major_locator().set_params(integer=True)
    for axes, corner in ((loss, "upper right"), (accuracy, "lower right")):
        axes.grid(alpha=0.3)
        axes.legend(loc=corner, frameon=False)


def draw_images(figure: Figure, data: DataSet, predicted: np.ndarray, names: tuple[str, ...]) -> None:
    rows, columns = 4, 6
    is_wrong = predicted != data.test.labels
    wrong, right = np.flatnonzero(is_wrong), np.flatnonzero(~is_wrong)
    # A good model is wrong so seldom that the first images may show no mistake at all: up to
    # half of the grid is kept for mistakes, and the title says how many there are.
    wrong = wrong[: rows * columns // 2]
    shown = np.concatenate([right[: rows * columns - len(wrong)], wrong])
    figure.suptitle(
        f"{len(shown)} of the {len(is_wrong)} test images, "
        f"with {len(wrong)} of the {is_wrong.sum()} mistakes\n"
        "(✓ or ✗ with the predicted class; below it, the true one)"
    )
    used, unused = np.split(figure.subplots(rows, columns).ravel(), [len(shown)])
    for axes, i in zip(used, shown, strict=True):
        axes.imshow(data.test.images[i].reshape(data.image_shape), cmap="gray_r")
        axes.set(xticks=[], yticks=[])
        mark, color, width = ("✗", "C3", 3) if is_wrong[i] else ("✓", "0.3", 1)
        title = f"{mark} {names[predicted[i]]}\ntrue: {names[data.test.labels[i]]}"
        axes.set_title(title, color=color, fontsize="medium")
        axes.spines[:].set(color=color, linewidth=width)
    for axes in unused:
        axes.set_visible(False)


# ---- The command line


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a softmax regression on images.")
    add = parser.add_argument
    add("--data", type=Path, metavar="DIR", help="IDX files of MNIST or Fashion-MNIST, .gz or not")
    add(
        "--classes",
        choices=CLASSES,
        help="what the labels in --data stand for (fashion if DIR's name contains it)",
    )
    add("--epochs", type=int, help="default: 30, or 10 with --data")
    add("--batch-size", type=int, default=32, help="default: %(default)s")
    add("--learning-rate", type=float, default=0.1, help="default: %(default)s")
    add("--seed", type=int, default=0, help="order of the batches; default: %(default)s")
    add("--output", type=Path, default=Path("softmax_regression.png"), help="the figure's file")
    options = parser.parse_args(arguments)

    if options.epochs is None:
        options.epochs = 30 if options.data is None else 10
    if options.epochs < 1 or options.batch_size < 1:
        parser.error("--epochs and --batch-size must be at least 1")
    if not 0 < options.learning_rate < np.inf:
        parser.error("--learning-rate must be positive")
    if options.seed < 0:
        parser.error("--seed must not be negative")
    if options.classes and options.data is None:
        parser.error("--classes says what the labels in --data are: give both")
    # Found out now, not after the training.
    if not options.output.parent.is_dir():
        parser.error(f"--output: no such directory: {options.output.parent}")
    if options.output.suffix.lower()[1:] not in Figure().canvas.get_supported_filetypes():
        parser.error("--output must have the ending of a picture, such as .png or .svg")
    return options


def main(arguments: list[str] | None = None) -> None:
    options = parse_arguments(arguments)
    if options.data is None:
        data, names, title = load_digits(), CLASSES["digits"], "scikit-learn's digits"
    else:
        classes = options.classes or guess_classes(options.data)
        data, names, title = load_idx(options.data), CLASSES[classes], f"{options.data}, {classes}"
    print(
        f"{title}: {len(data.train.labels)} training and {len(data.test.labels)} test images of "
        f"{data.image_shape[0]} x {data.image_shape[1]} pixels in {N_CLASSES} classes"
    )

    # Two models start alike and see the same batches, in turn for an epoch each: one trains
    # through fastsoftmax, the other, its rival on time, through plain NumPy.
    losses_and_grads = fast_loss_and_grad, plain_loss_and_grad
    models = [Model(data.train.images.shape[1]) for _ in losses_and_grads]
    runs = [
        train(
            model,
            data.train,
            loss_and_grad,
            epochs=options.epochs,
            batch_size=options.batch_size,
            learning_rate=options.learning_rate,
            seed=options.seed,
        )
        for model, loss_and_grad in zip(models, losses_and_grads, strict=True)
    ]
    for loss_and_grad in losses_and_grads:  # what a first call sets up is not timed
        loss_and_grad(np.zeros((1, N_CLASSES), np.float32), np.zeros(1, np.int64))

    model, rival = models
    history = []

    def evaluate(moment: str) -> str:
        history.append((model.evaluate(data.train), model.evaluate(data.test)))
        (loss, train_accuracy), (_, test_accuracy) = history[-1]
        return (
            f"{moment}: training loss {loss:.4f}, training accuracy {train_accuracy:.1%}, "
            f"test accuracy {test_accuracy:.1%}"
        )

    print(evaluate("before training"))
    seconds = np.zeros(len(runs))
    with tqdm(zip(*runs, strict=True), total=options.epochs, unit="epoch") as epochs:
        for epoch, spent in enumerate(epochs, start=1):
            seconds += spent
            epochs.write(evaluate(f"epoch {epoch:2}"))

    print(
        f"loss and gradient of all batches: fastsoftmax {1000 * seconds[0]:.1f} ms, "
        f"NumPy baseline {1000 * seconds[1]:.1f} ms ({seconds[1] / seconds[0]:.1f} times as long)\n"
        f"test accuracy after the NumPy baseline: {rival.evaluate(data.test)[1]:.1%}"
    )
    figure = draw_figure(np.array(history), data, model.predict(data.test.images), names)
    figure.savefig(options.output)
    print(f"figure: {options.output}")
    print(f"test accuracy: {model.evaluate(data.test)[1]:.1%}")


if __name__ == "__main__":
    try:
        main()
    except (idx.IdxError, OSError) as error:
        print(f"{Path(__file__).name}: {error}", file=sys.stderr)
        sys.exit(2)
