"""Threads, and what is in use."""

from __future__ import annotations

import numpy as np

from fastsoftmax import _registry, _threads


def set_num_threads(n_threads: int | None) -> None:
    """Set how many threads a call uses that names no number itself.

    Parameters
    ----------
    n_threads : int or None
        At most so many, and never more than the machine has; None for OpenMP's own number (OMP_NUM_THREADS,
        threadpoolctl), which is the default.

    Raises
    ------
    ValueError
        If n_threads is below 1.
    TypeError
        If it is no int.

    Examples
    --------
    >>> import fastsoftmax
    >>> fastsoftmax.set_num_threads(1)
    >>> fastsoftmax.get_num_threads()
    1
    >>> fastsoftmax.set_num_threads(None)
    """
    _threads.set_default(n_threads)


def get_num_threads() -> int:
    """Say how many threads a call may use that names no number itself.

    Returns
    -------
    int

    Examples
    --------
    >>> import fastsoftmax
    >>> fastsoftmax.get_num_threads() >= 1
    True
    """
    return _registry.current().num_threads(_threads.requested(None))


def show_config() -> None:
    """Print the version, the backends found with what they run on, and the number of threads.

    Examples
    --------
    >>> import fastsoftmax
    >>> fastsoftmax.show_config()  # doctest: +ELLIPSIS
    fastsoftmax ...
    """
    from fastsoftmax import __version__  # which is not there yet while the package loads

    print(f"fastsoftmax {__version__}, NumPy {np.__version__}")
    for name, (device, _, remedy) in _registry.BACKENDS.items():
        chosen = " (in use)" if _registry.chosen(device) == name else ""
        found = _registry.load(name).describe() if _registry.is_there(name) else f"not installed ({remedy})"
        print(f"  {device} backend {name}{chosen}: {found}")
    print(f"  threads: {get_num_threads()}")
