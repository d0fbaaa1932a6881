"""A scikit-learn pipeline with scikit-learn's scalers and with fastnorm's: the same scores, and the time of each step.

The breast-cancer table (569 tumours, 30 measurements each) goes through a scaler into a logistic regression or a
support vector machine. A grid search with cross-validation tries five scalers and three strengths of regularization.
The two searches differ only in the module that the scalers come from; if one score differs, the program says which and
fails. The scalers alone are timed on that table and on one of many copies of it.

    python sklearn_pipeline.py [--jobs N] [--copies N] [--repeats N] [--threads N] [--output PATH]
"""

import argparse
import itertools
import sys
from dataclasses import dataclass
from functools import partial

import numpy as np
from compare_with_numpy import (
    FASTNORM_COLOR,
    NUMPY_COLOR,
    label_bar,
    median_seconds,
    plain_table,
    show_ratio,
    show_time,
    threads_in_use,
)
from training import NEEDED, at_least, require

import fastnorm

SCALERS = ("StandardScaler", "MinMaxScaler", "MaxAbsScaler", "RobustScaler", "Normalizer")
MODELS = ("LogisticRegression", "SVC")
STRENGTHS = (0.1, 1.0, 10.0)  # of the models' C: the smaller, the simpler the model
FOLDS = 5
COLORS = {"scikit-learn": NUMPY_COLOR, "fastnorm": FASTNORM_COLOR}


@dataclass
class Step:
    """The same work with scikit-learn's scalers and with fastnorm's."""

    name: str
    sklearn_seconds: float
    fastnorm_seconds: float

    @property
    def speedup(self):
        return self.sklearn_seconds / self.fastnorm_seconds


def modules():
    """Return what the searches differ in."""
    import sklearn.preprocessing

    import fastnorm.preprocessing

    return sklearn.preprocessing, fastnorm.preprocessing


def grid_search(preprocessing, jobs):
    """Return a search, not yet fitted, among one module's scalers and two models."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold
    from sklearn.pipeline import Pipeline
    from sklearn.svm import SVC

    pipeline = Pipeline([("scaler", "passthrough"), ("model", "passthrough")])
    choices = {
        "scaler": [getattr(preprocessing, name)() for name in SCALERS],
        "model": [LogisticRegression(max_iter=1000), SVC()],
        "model__C": STRENGTHS,
    }
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    return GridSearchCV(pipeline, choices, scoring="accuracy", cv=folds, n_jobs=jobs, error_score="raise")


def scores(search):
    """Return the accuracy of every candidate on every fold: its scaler, model and C lead to (FOLDS,)."""
    found = search.cv_results_
    per_fold = np.stack([found[f"split{fold}_test_score"] for fold in range(FOLDS)], axis=1)
    return dict(zip(map(describe, found["params"]), per_fold, strict=True))


def describe(chosen):
    return type(chosen["scaler"]).__name__, type(chosen["model"]).__name__, chosen["model__C"]


def score_table(theirs, ours):
    """Show the mean accuracies over the folds of each scaler and model, with the C that suits them best."""
    rows = [["scaler", "model", "C", "scikit-learn", "fastnorm"]]
    for scaler, model in itertools.product(SCALERS, MODELS):
        best = max(STRENGTHS, key=lambda strength: theirs[scaler, model, strength].mean())
        means = [f"{found[scaler, model, best].mean():.6f}" for found in (theirs, ours)]
        rows.append([scaler, model, f"{best:g}", *means])
    return plain_table(rows)


def scaler_work(x):
    """List the work of the scalers alone: a name, and the calls of scikit-learn and of fastnorm."""
    work = []
    for name in SCALERS:
        scalers = [getattr(module, name)() for module in modules()]
        if name != "Normalizer":  # which has nothing to learn
            work.append((f"{name}.fit", *[partial(scaler.fit, x) for scaler in scalers]))
        work.append((f"{name}.transform", *[partial(scaler.fit(x).transform, x) for scaler in scalers]))
    return work


def pipeline_work(x, y, searches):
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    pipelines = [make_pipeline(module.StandardScaler(), LogisticRegression()).fit(x, y) for module in modules()]
    return [
        ("pipeline: fit", *[partial(pipeline.fit, x, y) for pipeline in pipelines]),
        ("pipeline: predict", *[partial(pipeline.predict, x) for pipeline in pipelines]),
        ("grid search", *[partial(search.fit, x, y) for search in searches]),
    ]


def timed(work, repeats, label):
    """Time both sides of each piece of work by turns, under a progress bar."""
    from tqdm import tqdm

    steps = []
    with tqdm(work, desc=label, unit="step") as bar:
        for name, theirs, ours in bar:
            steps.append(Step(name, *median_seconds(theirs, ours, repeats)))
            bar.set_postfix_str(f"{name} {show_ratio(steps[-1].speedup)}", refresh=False)
    return steps


def show_seconds(seconds):
    return f"{seconds:.3g} s" if seconds >= 1 else show_time(seconds)


def step_table(tables):
    rows = [["step", "table", "scikit-learn", "fastnorm", "ratio"]]
    for title, steps in tables.items():
        for step in steps:
            times = show_seconds(step.sklearn_seconds), show_seconds(step.fastnorm_seconds)
            rows.append([step.name, title, *times, show_ratio(step.speedup)])
    return plain_table(rows)


def draw(tables, notes, path):
    """Draw the times of every step side by side; the second panel has the scalers' rows only."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, len(tables), figsize=(13, 9), sharey=True)
    for panel, (name, steps) in zip(panels, tables.items(), strict=True):
        draw_times(panel, steps)
        panel.set_title(name, loc="left")
    every, scalers = tables.values()
    panels[0].set_yticks(range(len(every)), [step.name for step in every])
    panels[0].set_ylim(len(every) - 0.5, -0.5)
    panels[1].axhspan(len(scalers) - 0.5, len(every) - 0.5, facecolor="white", zorder=0.8)
    panels[1].legend(
        loc="lower left", bbox_to_anchor=(0.02, 0), frameon=False, title=notes, alignment="left", ncols=2, fontsize=11
    )
    figure.suptitle(
        "The same pipeline, the same scores: the time of each step", x=0.01, ha="left", weight="bold", fontsize=14
    )
    figure.tight_layout(w_pad=3)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def draw_times(panel, steps):
    times = {
        "scikit-learn": [step.sklearn_seconds for step in steps],
        "fastnorm": [step.fastnorm_seconds for step in steps],
    }
    low, high = np.log10([min(map(min, times.values())), max(map(max, times.values()))])
    span = max(1, high - low)
    left, right = 10 ** (low - 0.1 * span), 10 ** (high + 0.35 * span)  # room for the texts
    panel.set_xscale("log")
    panel.set_xlim(left, right)
    for (library, seconds), shift in zip(times.items(), (-0.19, 0.19), strict=True):
        places = [place + shift for place in range(len(seconds))]
        lengths = [value - left for value in seconds]
        panel.barh(places, lengths, left=left, height=0.36, color=COLORS[library], label=library)
        for place, value in zip(places, seconds, strict=True):
            label_bar(panel, value, place, show_seconds(value))
    where = {"xycoords": ("axes fraction", "data"), "ha": "right", "va": "center"}
    for place, step in enumerate(steps):
        color = COLORS["fastnorm" if step.speedup >= 1 else "scikit-learn"]
        panel.annotate(show_ratio(step.speedup), (1, place), fontsize=13, weight="bold", color=color, **where)
    panel.set_title("ratio", loc="right")
    panel.set_xlabel("time (log scale); ratio: scikit-learn's time / fastnorm's")
    panel.xaxis.set_major_formatter(lambda seconds, _: show_seconds(seconds))
    panel.minorticks_off()
    panel.spines[["top", "right"]].set_visible(False)
    panel.tick_params(axis="y", length=0)
    panel.set_axisbelow(True)
    panel.grid(axis="x", color="0.9")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name, least, default, what in (
        ("jobs", 1, 1, "processes of the grid search"),
        ("copies", 2, 1000, "of the table, one below the other, for the large one"),
        ("repeats", 1, 7, "timings per step"),
    ):
        parser.add_argument(
            f"--{name}", type=at_least(least), default=default, metavar="N", help=f"{what} (default: %(default)s)"
        )
    parser.add_argument(
        "--threads", type=at_least(1), metavar="N", help="of fastnorm (default: what this process may use)"
    )
    parser.add_argument(
        "--output", default="sklearn_pipeline.png", metavar="PATH", help="the picture (default: %(default)s)"
    )
    return parser.parse_args()


def main():
    args = arguments()
    require(NEEDED)
    import sklearn
    from sklearn.datasets import load_breast_cancer
    from threadpoolctl import threadpool_limits

    threadpool_limits(1, "blas")  # the models': their matrices are too small for more
    fastnorm.set_num_threads(args.threads)
    print(
        f"fastnorm {fastnorm.__version__} ({fastnorm.isa()}, {threads_in_use()}), "
        f"scikit-learn {sklearn.__version__} (1 thread), float64\n"
    )
    x, y = load_breast_cancer(return_X_y=True)
    searches = [grid_search(module, args.jobs).fit(x, y) for module in modules()]
    theirs, ours = map(scores, searches)
    print(score_table(theirs, ours))
    different = [choice for choice, found in theirs.items() if not np.array_equal(found, ours[choice])]
    if different:
        named = (f"{scaler}, {model}, C = {strength:g}" for scaler, model, strength in different)
        sys.exit(f"sklearn_pipeline.py: scores differ: {'; '.join(named)}")
    print(f"\nAll {FOLDS * len(theirs)} cross-validated scores are equal ({len(theirs)} candidates, {FOLDS} folds).\n")

    tables = {}
    for copies, work in (
        (1, lambda table: scaler_work(table) + pipeline_work(table, y, searches)),
        (args.copies, scaler_work),
    ):
        table = np.tile(x, (copies, 1))
        shape = "x".join(map(str, table.shape))
        label = f"the table, {shape}" if copies == 1 else f"{copies} copies, {shape}"
        tables[label] = timed(work(table), args.repeats, label)
    print(step_table(tables))
    notes = (
        "pipeline: StandardScaler, LogisticRegression\n"
        f"grid search: {len(SCALERS)} scalers, {len(MODELS)} models, {len(STRENGTHS)} values of C, {FOLDS} folds\n"
        f"medians of {args.repeats}, timed by turns; fastnorm: {threads_in_use()}\n"
    )
    draw(tables, notes, args.output)
    print(f"\nPicture: {args.output}")


if __name__ == "__main__":
    main()
