"""Figures of the fusion: the grid of subsets and methods, dependence, shares, net benefit."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from pulmofuse.report.figures import INK, MUTED, readable_on, styled
from pulmofuse.report.names import COLOURS, LINE_STYLES, number
from pulmofuse.schema import iterate

_GRID_TINT = LinearSegmentedColormap.from_list("grid", ["#ffffff", "#0b4f6c"])
_CELL = (1.02, 0.5)  # inches
_CHANCE = 0.5


@dataclass(frozen=True)
class GridCell:
    """One subset by one method: its AUC, and its interval where it is known."""

    row: int
    column: int
    value: float
    low: float | None = None
    high: float | None = None


@styled
def grid_figure(rows: Sequence[str], columns: Sequence[str], cells: Sequence[GridCell]) -> Figure:
    """AUC of every subset (rows) by every method (columns), darker is better.

    The scale goes from chance, or the least value if that is lower, to 1. Where a method has
    nothing to join, the cell stays empty.
    """
    size = (1.9 + _CELL[0] * len(columns), 0.9 + _CELL[1] * len(rows))
    figure = Figure(figsize=size, layout="constrained")
    ax = figure.add_subplot()
    values = np.full((len(rows), len(columns)), np.nan)
    for cell in cells:
        values[cell.row, cell.column] = cell.value
    least = min(_CHANCE, float(np.nanmin(values)))
    ax.imshow(np.ma.masked_invalid(values), cmap=_GRID_TINT, vmin=least, vmax=1, aspect="auto")
    for cell in cells:
        ink = readable_on(_GRID_TINT((cell.value - least) / (1 - least)))
        place = (cell.column, cell.row)
        known = cell.low is not None and cell.high is not None
        lift = (0, 5 if known else 0)
        style: dict[str, Any] = {
            "ha": "center",
            "va": "center",
            "color": ink,
            "textcoords": "offset points",
        }
        ax.annotate(number(cell.value, 3), place, xytext=lift, fontsize=10, weight="bold", **style)
        if known:
            text = f"{number(cell.low)}–{number(cell.high)}"
            ax.annotate(text, place, xytext=(0, -7), fontsize=7.5, **style)
    names = ["\n".join(textwrap.wrap(name, 13)) for name in columns]
    ax.set_xticks(range(len(columns)), names, color=INK, fontsize=8.5)
    ax.set_yticks(range(len(rows)), rows, color=INK)
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
    for gap in range(1, len(rows)):
        ax.axhline(gap - 0.5, color="white", linewidth=2)
    for gap in range(1, len(columns)):
        ax.axvline(gap - 0.5, color="white", linewidth=2)
    ax.spines[:].set_visible(False)
    return figure


@styled
def dependence_figure(
    curve: pd.DataFrame, title: str, reference: float | None = None, name: str = ""
) -> Figure:
    """A figure of the fusion against the correlation of errors that is assumed.

    Args:
        curve: rho, weight_rule ("one" or "dependence"), value, low, high of one metric and subset.
        title: what the vertical axis is called.
        reference: the best single modality, a horizontal line; null without one.
        name: what the line is called.
    """
    figure = Figure(figsize=(4.2, 3.3), layout="constrained")
    ax = figure.add_subplot()
    looks = {"one": ("-", "o", "as if independent"), "dependence": ("--", "s", "discounted")}
    for rule, part in curve.sort_values("rho").groupby("weight_rule", sort=False):
        line, marker, label = looks.get(str(rule), ("-", "o", str(rule)))
        colour = COLOURS["fusion"] if rule == "one" else COLOURS["ct"]
        style: dict[str, Any] = {
            "color": colour,
            "linestyle": line,
            "marker": marker,
            "markersize": 4,
        }
        ax.plot(part["rho"], part["value"], label=label, **style)
        if part[["low", "high"]].notna().all(axis=None):
            ax.fill_between(part["rho"], part["low"], part["high"], color=colour, alpha=0.12, lw=0)
    if reference is not None:
        ax.axhline(reference, color=COLOURS["cxr"], linewidth=1.2, linestyle=(0, (2, 3)))
        ax.annotate(name, (0.9, reference), ha="right", va="bottom", fontsize=8.5, color="#a04a00")
    ax.set(xlabel="Assumed correlation of the modalities, given the class", ylabel=title)
    ax.grid(visible=True)
    ax.legend(loc="best")
    return figure


@styled
def shares_figure(shares: pd.DataFrame) -> Figure:
    """Exact Shapley value of each modality.

    Args:
        shares: key (of `names.COLOURS`), title, value, low, high; low and high may be NaN.
    """
    figure = Figure(figsize=(4.2, 0.9 + 0.42 * len(shares)), layout="constrained")
    ax = figure.add_subplot()
    for place, row in enumerate(iterate(shares)):
        ax.barh(place, row["value"], color=COLOURS[str(row["key"])], height=0.6)
        if np.isfinite([row["low"], row["high"]]).all():
            ax.plot([row["low"], row["high"]], [place, place], color=INK, linewidth=1.4)
    ax.axvline(0, color=MUTED, linewidth=1)
    ax.set_yticks(range(len(shares)), list(shares["title"]), color=INK)
    ax.set(ylim=(len(shares) - 0.5, -0.5), xlabel="AUC above chance, shared out")
    ax.grid(visible=True, axis="x")
    ax.tick_params(axis="y", length=0)
    return figure


@styled
def decision_figure(curves: pd.DataFrame, highest: float) -> Figure:
    """Net benefit over the threshold probability (Vickers and Elkin 2006).

    Args:
        curves: key, title, threshold, net_benefit, treat_all; one row per curve and threshold.
        highest: last threshold that is drawn.
    """
    figure = Figure(figsize=(4.2, 3.3), layout="constrained")
    ax = figure.add_subplot()
    ax.axhline(0, color=MUTED, linewidth=1, label="nobody")
    shown = curves[curves["threshold"] <= highest]
    first = shown[shown["title"] == shown["title"].iloc[0]].sort_values("threshold")
    ax.plot(
        first["threshold"],
        first["treat_all"],
        color=MUTED,
        linewidth=1,
        linestyle=":",
        label="everybody",
    )
    for (key, title), part in shown.sort_values("threshold").groupby(["key", "title"], sort=False):
        style: dict[str, Any] = {"color": COLOURS[str(key)], "linestyle": LINE_STYLES[str(key)]}
        ax.plot(part["threshold"], part["net_benefit"], label=str(title), **style)
    top = float(shown["net_benefit"].max())
    ax.set(
        ylim=(-0.15 * top - 0.01, 1.1 * top + 0.01),
        xlabel="Threshold probability",
        ylabel="Net benefit",
    )
    ax.grid(visible=True)
    ax.legend(loc="upper right")
    return figure
