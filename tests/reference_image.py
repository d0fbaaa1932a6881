"""What `fastnorm.image` should answer: the formulas in float64, one array operation at a time."""

import numpy as np
from cases import DIGITS
from reference import silent

LEAST = {"float16": -24, "bfloat16": -133, "float32": -149}  # the exponent of the smallest subnormal
MOST = {"float16": 65504.0, "bfloat16": (2 - 2.0**-7) * 2.0**127, "float32": float(np.finfo(np.float32).max)}
WHITE = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}


def to_layout(x, layout, source="HWC"):
    """Channels last or first, from a picture or a batch that has them at the other end."""
    if layout == source:
        return x
    return np.moveaxis(x, -1, -3) if layout == "CHW" else np.moveaxis(x, -3, -1)


def swapped(x):
    """BGR from RGB and back; channels last."""
    return x[..., [2, 1, 0, *range(3, x.shape[-1])]]


def to_unit(img, scale=None):
    """Stored numbers in units of white."""
    with silent():
        values = np.asarray(img).astype(np.float64)
        return values / WHITE.get(np.asarray(img).dtype.newbyteorder("="), 1) if scale is None else values * scale


def normalize(img, mean, std, *, scale=None, layout="CHW", input_layout="HWC", swap_channels=False):
    x = to_unit(img, scale)
    x = x[..., None] if x.ndim == 2 else to_layout(x, "HWC", input_layout)
    with silent():
        y = ((swapped(x) if swap_channels else x) - mean) / std
    return to_layout(y, layout)


def inverse(x, mean, std, *, dtype=np.uint8, scale=None, layout="CHW", input_layout="HWC", swap_channels=False):
    dtype = np.dtype(dtype)
    with silent():
        picture = to_layout(np.asarray(x).astype(np.float64), "HWC", layout) * std + mean
        picture = picture * WHITE.get(dtype, 1) if scale is None else picture / scale
    picture = to_layout(swapped(picture) if swap_channels else picture, input_layout)
    if dtype in WHITE:
        picture = np.nan_to_num(np.clip(np.rint(picture), 0, WHITE[dtype]))
    return picture.astype(dtype)


def ulp(y, dtype):
    """The distance of neighbours in dtype at float64 values y."""
    name = np.dtype(dtype).name
    return np.ldexp(1.0, np.maximum(np.frexp(y)[1] - DIGITS[name], LEAST[name]))


def rounded(y, dtype):
    """Float64 values rounded once, half to even (a cast to bfloat16 may round twice)."""
    with silent():
        unit = ulp(y, dtype)
        y = np.where(np.isfinite(y), np.rint(y / unit) * unit, y)
        return np.where(np.abs(y) > MOST[np.dtype(dtype).name], np.copysign(np.inf, y), y).astype(dtype)


def assert_close(got, want, ulps, slack=0.0, label=""):
    """|got - want| <= ulps * ulp(want) + slack, NaN where it belongs; what is out of range is infinite or the most."""
    assert got.shape == want.shape, (label, got.shape, want.shape)
    most = MOST[got.dtype.name]
    with silent():
        y, held = got.astype(np.float64), np.clip(want, -most, most)
        near = np.abs(np.clip(y, -most, most) - held) <= ulps * ulp(held, got.dtype) + slack
        near &= np.where(np.isinf(y), np.abs(want) >= most, np.isfinite(want))
        far = ~(near | (y == want) | (np.isnan(y) & np.isnan(want)))
    if far.any():
        at = tuple(int(i) for i in np.argwhere(far)[0])
        off = abs(y[at] - want[at]) / ulp(want[at], got.dtype)
        raise AssertionError(
            f"{label}: {int(far.sum())} of {far.size} off, first at {at}: got {y[at]!r}, want {want[at]!r}, off by"
            f" {off:.3g} of {ulps} ulp"
        )
