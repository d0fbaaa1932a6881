"""Pictures to normalized tensors and back, in one pass: every stored number is read once, every float written once.

What torchvision does by ToTensor and Normalize, or OpenCV by blobFromImage, is one kernel here. Statistics of a data
set, for `Normalize`, come from `channel_stats`.

- Pictures are HW, HWC or CHW, one or a batch: arrays, Pillow's images or CPU tensors of uint8, uint16, bool or floats.
  Crops, flips and slices of channels are read where they are.
- Constants are folded in double: `(x / 255 - mean) / std` becomes `((x - center) - center_lo) * factor`. Results are
  within 3 ulp (float32) of the formula for every level, also for those close to the mean; a level that is the mean
  becomes 0.
- Calls on less than a megapixel run on one thread, so that the workers of a data loader do not take each other's cores.
"""

import functools
import math
from typing import Any, NoReturn

import numpy as np

from . import _arguments, _ops
from ._pictures import as_picture, as_scale, channel_stats, unit

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "Normalize", "channel_stats", "normalize", "to_tensor"]

# Of ImageNet's training pictures in [0, 1], in the order red, green, blue: what torchvision's models expect.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_LAYOUTS = ("CHW", "HWC")
_HWC, _CHW, _EITHER = range(3)  # the order of channels, as the door knows it
_MOST_CHANNELS = 4096  # FN_TILE
_INTEGERS = np.dtype(np.uint8).char + np.dtype(np.uint16).char + np.dtype(np.bool).char


def to_tensor(img: Any, *, dtype: Any = np.float32, out: Any = None) -> Any:
    """Pictures as float tensors, channels first, in [0, 1].

    ``y = x / 255`` for uint8, ``x / 65535`` for uint16, 0 and 1 for bools, rounded correctly; floats as they are.

    Parameters
    ----------
    img : array_like or PIL.Image.Image
        (H, W), (H, W, C) or (N, H, W, C).
    dtype : {float32, float16, bfloat16}, default float32
        dtype of the result.
    out : ndarray, optional
        Where to write it, for example a picture's place in a batch.

    Returns
    -------
    tensor : ndarray
        (1, H, W), (C, H, W) or (N, C, H, W).

    Raises
    ------
    ValueError, TypeError
        As from `normalize`.

    Examples
    --------
    >>> import numpy as np, fastnorm.image
    >>> img = np.array([[[0, 51, 255], [102, 204, 153]]], dtype=np.uint8)
    >>> fastnorm.image.to_tensor(img).tolist() == np.float32([[[0, 0.4]], [[0.2, 0.8]], [[1, 0.6]]]).tolist()
    True
    """
    plain = _PLAIN if dtype is np.float32 else Normalize(0.0, 1.0, dtype=dtype)
    return plain(img, out=out)


def normalize(
    img: Any,
    mean: Any,
    std: Any,
    *,
    scale: float | None = None,
    layout: str = "CHW",
    input_layout: str | None = None,
    swap_channels: bool = False,
    dtype: Any = np.float32,
    out: Any = None,
) -> Any:
    """Pictures as normalized float tensors.

    ``y = (x * scale - mean) / std`` for each channel. `Normalize` does the same with constants that are folded once.

    Parameters
    ----------
    img : array_like or PIL.Image.Image
        One picture, (H, W), (H, W, C) or (C, H, W), or a batch of either, of uint8, uint16, bool or floats.
    mean, std, scale, layout, input_layout, swap_channels, dtype
        As for `Normalize`.
    out : ndarray, optional
        Where to write the result, for example ``batch[i]``. It may be `img` itself, where its dtype and the layout
        stay.

    Returns
    -------
    tensor : ndarray
        In `layout`; (1, H, W) or (H, W, 1) for a picture without an axis of channels.

    Raises
    ------
    ValueError
        For a picture of other channels or dimensions than expected or of palette colours; for `out` of another shape or
        dtype, read-only, or sharing memory with `img` in part; as from `Normalize`.
    TypeError
        For a dtype that pictures do not have; as from `Normalize`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnorm.image import IMAGENET_MEAN, IMAGENET_STD, normalize
    >>> img = np.full((4, 6, 3), 128, dtype=np.uint8)
    >>> tensor = normalize(img, IMAGENET_MEAN, IMAGENET_STD)
    >>> tensor.shape, tensor[:, 0, 0].round(4).tolist() == np.float32([0.0741, 0.2052, 0.4265]).tolist()
    ((3, 4, 6), True)

    Into a batch, one picture flipped, and of an OpenCV picture, whose channels are blue, green, red:

    >>> batch = np.empty((2, 3, 4, 6), dtype=np.float32)
    >>> _ = normalize(img[:, ::-1], IMAGENET_MEAN, IMAGENET_STD, out=batch[0])
    >>> _ = normalize(img, IMAGENET_MEAN, IMAGENET_STD, swap_channels=True, out=batch[1])
    >>> bool((batch == tensor).all())
    True
    """
    prepared = Normalize(
        mean,
        std,
        scale=scale,
        layout=layout,
        input_layout=input_layout,
        swap_channels=swap_channels,
        dtype=dtype,
    )
    return prepared(img, out=out)


class Normalize:
    """Normalize pictures with constants that are folded once: ``y = (x * scale - mean) / std``.

    Parameters
    ----------
    mean, std : float or sequence of float
        In the units of ``x * scale``: one number for all channels or one for each, in the order of the result. Finite,
        std not 0.
    scale : float, optional
        What stored numbers are multiplied by. Default: 1/255 for uint8 (exactly: a division), 1/65535 for uint16, 1 for
        bools and floats.
    layout : {"CHW", "HWC"}, default "CHW"
        Where channels stand in the result.
    input_layout : {"CHW", "HWC"}, optional
        Where they stand in a picture. Default: last, but first where only that fits the numbers in `mean` and `std`.
    swap_channels : bool, default False
        The first and the third of three or four channels change places: blue, green, red (OpenCV) to red, green, blue.
    dtype : {float32, float16, bfloat16}, default float32
        dtype of the result.

    Attributes
    ----------
    mean, std : ndarray of float64
        (C,), or () of one number for all channels.
    scale, layout, input_layout, swap_channels, dtype
        As given.

    Raises
    ------
    ValueError
        For constants that are not finite or too large or too close to 0 to be divided by, or that differ in number; for
        an unknown layout.
    TypeError
        For constants that are not numbers, and another dtype.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnorm.image import Normalize
    >>> prepare = Normalize(mean=(0.5, 0.4, 0.3), std=0.2)
    >>> img = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    >>> tensor = prepare(img)
    >>> tensor.shape, tensor.dtype
    ((3, 4, 5), dtype('float32'))
    >>> bool((prepare.inverse(tensor) == img).all())
    True
    """

    mean: np.ndarray
    std: np.ndarray
    scale: float | None
    layout: str
    input_layout: str | None
    swap_channels: bool
    dtype: np.dtype
    _order: int
    _folded: dict[str, np.ndarray]  # constants by the character of a stored dtype

    def __init__(
        self,
        mean: Any,
        std: Any,
        *,
        scale: float | None = None,
        layout: str = "CHW",
        input_layout: str | None = None,
        swap_channels: bool = False,
        dtype: Any = np.float32,
    ) -> None:
        _arguments.choice("layout", layout, _LAYOUTS)
        _arguments.choice("input_layout", input_layout, (None, *_LAYOUTS))
        means, stds = _constants(mean, std)
        order = _CHW if input_layout == "CHW" else _EITHER if input_layout is None and means.ndim else _HWC
        vars(self).update(
            mean=means,
            std=stds,
            scale=as_scale(scale),
            layout=layout,
            input_layout=input_layout,
            swap_channels=bool(swap_channels),
            dtype=_dtype(dtype),
            _order=order,
            _folded={},
        )
        self._fold(np.dtype(np.float32))  # refuses what cannot be folded

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{name} cannot be changed: constants are folded once; make another Normalize")

    def __call__(self, img: Any, *, out: Any = None) -> Any:
        """Normalize one picture or a batch.

        Parameters
        ----------
        img, out
            As for `normalize`.

        Returns
        -------
        tensor : ndarray
            As from `normalize`.
        """
        result = None
        if type(img) is np.ndarray:
            folded = self._folded.get(img.dtype.char)
            if folded is None:
                folded = self._fold(img.dtype)
            result = _ops.picture(img, folded, self.dtype, self._order, self.layout == "CHW", self.swap_channels, out)
        if result is None:
            x = as_picture("img", img)
            result = self._apply("img", x, x.dtype, self.dtype, self._order, self.layout, out, False)
        return result

    def inverse(self, x: Any, *, dtype: Any = np.uint8, out: Any = None) -> Any:
        """Restore pictures: ``(x * std + mean) / scale``.

        Parameters
        ----------
        x : array_like of float
            One tensor or a batch, in `layout`.
        dtype : {uint8, uint16, bool, float32, float16, bfloat16}, default uint8
            dtype of the picture. Integers are rounded to nearest, ties to even, and clipped; NaN becomes 0.
        out : ndarray, optional
            Where to write the picture.

        Returns
        -------
        img : ndarray
            In `input_layout`, or HWC where that is None, with channels swapped back.

        Raises
        ------
        ValueError, TypeError
            As from `normalize`.

        Examples
        --------
        >>> import numpy as np
        >>> from fastnorm.image import Normalize
        >>> Normalize(0.5, 0.25).inverse(np.float32([[[-2, 0, 2, 3]]]))[..., 0].tolist()
        [[0, 128, 255, 255]]
        """
        tensor = as_picture("x", x)
        if tensor.dtype.kind in "biu":
            raise TypeError(f"x has dtype {tensor.dtype}; expected a floating type, as a normalized tensor has")
        target = _dtype(dtype, _INTEGERS)
        order = _CHW if self.layout == "CHW" else _HWC
        return self._apply("x", tensor, target, target, order, self.input_layout or "HWC", out, True)

    def __repr__(self) -> str:
        plain = {name: value for name, value in self._options().items() if value != _DEFAULTS[name]}
        if "dtype" in plain:
            plain["dtype"] = self.dtype.name
        shown = {"mean": self.mean.tolist(), "std": self.std.tolist(), **plain}
        return f"Normalize({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    def __reduce__(self) -> tuple[Any, ...]:
        return functools.partial(Normalize, **self._options()), (self.mean, self.std)

    def _options(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _DEFAULTS}

    def _fold(self, dtype: np.dtype) -> np.ndarray:
        """Fold the constants for what is stored in a dtype."""
        scale, level = (math.nan, unit(dtype)) if self.scale is None else (self.scale, math.nan)
        folded = _ops.fold_picture(self.mean, self.std, scale, level)
        if folded is None:
            _refuse_constants(self.mean, self.std, self.scale)
        self._folded[dtype.char] = folded
        return folded

    def _apply(
        self,
        name: str,
        x: np.ndarray,
        stored: np.dtype,
        dtype: np.dtype,
        order: int,
        layout: str,
        out: Any,
        inverse: bool,
    ) -> Any:
        """Any picture that there is: brought into canonical form or refused. `stored`: what the picture has."""
        folded = self._fold(stored)
        channels_first = _is_channels_first(name, x, order, self.mean.size, self.mean.ndim > 0)
        pixels = x[..., np.newaxis] if x.ndim == 2 else np.moveaxis(x, -3, -1) if channels_first else x
        channels = pixels.shape[-1]
        if self.swap_channels and channels not in (3, 4):
            raise ValueError(f"{name} has shape {x.shape}, of {channels} channels; swap_channels needs 3 or 4")
        if channels > _MOST_CHANNELS:
            raise ValueError(f"{name} has shape {x.shape}, of {channels} channels; expected {_MOST_CHANNELS} at most")
        result = np.moveaxis(pixels, -1, -3) if layout == "CHW" else pixels
        into = _arguments.output(out, result, dtype, source=name)
        order = _CHW if channels_first else _HWC
        y = _ops.picture(x, folded, dtype, order, layout == "CHW", self.swap_channels, into, inverse, True)
        return _arguments.as_given(y, out, False)


def _constants(mean: Any, std: Any) -> tuple[np.ndarray, np.ndarray]:
    """Mean and std as float64 arrays of one shape, () or (C,), that nobody can change."""
    means, stds = _numbers("mean", mean), _numbers("std", std)
    if means.shape != stds.shape:
        if means.size != stds.size and 1 not in (means.size, stds.size):
            raise ValueError(f"mean has {means.size} numbers and std has {stds.size}; expected as many")
        means, stds = (np.array(values) for values in np.broadcast_arrays(means, stds))
    means.setflags(write=False)
    stds.setflags(write=False)
    return means, stds


def _numbers(name: str, value: Any) -> np.ndarray:
    values = _arguments.array(name, value).astype(np.float64)
    if values.ndim > 1 or values.size == 0:
        raise ValueError(f"{name} has shape {values.shape}; expected one number, or one for each channel")
    return values


def _refuse_constants(mean: np.ndarray, std: np.ndarray, scale: float | None) -> NoReturn:
    for name, values in (("mean", mean), ("std", std)):
        if not np.isfinite(values).all():
            raise ValueError(f"{name} must be finite, got {values.tolist()}")
    if not std.all():
        raise ValueError(f"std must not be 0, got {std.tolist()}")
    given = f"mean={mean.tolist()}, std={std.tolist()} and scale={scale}"
    raise ValueError(f"mean, std and scale must give constants that a double holds, got {given}")


def _dtype(dtype: Any, integers: str = "") -> np.dtype:
    """The dtype of a result: a floating type but float64, or one of the integers that are named by their characters."""
    try:
        found: np.dtype = np.dtype(object if dtype is None else dtype)
    except TypeError:
        found = np.dtype(object)
    if not (found.char in integers or (_arguments.is_float(found) and found != np.float64)):
        expected = "uint8, uint16, bool, " if integers else ""
        raise TypeError(f"dtype must be {expected}float32, float16 or bfloat16, got {dtype!r}")
    return found.newbyteorder("=")


def _is_channels_first(name: str, x: np.ndarray, order: int, count: int, is_counted: bool) -> bool:
    """Whether channels come first in a picture that has as many as there are constants."""
    last, first = (1, 1) if x.ndim == 2 else (x.shape[-1], x.shape[-3])
    only_first = last != count and first == count
    found = order == _CHW or (order == _EITHER and only_first)
    channels = first if found else last
    if is_counted and count not in (1, channels):
        where = {_HWC: " last", _CHW: " first", _EITHER: ""}[order] if x.ndim > 2 else ""
        raise ValueError(f"{name} has shape {x.shape}; expected {count} channels{where}, as mean and std have numbers")
    return found


_DEFAULTS = {
    "scale": None,
    "layout": "CHW",
    "input_layout": None,
    "swap_channels": False,
    "dtype": np.dtype(np.float32),
}
_PLAIN = Normalize(0.0, 1.0)
