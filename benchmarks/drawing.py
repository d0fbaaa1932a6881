"""How the pictures of the benchmark report look: style, colours, and the texts around the panels.

A rival has one colour and one mark in all pictures; the colours are told apart by the colour-blind, too. The background
is opaque, so that a page in a dark mode shows the pictures as they are.
"""

import math

import matplotlib as mpl
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator
from results import RIVALS, title

mpl.use("Agg")

STYLE = {
    "font.size": 9,
    "axes.edgecolor": "0.55",
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.axisbelow": True,
    "grid.color": "0.91",
    "grid.linewidth": 0.7,
    "xtick.color": "0.3",
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "savefig.facecolor": "white",
    "savefig.dpi": 160,
}
INK, QUIET, LOSS, SLOWER = "0.15", "0.45", "#f7ece6", "#a3161f"
COLORS = ["#d55e00", "#0072b2", "#e69f00", "#009e73", "#aa4499", "#56b4e9", "#332288", "#999933", "#882255", "#6b4c2a"]
MARKS = "os^DvPX<>h"
LOOKS = dict(zip(RIVALS, zip(COLORS, MARKS, strict=True), strict=True))
THREAD_COLORS = ["#7aa6c2", "#12436d", "#000000"]
LINE_COLORS = ["#4477aa", "#ee6677", "#228833", "#b0952a", "#aa3377", "#66aabb"]


def look(rival):
    return LOOKS.get(rival, (INK, "o"))


def log_ticks(axis, low, high):
    """Label 1, 2 and 5 of each decade, or the decades alone where these are many."""
    steps = (1, 2, 5) if high / low < 300 else (1,)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    axis.set_ticks([step * 10.0**e for e in decades for step in steps if low <= step * 10.0**e <= high])
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
    axis.set_minor_locator(NullLocator())


def spread(places, gap):
    """Move places apart until neighbours have the gap, as little as a pass upward and a centring can."""
    order = sorted(range(len(places)), key=places.__getitem__)
    moved = [places[i] for i in order]
    for i in range(1, len(moved)):
        moved[i] = max(moved[i], moved[i - 1] + gap)
    back = (sum(moved) - sum(places)) / max(1, len(places))
    return {i: place - back for i, place in zip(order, moved, strict=True)}


def at_line_ends(panel, ends, gap):
    """Write each line's name at the right edge of the panel, in its colour and near its end: (y, name, color)."""
    for i, place in spread([y for y, *_ in ends], gap).items():
        _, name, color = ends[i]
        panel.annotate(
            name,
            (1, place),
            (4, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            va="center",
            color=color,
            annotation_clip=False,
        )


def headline(figure, text, below):
    """Head a picture with what it shows, and below it with how to read it."""
    inches = figure.get_size_inches()[1]
    figure.text(0.01, 1 - 0.12 / inches, text, va="top", weight="bold", fontsize=13, color=INK)
    figure.text(0.01, 1 - 0.42 / inches, below, va="top", color=QUIET, linespacing=1.35)


def rival_key(figure, rivals, x, y):
    """List the rivals' marks in a row."""
    handles = [
        Line2D([], [], color=look(r)[0], marker=look(r)[1], linestyle="", markersize=5, label=title(r)) for r in rivals
    ]
    key(figure, handles, x, y, handletextpad=0.1, columnspacing=1.0)


def key(figure, handles, x, y, **spacing):
    figure.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(x, y),
        ncols=len(handles),
        frameon=False,
        borderpad=0,
        borderaxespad=0,
        **spacing,
    )
