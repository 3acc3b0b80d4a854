"""The example trains, reports and draws; its reader of IDX files refuses what is not right."""

from __future__ import annotations

import gzip
import importlib
import os
import re
import runpy
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SCRIPT = EXAMPLES / "softmax_regression.py"

if not SCRIPT.exists():
    pytest.skip("the examples do not lie beside these tests", allow_module_level=True)

# An older Matplotlib over a newer package that it uses: their affair, and no error of the example.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def examples_on_path():
    """Importing finds the examples' modules, and those of no other test that are named alike."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)
        yield
        for name in ("idx", "softmax_regression"):
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def idx(examples_on_path):
    return importlib.import_module("idx")


@pytest.fixture(scope="module")
def example(examples_on_path):
    for package in ("matplotlib", "tqdm"):
        pytest.importorskip(package, reason=f"the example needs {package}")
    return importlib.import_module("softmax_regression")


@pytest.fixture(scope="module")
def digits(example):
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    return example.load_digits()


@pytest.fixture
def command_line(example, monkeypatch, capfd):
    """Run the script as `python softmax_regression.py ...` does, but without a new process."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments)])
        status = 0
        try:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        except SystemExit as stop:
            status = stop.code
        return status, *capfd.readouterr()

    return run


def run_script(*arguments, cwd):
    """Run the script in a process of its own; return that process, finished."""
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        # With a display, a figure that needs one would pass unseen.
        env={k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY")},
    )


def assert_is_a_picture(path, min_width=900, min_height=500):
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", content[16:24])
    assert min_width <= width <= 4000
    assert min_height <= height <= 3000
    assert len(content) > 20_000  # curves and images compress to more than an empty page


# ---- The digits, from the command line


@pytest.fixture(scope="module")
def digits_run(digits, tmp_path_factory):
    directory = tmp_path_factory.mktemp("digits")
    return run_script(cwd=directory), directory


def test_it_ends_with_the_test_accuracy(digits_run):
    process, _ = digits_run
    assert process.returncode == 0, process.stderr
    last = process.stdout.splitlines()[-1]
    assert re.fullmatch(r"test accuracy: \d{1,3}\.\d%", last)
    assert 93 < float(last.removeprefix("test accuracy: ").removesuffix("%")) < 99


def test_the_last_line_is_the_accuracy_of_the_last_epoch(digits_run):
    lines = digits_run[0].stdout.splitlines()
    [last_epoch] = (line for line in lines if line.startswith("epoch 30:"))
    assert last_epoch.endswith(lines[-1].replace(":", ""))


def test_before_training_it_knows_nothing(digits_run):
    [line] = (s for s in digits_run[0].stdout.splitlines() if s.startswith("before training"))
    loss, train_accuracy, test_accuracy = map(float, re.findall(r"\d+\.\d+", line))
    assert loss == pytest.approx(np.log(10), abs=1e-4)
    assert train_accuracy == pytest.approx(10, abs=4)
    assert test_accuracy == pytest.approx(10, abs=4)


def test_every_epoch_reports_and_the_loss_falls(digits_run):
    pattern = r"epoch +(\d+): training loss (\S+), training accuracy (\S+)%, test accuracy (\S+)%"
    epochs = np.array(re.findall(pattern, digits_run[0].stdout), dtype=float)
    assert epochs[:, 0].tolist() == list(range(1, 31))
    assert (np.diff(epochs[:, 1]) < 0).all()
    assert (epochs[-1, 2:] > epochs[0, 2:]).all()
    assert epochs[-1, 2] > 93


def test_it_compares_its_time_with_the_baseline(digits_run):
    pattern = r"fastsoftmax (\S+) ms, NumPy baseline (\S+) ms \((\S+) times as long\)"
    [found] = re.findall(pattern, digits_run[0].stdout)
    fast, plain, ratio = map(float, found)
    assert 0 < fast < 10_000
    assert 0 < plain < 10_000
    assert ratio == pytest.approx(plain / fast, rel=0.1)  # the three of them are rounded


def test_the_progress_bar_goes_to_stderr(digits_run):
    process, _ = digits_run
    assert "30/30" in process.stderr
    assert "30/30" not in process.stdout
    assert "Traceback" not in process.stderr


def test_it_draws_a_figure(digits_run):
    assert_is_a_picture(digits_run[1] / "softmax_regression.png")


# ---- Repeatability


TRAIN = """
import hashlib, sys
sys.path.insert(0, sys.argv[1])
import softmax_regression as example
data = example.load_digits()
for seed in map(int, sys.argv[2:]):
    model = example.Model(data.train.images.shape[1])
    for _ in example.train(model, data.train, example.fast_loss_and_grad,
                           epochs=3, batch_size=50, learning_rate=0.1, seed=seed):
        print(model.evaluate(data.train)[0].hex(), model.evaluate(data.test)[0].hex(), end=" ")
    print(hashlib.sha256(model.weights.tobytes() + model.bias.tobytes()).hexdigest())
"""


def test_a_seed_repeats_losses_and_weights_to_the_bit(digits, run_python):
    def runs(*seeds):
        lines = run_python(TRAIN, EXAMPLES, *seeds).stdout.splitlines()
        return [line.split() for line in lines]

    [seven] = runs(7)
    eight, seven_again = runs(8, 7)
    assert len(seven) == 7
    assert seven == seven_again
    assert all(a != b for a, b in zip(seven, eight, strict=True))


def test_seed_reaches_the_training(digits, command_line, tmp_path):
    def epochs(seed):
        status, out, _ = command_line("--epochs", 2, "--seed", seed, "--output", tmp_path / "figure.png")
        assert status == 0
        return [line for line in out.splitlines() if line.startswith("epoch")]

    assert epochs(1) == epochs(1) != epochs(2)


def test_the_digits_are_split_the_same_way_every_time(example, digits):
    again = example.load_digits()
    np.testing.assert_array_equal(digits.test.images, again.test.images)
    np.testing.assert_array_equal(digits.train.labels, again.train.labels)
    assert len(digits.train.labels) == 1437
    assert len(digits.test.labels) == 360
    # No test image was trained on: all 1797 images are different.
    both = np.concatenate([digits.train.images, digits.test.images])
    assert len(np.unique(both, axis=0)) == 1797


# ---- The model


def test_everything_is_float32(example, digits):
    assert digits.train.images.dtype == digits.test.images.dtype == np.float32
    assert digits.train.images.min() == 0
    assert digits.train.images.max() == 1
    model = example.Model(64)
    seen = []

    def spy(logits, labels):
        loss, grad = example.fast_loss_and_grad(logits, labels)
        seen.append((logits.dtype, grad.dtype, loss.dtype))
        return loss, grad

    for _ in example.train(model, digits.train, spy, epochs=1, batch_size=100, learning_rate=0.1, seed=0):
        pass
    assert set(seen) == {(np.dtype(np.float32),) * 3}
    assert len(seen) == 15  # 14 whole batches and the rest
    assert model.weights.dtype == model.bias.dtype == np.float32


def test_the_gradient_takes_the_place_of_the_logits(example):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(5, 10)).astype(np.float32)
    labels = rng.integers(10, size=5)
    plain_loss, plain_grad = example.plain_loss_and_grad(logits.copy(), labels)
    loss, grad = example.fast_loss_and_grad(logits, labels)
    assert grad is logits
    np.testing.assert_allclose(grad, plain_grad, rtol=1e-5, atol=1e-7)
    assert loss == pytest.approx(plain_loss, rel=1e-5)


def test_the_baseline_trains_the_same_model(example, digits):
    def trained(function):
        model = example.Model(64)
        for seconds in example.train(model, digits.train, function, epochs=5, batch_size=32, learning_rate=0.1, seed=0):
            assert seconds > 0
        return model

    fast, plain = trained(example.fast_loss_and_grad), trained(example.plain_loss_and_grad)
    np.testing.assert_allclose(fast.weights, plain.weights, atol=1e-4)
    np.testing.assert_allclose(fast.bias, plain.bias, atol=1e-4)
    assert np.abs(fast.weights).max() > 0.1


# ---- The figure


def titles(figure):
    """Return the mark, the predicted class and the true class over every visible image."""
    shown = (axes for axes in figure.subfigs[1].axes if axes.get_visible())
    pattern = r"([✓✗]) (.*)\ntrue: (.*)"
    return [re.fullmatch(pattern, axes.get_title()).groups() for axes in shown]


@pytest.mark.parametrize(
    ("n_images", "n_mistakes", "n_shown", "n_mistakes_shown"),
    [(100, 0, 24, 0), (100, 3, 24, 3), (100, 40, 24, 12), (5, 1, 5, 1), (100, 100, 12, 12)],
)
def test_mistakes_are_shown_and_marked(example, n_images, n_mistakes, n_shown, n_mistakes_shown):
    rng = np.random.default_rng(0)
    labels = rng.integers(10, size=n_images)
    predicted = labels.copy()
    predicted[n_images - n_mistakes :] += 1
    predicted %= 10
    split = example.Split(rng.random((n_images, 12), np.float32), labels)
    data = example.DataSet(split, split, (3, 4))
    names = example.CLASSES["fashion"]
    figure = example.draw_figure(rng.random((4, 2, 2)), data, predicted, names)

    found = titles(figure)
    assert len(found) == n_shown
    assert sum(mark == "✗" for mark, _, _ in found) == n_mistakes_shown
    assert all((mark == "✗") == (guess != truth) for mark, guess, truth in found)
    pairs = {(names[p], names[t]) for p, t in zip(predicted, labels, strict=True)}
    assert {(guess, truth) for _, guess, truth in found} <= pairs
    heading = figure.subfigs[1].get_suptitle()
    assert f"{n_mistakes_shown} of the {n_mistakes} mistakes" in heading


# ---- IDX files


def synthetic_data_set():
    """Return the arrays of a small data set that a softmax regression can learn: one dark
    stripe a class, on a noisy ground."""
    rng = np.random.default_rng(0)
    arrays = {}
    for name, n in (("train", 600), ("t10k", 100)):
        labels = rng.integers(10, size=n).astype(np.uint8)
        images = rng.integers(128, size=(n, 6, 10), dtype=np.uint8)
        images[np.arange(n), :, labels] += 127
        arrays[f"{name}-images-idx3-ubyte"] = images
        arrays[f"{name}-labels-idx1-ubyte"] = labels
    return arrays


def encode(array):
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def mnist(tmp_path):
    """Return a directory with the four files of a small data set, not packed."""
    directory = tmp_path / "mnist"
    directory.mkdir()
    for name, array in synthetic_data_set().items():
        (directory / name).write_bytes(encode(array))
    return directory


def pack(path, name=None):
    packed = path.with_name(name or f"{path.name}.gz")
    content = gzip.compress(path.read_bytes())
    path.unlink()
    packed.write_bytes(content)
    return packed


@pytest.mark.parametrize("form", ["plain", "gz", "mixed", "gz without its ending"])
def test_idx_files_are_read(idx, mnist, form):
    for i, path in enumerate(sorted(mnist.iterdir())):
        if form == "gz" or (form == "mixed" and i % 2):
            pack(path)
        elif form == "gz without its ending":
            pack(path, path.name)
    (train_images, train_labels), (test_images, test_labels) = idx.read_data_set(mnist, n_classes=10)
    expected = synthetic_data_set()
    np.testing.assert_array_equal(train_images, expected["train-images-idx3-ubyte"])
    np.testing.assert_array_equal(train_labels, expected["train-labels-idx1-ubyte"])
    np.testing.assert_array_equal(test_images, expected["t10k-images-idx3-ubyte"])
    np.testing.assert_array_equal(test_labels, expected["t10k-labels-idx1-ubyte"])


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
def test_idx_files_train(mnist, command_line, packed):
    if packed:
        for path in list(mnist.iterdir()):
            pack(path)
    figure = mnist / "figure.png"
    status, out, err = command_line("--data", mnist, "--output", figure, "--epochs", 4)
    assert status == 0, err
    lines = out.splitlines()
    assert lines[0].endswith("mnist, digits: 600 training and 100 test images of 6 x 10 pixels in 10 classes")
    assert float(re.fullmatch(r"test accuracy: (\S+)%", lines[-1])[1]) > 93
    assert "4/4" in err
    assert_is_a_picture(figure)


def test_idx_pixels_are_scaled_to_one(example, mnist):
    data = example.load_idx(mnist)
    pixels = synthetic_data_set()["train-images-idx3-ubyte"]
    assert data.image_shape == (6, 10)
    assert data.train.images.dtype == np.float32
    np.testing.assert_allclose(data.train.images[3], pixels[3].ravel() / 255, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "classes"),
    [
        ("mnist", "digits"),
        ("fashion-mnist", "fashion"),
        ("FashionMNIST/raw", "fashion"),
        ("MNIST/raw", "digits"),
        ("fashion/mnist", "digits"),
    ],
)
def test_classes_go_by_the_name_of_the_directory(example, tmp_path, name, classes):
    assert example.guess_classes(tmp_path / name) == classes


def test_classes_can_be_told(mnist, command_line):
    _, out, _ = command_line("--data", mnist, "--classes", "fashion", "--epochs", 1, "--output", mnist / "figure.png")
    assert "mnist, fashion: 600" in out


# ---- IDX files that are not right


def replace(content):
    return lambda _: content


# What to do to which file, and what the error says was expected and was got.
FAULTS = {
    "missing": (
        "t10k-labels-idx1-ubyte",
        replace(None),
        "this file, or the same with .gz",
        "neither",
    ),
    "wrong element type": (
        "train-images-idx3-ubyte",
        lambda content: b"\0\0\x09\x03" + content[4:],
        "the magic number 0x00000803",
        "0x00000903",
    ),
    "labels for images": (
        "train-images-idx3-ubyte",
        replace(encode(np.zeros(600, np.uint8))),
        "the magic number 0x00000803",
        "0x00000801",
    ),
    "not IDX": (
        "train-labels-idx1-ubyte",
        replace(b"<html>404 Not Found</html>"),
        "the magic number 0x00000801",
        "0x3c68746d",
    ),
    "empty file": (
        "train-images-idx3-ubyte",
        replace(b""),
        "a header of 16 bytes",
        "a file truncated to 0",
    ),
    "truncated header": (
        "train-images-idx3-ubyte",
        lambda content: content[:15],
        "a header of 16 bytes",
        "a file truncated to 15",
    ),
    "truncated": (
        "train-images-idx3-ubyte",
        lambda content: content[:-1],
        "36016 bytes for the shape 600 x 6 x 10",
        "36015 (truncated)",
    ),
    "trailing bytes": (
        "t10k-labels-idx1-ubyte",
        lambda content: content + b"\0\0",
        "108 bytes for the shape 100",
        "110 (trailing bytes)",
    ),
    "dimensions whose product wraps round 64 bits to 0": (
        "train-images-idx3-ubyte",
        replace(struct.pack(">HBB3I", 0, 8, 3, 2**31, 2**31, 4)),
        f"{2**64 + 16} bytes for the shape 2147483648 x 2147483648 x 4",
        "16 (truncated)",
    ),
    "truncated gzip": (
        "train-images-idx3-ubyte",
        lambda content: gzip.compress(content)[:-100],
        "a readable file, whole if gzipped",
        "Compressed file ended before the end-of-stream marker was reached",
    ),
    "gzip with a wrong checksum": (
        "train-labels-idx1-ubyte",
        lambda content: gzip.compress(content)[:-8] + bytes(8),
        "a readable file, whole if gzipped",
        "CRC check failed",
    ),
    "damaged gzip": (
        "train-labels-idx1-ubyte",
        lambda content: gzip.compress(content)[:10] + b"\xff" * 100,
        "a readable file, whole if gzipped",
        "Error -3 while decompressing data",
    ),
    "truncated inside gzip": (
        "train-labels-idx1-ubyte",
        lambda content: gzip.compress(content[:-5]),
        "608 bytes for the shape 600",
        "603 (truncated)",
    ),
    "one label too few": (
        "train-labels-idx1-ubyte",
        replace(encode(np.zeros(599, np.uint8))),
        "600 labels, one an image",
        "599",
    ),
    "one label too many": (
        "t10k-labels-idx1-ubyte",
        replace(encode(np.zeros(101, np.uint8))),
        "100 labels, one an image",
        "101",
    ),
    "a class too many": (
        "t10k-labels-idx1-ubyte",
        replace(encode(np.full(100, 10, np.uint8))),
        "labels from 0 to 9",
        "10",
    ),
    "no images": (
        "train-images-idx3-ubyte",
        replace(encode(np.zeros((0, 6, 10), np.uint8))),
        "at least one image",
        "0 x 6 x 10 pixels",
    ),
    "test images of another size": (
        "t10k-images-idx3-ubyte",
        replace(encode(np.zeros((100, 10, 6), np.uint8))),
        "images of 6 x 10 pixels, as in the training set",
        "10 x 6",
    ),
}


@pytest.fixture(params=FAULTS)
def fault(request, mnist):
    """Spoil one file; return its path, and what the error must say."""
    name, change, expected, got = FAULTS[request.param]
    path = mnist / name
    content = change(path.read_bytes())
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    return path, expected, got


def test_faulty_files_raise(idx, mnist, fault):
    path, expected, got = fault
    with pytest.raises(idx.IdxError) as caught:
        idx.read_data_set(mnist, n_classes=10)
    assert caught.value.path == path
    assert caught.value.expected == expected
    assert caught.value.got.startswith(got)
    assert str(caught.value) == f"{path}: expected {expected}, got {caught.value.got}"


def test_faulty_files_stop_the_script_with_one_line(mnist, fault, command_line):
    path, expected, got = fault
    status, out, err = command_line("--data", mnist)
    assert status == 2
    assert out == ""
    assert re.fullmatch(rf"softmax_regression\.py: {re.escape(f'{path}: expected {expected}, got {got}')}.*\n", err)


def test_a_directory_in_the_place_of_a_file_is_refused(idx, mnist):
    path = mnist / "train-images-idx3-ubyte"
    path.unlink()
    path.mkdir()
    with pytest.raises(idx.IdxError, match="expected a readable file") as caught:
        idx.read_data_set(mnist, n_classes=10)
    assert caught.value.path == path


def test_no_such_directory(example, tmp_path):
    process = run_script("--data", "nowhere", cwd=tmp_path)
    assert process.returncode == 2
    assert process.stdout == ""
    [line] = process.stderr.splitlines()
    assert line == (
        f"softmax_regression.py: {Path('nowhere', 'train-images-idx3-ubyte')}: "
        "expected this file, or the same with .gz, got neither"
    )


# ---- The rest of the command line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "0"], "must be at least 1"),
        (["--batch-size", "-1"], "must be at least 1"),
        (["--learning-rate", "0"], "must be positive"),
        (["--learning-rate", "nan"], "must be positive"),
        (["--seed", "-1"], "must not be negative"),
        (["--classes", "fashion"], "give both"),
        (["--output", "nowhere/figure.png"], "no such directory: nowhere"),
        (["--output", "figure"], "the ending of a picture"),
        (["--output", "figure.txt"], "the ending of a picture"),
    ],
)
def test_wrong_options_are_refused(command_line, arguments, message):
    status, out, err = command_line(*arguments)
    assert status == 2
    assert out == ""
    assert message in err.splitlines()[-1]


@pytest.mark.parametrize("module", ["matplotlib", "tqdm", "sklearn"])
def test_a_missing_package_is_named_with_the_remedy(example, monkeypatch, command_line, module):
    for name in list(sys.modules):
        if name.split(".")[0] == module:
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    message, out, _ = command_line()
    assert out == ""
    assert module in message
    assert message.endswith('pip install "fastsoftmax[examples]"')


def test_a_figure_that_cannot_be_saved_is_one_line(mnist, command_line):
    path = mnist / "figure.png"
    path.mkdir()
    status, _, err = command_line("--data", mnist, "--epochs", 1, "--output", path)
    assert status == 2
    assert str(path) in err.splitlines()[-1]
    assert err.splitlines()[-1].startswith("softmax_regression.py: ")
