"""What Hypothesis draws for tests: arrays in any memory, arguments of any kind, and calls that are watched."""

import inspect
import math

import numpy as np
import reference
from cases import FLOATS, HALVES, INTEGERS, VALUES, is_float, layouts, uniform, words
from hypothesis import strategies as st

DTYPES = (*FLOATS, *HALVES, *INTEGERS)
MOST = 600  # elements
SIZES = (0, 1, 2, 3, 5, 8, 17, 33, 64, 65, 130)
JUNK = (
    *(None, "1", b"1", -1, 7, 0.5, -0.5, math.nan, math.inf, 10**400, 2j, True, (), (0, 0), (0.5,), [None], object()),
    *(np.ones((2, 3, 4)), np.ones(3, complex), np.ones(2, object), np.ma.masked_array([1.0, 2.0, 3.0], [0, 1, 0])),
    *(
        np.array(["a"]),
        np.zeros(3, "M8[s]"),
        np.longdouble(2),
        np.float16(2),
        np.ones(5),
        [[1.0], [1.0, 2.0]],
        {"a": 1},
    ),
)


# ---- what is drawn


@st.composite
def shapes(draw, least=0, most=6):
    shape = []
    for _ in range(draw(st.integers(least, most))):
        others = math.prod(n for n in shape if n)  # statistics of nothing should be few, too
        shape.append(draw(st.sampled_from([n for n in SIZES if n * others <= MOST])))
    return tuple(shape)


def filled(draw, dtype, shape, tame=False):
    """Values of one kind, a few of them replaced by any bytes of the dtype; booleans are any bytes. `tame`: finite."""
    count, seed = math.prod(shape), draw(st.integers(0, 9))
    if dtype.kind == "b":
        return (
            (words(count, seed) >> np.uint64(draw(st.sampled_from([56, 62, 63]))))
            .astype(np.uint8)
            .view(bool)
            .reshape(shape)
        )
    kinds = ("uniform", "positive") if tame or dtype in HALVES else (*VALUES,)
    kind = draw(st.sampled_from(kinds)) if is_float(dtype) else "uniform"
    x = np.array(VALUES[kind](shape, dtype, seed), dtype) if count else np.empty(shape, dtype)
    for at in draw(st.lists(st.integers(0, count - 1), max_size=3)) if count and not tame else ():
        x.reshape(-1)[at : at + 1].view(np.uint8)[:] = [*draw(st.binary(min_size=x.itemsize, max_size=x.itemsize))]
    return x


@st.composite
def arrays(draw, dtypes=DTYPES, least=0, most=6, tame=False, shape=None):
    """An array in any kind of memory, with repeated elements among them."""
    shape = draw(shapes(least, most)) if shape is None else shape
    x = filled(draw, draw(st.sampled_from(dtypes)), shape, tame)
    if x.size and x.ndim and draw(st.integers(0, 9)) == 0:
        axis = draw(st.integers(0, x.ndim - 1))
        return np.broadcast_to(x.take([0], axis), x.shape)
    choices = list(layouts(x))
    return choices[draw(st.integers(0, len(choices) - 1))][1]


def wide(x):
    """The numbers that the library takes x for, in extended precision: integers are rounded to float64 first."""
    x = np.asarray(x.view(np.uint8) != 0) if x.dtype == bool else x
    with reference.silent():
        return x.astype(np.float64).astype(np.longdouble)


def plain(x):
    """X as a float that gives results of the same dtype."""
    return x if is_float(x.dtype) else wide(x).astype(np.float64)


def outlandish(x):
    """Whether bounds of the twins do not hold: something is not finite, or its square does not fit x."""
    with reference.silent():
        size = np.abs(wide(x)[x != 0] if x.dtype != bool else wide(x))
        limit = float(np.sqrt(np.finfo(np.float32).max)) if x.itemsize < 8 and is_float(x.dtype) else 1e150
        return not ((size < limit) & (size > 1 / limit)).all()


class Call:
    """The arguments of one call, some of which may be junk, and what is checked about it."""

    def __init__(self, draw, function, names=""):
        self.draw, self.function, self.given, self.junk = draw, function, {}, False
        self.names = (*inspect.signature(function).parameters, *names.split())

    def take(self, name, value):
        """An argument: in one of forty calls something else instead."""
        if self.draw(st.integers(0, 39)) == 20:
            junk = self.draw(st.sampled_from(JUNK))
            if name == "X" and type(junk) is int and junk > 7:
                return self.take(name, value)  # scikit-learn's OverflowError
            value, self.junk = junk, True
        self.given[name] = value
        return value

    def pick(self, name, *values):
        return self.take(name, self.draw(st.sampled_from(values)))

    def out(self, x, dtype, name="x", **others):
        """Nothing, memory of its own, x itself or memory that overlaps x or another argument."""
        way = self.draw(st.sampled_from(["none", "none", "fresh", "strided", "in place", "shifted", "other", "locked"]))
        out = None
        if way == "in place" and x.dtype == dtype:
            out = x
        elif way == "shifted" and x.dtype == dtype and x.ndim and len(x) > 1:
            space = np.concatenate([x, x[:1]])
            self.given[name], out = space[:-1], space[1:]
        elif way == "other" and others:
            out = self.draw(st.sampled_from([*others.values()]))
        elif way != "none":
            space = np.full((*x.shape, 2), 7).astype(dtype)
            out = space[..., 1] if way == "strided" else space[..., 0].copy()
            out.flags.writeable = way != "locked"
        return self.take("out", out)

    def run(self):
        """The result, and whether the call was accepted: else it was refused by name and nothing has changed."""
        before = frozen(self.given)
        try:
            with reference.strict():
                result = self.function(**self.given)
        except (TypeError, ValueError) as error:
            refusal = str(error)
        else:
            self.check_inputs(before)
            return result, not self.junk
        assert any(name in refusal for name in self.names), refusal
        assert frozen(self.given) == before, refusal
        return None, False

    def check_inputs(self, before):
        """What is not written to has not changed."""
        written = {"out", "running_mean", "running_var"} & set(self.given)
        kept = {name: value for name, value in self.given.items() if name not in written}
        if not any(may_share(self.given.get(name), value) for name in written for value in kept.values()):
            assert frozen(kept) == {name: before[name] for name in kept}


def unshared(value):
    """What an argument was before the call, which may write there."""
    return value.copy() if isinstance(value, np.ndarray) else value


def may_share(a, b):
    return isinstance(a, np.ndarray) and isinstance(b, np.ndarray) and np.may_share_memory(a, b)


def frozen(given):
    """What shows that none of the arguments has changed."""
    arrays = {name: value for name, value in given.items() if isinstance(value, np.ndarray) and value.dtype != object}
    return {name: arrays[name].tobytes() if name in arrays else repr(value) for name, value in given.items()}


def near(got, want, bound, dtype, shape):
    """Like assert_within; what rounds to infinity may be infinite."""
    reference.assert_layout(np.asarray(got), shape, dtype)
    most = 3.3895e38 if np.dtype(dtype).name == "bfloat16" else float(np.finfo(dtype).max)
    with reference.silent():
        want = np.where(np.abs(want) + bound >= most, np.where(np.isinf(got), got, want), want)
        reference.assert_within(got, np.reshape(want, np.shape(got)), np.reshape(bound, np.shape(got)))


def some_axes(draw, x, least=0):
    """None, one axis or several, counted from either end."""
    if x.ndim == 0 or draw(st.integers(0, 5)) == 0:
        return None
    axes = draw(st.lists(st.integers(0, x.ndim - 1), min_size=max(1, least), max_size=3, unique=True))
    axes = [a - x.ndim if draw(st.booleans()) else a for a in axes]
    return axes[0] if len(axes) == 1 else tuple(axes)


def known_axes(axis, ndim):
    return tuple(sorted(np.lib.array_utils.normalize_axis_tuple(range(ndim) if axis is None else axis, ndim)))


def along(axes, shape):
    return tuple(n if a in axes else 1 for a, n in enumerate(shape))


def some_mask(draw, x):
    """None, or a mask of the shape of x or of fewer axes, of any bytes."""
    kind = draw(st.sampled_from(["none", "none", "full", "last", "bytes"]))
    if kind == "none":
        return None
    where = uniform(x.shape if kind != "last" else x.shape[-1:], bool, draw(st.integers(0, 9)))
    return np.where(where, np.uint8(2), np.uint8(0)).view(bool) if kind == "bytes" else where
