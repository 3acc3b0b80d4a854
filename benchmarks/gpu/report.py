"""Make of the JSON what people read: Markdown tables and the chart, which lie beside it under its name.

    python benchmarks/gpu/report.py benchmarks/results/gpu-nvidia-h200.json

No figure is copied by hand: bench.py prints and writes with the functions of this file.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from itertools import groupby
from pathlib import Path

import chart
from contestants import OURS, PYTORCH
from shared import as_json, number
from targets import AVERAGES, QUACK, QUACK_PEAK

TITLES = {
    "main": "Rows, with their targets",
    "grad": "Gradient of softmax (two reads, one write)",
    "axis 0": "Axis 0",
    "odd": "Row lengths that 16 bytes do not divide",
    "few": "Few rows",
    "dtypes": "Other dtypes",
    "sweep": "Row lengths from 16 to 2^20, the same number of bytes each",
}


# ---- One row


def fraction(result: dict) -> str:
    """Fraction of the ceiling, and the target where there is one."""
    if "target" not in result:
        return f"{result['fraction']:.3f}"
    if result["met"]:
        return f"{result['fraction']:.3f} ≥ {result['target']:.2f}"
    return f"**{result['fraction']:.3f} < {result['target']:.2f}**"


def cell(result: dict | None) -> str:
    """Ratio of one contestant to us; GB/s where we have no time."""
    if result is None:
        return ""
    if "seconds" not in result:
        return "wrong" if "wrong" in result else "failed"
    text = number(result["ratio"]) if "ratio" in result else f"{number(result['GB/s'])} GB/s"
    return text + "\\*" * result.get("gaps", False)


def header(names: list[str]) -> str:
    """Begin a table; every contestant but us has a column."""
    columns = ["case", "ours, µs", "GB/s", "of ceiling", "ceiling, GB/s", "ulp", *names]
    return f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|"


def row(record: dict, names: list[str]) -> str:
    """Show one case."""
    ours, ceiling = record["results"][OURS.name], record["ceiling"]
    if "seconds" in ours:
        cells = [number(ours["seconds"] * 1e6) + "\\*" * ours.get("gaps", False), number(ours["GB/s"]), fraction(ours)]
    else:
        cells = [cell(ours), "", ""]
    cells += [f"{number(ceiling['GB/s'])} ({ceiling['kernel']})", f"{ours['ulp']:.2g}" if "ulp" in ours else ""]
    cells += [cell(record["results"].get(name)) for name in names]
    return f"| {record['name']} | {' | '.join(cells)} |"


# ---- Around the tables


def preamble(about: dict) -> list[str]:
    """Say where, when and how it was measured, and how to read it."""
    device, clocks = about["device"], about["clocks"]
    cuda = device["CUDA"]
    peak = f", peak {device['peak, GB/s']} GB/s" if device["peak, GB/s"] else ""
    lines = [
        f"# fastsoftmax on {device['gpu']}",
        "",
        f"`{about['command']}`, {device['date']}",
        "",
        f"- Device: {device['gpu']}, compute capability {device['compute capability']}, {device['multiprocessors']} "
        f"multiprocessors, {device['memory, GB']} GB, {device['L2, MB']} MB of L2{peak}; CUDA driver {cuda['driver']}, "
        f"runtime {cuda['runtime']}; {device['system']}, Python {device['python']}",
        f"- {', '.join(f'{name} {version}' for name, version in about['versions'].items())}",
        "- GB/s: the bytes that must be moved (arrays once, labels, one result a row) over the time. The ceiling is "
        "the fastest of some kernels that only move as many; a fraction below its target is bold.",
        "- The other columns: their time over ours (above 1 we are faster). \\* The device waited for the host between "
        "the calls, so that the time is longer than the kernels'.",
        f"- Medians of {about['rounds']} turns; the arrays of a case change from call to call, and together exceed "
        "four times the L2.",
    ]
    for when in ("before", "after"):
        if clocks[when] is not None:
            told = ", ".join(f"{key} {value}" for key, value in clocks[when].items())
            lines.append(f"- Clocks {when} the measurement (MHz, °C): {told}")
    return lines + [f"- {line}" for line in about["left out"]]


def smoke(results: dict) -> list[str]:
    """Show cluster sizes and the cost of a call."""
    lines = ["## Clusters", "", "| blocks a cluster | |", "|---|---|"]
    lines += [f"| {size} | {outcome} |" for size, outcome in results["clusters"].items()]
    lines += ["", "## Cost of a call on (32, 10) to the host", "", "| call | µs |", "|---|---|"]
    calls = results["calls, µs"]
    return lines + [f"| {name} | {cost if isinstance(cost, str) else number(cost)} |" for name, cost in calls.items()]


def met(records: list[dict]) -> list[str]:
    """Count the targets, and name those that are missed, the worst first."""
    found = [(record["name"], record["results"][OURS.name]) for record in records]
    found = [(name, result) for name, result in found if "target" in result]
    missed = sorted((entry for entry in found if not entry[1]["met"]), key=lambda e: e[1]["fraction"] / e[1]["target"])
    lines = ["## Targets", "", f"{len(found) - len(missed)} of {len(found)} are met."]
    if missed:
        lines += ["", "| missed | of ceiling | target |", "|---|---|---|"]
        lines += [f"| {name} | {result['fraction']:.3f} | {result['target']:.2f} |" for name, result in missed]
    return lines


def averages(records: list[dict]) -> list[str]:
    """Give the geometric mean of each peer's ratios over the main group, and PyTorch's target."""
    lines = []
    for op, target in AVERAGES.items():
        ratios: dict[str, list[float]] = {}
        for record in records:
            if record["op"] == op and record["group"] == "main":
                for name, result in record["results"].items():
                    if "ratio" in result:
                        ratios.setdefault(name, []).append(result["ratio"])
        for name, found in ratios.items():
            mean = math.exp(sum(map(math.log, found)) / len(found))
            shown = number(mean)
            if name == PYTORCH.name:
                shown = f"{shown} ≥ {target:g}" if mean >= target else f"**{shown} < {target:g}**"
            lines.append(f"| {op} | {name} | {shown} | {number(min(found))} | {number(max(found))} | {len(found)} |")
    if not lines:
        return []
    head = ["| operation | contestant | mean of the ratios | least | largest | cases |", "|---" * 6 + "|"]
    return ["## Beside the others, geometric means", "", *head, *lines]


def published(records: list[dict], peak: float | None) -> list[str]:
    """Compare fractions of the peak with those that QuACK published for an H100."""
    lines = []
    for record in records:
        n, ours = record["shape"][1], record["results"][OURS.name]
        theirs = QUACK.get((record["op"], record["dtype"]), {}).get(n)
        if record["group"] != "main" or theirs is None or "GB/s" not in ours or not peak:
            continue
        ratio = (ours["GB/s"] / peak) / (theirs / QUACK_PEAK)
        shown = f"{ratio:.3f}" if ratio >= 1 else f"**{ratio:.3f} < 1**"
        lines.append(f"| {record['name']} | {ours['GB/s'] / peak:.3f} | {theirs / QUACK_PEAK:.3f} | {shown} |")
    if not lines:
        return []
    head = ["| case | our fraction of the peak | QuACK's on an H100 | ratio |", "|---" * 4 + "|"]
    return ["## Beside QuACK's published figures", "", *head, *lines]


def not_timed(records: list[dict]) -> list[str]:
    """Tell who was wrong or failed, and where."""
    found: dict[tuple[str, str], list[str]] = {}
    for record in records:
        for name, result in record["results"].items():
            why = f"wrong: {result['wrong']}" if "wrong" in result else result.get("failed")
            if why is not None:
                found.setdefault((name, why), []).append(record["name"])
    if not found:
        return []
    lines = ["## Not timed", "", "| contestant | cases | why |", "|---|---|---|"]
    for (name, why), cases in found.items():
        more = f" and {len(cases) - 1} more" if len(cases) > 1 else ""
        lines.append(f"| {name} | {cases[0]}{more} | {why} |")
    return lines


def expressions(records: list[dict]) -> list[str]:
    """Show which line of code was timed, for each operation and contestant; s is a set of arrays."""
    seen: dict[tuple[str, str], dict[str, None]] = {}
    for record in records:
        for name, result in record["results"].items():
            if "seconds" in result:
                seen.setdefault((record["op"], name), {})[result["expression"]] = None
    lines = ["## What was timed", "", "| operation | contestant | line of code |", "|---|---|---|"]
    return lines + [
        f"| {op} | {name} | {', '.join(f'`{line}`' for line in found)} |" for (op, name), found in seen.items()
    ]


# ---- The whole


def columns(records: list[dict]) -> list[str]:
    """Name the contestants that have a column in a table."""
    return list(dict.fromkeys(name for record in records for name in record["results"] if name != OURS.name))


def summary(results: dict) -> list[list[str]]:
    """List the sections between the smoke test and the tables."""
    records = results["records"]
    peak = results["about"]["device"]["peak, GB/s"]
    return [met(records), averages(records), published(records, peak), not_timed(records)]


def markdown(results: dict, picture: str | None) -> str:
    """Text of the Markdown file."""
    sections = [preamble(results["about"]), smoke(results["about"]), *summary(results)]
    if picture is not None:
        sections.append([f"![GB/s against row length]({picture})"])
    for group, found in groupby(results["records"], key=lambda record: record["group"]):
        records = list(found)
        names = columns(records)
        sections.append([f"## {TITLES[group]}", "", header(names), *(row(record, names) for record in records)])
    sections.append(expressions(results["records"]))
    return "\n\n".join("\n".join(section) for section in sections if section) + "\n"


def write_json(results: dict, path: Path) -> None:
    """Write the JSON alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(as_json(results))


def write(results: dict, path: Path) -> list[Path]:
    """Write JSON, Markdown and chart; name what was written."""
    write_json(results, path)
    pictures = chart.draw(results, path)
    text = path.with_suffix(".md")
    text.write_text(markdown(results, pictures[-1].name if pictures else None))
    return [path, text, *pictures]


def main(arguments: list[str]) -> None:
    """Write Markdown and chart anew."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("json", type=Path)
    options = parser.parse_args(arguments)
    print("\n".join(map(str, write(json.loads(options.json.read_text()), options.json))))


if __name__ == "__main__":
    main(sys.argv[1:])
