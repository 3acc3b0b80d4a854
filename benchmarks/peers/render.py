"""Make of peers.json what people read: peers.md with every case, the README's table, and the charts.

    python benchmarks/peers/render.py          # writes them
    python benchmarks/peers/render.py --check  # tells whether they are those of the JSON; measures and draws nothing

The README's part stands between two markers, so that no figure in it is ever copied by hand.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import textwrap
from itertools import groupby
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
RESULTS = CHECKOUT / "benchmarks" / "results"
JSON, MARKDOWN = "peers.json", "peers.md"
CHARTS = ["peers_time", "peers_error"]  # each as .png and .svg
BEGIN, END = "<!-- peers:begin -->", "<!-- peers:end -->"
README_COLUMNS = ["PyTorch", "ONNX Runtime", "JAX", "NumPy", "SciPy"]
README_ERRORS = ["PyTorch", "NumPy"]


# ---- One row


def number(value: float) -> str:
    """Three significant digits, without exponents."""
    decimals = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    return f"{value:,.{decimals}f}"


def ulp(result: dict) -> str:
    """Error of a result; nothing where none was measured."""
    error = result.get("ulp")
    return "" if error is None else f"{error:,.0f} ulp" if error >= 100 else f"{error:.2g} ulp"


def cell(result: dict | None) -> str:
    """Ratio, floor and error of one contestant."""
    if result is None:
        return ""
    if "wrong" in result:
        return f"wrong: {result['wrong']}"
    ratio = number(result["ratio"]) if "ratio" in result else ""
    if "floor" in result:
        ratio = f"{ratio} ≥ {result['floor']:g}" if result["met"] else f"**{ratio} < {result['floor']:g}**"
    return "; ".join(filter(None, [ratio, ulp(result)]))


def header(names: list[str]) -> str:
    """Begin a table; every name but ours has a column of ratios."""
    columns = ["case", "threads", "ours, µs", *names]
    return f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|"


def row(record: dict, names: list[str]) -> str:
    """Show one case at one number of threads."""
    results = record["results"]
    ours = "; ".join(filter(None, [number(results["ours"]["seconds"] * 1e6), ulp(results["ours"])]))
    cells = [record["name"], str(record["threads"]), ours, *(cell(results.get(name)) for name in names)]
    return f"| {' | '.join(cells)} |"


def title(group: str) -> str:
    """Head a group's table."""
    return {
        "main": "## The contract's cases",
        "avx2": "## AVX2 forced, on both sides",
        "baseline": "## Baseline forced, on both sides",
        "sweep": "## Row lengths from 1 to 2^20, 2^20 elements each",
    }[group]


# ---- The whole


def as_json(results: dict) -> str:
    """Text of peers.json: a record a line."""
    records = ",\n".join(json.dumps(record) for record in results["records"])
    return f'{{"about": {json.dumps(results["about"], indent=1)},\n"records": [\n{records}\n]}}\n'


def preamble(about: dict) -> list[str]:
    """Say where, when and how it was measured, and how to read it."""
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items() if name != "ours")
    caches = ", ".join(f"{size} {name}" for name, size in about["caches"].items())
    every_core = [name for name, threads in about["threads"].items() if threads == "every core"]
    one = [name for name, threads in about["threads"].items() if threads == "one"]
    lines = [
        "# fastsoftmax beside its peers",
        "",
        f"`{about['command']}`, {about['date']}",
        "",
        f"- Machine: {about['cpu']}, {about['cores']} cores, {caches or 'caches unknown'}, {about['system']}; "
        f"load before the start {about['load']}",
        f"- fastsoftmax {about['versions']['ours']}, {about['isa']} kernels, {about['compiler'] or 'compiler unknown'}"
        f"{'' if about['openmp'] else ', built without OpenMP'}; Python {about['python']}, {versions}",
        "- A cell: the other's time over ours (above 1 we are faster), the floor we promise where there is one (bold "
        "where it is missed), and the largest error in ulp. Without a ratio: not timed, see below.",
        "- Every contestant writes into an array that is there already where it can, but in the cases named fresh.",
        f"- {', '.join(one)} use one thread in every row; so do copy (`np.copyto` of the input) and read (one pass "
        "over it).",
        "- The column 1 thread is what a second thread brings: our time on one thread over our time on the row's.",
    ]
    if every_core:
        lines.append(
            f"- {' and '.join(every_core)} cannot be told a number of threads inside a process: it uses every core, "
            f"and is timed only in rows of {about['cores']} threads, this machine's cores; elsewhere only its error "
            "is given."
        )
    lines += [f"- {line}" for line in about["left out"]]
    if about["note"]:
        lines.append(f"- **Note: {about['note']}**")
    return lines


def floors(records: list[dict]) -> list[str]:
    """Count the floors, and name those that are missed, the worst first."""
    found = [
        (result["ratio"] / result["floor"], f"{record['name']}, threads {record['threads']}, {name}", result)
        for record in records
        for name, result in record["results"].items()
        if "floor" in result
    ]
    missed = sorted((entry for entry in found if not entry[2]["met"]), key=lambda entry: entry[0])
    lines = ["## Floors", "", f"{len(found) - len(missed)} of {len(found)} are met."]
    if missed:
        lines += ["", "| missed | ratio | floor | of it |", "|---|---|---|---|"]
        lines += [f"| {name} | {number(r['ratio'])} | {r['floor']:g} | {share:.0%} |" for share, name, r in missed]
    return lines


def yardsticks(records: list[dict]) -> list[str]:
    """Hold softmax and log_softmax of float32 on one thread to the speed of memory, and to that of the arithmetic."""
    sweep = [record for record in records if record["group"] == "sweep"]
    cases = [
        record
        for record in records
        if record["group"] == "main" and record["threads"] == 1 and record["dtype"] == "float32"
        if record["op"] in ("softmax", "log_softmax") and "copy" in record["results"]
    ]
    if not (sweep and cases):
        return []
    rate = min(record["results"]["ours"]["seconds"] / math.prod(record["shape"]) for record in sweep)
    lines = [
        "## How far from the machine",
        "",
        f"Arithmetic: {number(rate * 16e9)} ns for 16 elements, as at the best of the row lengths above. Memory: "
        "`np.copyto`, which also reads what it overwrites; stores past the caches do not, and may take less.",
        "",
        "| float32, 1 thread | ours, µs | arithmetic, µs | memory, µs | ours over the longer |",
        "|---|---|---|---|---|",
    ]
    for record in cases:
        ours, memory = (record["results"][name]["seconds"] for name in ("ours", "copy"))
        arithmetic = rate * math.prod(record["shape"])
        times = [number(seconds * 1e6) for seconds in (ours, arithmetic, memory)]
        lines.append(f"| {record['name']} | {' | '.join(times)} | {number(ours / max(arithmetic, memory))} |")
    return lines


def statements(records: list[dict]) -> list[str]:
    """Show which line of code was timed, for each contestant and operation."""
    seen: dict[tuple[str, str], dict[str, None]] = {}
    for record in records:
        for name, result in record["results"].items():
            seen.setdefault((record["op"], name), {})[result["statement"]] = None
    lines = ["## What was timed", "", "| operation | contestant | line of code |", "|---|---|---|"]
    return lines + [
        f"| {op} | {name} | {', '.join(f'`{line}`' for line in found)} |" for (op, name), found in seen.items()
    ]


def every_case(results: dict) -> str:
    """Text of peers.md."""
    records = results["records"]
    names = list(dict.fromkeys(name for record in records for name in record["results"] if name != "ours"))
    parts = ["\n".join(preamble(results["about"])), "\n".join(floors(records))]
    for group, found in groupby(records, key=lambda record: record["group"]):
        rows = list(found)
        columns = [name for name in names if any(name in record["results"] for record in rows)]
        parts.append("\n".join([title(group), "", header(columns), *(row(record, columns) for record in rows)]))
    parts += ["\n".join(part) for part in (yardsticks(records), statements(records)) if part]
    return "\n\n".join(parts) + "\n"


# ---- The README


def readme_part(results: dict) -> str:
    """Text between the markers: the chosen cases, one line for all numbers of threads, and the chart."""
    about = results["about"]
    chosen = [record for record in results["records"] if record["readme"] and record["group"] == "main"]
    columns = [name for name in README_COLUMNS if name in about["versions"]]
    errors = ["ours", *(name for name in README_ERRORS if name in about["versions"])]
    threads = " / ".join(str(t) for t in sorted({record["threads"] for record in chosen}))
    versions = ", ".join(f"{name} {about['versions'][name].partition('+')[0]}" for name in columns)
    text = (
        f"How many times as long the others take (above 1 we are faster), on {threads} threads, and the largest error "
        f"in ulp. Measured on {about['cpu']}, {about['cores']} cores, {about['isa']} kernels, {about['date']}, beside "
        f"{versions}." + (f" {about['note']}" if about["note"] else "")
    )
    legend = (
        "float32 where nothing else is named. Into an array that is there already, where a library can; fresh: the "
        "result is allocated anew, as NumPy, SciPy and JAX always do. NumPy and SciPy use one thread. A dash: no such "
        "function, or no way to tell it the number of threads."
    )
    lines = [
        textwrap.fill(text, 120),
        "",
        textwrap.fill(legend, 120),
        "",
        f"| threads {threads} | ours, µs | {' | '.join(columns)} | ulp: {' / '.join(errors)} |",
        "|---" * (len(columns) + 3) + "|",
    ]
    for name, found in groupby(chosen, key=lambda record: record["name"]):
        rows = [record["results"] for record in found]
        times = " / ".join(number(results["ours"]["seconds"] * 1e6) for results in rows)
        ratios = [" / ".join(readme_ratio(results.get(column)) for results in rows) for column in columns]
        digits = " / ".join(ulp(rows[0].get(column, {})).removesuffix(" ulp") or "-" for column in errors)
        lines.append(f"| {name} | {times} | {' | '.join(ratios)} | {digits} |")
    lines += ["", f"![Time per element against row length](benchmarks/results/{CHARTS[0]}.svg)"]
    return "\n".join([BEGIN, *lines, END])


def readme_ratio(result: dict | None) -> str:
    """Show a ratio, or a dash."""
    return "-" if result is None or "ratio" not in result else number(result["ratio"])


def with_part(readme: str, part: str) -> str:
    """Put a new part into the README's text; ValueError if it has not the two markers."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the README has no {BEGIN} ... {END}")
    return before + part + after


# ---- The command


def differences(results_dir: Path, readme: Path) -> list[str]:
    """Name what is not that of the JSON."""
    import charts

    results = json.loads((results_dir / JSON).read_text())
    wrong = []
    if (results_dir / MARKDOWN).read_text() != every_case(results):
        wrong.append(MARKDOWN)
    text = readme.read_text()
    if with_part(text, readme_part(results)) != text:
        wrong.append(readme.name)
    digest = charts.digest(results_dir).encode()
    for name in charts.files():
        chart = results_dir / name
        if not chart.exists() or digest not in chart.read_bytes():
            wrong.append(name)
    return wrong


def main(arguments: list[str]) -> int:
    """Write, or check."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only tell whether everything agrees with the JSON")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of peers.json")
    parser.add_argument("--readme", type=Path, default=CHECKOUT / "README.md")
    options = parser.parse_args(arguments)
    if options.check:
        wrong = differences(options.results, options.readme)
        if wrong:
            print(f"not those of {JSON}: {', '.join(wrong)}; run python benchmarks/peers/render.py")
        return bool(wrong)
    import charts

    results = json.loads((options.results / JSON).read_text())
    (options.results / MARKDOWN).write_text(every_case(results))
    options.readme.write_text(with_part(options.readme.read_text(), readme_part(results)))
    print(charts.draw(options.results))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
