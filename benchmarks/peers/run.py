"""Measure fastsoftmax beside the libraries that are installed: time, floors, and errors.

    python benchmarks/peers/run.py [--threads 1 2] [--seconds 0.2] [--only REGEX] [--quick] [--out DIR] [--note TEXT]

Prints a Markdown table as it goes. A run of everything writes peers.json, peers.md and two charts into
benchmarks/results; a part of it (--quick, --only) writes only where --out says. benchmarks/README.md explains the rest.

An instruction set is chosen when a library is imported, PyTorch's too, so the cases with a forced one run in a process
of their own: this script once more, with --forced, which prints its records as JSON.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from timeit import Timer

import charts
import machine
import render
from cases import CASES, FORCED, Case, Data, is_quick
from errors import Judge
from fastsoftmax import _native
from libraries import BESIDE_FORCED, LIBRARIES, OURS, Library, cores, installed, versions

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.turns import interleave  # which asv finds by itself

RESULTS = Path(__file__).resolve().parents[1] / "results"
TORCH_CAPABILITY = {"avx2": "avx2", "baseline": "default"}
SECONDS, QUICK_SECONDS = 0.2, 0.01
FEWEST_TURNS, QUICK_FEWEST_TURNS = 5, 3


def taking_part(group: str, libraries: list[Library]) -> list[Library]:
    """Choose who is measured in the cases of a group."""
    if group in FORCED:
        return [library for library in libraries if library.name in BESIDE_FORCED]
    if group == "sweep":
        return [library for library in libraries if library.modules]  # no yardsticks
    return libraries


def measure_case(case: Case, libraries: list[Library], options: argparse.Namespace) -> list[dict]:
    """Measure one case at each number of threads; each contestant is judged once, before it is timed."""
    data = Data.of(case)
    judge = Judge(case, data)
    judged: dict[str, dict] = {}
    all_threads = options.threads if case.group != "sweep" else options.threads[:1]
    records = []
    for threads in all_threads:
        results, timers = {}, {}
        for library in taking_part(case.group, libraries):
            if library.set_threads is not None:
                library.set_threads(threads)
            contestant = library.adapter(case, data, threads)
            if contestant is None:
                continue
            if library.name not in judged:
                judged[library.name] = verdict(contestant, judge)
            results[library.name] = {"statement": contestant.statement, "out": contestant.out} | judged[library.name]
            unequal = library.threads == "every core" and threads != cores()
            if "wrong" not in results[library.name] and not unequal:
                timers[library.name] = Timer(contestant.statement, globals=contestant.names)
        times = interleave(timers, options.seconds, options.fewest_turns)
        records.append(record(case, threads, results, times))
    return records


def verdict(contestant: object, judge: Judge) -> dict[str, object]:
    """Give the error of what a contestant computes, or say why it is not the right thing."""
    if contestant.answer is None:
        return {}
    exec(contestant.statement, contestant.names)
    try:
        error = judge.error(eval(contestant.answer, contestant.names))
    except ValueError as reason:
        return {"wrong": str(reason)}
    return {"ulp": error if error is None else rounded(error)}


def rounded(value: float) -> float:
    """Keep the four digits that may mean something."""
    return float(f"{value:.4g}")


def record(case: Case, threads: int, results: dict[str, dict], times: dict[str, float]) -> dict:
    """Put together what the tables and the JSON say about a case at one number of threads."""
    if "wrong" in results[OURS.name]:
        raise SystemExit(f"{case.name}: our own result is wrong: {results[OURS.name]['wrong']}")
    for name, seconds in times.items():
        result = results[name]
        result["seconds"] = rounded(seconds)
        if name != OURS.name:
            result["ratio"] = rounded(seconds / times[OURS.name])
            floor = case.floor(name, threads, _native.isa())
            if floor is not None:
                result |= {"floor": floor, "met": result["ratio"] >= floor}
    described = {key: getattr(case, key) for key in ("name", "group", "op", "shape", "axis", "dtype", "out", "readme")}
    return described | {"threads": threads, "isa": _native.isa(), "results": results}


def measure_forced(isa: str, options: argparse.Namespace) -> list[dict]:
    """Measure the cases of a forced instruction set, in a process of its own."""
    command = [sys.executable, __file__, "--forced", isa, "--seconds", str(options.seconds)]
    command += [f"--only={options.only}"]
    command += ["--threads", *map(str, options.threads)] + ["--quick"] * options.quick
    env = os.environ | {"FASTSOFTMAX_ISA": isa, "ATEN_CPU_CAPABILITY": TORCH_CAPABILITY[isa]}
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the measurement with {isa} forced ended with status {done.returncode}")
    return json.loads(done.stdout)


def check_forced(isa: str) -> None:
    """Make sure that a forced instruction set is the one in use, on both sides."""
    assert _native.isa() == isa, (_native.isa(), isa)
    torch = sys.modules.get("torch")
    if torch is not None:
        capability = torch.backends.cpu.get_cpu_capability()
        assert capability.lower() == TORCH_CAPABILITY[isa], (capability, isa)


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line, and choose the cases."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, help=f"for each contestant and case; default {SECONDS}")
    parser.add_argument("--only", default="", help="a regular expression for the names of cases")
    parser.add_argument("--quick", action="store_true", help="the small cases, few turns: does it work?")
    parser.add_argument("--out", type=Path, help="folder of the results")
    parser.add_argument("--note", help="recorded with the results, and shown beside them")
    parser.add_argument("--forced", choices=FORCED, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if min(options.threads) < 1:
        parser.error("--threads must be at least 1")
    most = cores() if _native.has_openmp() else 1
    too_many = [threads for threads in options.threads if threads > most]
    options.threads = sorted({threads for threads in options.threads if threads <= most})
    if too_many:
        why = f"this machine has {most} cores" if _native.has_openmp() else "fastsoftmax was built without OpenMP"
        print(f"Not measured with {', '.join(map(str, too_many))} threads: {why}.", file=sys.stderr)
    if not options.threads:
        parser.error("no number of threads is left")
    options.seconds = options.seconds or (QUICK_SECONDS if options.quick else SECONDS)
    options.fewest_turns = QUICK_FEWEST_TURNS if options.quick else FEWEST_TURNS
    if options.out is None and not (options.quick or options.only):
        options.out = RESULTS
    options.cases = [
        case for case in CASES if re.search(options.only, case.name) and (not options.quick or is_quick(case))
    ]
    return options


def left_out(cases: list[Case], absent: dict[str, str]) -> tuple[list[Case], list[str]]:
    """Drop the cases that cannot be measured here; say in words who and what is missing."""
    lines = [f"{name} is left out: {reason}" for name, reason in absent.items()]
    missing = set(FORCED) - set(_native.supported_isas())
    lines += [f"{isa} cannot be forced on this machine" for isa in FORCED if isa in missing]
    cases = [case for case in cases if case.group not in missing]
    try:
        import ml_dtypes  # noqa: F401
    except ImportError as error:
        lines.append(f"bfloat16 is left out: {error}")
        cases = [case for case in cases if case.dtype != "bfloat16"]
    return cases, lines


def measure_all(cases: list[Case], libraries: list[Library], options: argparse.Namespace) -> list[dict]:
    """Measure and print group after group."""
    records = []
    for group in ("main", *FORCED, "sweep"):
        chosen = [case for case in cases if case.group == group]
        if not chosen:
            continue
        names = [library.name for library in taking_part(group, libraries) if library is not OURS]
        print(f"\n{render.title(group)}\n\n{render.header(names)}", flush=True)
        parts = (
            [measure_forced(group, options)]
            if group in FORCED
            else (measure_case(c, libraries, options) for c in chosen)
        )
        for found in parts:
            print("\n".join(render.row(record, names) for record in found), flush=True)
            records += found
    return records


def main(arguments: list[str]) -> None:
    """Measure, print, and write."""
    options = parse(arguments)
    about = machine.describe()  # first: it has the load of before
    libraries, absent = installed(BESIDE_FORCED if options.forced else None)
    cases, lines = left_out(options.cases, absent)
    if options.forced:
        check_forced(options.forced)
        chosen = [case for case in cases if case.group == options.forced]
        print(json.dumps([record for case in chosen for record in measure_case(case, libraries, options)]))
        return
    if not cases:
        raise SystemExit(f"no case is named like {options.only!r}; the names: {[case.name for case in CASES]}")
    about |= {
        "date": datetime.date.today().isoformat(),
        "command": shlex.join(["python", "benchmarks/peers/run.py", *arguments]),
        "seconds": options.seconds,
        "note": options.note,
        "versions": versions(libraries),
        "left out": lines,
        "threads": {library.name: library.threads for library in LIBRARIES if library in libraries and library.modules},
    }
    print("\n".join(render.preamble(about)), flush=True)
    results = {"about": about, "records": measure_all(cases, libraries, options)}
    print("\n" + "\n".join(render.floors(results["records"])))
    if options.out is None:
        print("\nA part of the cases: nothing is written without --out.")
        return
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / render.JSON).write_text(render.as_json(results))
    (options.out / render.MARKDOWN).write_text(render.every_case(results))
    print(f"\n{charts.draw(options.out)}\nWritten to {options.out}.")
    if options.out.resolve() == RESULTS:
        print("`python benchmarks/peers/render.py` puts them into the README.")


if __name__ == "__main__":
    main(sys.argv[1:])
