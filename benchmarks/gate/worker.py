"""One process of a pair: times the cases that it is asked for, with the build that it was started with."""

from __future__ import annotations

import importlib
import inspect
import itertools
import json
import pkgutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from timeit import Timer

import fastsoftmax
from builds import checkout

sys.path.insert(0, str(checkout() / "benchmarks"))
import benchmarks  # asv's package
from benchmarks.common import Operation
from benchmarks.turns import Turns

BACKEND = "native"


def cases() -> dict[str, Callable[[], Timer]]:
    """Give what asv tracks beside NumPy (all of it on one thread), on the native backend, by asv's names."""
    found = {}
    for module in pkgutil.iter_modules(benchmarks.__path__):
        if not module.name.startswith("bench_"):
            continue
        for cls in vars(importlib.import_module(f"benchmarks.{module.name}")).values():
            if inspect.isclass(cls) and issubclass(cls, Operation):
                for params in itertools.product(*cls.params):
                    if params[-1] == BACKEND:
                        name = f"{module.name}.{cls.__name__}({', '.join(map(str, params[:-1]))})"
                        found[name] = partial(prepare, cls, params)
    return found


def prepare(cls: type, params: tuple) -> Timer:
    """Set a benchmark up as asv does."""
    benchmark = cls()
    benchmark.setup(*params)
    return benchmark.timed


def main(folder: str | None = None) -> None:
    """Name the cases; then answer each line of input, a case or null for a turn at the last one."""
    assert folder is None or Path(folder) in Path(fastsoftmax.__file__).parents, fastsoftmax.__file__
    known = cases()
    print(json.dumps(list(known)), flush=True)
    turns = None
    for line in sys.stdin:
        name = json.loads(line)
        if name is None:
            turns.take()
            answer = turns.times[-1]
        else:
            try:
                turns = Turns(known[name](), seconds=0, fewest=0)
                answer = 0
            except Exception as error:
                print(f"{name}: {error!r}", file=sys.stderr)
                answer = None
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
