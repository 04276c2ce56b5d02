"""The figures: each function draws one panel of one idea and returns it.

Panels are small (a phone shows one, a wide screen a row of them), say what they mean without
colour, and are the same bytes for the same numbers. All are drawn with the object-oriented API:
no window, no global figure.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, MaxNLocator

from pulmofuse.evaluation import wilson_interval
from pulmofuse.files import write_bytes
from pulmofuse.report.names import COLOURS, LINE_STYLES, interval, number

INK = "#1d2430"
MUTED = "#5c6675"
_GRID = "#e6e9ee"
_PANEL = (4.2, 3.8)  # inches; about the width of a phone at the browser's 96 pixels per inch
_SMALL_PANEL = (2.75, 2.7)  # inches; four of them stand side by side on a wide screen
_PNG_DPI = 160
_WRAP = 14  # characters of a class name per line of a tick label

# Names come from users: "$" in a file name must not start a formula. A fixed salt and no date
# make the SVG of the same numbers the same bytes.
_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "pulmofuse",
    "text.parse_math": False,
    "font.size": 9.5,
    "axes.edgecolor": "#aab2bd",
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "grid.color": _GRID,
    "legend.facecolor": "white",
    "legend.edgecolor": "white",
    "legend.framealpha": 0.8,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
}

_P = ParamSpec("_P")


@dataclass(frozen=True, eq=False)
class Curve:
    """What a curve is drawn from.

    Attributes:
        title: what the legend calls it.
        key: key of `names.COLOURS`.
        positive: (n,) bool, whether the patient has the class.
        p: (n,) probability of the class in [0, 1].
    """

    title: str
    key: str
    positive: np.ndarray
    p: np.ndarray


@dataclass(frozen=True)
class Estimate:
    """One line of a forest plot; `heading` starts a group, `mark` is a value to compare with."""

    title: str
    key: str
    value: float
    low: float | None = None
    high: float | None = None
    heading: str = ""
    mark: float | None = None


@contextmanager
def _report_style() -> Iterator[None]:
    """The style of the report from matplotlib's own defaults; the user's settings come back."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        yield


def styled(draw: Callable[_P, Figure]) -> Callable[_P, Figure]:
    """Draw under the style of the report."""

    @wraps(draw)
    def drawn(*args: _P.args, **kwargs: _P.kwargs) -> Figure:
        with _report_style():
            return draw(*args, **kwargs)

    return drawn


def save_figure(figure: Figure, folder: Path, stem: str) -> tuple[bytes, bytes]:
    """Write `stem`.png and `stem`.svg to `folder`; return the two contents in that order."""
    canvas = FigureCanvasAgg(figure)
    png, svg = io.BytesIO(), io.BytesIO()
    with _report_style():
        canvas.print_figure(png, format="png", dpi=_PNG_DPI, metadata={"Software": None})
        canvas.print_figure(svg, format="svg", metadata={"Date": None, "Creator": None})
    contents = png.getvalue(), svg.getvalue()
    for suffix, content in zip(("png", "svg"), contents, strict=True):
        write_bytes(folder / f"{stem}.{suffix}", content)
    return contents


def _square(ax: Axes, x_title: str, y_title: str) -> None:
    ax.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), xlabel=x_title, ylabel=y_title)
    ax.set_aspect("equal")
    ax.grid(visible=True)


@styled
def roc_figure(curves: Sequence[Curve], title: str = "") -> Figure:
    """Receiver operating characteristic; every curve needs both outcomes."""
    from sklearn.metrics import roc_curve

    figure = Figure(figsize=_PANEL, layout="constrained")
    ax = figure.add_subplot()
    ax.plot([0, 1], [0, 1], color="#aab2bd", linewidth=1, linestyle=(0, (2, 3)))
    for curve in curves:
        false, true, _ = roc_curve(curve.positive, curve.p)
        ax.plot(false, true, **_line(curve))
    _square(ax, "1 − specificity", "Sensitivity")
    ax.legend(loc="lower right", title=title or None, handlelength=2.4)
    return figure


@styled
def precision_recall_figure(curves: Sequence[Curve], title: str = "") -> Figure:
    """Precision over recall, with the share of positives as the line of chance."""
    from sklearn.metrics import precision_recall_curve

    figure = Figure(figsize=_PANEL, layout="constrained")
    ax = figure.add_subplot()
    ax.axhline(
        float(curves[0].positive.mean()), color="#aab2bd", linewidth=1, linestyle=(0, (2, 3))
    )
    for curve in curves:
        precision, recall, _ = precision_recall_curve(curve.positive, curve.p)
        ax.plot(recall, precision, drawstyle="steps-post", **_line(curve))
    _square(ax, "Recall (sensitivity)", "Precision")
    ax.legend(loc="best", title=title or None, handlelength=2.4)
    return figure


def _line(curve: Curve) -> dict[str, Any]:
    return {
        "color": COLOURS[curve.key],
        "linestyle": LINE_STYLES[curve.key],
        "linewidth": 2.4 if curve.key == "fusion" else 1.8,
        "label": curve.title,
    }


@styled
def calibration_figure(
    positive: np.ndarray, p: np.ndarray, raw: np.ndarray | None, key: str, bins: int = 8
) -> Figure:
    """Reliability: observed share over predicted probability, in bins of equal counts.

    The bars are 95 % Wilson score intervals (Wilson 1927) of the observed share.

    Args:
        positive: (n,) bool.
        p: (n,) calibrated probabilities in [0, 1].
        raw: (n,) probabilities before calibration, drawn thin; or null.
        key: key of `names.COLOURS`.
        bins: at most this many.
    """
    figure = Figure(figsize=_SMALL_PANEL, layout="constrained")
    ax = figure.add_subplot()
    colour = COLOURS[key]
    ax.plot([0, 1], [0, 1], color="#aab2bd", linewidth=1, linestyle=(0, (2, 3)))
    if raw is not None:
        predicted, observed, _, _ = reliability(positive, raw, bins)
        ax.plot(
            predicted, observed, color=colour, alpha=0.5, linewidth=1.2, linestyle=":", label="raw"
        )
    predicted, observed, low, high = reliability(positive, p, bins)
    bars = (observed - low, high - observed)
    style: dict[str, Any] = {"marker": "o", "markersize": 5, "elinewidth": 1, "linewidth": 1.4}
    ax.errorbar(predicted, observed, yerr=bars, color=colour, label="calibrated", **style)
    _square(ax, "Predicted probability", "Observed share")
    ax.legend(loc="upper left")
    return figure


def reliability(
    positive: np.ndarray, p: np.ndarray, bins: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Mean prediction, observed share and its 95 % Wilson interval per bin of equal counts.

    Args:
        positive: (n,) bool.
        p: (n,) in [0, 1].
        bins: at most this many; fewer where n is small.

    Returns:
        Four arrays of length min(bins, n), ordered by prediction.
    """
    order = np.argsort(p, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    n = np.array([len(part) for part in parts])
    predicted = np.array([p[part].mean() for part in parts])
    hits = np.array([positive[part].sum() for part in parts])
    observed = hits / n
    return predicted, observed, *wilson_interval(hits, n)


@styled
def confusion_figure(counts: np.ndarray, classes: Sequence[str], key: str) -> Figure:
    """Confusion matrix: counts, and below each its share of the row.

    Args:
        counts: (classes, classes) integers, rows are the truth.
        classes: what to call the classes.
        key: key of `names.COLOURS`.
    """
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=_SMALL_PANEL, layout="constrained")
    ax = figure.add_subplot()
    tint = "#3b4252" if key == "fusion" else COLOURS[key]
    tints = LinearSegmentedColormap.from_list("tint", ["#ffffff", tint])
    ax.imshow(shares, cmap=tints, vmin=0, vmax=1)
    for row, column in np.ndindex(*counts.shape):
        share = shares[row, column]
        ax.text(
            column,
            row,
            f"{int(counts[row, column])}\n{share:.0%}",
            ha="center",
            va="center",
            color=readable_on(tints(share)),
            fontsize=12 if len(classes) < 4 else 9,
        )
    names = ["\n".join(textwrap.wrap(name, _WRAP)) for name in classes]
    ticks = np.arange(len(classes))
    ax.set_xticks(ticks, names, fontsize=9, color=INK)
    ax.set_yticks(ticks, names, fontsize=9, color=INK, rotation=90, va="center")
    ax.set(xlabel="Predicted", ylabel="True")
    ax.tick_params(length=0)
    for gap in ticks[1:] - 0.5:
        ax.axhline(gap, color="white", linewidth=2)
        ax.axvline(gap, color="white", linewidth=2)
    ax.spines[:].set_visible(False)
    return figure


def readable_on(colour: tuple[float, float, float, float]) -> str:
    """White or ink, whichever has the higher contrast on `colour` (WCAG 2.2, contrast ratio)."""

    def luminance(rgb: Sequence[float]) -> float:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    ground, ink = luminance(colour[:3]), luminance(to_rgb(INK))
    return "white" if 1.05 / (ground + 0.05) > (ground + 0.05) / (ink + 0.05) else INK


@styled
def training_figure(history: pd.DataFrame, key: str) -> Figure:
    """Loss and validation AUC over epochs; the dot is the epoch that was kept (highest AUC)."""
    figure = Figure(figsize=(2.75, 3.1), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    colour = COLOURS[key]
    epoch = history["epoch"]
    upper.plot(epoch, history["train_loss"], color=colour, alpha=0.45, linewidth=1.4)
    upper.plot(epoch, history["val_loss"], color=colour)
    for name, style in (("train_loss", {"alpha": 0.7}), ("val_loss", {"weight": "bold"})):
        text = {"train_loss": " training", "val_loss": " validation"}[name]
        place = (epoch.iloc[-1], history[name].iloc[-1])
        upper.annotate(text, place, color=colour, fontsize=9, va="center", **style)
    lower.plot(epoch, history["val_auc"], color=colour)
    lower.margins(y=0.18)
    if history["val_auc"].notna().any():
        best = int(np.nanargmax(history["val_auc"].to_numpy(dtype=float)))
        place = (float(epoch.iloc[best]), float(history["val_auc"].iloc[best]))
        lower.plot(*place, marker="o", color=colour, markersize=6)
        lower.annotate(
            number(place[1]), place, xytext=(0, 7), textcoords="offset points", ha="center"
        )
        for ax in (upper, lower):
            ax.axvline(place[0], color="#aab2bd", linewidth=1, linestyle=(0, (2, 3)))
    upper.set(ylabel="Loss")
    lower.set(ylabel="Validation AUC", xlabel="Epoch")
    lower.xaxis.set_major_locator(MaxNLocator(integer=True))
    lower.yaxis.set_major_locator(MaxNLocator(4))
    for ax in (upper, lower):
        ax.grid(visible=True)
    figure.align_ylabels()
    # Room for the direct labels at the end of the lines.
    upper.set_xlim(right=float(epoch.max()) + 0.42 * max(float(epoch.max() - epoch.min()), 1.0))
    return figure


@styled
def forest_figure(
    estimates: Sequence[Estimate],
    reference: float | None = None,
    axis: str = "AUC",
    width: float = 5.1,
) -> Figure:
    """Forest plot with intervals; `reference` is a line to compare against, `width` in inches."""
    heads = sum(bool(e.heading) for e in estimates)
    figure = Figure(figsize=(width, 0.9 + 0.29 * (len(estimates) + heads)), layout="constrained")
    ax = figure.add_subplot()
    if reference is not None:
        ax.axvline(reference, color="#aab2bd", linewidth=1, linestyle=(0, (2, 3)))
    names: list[tuple[float, str, bool]] = []
    row = 0.0
    for estimate in estimates:
        if estimate.heading:
            names.append((row, estimate.heading, True))
            row += 1
        _forest_row(ax, row, estimate)
        names.append((row, estimate.title, False))
        row += 1
    ax.set_yticks([place for place, _, _ in names], [name for _, name, _ in names])
    for label, (_, _, heading) in zip(ax.get_yticklabels(), names, strict=True):
        label.set(color=INK, fontweight="bold" if heading else "normal")
    lows = [e.low if e.low is not None else e.value for e in estimates]
    ax.set(ylim=(row - 0.4, -0.6), xlim=(min(0.45, min(lows) - 0.02), 1.005), xlabel=axis)
    ax.xaxis.set_major_formatter(FormatStrFormatter("%.1f"))
    ax.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    ax.grid(visible=True, axis="x")
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    return figure


def _forest_row(ax: Axes, row: float, estimate: Estimate) -> None:
    colour = COLOURS[estimate.key]
    if estimate.low is not None and estimate.high is not None:
        ax.plot([estimate.low, estimate.high], [row, row], color=colour, linewidth=2)
    marker = "D" if estimate.key == "fusion" else "o"
    ax.plot(estimate.value, row, marker=marker, color=colour, markersize=6)
    if estimate.mark is not None:
        ax.plot(estimate.mark, row, marker="|", color=INK, markersize=13, mew=2)
    ax.annotate(
        f"{number(estimate.value)} {interval(estimate.low, estimate.high)}".strip(),
        (1.0, row),
        xycoords=("axes fraction", "data"),
        xytext=(8, 0),
        textcoords="offset points",
        va="center",
    )


@styled
def truth_figure(attainable: Mapping[str, float], reached: Sequence[Estimate]) -> Figure:
    """What the generator says is attainable (hollow) against what was reached (filled).

    Args:
        attainable: title -> AUC.
        reached: estimates with the same titles.
    """
    figure = Figure(figsize=(5.1, 1.1 + 0.34 * len(reached)), layout="constrained")
    ax = figure.add_subplot()
    for row, estimate in enumerate(reached):
        colour = COLOURS[estimate.key]
        goal = attainable[estimate.title]
        ax.plot([estimate.value, goal], [row, row], color=colour, linewidth=1, alpha=0.6)
        ax.plot(goal, row, marker="o", markersize=8, color=colour, markerfacecolor="white")
        ax.plot(estimate.value, row, marker="o", markersize=6, color=colour)
    ax.plot([], [], "o", markersize=8, color=MUTED, markerfacecolor="white", label="attainable")
    ax.plot([], [], "o", markersize=6, color=MUTED, label="reached")
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    ax.set_yticks(range(len(reached)), [e.title for e in reached], color=INK)
    ax.set(ylim=(len(reached) - 0.5, -0.5), xlabel="AUC")
    ax.tick_params(axis="y", length=0)
    ax.grid(visible=True, axis="x")
    ax.spines["left"].set_visible(False)
    return figure
