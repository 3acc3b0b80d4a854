"""Compare two commits, and fail where the second is slower.

    python benchmarks/gate/run.py [BASE] [HEAD] [--threshold 1.1] [--quick] [--only REGEX] [--repo DIR] [--cache DIR]

BASE and HEAD are commits, or the word `installed` for the fastsoftmax that this Python imports; by default the last
commit and `installed`. pip builds a commit in a folder of its own, which stays for the next time. What is timed are the
operations of the asv benchmarks on the native backend, by the benchmark code of this checkout.

asv tracks our time over NumPy's. Here both builds are at hand, so one is timed beside the other instead: NumPy's time,
the same for both, cancels, and its noise with it. Two processes, one a build, take turns of some milliseconds, in the
order A B B A on one processor; the ratio of the medians of their turns is one sample. The next sample comes from two
fresh processes, because where memory happens to lie stays the same for as long as a process lives, and may be worth
some percent.

A case is screened with a few samples. One whose median is half way to the threshold is measured again, with nine new
samples, and is slower if their median reaches the threshold and the second smallest is half way to it: if the true
median were below half way, that would happen to at most 2 of 100 suspects (at most one head in nine tosses of a coin).
A slowdown of exactly the threshold is found in half of the runs, one half as large again in nearly all.
`asv continuous` compares commits too, but runs their processes minutes apart, and has no test for tracked numbers.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
from pathlib import Path

from builds import INSTALLED, Build, checkout
from pairs import Pair, Worker

THRESHOLD = 1.1
SCREENING, QUICK_SCREENING, CONFIRMATION = 5, 3, 9


def half_way(threshold: float) -> float:
    """Give the ratio in the middle of 1 and the threshold."""
    return (1 + threshold) / 2


def is_slower(ratios: list[float], threshold: float) -> bool:
    """Judge the samples of a confirmation."""
    return statistics.median(ratios) >= threshold and sorted(ratios)[1] >= half_way(threshold)


def sample(builds: tuple[Build, Build], names: list[str], count: int) -> dict[str, list[float]]:
    """Take samples of each case: HEAD's time over BASE's. A case that BASE cannot run gives none."""
    ratios: dict[str, list[float]] = {name: [] for name in names}
    for i in range(count):
        with Pair(*builds, number=i) as pair:
            for name in names:
                show(f"{i + 1}/{count} {name}")
                ratios[name] += pair.ratio(name)
    show("")
    return ratios


def show(progress: str) -> None:
    """Write over the last line of a terminal."""
    if sys.stderr.isatty():
        print(f"\r{progress:<79.79}" + "\r" * (not progress), end="", file=sys.stderr, flush=True)


def compare(builds: tuple[Build, Build], names: list[str], threshold: float, count: int) -> list[str]:
    """Print every case's ratio, and give those that are slower."""
    ratios = sample(builds, names, count)
    missing = [name for name in names if not ratios[name]]
    if len(missing) == len(names):
        raise SystemExit(f"no case runs with {builds[0]}")
    medians = {name: statistics.median(found) for name, found in ratios.items() if found}
    suspects = [name for name, median in medians.items() if median >= half_way(threshold)]
    confirmed = sample(builds, suspects, CONFIRMATION) if suspects else {}
    slower = [name for name in suspects if is_slower(confirmed[name], threshold)]
    print("| case | ratio | lowest to highest | again |\n|---|---|---|---|")
    for name in sorted(medians, key=medians.__getitem__, reverse=True):
        again = ""
        if name in confirmed:
            again = f"{statistics.median(confirmed[name]):.3f}" + ", **slower**" * (name in slower)
        print(f"| {name} | {medians[name]:.3f} | {min(ratios[name]):.3f} to {max(ratios[name]):.3f} | {again} |")
    for name in missing:
        print(f"\n{name} does not run with {builds[0]}.")
    return slower


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base", nargs="?", default="HEAD", help="a commit, or `installed`; default: %(default)s")
    parser.add_argument("head", nargs="?", default=INSTALLED, help="likewise; default: %(default)s")
    parser.add_argument("--threshold", type=float, default=THRESHOLD, help="the ratio that fails; default: %(default)s")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_SCREENING} samples instead of {SCREENING}")
    parser.add_argument("--only", default="", help="a regular expression for the names of cases")
    parser.add_argument("--repo", type=Path, default=checkout(), help="where the commits are; default: this checkout")
    parser.add_argument("--cache", type=Path, default=checkout() / "benchmarks/.asv/gate", help="where builds are kept")
    parser.add_argument("--build", action="store_true", help="build what is missing, and measure nothing")
    options = parser.parse_args(arguments)
    if options.threshold <= 1:
        parser.error(f"--threshold must be above 1, got {options.threshold}")
    return options


def main(arguments: list[str]) -> int:
    """Build, measure, and judge."""
    options = parse(arguments)
    builds = tuple(Build.of(name, options.repo, options.cache) for name in (options.base, options.head))
    if options.build:
        return 0
    worker = Worker(builds[1])
    known = worker.names
    worker.close()
    names = [name for name in known if re.search(options.only, name)]
    if not names:
        raise SystemExit(f"no case is named like {options.only!r}; the names: {known}")
    print(f"Time of {builds[1]} over that of {builds[0]}; it fails from {options.threshold:g} on.\n")
    slower = compare(builds, names, options.threshold, QUICK_SCREENING if options.quick else SCREENING)
    print(f"\n{len(slower)} of {len(names)} cases are slower" + "".join(f"\n- {name}" for name in slower))
    return int(bool(slower))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
