"""Read the IDX files in which MNIST and Fashion-MNIST are published.

Such a data set is four files, `train-images-idx3-ubyte`, `train-labels-idx1-ubyte` and the same
two with `t10k` for the test set, each gzipped (then with `.gz` at the end of its name) or plain.
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np


class IdxError(Exception):
    """A file is missing, or it does not hold what it should."""

    def __init__(self, path: Path, expected: str, got: str) -> None:
        super().__init__(f"{path}: expected {expected}, got {got}")
        self.path, self.expected, self.got = path, expected, got


def read_data_set(
    directory: Path, *, n_classes: int
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Return the (images, labels) of the training set and of the test set, all of them uint8.

    Raises
    ------
    IdxError
        Where a file is missing or wrong in itself, or does not fit the others.
    """
    train, test = (read_split(directory, name, n_classes) for name in ("train", "t10k"))
    if train[0].shape[1:] != test[0].shape[1:]:
        raise IdxError(
            find(directory, "t10k-images-idx3-ubyte"),
            f"images of {times(train[0].shape[1:])} pixels, as in the training set",
            f"{times(test[0].shape[1:])}",
        )
    return train, test


def read_split(directory: Path, name: str, n_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the images, shape (n, rows, columns), and the labels, shape (n,), that go together."""
    images_path = find(directory, f"{name}-images-idx3-ubyte")
    labels_path = find(directory, f"{name}-labels-idx1-ubyte")
    images, labels = read_idx(images_path, ndim=3), read_idx(labels_path, ndim=1)
    if images.size == 0:
        raise IdxError(images_path, "at least one image", f"{times(images.shape)} pixels")
    if len(labels) != len(images):
        raise IdxError(labels_path, f"{len(images)} labels, one an image", f"{len(labels)}")
    if labels.max() >= n_classes:
        raise IdxError(labels_path, f"labels from 0 to {n_classes - 1}", f"{labels.max()}")
    return images, labels


def find(directory: Path, name: str) -> Path:
    """Return the path of the plain file, or else of the gzipped one."""
    for path in (directory / name, directory / f"{name}.gz"):
        if path.exists():
            return path
    raise IdxError(directory / name, "this file, or the same with .gz", "neither")


def read_idx(path: Path, *, ndim: int) -> np.ndarray:
    """Read one file: an array of unsigned bytes with `ndim` dimensions.

    The format is a magic number (0x08 for unsigned bytes, then the number of dimensions), each
    dimension as a big-endian 32-bit integer, and the elements in C order.
    """
    try:
        content = path.read_bytes()
        # The content decides, not the name: some browsers unpack a .gz and keep its name.
        if content.startswith(b"\x1f\x8b"):
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise IdxError(path, "a readable file, whole if gzipped", str(error)) from error

    magic, header = 0x0800 + ndim, 4 + 4 * ndim
    if len(content) < header:
        raise IdxError(path, f"a header of {header} bytes", f"a file truncated to {len(content)}")
    found = int.from_bytes(content[:4], "big")
    if found != magic:
        raise IdxError(path, f"the magic number 0x{magic:08x}", f"0x{found:08x}")
    # Multiplied as Python's integers: the product of three 32-bit dimensions can pass 64 bits.
    shape = np.frombuffer(content, ">u4", ndim, offset=4).tolist()
    size = header + math.prod(shape)
    if len(content) != size:
        fault = "truncated" if len(content) < size else "trailing bytes"
        raise IdxError(path, f"{size} bytes for the shape {times(shape)}", f"{len(content)} ({fault})")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def times(shape: tuple[int, ...] | list[int]) -> str:
    return " x ".join(map(str, shape))
