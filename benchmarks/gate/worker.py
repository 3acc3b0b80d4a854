"""One process of a pair: times the cases that it is asked for, with the build that it was started with."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import fastsoftmax
from pairs import cases


def main(folder: str | None = None) -> None:
    """Name the cases; then answer each line of input, a case or null for a turn at the last one."""
    from benchmarks.turns import Turns

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
