"""Plot the pictures of docs/benchmarks/selftrain.md: purity and learning curves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.selftrain_goals import Reports

PURITY, CURVES = "purity.png", "curves.png"
CAPTIONS = {
    PURITY: "Share of correct labels among the cleanest",
    CURVES: "Test accuracy by the number of training texts",
}
Lines = Mapping[str, tuple[list[float], list[float]]]


def draw_pictures(reports: Reports, folder: Path) -> list[Path]:
    """Plot one panel per data set with one line per recipe; return the files written."""
    panels = {
        PURITY: {name: _purity(report) for name, report in reports.items()},
        CURVES: {name: _curves(report) for name, report in reports.items()},
    }
    axes = {
        PURITY: ("cleanest share kept, %", "right labels, %"),
        CURVES: ("training texts", "test accuracy, %"),
    }
    drawn = []
    for file, lines in panels.items():
        shown = {name: each for name, each in lines.items() if each}
        if shown:
            _draw(shown, axes[file], folder / file)
            drawn.append(folder / file)
    return drawn


def _purity(report: Mapping[str, Any]) -> Lines:
    found = {}
    for recipe in report["results"]:
        curve = report["notes"].get(f"{recipe}_purity")
        if curve and recipe != "gold" and "@" not in recipe:
            shares = [100 * float(share) for share in curve]
            found[recipe] = (shares, [100 * value for value in curve.values()])
    return found


def _curves(report: Mapping[str, Any]) -> Lines:
    found = {}
    for recipe in report["results"]:
        curve = report["notes"].get(f"{recipe}_curve")
        if curve:
            sizes = [float(size) for size in curve]
            means = [100 * sum(seeds) / len(seeds) for seeds in curve.values()]
            found[recipe] = (sizes, means)
    return found


def _draw(panels: Mapping[str, Lines], axis_titles: tuple[str, str], picture: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    n_columns = min(3, len(panels))
    n_rows = -(-len(panels) // n_columns)
    figure, axes = pyplot.subplots(
        n_rows, n_columns, figsize=(4 * n_columns, 3 * n_rows), squeeze=False
    )
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    for axis, (name, lines) in zip(axes.flat, panels.items(), strict=False):
        for recipe, (across, up) in lines.items():
            axis.plot(across, up, label=recipe, marker="." if len(across) < 8 else None)
        axis.set_title(name, fontsize=9)
        axis.set_xlabel(axis_titles[0], fontsize=8)
        axis.set_ylabel(axis_titles[1], fontsize=8)
        axis.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(picture, dpi=110, metadata={"Software": None})
    pyplot.close(figure)
