"""Pictures, and the constants that they are normalized by; tensors compared with the twin's to the digits promised."""

import numpy as np
import reference_image as twin
from cases import FLOATS, HALVES, uniform

from fastnorm import image

UINT8, UINT16, BOOL = (np.dtype(t) for t in ("uint8", "uint16", "bool"))
STORED = (UINT8, UINT16, BOOL, *FLOATS, *HALVES)
TENSORS = (np.dtype(np.float32), *HALVES)
IMAGENET = (image.IMAGENET_MEAN, image.IMAGENET_STD)
ENDS = ("HWC", "CHW")

# |y - exact| <= ulps[y.itemsize] * ulp(exact) + rest * |mean / std|. Integers: the quotient, the difference and the
# product lose 3 ulp at most; the mean is held to 48 bits, the rest of it counts where x - mean cancels. Floats are
# computed in double and rounded. Half precision is rounded from float32, of which it has an ulp in 2^13 or more.
INTEGERS_LOSE = {4: 3, 2: 0.5 + 3 * 2.0**-13}, 2.0**-46
FLOATS_LOSE = {4: 0.5 + 2.0**-20, 2: 0.5 + 2.0**-14 + 2.0**-20}, 2.0**-50

CONSTANTS = {
    "ImageNet": IMAGENET,
    "random": ((0.123456789, -0.7654321, 3.3), (0.0123, 7.77, 0.5555)),
    "a mean that is a level": ((124 / 255, 1.0, 32768 / 65535), (0.2, 0.3, 0.4)),
    "a mean beside a level": ((124 / 255 + 1e-7, 117 / 255 - 1e-7, np.nextafter(0.2, 1)), (0.2, 0.3, 0.4)),
    "one of each": (0.5, 0.25),
    "no mean": (0, IMAGENET[1]),
    "tiny std": (IMAGENET[0], 1e-30),
    "large std": (IMAGENET[0], (1e30, 2e30, 1e38)),
    "far mean": (1e6, (1, 0.1, 1e-3)),
    "a std whose reciprocal is not in float32": ((0, 1, 0.5), (1e-40, 1e-41, 1e44)),
    "a std far from 1": ((0, 1, 0.2), (1e-250, -1e-275, 1e270)),
    "negative std": (IMAGENET[0], (-0.2, -1, -1e5)),
}


def same_bytes(got, want, label=""):
    assert (got.dtype, got.shape) == (want.dtype, want.shape), label
    assert got.tobytes() == want.tobytes(), (label, np.argwhere(got != want)[:3].tolist())


def levels(dtype, channels=1):
    """A picture of one row in which each channel has every level."""
    every = np.arange(1 << 8 * dtype.itemsize).astype(f"u{dtype.itemsize}").view(dtype)
    return np.repeat(every[None, :, None], channels, axis=2)


def constants_of(channels):
    """A mean and a standard deviation for each channel."""
    return uniform(channels, np.float64, 7), uniform(channels, np.float64, 8) / 3 + 0.7


def check(img, mean, std, label, dtype=np.float32, **how):
    """Compare with the formula in float64, to the digits that are promised; return the tensor (channels first)."""
    y = image.normalize(img, mean, std, dtype=dtype, **how)
    assert type(y) is np.ndarray
    assert y.dtype == dtype, label
    ulps, rest = INTEGERS_LOSE if np.asarray(img).dtype.kind in ("b", "u") else FLOATS_LOSE
    with twin.silent():
        size = np.nan_to_num(np.abs(np.asarray(mean, np.float64) / std), posinf=0)[..., None, None]
    twin.assert_close(y, twin.normalize(img, mean, std, **how), ulps[y.itemsize], rest * size, label)
    return y
