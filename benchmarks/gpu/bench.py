"""Measure fastsoftmax on a CUDA device: bandwidth beside the memory's own, and beside the other libraries.

    python benchmarks/gpu/bench.py [--quick] [--only REGEX] [--without NAME] [--rounds 15] [--json FILE]

Tries clusters and the cost of a call first, then prints Markdown tables as it goes. A run of everything writes
benchmarks/results/gpu-<device>.json, and the Markdown and the chart beside it; a part of it (--quick, --only,
--without) writes only where --json says. README.md in this folder explains how it is measured. Without a device it ends
with status 2, and with status 1 if a result of ours was wrong or missing.
"""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import ceilings
import device
import report
import smoke
from contestants import LIBRARIES, OURS, Library, installed, versions
from measure import measure, reason
from targets import every_case, is_quick
from timing import Stopwatch

RESULTS = Path(__file__).resolve().parents[1] / "results"
ROUNDS, QUICK_ROUNDS = 15, 5


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line, and choose the cases."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="a regular expression for the names of cases")
    parser.add_argument("--quick", action="store_true", help="the small cases, few turns: does it work?")
    names = [library.name for library in LIBRARIES if library is not OURS]
    parser.add_argument("--without", action="append", default=[], choices=names, help="leave a contestant out")
    parser.add_argument("--rounds", type=int, help=f"turns of each contestant in each case; default {ROUNDS}")
    parser.add_argument("--json", type=Path, help="file of the results; Markdown and chart get its name")
    options = parser.parse_args(arguments)
    if options.rounds is not None and options.rounds < 1:
        parser.error("--rounds must be at least 1")
    options.rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    cases = every_case()
    if options.quick:
        cases = [case for case in cases if is_quick(case)]
    options.cases = [case for case in cases if re.search(options.only, case.name)]
    if not options.cases:
        parser.error(f"no case is named like {options.only!r}; the names: {'; '.join(case.name for case in cases)}")
    return options


def left_out(options: argparse.Namespace, absent: dict[str, str]) -> list[str]:
    """Say in words who and what is missing; drop the cases that cannot be measured."""
    lines = [f"{name} is left out: {why}" for name, why in absent.items()]
    try:
        import ml_dtypes  # noqa: F401
    except ImportError as error:
        lines.append(f"bfloat16 is left out: {error}")
        options.cases = [case for case in options.cases if case.dtype != "bfloat16"]
    return lines


def begin(options: argparse.Namespace, command: list[str], stopwatch: Stopwatch) -> tuple[dict, list[Library]]:
    """Describe the device and who takes part, and run what runs first; print all of it."""
    libraries, absent = installed(options.without)
    about = {
        "command": shlex.join(["python", "benchmarks/gpu/bench.py", *command]),
        "device": device.describe(),
        "versions": versions(libraries),
        "rounds": options.rounds,
        "left out": left_out(options, absent),
        "clocks": {"before": device.clocks(), "after": None},
        "clusters": smoke.clusters(),
        "calls, µs": smoke.call_costs(libraries, stopwatch, QUICK_ROUNDS if options.quick else ROUNDS),
    }
    print("\n".join([*report.preamble(about), "", *report.smoke(about)]), flush=True)
    return about, libraries


def measure_all(
    options: argparse.Namespace, libraries: list[Library], stopwatch: Stopwatch, results: dict
) -> Iterator[None]:
    """Measure and print group after group; a step for each case, whose record is in the results then."""
    names = [library.name for library in libraries if library is not OURS]
    for group, cases in groupby(options.cases, key=lambda case: case.group):
        print(f"\n## {report.TITLES[group]}\n\n{report.header(names)}", flush=True)
        for case in cases:
            try:
                found = measure(case, libraries, options.rounds, stopwatch)
            except Exception as error:  # of any library, the device's memory among them: the other cases go on
                results["about"]["left out"].append(f"{case.name} is left out: {reason(error)}")
                print(f"| {case.name} | {reason(error)} |", flush=True)
            else:
                results["records"].append(found)
                print(report.row(found, names), flush=True)
            yield


def main(arguments: list[str]) -> int:
    """Measure, print, and write."""
    options = parse(arguments)
    try:
        device.require()
    except device.NoDeviceError as error:
        print(f"nothing is measured: {error}", file=sys.stderr)
        return device.NO_DEVICE
    if options.json is None and not (options.quick or options.only or options.without):
        options.json = RESULTS / f"gpu-{device.slug()}.json"
    stopwatch = Stopwatch(ceilings.delay)
    about, libraries = begin(options, arguments, stopwatch)
    results = {"about": about, "records": []}
    for _ in measure_all(options, libraries, stopwatch, results):
        if options.json is not None:
            report.write_json(results, options.json)  # what is measured stays, if the rest is not to be
    about["clocks"]["after"] = device.clocks()
    print("\n" + "\n\n".join("\n".join(section) for section in report.summary(results) if section))
    if options.json is None:
        print("\nA part of the cases: nothing is written without --json.")
    else:
        print(f"\nWritten: {', '.join(map(str, report.write(results, options.json)))}.")
    timed = [record for record in results["records"] if "seconds" in record["results"].get(OURS.name, {})]
    return int(len(timed) < len(options.cases))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
