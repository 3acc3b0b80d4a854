"""Compiles kernels for the CPU and runs them: a shared library of their instances, loaded by ctypes.

`build(names, headers, folder, include=[...])` writes two C++ files that list the instances by their name expressions,
compiles them, two at a time, and the runtime, and returns a `Library`. What is built stays in the folder, under a hash
of everything that went into it, wherever it lies, and is taken from there when nothing has changed.

Kernels say of each access to memory that they make it, by what the compiler does for ThreadSanitizer (hooks.cpp stands
for its runtime), so that races are found. With sanitize=("address",) they do not, and accesses out of bounds are found;
the process that loads such a library must have been started with `environment(sanitize)`.
"""

import ctypes
import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
RUNTIME = ["cluster.cpp", "operations.cpp", "launch.cpp"]
FLAGS = [
    "-std=c++17",
    "-O1",
    "-g1",
    "-fPIC",
    "-fvisibility=hidden",
    "-ffp-contract=off",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wno-unknown-pragmas",  # unroll
]


class LaunchError(RuntimeError):
    """What the emulation found wrong with a launch."""


class Library:
    """Kernels compiled for the CPU."""

    def __init__(self, path):
        self._library = ctypes.CDLL(str(path))
        self._library.emulation_error.restype = ctypes.c_char_p
        self._library.emulation_kernel.restype = ctypes.c_char_p
        self._library.emulation_kernel.argtypes = [ctypes.c_size_t]
        three = ctypes.c_uint * 3
        self._library.emulation_launch.argtypes = [
            ctypes.c_char_p,
            three,
            three,
            ctypes.c_uint,
            ctypes.c_size_t,
            ctypes.c_char_p,
            ctypes.c_size_t,
        ]
        self.names = set()
        while name := self._library.emulation_kernel(len(self.names)):
            self.names.add(name.decode())

    def launch(self, name, grid, block, job, *, cluster=1, shared_bytes=0):
        """Run a kernel over a grid; job is the bytes of its argument."""
        grid, block = ((ctypes.c_uint * 3)(*size, *[1] * (3 - len(size))) for size in (grid, block))
        if self._library.emulation_launch(name.encode(), grid, block, cluster, shared_bytes, job, len(job)):
            raise LaunchError(self._library.emulation_error().decode())

    def set_order(self, order):
        """Run threads forward (0), backward (1), or in an order shuffled by the seed 2, 3, ..."""
        self._library.emulation_set_order(order)

    def set_exp2_errs(self, errs):
        """Whether exp2_approx errs as the GPU's may, by up to 2 ulp."""
        self._library.emulation_set_exp2_errs(int(errs))


def compiler():
    """Give the command of the C++ compiler; None if there is none."""
    words = shlex.split(os.environ.get("CXX", ""))
    if words:
        return words if shutil.which(words[0]) else None
    return next(([name] for name in ("c++", "g++", "clang++") if shutil.which(name)), None)


def environment(sanitize):
    """Give what a process needs in its environment to load a library built with these sanitizers."""
    if "address" not in sanitize:
        return {}
    found = subprocess.run([*compiler(), "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
    return {"LD_PRELOAD": found.stdout.strip(), "ASAN_OPTIONS": "detect_leaks=0"}


def build(names, headers, folder, *, include=(), sanitize=(), define=()):
    """Compile the instances of these name expressions, from these headers, and load them."""
    names = sorted(set(names))
    flags = [*FLAGS, *(f"-D{macro}" for macro in define)]
    of_kernels, runtime = [], list(RUNTIME)
    if "address" in sanitize:
        flags += ["-fsanitize=address", "-fno-omit-frame-pointer"]
    else:
        flags.append("-DEMULATION_RACES")
        of_kernels.append("-fsanitize=thread")
        runtime.append("hooks.cpp")
    if "undefined" in sanitize:
        of_kernels += ["-fsanitize=undefined", "-fno-sanitize-recover=undefined"]
    listings = {f"kernels{i}.cpp": _listing(names[i::2], headers) for i in range(2) if names[i::2]}
    path = Path(folder) / f"kernels-{_hash([*flags, *of_kernels], listings, include)}.so"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            paths = [f"-I{path}" for path in [HERE, *include]]
            _compile([*flags, *paths], of_kernels, listings, runtime, Path(scratch)).rename(path)
    return Library(path)


def _listing(names, headers):
    lines = [f"#include <{header}>" for header in ["device.cuh", *headers]]
    return "\n".join([*lines, "", *(f'EMULATED("{name}", {name});' for name in names), ""])


def _hash(flags, listings, include):
    version = subprocess.run([*compiler(), "--version"], capture_output=True, text=True, check=True).stdout
    digest = hashlib.sha256(repr((version, flags, listings)).encode())
    for folder in [HERE, *map(Path, include)]:
        for source in sorted(path for path in folder.iterdir() if path.suffix in {".h", ".cuh", ".cpp"}):
            digest.update(source.name.encode() + source.read_bytes())
    return digest.hexdigest()[:16]


def _compile(flags, of_kernels, listings, runtime, scratch):
    for name, text in listings.items():
        (scratch / name).write_text(text)
    sources = [(scratch / name, of_kernels) for name in listings] + [(HERE / name, []) for name in runtime]
    objects = [scratch / f"{source.stem}.o" for source, _ in sources]
    with ThreadPoolExecutor(2) as pool:
        jobs = [
            pool.submit(_run, [*flags, *more, "-c", source, "-o", result])
            for (source, more), result in zip(sources, objects, strict=True)
        ]
        for job in jobs:
            job.result()
    library = scratch / "kernels.so"
    linked = [flag for flag in [*flags, *of_kernels] if flag.startswith("-fsanitize") and "thread" not in flag]
    _run([*linked, "-shared", *objects, "-o", library])
    return library


def _run(arguments):
    command = [*compiler(), *map(str, arguments)]
    env = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}  # a sanitizer, for Python alone
    process = subprocess.run(command, capture_output=True, text=True, env=env)
    if process.returncode:
        raise RuntimeError(f"{shlex.join(command)}\n{process.stderr}")
