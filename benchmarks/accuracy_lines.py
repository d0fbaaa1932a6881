"""The lines of numbers that accuracy.py gives to every operation, and what the exact answers to them are.

An operation finds the lines as its rows, columns, channels, groups or planes, so that what it should answer is the same
for all norms. Exact answers are the formulas on arrays of mpmath's numbers.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import mpmath
import numpy as np

LINES, LENGTH = 6, 480
EPS, WINDOW, ALPHA = 1e-5, 5, 1.0  # of the norms; of local response norms
DIGITS = 400  # binary ones

mpmath.mp.prec = DIGITS
wide, root = np.frompyfunc(mpmath.mpf, 1, 1), np.frompyfunc(mpmath.sqrt, 1, 1)


def make_lines(dtype, seed):
    """{family: x}, hard for sums, differences, squares or the ends of the range; and dy."""
    info, half = np.finfo(dtype), dtype == np.float16
    rng = np.random.default_rng(seed)
    u, dy = rng.uniform(-1, 1, (2, LINES, LENGTH))
    std, place = 3**-0.5, np.arange(LENGTH)
    families = {
        "ordinary": u + 0.25,
        "mean = 1e2 std": u + 1e2 * std,
        "mean = 1e4 std": u + 1e4 * std,
        "mean = 1e8 std": u + 1e8 * std,
        "alternating huge": np.where(place % 2, 2 + u, u - 2) * (1e4 if half else 1e18),
        "1e30": u * 1e30,
        "near the maximum": u * float(info.max),
        "subnormal": u * float(info.smallest_normal),
        "constant": np.full(u.shape, 14.62),
        "one outlier": np.where(place == LENGTH // 2, 1e4 if half else 1e7, u),
    }
    beyond = {"float16": ("mean = 1e4 std", "mean = 1e8 std", "1e30"), "float32": ("mean = 1e8 std",)}
    kept = [name for name in families if name not in beyond.get(dtype.name, ())]
    return {name: families[name].astype(dtype) for name in kept}, dy.astype(dtype)


# ---- how lines lie in what an operation is given


@dataclass(frozen=True)
class Layout:
    forth: Callable = lambda x: x
    back: Callable = lambda y: y


ROWS = Layout()
COLUMNS = Layout(lambda x: x.T.copy(), lambda y: y.T)
CHANNELS = Layout(
    lambda x: x.reshape(LINES, -1, 4, 4).swapaxes(0, 1).copy(), lambda y: y.swapaxes(0, 1).reshape(LINES, LENGTH)
)
PLANES = Layout(lambda x: x.reshape(LINES // 2, 2, -1), lambda y: y.reshape(LINES, LENGTH))
GROUPS = Layout(lambda x: x.reshape(LINES // 2, 8, -1), PLANES.back)  # a line is half of the channels
NEIGHBOURS = Layout(lambda x: x.reshape(LINES // 2, 16, -1), PLANES.back)


def window_sums(terms):
    """Sum over neighbouring channels."""
    before, after = WINDOW // 2, (WINDOW - 1) // 2
    padded = np.pad(terms, [(0, 0), (before, after), (0, 0)])
    return sum(padded[:, start : start + terms.shape[1]] for start in range(WINDOW))


# ---- exact answers


def average(values):
    return values.sum(-1, keepdims=True) / LENGTH


class Exact:
    """The answers to one x and dy; statistics have one column."""

    def __init__(self, x, dy):
        self.x, self.dy = wide(x.astype(np.float64)), wide(dy.astype(np.float64))

    @cached_property
    def mean(self):
        return average(self.x)

    @cached_property
    def var(self):
        return average((self.x - self.mean) ** 2)

    @cached_property
    def rstd(self):
        return 1 / root(self.var + EPS)

    @cached_property
    def z(self):
        return (self.x - self.mean) * self.rstd

    @cached_property
    def standardized(self):
        """Without eps, where a constant becomes 0."""
        return (self.x - self.mean) / root(np.where(self.var == 0, 1, self.var))

    def power(self, exponent):
        """Average a power of that; of a constant it is NaN."""
        return np.where(self.var == 0, math.nan, average(self.standardized**exponent))

    @cached_property
    def rrms(self):
        return 1 / root(average(self.x**2) + EPS)

    @cached_property
    def between(self):
        """Where in the range of its line a number lies."""
        low, high = self.x.min(-1, keepdims=True), self.x.max(-1, keepdims=True)
        return (self.x - low) / np.where(high == low, 1, high - low)

    @cached_property
    def response(self):
        base = 1 + window_sums(NEIGHBOURS.forth(self.x) ** 2) * mpmath.mpf(ALPHA) / WINDOW
        return self.x / NEIGHBOURS.back(root(base) * root(root(base)))

    @cached_property
    def dx(self):
        return self.rstd * (self.dy - average(self.dy) - self.z * average(self.dy * self.z))

    @cached_property
    def rms_dx(self):
        z = self.x * self.rrms
        return self.rrms * (self.dy - z * average(self.dy * z))


@dataclass(frozen=True)
class Op:
    """The exact answer, how lines lie, and whose ulp an error is counted in."""

    exact: Callable
    layout: Layout
    of: str = "itself"  # a key of SIZES


SIZES = {
    "itself": lambda size: size,
    "one": lambda size: np.maximum(size, 1),
    "largest": lambda size: size.max(-1, keepdims=True),
}

OPS = {
    "mean": Op(lambda e: e.mean[:, 0], ROWS),
    "var": Op(lambda e: e.var[:, 0], ROWS),
    "std": Op(lambda e: root(e.var)[:, 0], ROWS),
    "minmax": Op(lambda e: np.stack([e.x.min(1), e.x.max(1)]), ROWS),
    "skewness": Op(lambda e: e.power(3)[:, 0], ROWS, "one"),
    "kurtosis": Op(lambda e: e.power(4)[:, 0] - 3, ROWS, "one"),
    "layer_norm": Op(lambda e: e.z, ROWS, "one"),
    "batch_norm": Op(lambda e: e.z, CHANNELS, "one"),
    "group_norm": Op(lambda e: e.z, GROUPS, "one"),
    "instance_norm": Op(lambda e: e.z, PLANES, "one"),
    "standardize": Op(lambda e: e.standardized, COLUMNS, "one"),
    "StandardScaler": Op(lambda e: e.standardized, COLUMNS, "one"),
    "min_max_scale": Op(lambda e: e.between, COLUMNS, "one"),
    "rms_norm": Op(lambda e: e.x * e.rrms, ROWS),
    "normalize": Op(lambda e: e.x / np.maximum(root((e.x**2).sum(-1, keepdims=True)), 1e-12), ROWS),
    "local_response_norm": Op(lambda e: e.response, NEIGHBOURS),
    "layer_norm_backward: dx": Op(lambda e: e.dx, ROWS, "largest"),
    "layer_norm_backward: dweight": Op(lambda e: (e.dy * e.z).sum(0), ROWS, "largest"),
    "rms_norm_backward: dx": Op(lambda e: e.rms_dx, ROWS, "largest"),
    "rms_norm_backward: dweight": Op(lambda e: (e.dy * e.x * e.rrms).sum(0), ROWS, "largest"),
    "batch_norm_backward: dx": Op(lambda e: e.dx, CHANNELS, "largest"),
    "batch_norm_backward: dweight": Op(lambda e: (e.dy * e.z).sum(1), CHANNELS, "largest"),
}


@dataclass(frozen=True)
class Answer:
    """Exact numbers as sums of two float64, infinite where the dtype overflows; and the sizes that errors belong to."""

    high: np.ndarray
    low: np.ndarray
    sizes: np.ndarray

    def errors(self, got):
        """Return what is wrong; nothing where both are NaN, or infinite alike."""
        got = got.astype(np.float64)
        with np.errstate(invalid="ignore"):
            same = ((got == self.high) & (self.low == 0)) | (np.isnan(got) & np.isnan(self.high))
            return np.where(same, 0, np.abs(got - self.high - self.low))


def answer(op, exact, dtype):
    """Ask what an operation should answer."""
    want = op.exact(exact)
    high = want.astype(np.float64)
    with np.errstate(over="ignore", under="ignore"):
        rounded = high.astype(dtype).astype(np.float64)
    finite = np.isfinite(rounded)
    low = np.where(finite, want - np.where(finite, high, 0), 0).astype(np.float64)
    high = np.where(finite, high, rounded)
    return Answer(high, low, SIZES[op.of](np.abs(high)))
