"""Draw GB/s against row length, from the JSON alone: a panel a dtype, the ceiling dashed.

Colours are those of Okabe and Ito, which colour-blind readers tell apart; marks differ too.
"""

from __future__ import annotations

from pathlib import Path

# Colour and mark, in the order of the legend.
STYLES = {
    "ours": ("#D55E00", "o"),
    "PyTorch": ("#0072B2", "s"),
    "torch.compile": ("#56B4E9", "D"),
    "Triton": ("#009E73", "^"),
    "Liger": ("#CC79A7", "P"),
    "CuPy": ("#E69F00", "v"),
}
LABELS = {"ours": "fastsoftmax", "CuPy": "cupyx.scipy.special"}
CEILING = "copy"

Curves = dict[str, tuple[list[int], list[float]]]


def curves(records: list[dict]) -> dict[str, Curves]:
    """Row lengths and GB/s of each contestant and of the ceiling, by dtype."""
    panels: dict[str, Curves] = {}
    for record in records:
        if record["group"] != "sweep":
            continue
        found = panels.setdefault(record["dtype"], {})
        for name, result in {**record["results"], CEILING: record["ceiling"]}.items():
            if "GB/s" in result:
                lengths, speeds = found.setdefault(name, ([], []))
                lengths.append(record["shape"][1])
                speeds.append(result["GB/s"])
    return panels


def draw_panel(axes: object, found: Curves, dtype: str) -> None:
    """One line a contestant; ours on top."""
    if CEILING in found:
        axes.plot(*found[CEILING], color="#000000", linestyle="--", linewidth=1, label="copy kernel")
    for name in [name for name in STYLES if name in found]:
        colour, mark = STYLES[name]
        thick = {"linewidth": 2.6, "markersize": 6, "zorder": 3} if name == "ours" else {"linewidth": 1.3}
        axes.plot(*found[name], color=colour, marker=mark, **{"markersize": 4.5} | thick, label=LABELS.get(name, name))
    axes.set_xscale("log", base=2)
    axes.set_ylim(bottom=0)
    axes.set_title(f"softmax, {dtype}", fontsize=10)
    axes.set_xlabel("row length (elements; every point has the same number of bytes)")
    axes.grid(True, color="#DDDDDD", linewidth=0.7)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def draw(results: dict, path: Path) -> list[Path]:
    """Write the chart as PNG and SVG beside a path; without row lengths, or without matplotlib, there is none."""
    panels = curves(results["records"])
    if not panels:
        return []
    try:
        import matplotlib
    except ImportError:
        return []
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    device = results["about"]["device"]
    # Without a salt the identifiers inside an SVG would differ from run to run.
    with matplotlib.rc_context({"svg.hashsalt": "gpu", "font.size": 10}):
        size = (6.5 * len(panels), 4.6)
        figure, all_axes = plt.subplots(1, len(panels), figsize=size, sharey=True, squeeze=False, layout="constrained")
        for axes, (dtype, found) in zip(all_axes[0], panels.items(), strict=True):
            draw_panel(axes, found, dtype)
        all_axes[0][0].set_ylabel("GB/s (bytes that must be moved; more is better)")
        lines = {line.get_label(): line for axes in all_axes[0] for line in axes.get_lines()}
        figure.legend(lines.values(), lines, loc="outside lower center", ncols=len(lines), frameon=False, fontsize=9)
        figure.suptitle(f"{device['gpu']}, {device['date']}", fontsize=11)
        files = [path.with_suffix(suffix) for suffix in (".png", ".svg")]
        for file in files:
            figure.savefig(file, dpi=150, metadata={"Date": None} if file.suffix == ".svg" else None)
        plt.close(figure)
    return files
