"""Draw, from the JSON alone, how time and error change with the length of the rows.

Each file carries the digest of the JSON that it was drawn from, so that render.py --check needs no picture to compare.
Colours are those of Okabe and Ito, which colour-blind readers tell apart; marks differ too.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import render

# Colour and mark, in the order of the legend.
STYLES = {
    "ours": ("#D55E00", "o"),
    "Numba backend": ("#999999", "*"),
    "PyTorch": ("#0072B2", "s"),
    "ONNX Runtime": ("#009E73", "^"),
    "JAX": ("#CC79A7", "D"),
    "NumPy": ("#000000", "v"),
    "SciPy": ("#E69F00", "P"),
    "scikit-learn": ("#56B4E9", "X"),
}
LABELS = {"ours": "fastsoftmax"}
PROMISED_ULP = 4


def digest(results_dir: Path) -> str:
    """Identify the contents of the JSON."""
    return hashlib.sha256((results_dir / render.JSON).read_bytes()).hexdigest()


def files() -> list[str]:
    """Name the files that are drawn."""
    return [f"{name}.{suffix}" for name in render.CHARTS for suffix in ("png", "svg")]


def curves(records: list[dict], value: str) -> dict[str, tuple[list[int], list[float]]]:
    """Row lengths and values of each library: "seconds" as nanoseconds an element, or "ulp"."""
    found: dict[str, tuple[list[int], list[float]]] = {}
    for record in records:
        batch, n = record["shape"]
        for name, result in record["results"].items():
            if result.get(value) is not None:
                lengths, values = found.setdefault(name, ([], []))
                lengths.append(n)
                values.append(result[value] * 1e9 / (batch * n) if value == "seconds" else result[value])
    return found


def spread(positions: list[float], least: float) -> list[float]:
    """Move labels apart: the same order, at least `least` between neighbours, each group about its middle."""
    groups: list[list[float]] = []  # [middle, count]
    for position in sorted(positions):
        groups.append([position, 1])
        while len(groups) > 1:
            (low, m), (high, k) = groups[-2:]
            if high - low >= least * (m + k) / 2:
                break
            groups[-2:] = [[(low * m + high * k) / (m + k), m + k]]
    ordered = [middle + least * (i - (count - 1) / 2) for middle, count in groups for i in range(int(count))]
    ranks = sorted(range(len(positions)), key=lambda i: positions[i])
    return [ordered[ranks.index(i)] for i in range(len(positions))]


def label_lines(axes: object, found: dict[str, tuple[list[int], list[float]]]) -> None:
    """Write each name at the right end of its line, moved apart where two would cover each other."""
    names = list(found)
    to_axes = axes.transData + axes.transAxes.inverted()
    ends = [to_axes.transform((found[name][0][-1], found[name][1][-1])) for name in names]
    for name, end, y in zip(names, ends, spread([end[1] for end in ends], 0.055), strict=True):
        axes.annotate(
            LABELS.get(name, name),
            xy=end,
            xycoords="axes fraction",
            xytext=(1.03, y),
            textcoords="axes fraction",
            va="center",
            color=STYLES[name][0],
            fontweight="bold" if name == "ours" else "normal",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": STYLES[name][0], "linewidth": 0.6, "shrinkA": 1, "shrinkB": 4},
        )


def draw_lines(axes: object, found: dict[str, tuple[list[int], list[float]]]) -> None:
    """One line a library; ours on top."""
    for name in [name for name in STYLES if name in found]:
        colour, mark = STYLES[name]
        thick = {"linewidth": 2.6, "markersize": 6, "zorder": 3} if name == "ours" else {"linewidth": 1.3}
        axes.plot(*found[name], color=colour, marker=mark, **{"markersize": 4.5} | thick, label=LABELS.get(name, name))
    axes.set_xscale("log", base=2)
    axes.set_xticks([2**k for k in range(0, 21, 2)])
    axes.set_xlim(2**-0.5, 2**20.5)
    axes.set_xlabel("row length (elements; every point has the same number of elements in all)")
    axes.grid(True, which="major", color="#DDDDDD", linewidth=0.7)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def draw(results_dir: Path) -> str:
    """Write the two charts as PNG and SVG; return a line that says what was done."""
    results = json.loads((results_dir / render.JSON).read_text())
    records = [record for record in results["records"] if record["group"] == "sweep"]
    if not records:
        return "No charts: the results have no row lengths in them."
    try:
        import matplotlib
    except ImportError as error:
        return f"No charts: {error}."
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import FuncFormatter

    about, threads = results["about"], records[0]["threads"]
    where = f"{about['cpu']}, {about['isa']}, {about['date']}"
    mark = f"{render.JSON} sha256 {digest(results_dir)}"
    plain = FuncFormatter(lambda value, _: f"{value:g}")
    # Without a salt the identifiers inside an SVG would differ from run to run.
    with matplotlib.rc_context({"svg.hashsalt": "peers", "font.size": 10}):
        for name, value in zip(render.CHARTS, ("seconds", "ulp"), strict=True):
            found = curves(records, value)
            figure, axes = plt.subplots(figsize=(9, 5.2), layout="constrained")
            draw_lines(axes, found)
            axes.yaxis.set_major_formatter(plain)
            if value == "seconds":
                axes.set_yscale("log")
                axes.yaxis.set_major_formatter(plain)
                axes.set_ylabel("time per element (ns; less is better)")
                every_core = [name for name in curves(records, "ulp") if name not in found]
                untimed = f" (not {', '.join(every_core)}, which would use every core)" if every_core else ""
                axes.set_title(
                    f"softmax, float32, {threads} thread{'s' * (threads > 1)}{untimed}\n{where}", fontsize=10
                )
            else:
                # Linear below 1 ulp: an error may be 0.
                axes.set_yscale("symlog", linthresh=1)
                axes.set_ylim(bottom=0)
                axes.yaxis.set_major_formatter(plain)
                axes.axhline(PROMISED_ULP, color="#D55E00", linestyle="--", linewidth=1)
                axes.annotate(
                    f"our bound, {PROMISED_ULP} ulp", (1, PROMISED_ULP), (2, 3), textcoords="offset points", fontsize=9
                )
                axes.set_ylabel("largest error (ulp; less is better)")
                axes.set_title(f"softmax, float32, normal logits of deviation 5\n{where}", fontsize=10)
            axes.legend(loc="best", frameon=False, fontsize=9)
            figure.canvas.draw()  # fixes the scales, on which the places of the labels depend
            label_lines(axes, found)
            figure.savefig(results_dir / f"{name}.png", dpi=150, metadata={"Description": mark})
            figure.savefig(results_dir / f"{name}.svg", metadata={"Description": mark, "Date": None})
            plt.close(figure)
    return f"Charts: {', '.join(files())}."
