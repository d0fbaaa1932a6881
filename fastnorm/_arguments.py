"""The one place where bad input is refused and unusual input becomes canonical.

The doors of `_ops` take exact ndarrays of the dtypes they know, axes as ints, parameters contiguous and of the result's
dtype. What else means the same is brought into that form here; the rest is a TypeError or a ValueError that names the
argument, what was got and what is expected.
"""

import math
import operator
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from . import _ops

_Named = Sequence[tuple[str, Any]]  # arrays, or None, by the names that messages give them

_STORED = "float16, bfloat16, float32, float64, an integer type or bool"


def array(name: str, value: Any, stored: str = _STORED) -> np.ndarray:
    """`value` as an exact ndarray of a dtype that kernels read; a copy only where `np.asarray` must make one.

    `stored` says which dtypes are expected in a message.
    """
    if is_masked(value):
        raise TypeError(f"{name} is a masked array; expected a plain array, for example {name}.filled(...)")
    result = _converted(name, value)
    if not (result.dtype.kind in "biu" or is_float(result.dtype)):
        raise TypeError(f"{name} has dtype {result.dtype}; expected {stored}")
    return true_bits(result)


def true_bits(x: np.ndarray) -> np.ndarray:
    """Booleans whose bytes are 0 and 1, as kernels read them; those of Pillow's True, for one, are 255."""
    if x.dtype.kind == "b" and x.view(np.uint8).max(initial=0) > 1:
        return np.asarray(x.view(np.uint8) != 0)
    return x


def is_masked(value: Any) -> bool:
    """Whether that is a masked array; without the import of their module, which NumPy puts off until it is needed."""
    module = sys.modules.get("numpy.ma")
    return module is not None and isinstance(value, module.MaskedArray)


def result_dtype(x: np.ndarray) -> np.dtype:
    """The dtype that statistics and norms of x have: that of a float, in this machine's byte order, else float64."""
    return np.dtype(np.float64) if x.dtype.kind in "biu" else x.dtype.newbyteorder("=")


def compute_dtype(x: np.ndarray) -> np.dtype:
    """The dtype that x is computed in, and that parameters and saved statistics have: float32 for half precision."""
    return np.dtype(np.float64 if x.dtype.kind in "biu" or x.dtype.itemsize == 8 else np.float32)


def axes(name: str, axis: Any, ndim: int) -> tuple[int, ...] | None:
    """`axis` as None or a tuple of distinct non-negative ints in ascending order."""
    if axis is None:
        return None
    items = axis if isinstance(axis, (tuple, list)) else (axis,)
    try:
        found = [normalize_axis_index(_index(item), ndim, name) for item in items]
    except TypeError:
        raise TypeError(f"{name} must be None, an int or a tuple of ints, got {axis!r}") from None
    except OverflowError:
        raise np.exceptions.AxisError(f"{name} is {axis!r}; expected axes of an array of {ndim} dimensions") from None
    if len(set(found)) < len(found):
        raise ValueError(f"{name} must not repeat an axis, got {axis!r} for an array of {ndim} dimensions")
    return tuple(sorted(found))


def normalized_axes(x: np.ndarray, normalized_shape: Any, weight: Any, axis: Any) -> tuple[int, ...]:
    """The axes that a layer norm reduces: `axis`, or as many trailing ones as the normalized shape has."""
    named = axes("axis", axis, x.ndim)
    if named == ():
        raise ValueError("axis must name at least one axis, got ()")
    if normalized_shape is not None:
        source, shape = "normalized_shape", sizes("normalized_shape", normalized_shape)
    elif named is not None:
        return named
    elif weight is not None:
        source, shape = "the shape of weight", np.shape(weight)
    else:
        source, shape = "the shape to normalize", x.shape[-1:]
    found = tuple(range(x.ndim - len(shape), x.ndim)) if named is None else named
    if not shape or len(shape) > x.ndim or shape != tuple(x.shape[a] for a in found):
        where = "trailing axes" if named is None else f"axes {found}"
        expected = f"one size or more, those of the {where} of x, which has shape {x.shape}"
        raise ValueError(f"{source} is {shape}; expected {expected}")
    return found


def channel_axis(value: Any, x: np.ndarray, *, samples: bool = False) -> int:
    """The axis of x along which channels lie, not negative; with `samples` the first axis is not one."""
    if x.ndim < 2:
        raise ValueError(f"x has shape {x.shape}; expected an axis of samples and one of channels at least")
    try:
        axis = normalize_axis_index(integer("channel_axis", value), x.ndim, "channel_axis")
    except OverflowError:
        raise np.exceptions.AxisError(f"channel_axis is {value!r}; expected an axis of {x.ndim} dimensions") from None
    if samples and axis == 0:
        raise ValueError(f"channel_axis is {value!r}; expected another axis than the first, along which samples lie")
    return axis


def per_channel(name: str, value: Any, channels: int, dtype: np.dtype) -> np.ndarray | None:
    """One number per channel, contiguous and of the given dtype, or None."""
    return parameter(name, value, (channels,), dtype, "one number per channel,")


def groups(value: Any, channels: int) -> int:
    """A number of groups that divides the channels."""
    count = integer("num_groups", value)
    if not 1 <= count <= 1 << 40 or channels % count:  # any number divides no channels
        raise ValueError(f"num_groups is {count}; expected a divisor of the {channels} channels of x")
    return count


def running(name: str, value: Any, channels: int, *, changed: bool) -> np.ndarray:
    """A running statistic: floats, one per channel; where it will be `changed`, a writeable array."""
    found = array(name, value)
    if not is_float(found.dtype):
        raise TypeError(f"{name} has dtype {found.dtype}; expected a floating type")
    if found.shape != (channels,):
        raise ValueError(f"{name} has shape {found.shape}; expected one number per channel, {(channels,)}")
    if not changed:
        return found
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{name} must be an array, which training changes in place, got {type(value).__name__}")
    if not value.flags.writeable:
        raise ValueError(f"{name} is read-only; expected a writeable array, which training changes in place")
    if overlaps_itself(value):
        raise ValueError(f"{name} has strides {value.strides}, so that numbers share memory; expected separate numbers")
    return value


def choice(name: str, value: Any, choices: Sequence[Any]) -> None:
    """Refuse what is none of the choices."""
    if not any(type(value) is type(item) and value == item for item in choices):
        raise ValueError(f"{name} must be {' or '.join(map(repr, choices))}, got {value!r}")


def integer(name: str, value: Any, *, least: int | None = None) -> int:
    """`value` as an int that is not below `least`."""
    try:
        found = _index(value)
    except TypeError:
        raise TypeError(f"{name} must be an int, got {value!r}") from None
    if least is not None and found < least:
        raise ValueError(f"{name} must be >= {least}, got {found}")
    return found


def sizes(name: str, value: Any) -> tuple[int, ...]:
    """An int or a sequence of ints, none of them negative, as a tuple."""
    try:
        found = tuple(_index(n) for n in (value if np.iterable(value) else (value,)))
    except TypeError:
        raise TypeError(f"{name} must be an int or a tuple of ints, got {value!r}") from None
    if any(n < 0 for n in found):
        raise ValueError(f"{name} must not be negative, got {value!r}")
    return found


def real(name: str, value: Any, *, least: float | None = None) -> float:
    """`value` as a float that is not NaN and not below `least`."""
    expected = "a number" if least is None else f"a number >= {least:g}"
    try:
        if not isinstance(value, (float, int)) and (isinstance(value, (str, bytes)) or np.iscomplexobj(value)):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be {expected}, got {value!r}") from None
    except OverflowError:
        raise ValueError(f"{name} must be {expected} that a double holds, got {value!r}") from None
    if math.isnan(number) or (least is not None and number < least):
        raise ValueError(f"{name} must be {expected}, got {value!r}")
    return number


def ascending(name: str, value: Any) -> tuple[float, float]:
    """Two finite floats, the first below the second."""
    try:
        low, high = value
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a tuple of two numbers, got {value!r}") from None
    low, high = real(name, low), real(name, high)
    if not low < high or math.isinf(high - low):
        raise ValueError(f"{name} must be two finite numbers that ascend, got {value!r}")
    return low, high


def float_dtype(name: str, value: Any) -> np.dtype[Any] | None:
    """None, or a floating type in this machine's byte order."""
    if value is None:
        return None
    try:
        dtype: np.dtype[Any] = np.dtype(value)
    except TypeError:
        raise TypeError(f"{name} must be a floating type or None, got {value!r}") from None
    if not is_float(dtype):
        raise TypeError(f"{name} must be float16, bfloat16, float32, float64 or None, got {dtype}")
    return dtype.newbyteorder("=")


def mask(name: str, value: Any, shape: tuple[int, ...]) -> np.ndarray | None:
    """`value` as booleans of the given shape, repeated without a copy, or None."""
    if value is None:
        return None
    if is_masked(value):
        raise TypeError(f"{name} is a masked array; expected a plain array, for example {name}.filled(False)")
    found = _converted(name, value)
    if found.dtype != np.bool:
        raise TypeError(f"{name} has dtype {found.dtype}; expected bool")
    try:
        return np.broadcast_to(found, shape)
    except ValueError:
        raise ValueError(f"{name} has shape {found.shape}; expected one that broadcasts to {shape}") from None


def weights(value: Any, x: np.ndarray, axis: tuple[int, ...] | None) -> np.ndarray | None:
    """Weights as an array of as many axes as x and sizes that broadcast, or None.

    They may have the shape of x, that of the reduced axes, or as many axes as x and sizes that broadcast.
    """
    if value is None:
        return None
    found = array("weights", value)
    reduced = tuple(range(x.ndim)) if axis is None else axis
    along = found.shape == tuple(x.shape[a] for a in reduced)
    if found.shape != x.shape and along:
        wide = found.reshape([n if a in reduced else 1 for a, n in enumerate(x.shape)])
    elif found.ndim == x.ndim and all(n in (1, size) for n, size in zip(found.shape, x.shape, strict=True)):
        wide = found
    else:
        raise ValueError(
            f"weights has shape {found.shape}; expected {x.shape}, the shape of x, or one of as many axes that "
            f"broadcasts to it, or that of the reduced axes"
        )
    if not _ops.can_weigh(found, x):
        low, high = map(float, _ops.minmax(found, None, False))
        if math.isnan(low) or math.isinf(high) or low < 0:
            raise ValueError(f"weights must be finite and not negative, got values from {low:g} to {high:g}")
        raise ValueError(f"weights must have sums that a double holds, got values up to {high:g}")
    return wide


def omits_nan(policy: Any, name: str, x: np.ndarray, where: Any = None, weights: Any = None) -> bool:
    """Whether `nan_policy` is to leave NaN out; refused here if it is to raise and NaN is among what counts."""
    if not isinstance(policy, str) or policy not in ("propagate", "omit", "raise"):
        raise ValueError(f"nan_policy must be 'propagate', 'omit' or 'raise', got {policy!r}")
    if policy == "raise" and x.dtype.kind not in "biu" and x.size and _ops.contains_nan(x, where, weights):
        raise ValueError(f"{name} contains NaN, which nan_policy='raise' forbids")
    return policy == "omit"


def parameter(
    name: str, value: Any, shape: tuple[int, ...], dtype: np.dtype, what: str = "the normalized shape"
) -> np.ndarray | None:
    """Weight or bias, contiguous and of the given dtype, or None."""
    if value is None:
        return None
    values = array(name, value)
    if values.shape != shape:
        raise ValueError(f"{name} has shape {values.shape}; expected {what} {shape}")
    with np.errstate(over="ignore"):
        return np.require(values, dtype, ["C", "A"])


def alike(name: str, value: Any, x: np.ndarray) -> np.ndarray:
    """`value` as an array of the shape and result dtype of x."""
    found = array(name, value)
    if found.shape != x.shape:
        raise ValueError(f"{name} has shape {found.shape}; expected {x.shape}, the shape of x")
    if result_dtype(found) != result_dtype(x):
        raise TypeError(f"{name} has dtype {found.dtype}; expected {result_dtype(x)}, as for x")
    return found


def goes_with(name: str, value: Any, x: np.ndarray) -> np.ndarray:
    """`value` as an array of the shape of x that is computed in the same type."""
    found = array(name, value)
    if found.shape != x.shape:
        raise ValueError(f"{name} has shape {found.shape}; expected {x.shape}, the shape of x")
    if compute_dtype(found) != compute_dtype(x):
        expected = "float64 or an integer type" if compute_dtype(x) == np.float64 else "float16, bfloat16 or float32"
        raise TypeError(f"{name} has dtype {found.dtype}; expected {expected}, to go with x of dtype {x.dtype}")
    return found


def statistic(name: str, value: Any, x: np.ndarray, axes: Sequence[int]) -> np.ndarray:
    """A saved mean or rstd, contiguous and of the dtype that x is computed in."""
    values, shape = array(name, value), tuple(n for a, n in enumerate(x.shape) if a not in axes)
    if values.shape != shape:
        raise ValueError(f"{name} has shape {values.shape}; expected {shape}, that of x without the normalized axes")
    with np.errstate(over="ignore"):
        return np.require(values, compute_dtype(x), ["C", "A"])


def output(
    out: Any,
    x: np.ndarray,
    dtype: np.dtype,
    others: _Named = (),
    *,
    in_place: _Named = (),
    name: str = "out",
    source: str = "x",
) -> Any:
    """`out`, if a result of x, which messages call `source`, can be written there, or None.

    It may be x itself or one of the arrays `in_place`; else no element of it may be one of theirs or of the `others`'.
    """
    if out is None:
        return None
    if not isinstance(out, np.ndarray) or is_masked(out):
        raise TypeError(f"{name} must be an array, got {type(out).__name__}")
    if out.dtype != dtype or not out.dtype.isnative:
        raise ValueError(f"{name} has dtype {out.dtype}; expected {dtype}, the dtype of the result")
    if out.shape != x.shape:
        raise ValueError(f"{name} has shape {out.shape}; expected {x.shape}, the shape of the result")
    if not out.flags.writeable:
        raise ValueError(f"{name} is read-only; expected a writeable array")
    if overlaps_itself(out):
        raise ValueError(f"{name} has strides {out.strides}, so that elements share memory; expected separate elements")
    result = np.asarray(out)
    for whose, value in ((source, x), *in_place):
        if not _is_same(value, out) and may_share(value, result):
            raise ValueError(
                f"{name} overlaps {whose} in part or in another order; expected {whose} itself or separate memory"
            )
    for whose, value in others:
        if value is not None and may_share(value, result):
            raise ValueError(f"{name} overlaps {whose}; expected separate memory")
    return result


def outputs(out: Any, x: np.ndarray, dtype: np.dtype, residual: np.ndarray, others: _Named) -> Any:
    """The pair (y, s) that a norm of x + residual writes, or None."""
    if out is None:
        return None
    if not isinstance(out, tuple) or len(out) != 2:
        raise TypeError(f"out must be a tuple (y, s) of two arrays, got {type(out).__name__}")
    in_place = [("residual", residual)]
    y = output(out[0], x, dtype, others, in_place=in_place, name="out[0]")
    s = output(out[1], x, dtype, [*others, ("out[0]", y)], in_place=in_place, name="out[1]")
    if y is None or s is None:
        raise TypeError("out must be a tuple (y, s) of two arrays, got None in it")
    return y, s


def as_given(result: Any, out: Any, is_tuple: bool = True) -> Any:
    """The result, its first array being `out` as the caller knows it (a subclass of ndarray, for example)."""
    if out is None:
        return result
    return (out, *result[1:]) if is_tuple else out


def may_share(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays have an element in common, or might: the exact answer can take for ever."""
    try:
        return np.shares_memory(a, b, max_work=1_000_000)  # type: ignore[arg-type]  # stubs know no bound
    except np.exceptions.TooHardError:
        return True


def is_float(dtype: np.dtype) -> bool:
    """Whether kernels read this floating type. The first bfloat16 seen tells the door its type number."""
    if dtype.kind == "f":
        return dtype.char in "efd"
    bfloat16 = dtype.name == "bfloat16" and dtype.itemsize == 2 and dtype.type.__module__ == "ml_dtypes"
    if bfloat16:
        _ops.set_bfloat16(dtype.num)
    return bfloat16


def _converted(name: str, value: Any) -> np.ndarray:
    """`value` as an array of whatever dtype; NumPy does not say what it could not convert."""
    try:
        return np.asarray(value)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name} is no array and does not become one: {error}") from None


def _index(value: Any) -> int:
    """`value` as an int; no boolean is one."""
    if isinstance(value, (bool, np.bool)):
        raise TypeError
    return operator.index(value)


def _is_same(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays of one shape are the same elements of the same type."""
    steps = [(s, t) for s, t, size in zip(a.strides, b.strides, a.shape, strict=True) if size > 1]
    return bool(a.ctypes.data == b.ctypes.data and a.dtype == b.dtype and all(s == t for s, t in steps))


def overlaps_itself(x: np.ndarray) -> bool:
    """Whether two elements may share memory. Axes by ascending stride, each must step past all that is inside it."""
    reach = x.itemsize
    for stride, size in sorted((abs(stride), size) for stride, size in zip(x.strides, x.shape, strict=True)):
        if size > 1 and stride < reach:
            return x.size > 0
        reach += stride * (size - 1)
    return False
