"""Pictures to normalized tensors and back, in one pass: every stored number is read once, every float written once.

What torchvision does by ToTensor and Normalize, or OpenCV by blobFromImage, is one kernel here. Statistics of a data
set, for `Normalize`, come from `channel_stats`.

- Pictures are HW, HWC or CHW, one or a batch: arrays, Pillow's images or CPU tensors of uint8, uint16, bool or floats.
  Crops, flips and slices of channels are read where they are. Three axes are always one picture: a batch of grey ones
  is (N, H, W, 1), that is ``x[..., np.newaxis]``.
- Constants are folded in double: `(x / 255 - mean) / std` becomes `((x - center) - rest) * factor`. Results of integers
  are within 3 ulp (float32) of the formula for every level, also for those close to the mean; a level that is the mean
  becomes 0. Floats are computed in double and rounded once. NaN stays NaN, the canonical one.
- Calls on fewer than 2**20 numbers (590x590 pixels of three channels) run on one thread, so that the workers of a data
  loader do not take each other's cores.
"""

import inspect
from typing import Any, NoReturn

import numpy as np

from . import _arguments, _ops
from ._pictures import as_picture, as_scale, channel_stats, channels_last, unit

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "Normalize", "channel_stats", "normalize", "to_tensor"]

# Of ImageNet's training pictures in [0, 1], in the order red, green, blue: what torchvision's models expect.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_LAYOUTS = ("CHW", "HWC")
_ORDERS = {"HWC": 0, "CHW": 1, None: 2}  # where channels are, as the door knows it
_MOST_CHANNELS = 4096  # FN_TILE
_INTEGERS = np.dtype(np.uint8).char + np.dtype(np.uint16).char + np.dtype(np.bool).char


def to_tensor(img: Any, *, input_layout: str = "HWC", dtype: Any = np.float32, out: Any = None) -> Any:
    """Pictures as float tensors, channels first, in [0, 1].

    ``y = x / 255`` for uint8, ``x / 65535`` for uint16, correctly rounded to float32, and from there to half precision;
    0 and 1 for bools; floats stay as they are, whatever their range.

    Parameters
    ----------
    img : array_like or PIL.Image.Image
        (H, W), (H, W, C) or (N, H, W, C); with ``input_layout="CHW"`` (H, W), (C, H, W) or (N, C, H, W).
    input_layout : {"HWC", "CHW"}, default "HWC"
        Where channels stand in `img`, also in that of a CPU tensor.
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
        For pictures and `out` as from `normalize`; for an unknown layout or another dtype.

    Examples
    --------
    >>> import numpy as np, fastnorm.image
    >>> img = np.array([[[0, 51, 255], [102, 204, 153]]], dtype=np.uint8)
    >>> fastnorm.image.to_tensor(img).tolist() == np.float32([[[0, 0.4]], [[0.2, 0.8]], [[1, 0.6]]]).tolist()
    True
    """
    if type(input_layout) is str and input_layout == "HWC" and dtype is np.float32:
        return _PLAIN(img, out=out)
    _arguments.choice("input_layout", input_layout, _LAYOUTS)
    return Normalize(0.0, 1.0, input_layout=input_layout, dtype=dtype)(img, out=out)


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
        One picture, (H, W), (H, W, C) or (C, H, W), or a batch, (N, H, W, C) or (N, C, H, W), of uint8, uint16, bool or
        floats. At most 4096 channels.
    mean, std : float or sequence of float
        In the units of ``x * scale``: one number for all channels or one for each, in the order of the result. Finite,
        std not 0.
    scale : float, optional
        What stored numbers are multiplied by. Default: 1/255 for uint8, 1/65535 for uint16, 1 for bools and floats.
    layout : {"CHW", "HWC"}, default "CHW"
        Where channels stand in the result.
    input_layout : {"CHW", "HWC"}, optional
        Where they stand in `img`. Default: last, but first where only that fits the numbers in `mean` and `std`, or for
        one number for all channels where the last axis is longer than 4 and the first of a picture is not.
    swap_channels : bool, default False
        The first and the third of three or four channels change places.
    dtype : {float32, float16, bfloat16}, default float32
        dtype of the result.
    out : ndarray, optional
        Where to write the result, for example ``batch[i]``. It may be `img` itself, where dtype and layout stay.

    Returns
    -------
    tensor : ndarray
        (C, H, W) or (N, C, H, W); for ``layout="HWC"`` (H, W, C) or (N, H, W, C). C is 1 for a picture (H, W).

    Raises
    ------
    ValueError
        If `img` has another number of axes or channels than expected, or is a palette picture; if `out` has another
        shape or dtype, is read-only or shares memory with `img` in part; as from `Normalize`.
    TypeError
        If `img` has a dtype that pictures do not have; as from `Normalize`.

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
    if scale is None:
        result = _ops.normalize_picture(img, mean, std, layout, input_layout, swap_channels, dtype, out)
        if result is not None:
            return result
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
        What stored numbers are multiplied by. Default: 1/255 for uint8 (as x / 255, not x times a rounded 1/255),
        1/65535 for uint16, 1 for bools and floats.
    layout : {"CHW", "HWC"}, default "CHW"
        Where channels stand in the result.
    input_layout : {"CHW", "HWC"}, optional
        Where they stand in a picture. Default: last, but first where only that fits the numbers in `mean` and `std`, or
        for one number for all channels where the last axis is longer than 4 and the first of a picture is not.
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

    Notes
    -----
    A `Normalize` never changes: threads may share it.

    torchvision: ``Normalize(mean, std)`` is ToTensor and Normalize in one; uint16 is scaled, which ToTensor does not.
    OpenCV: ``blobFromImage(x, s, mean=m, swapRB=True)[0]`` is ``normalize(x, m, 1 / s, scale=1, swap_channels=True)``.
    albumentations: ``layout="HWC"``, and `scale` is ``1 / max_pixel_value``, which there divides floats, too.

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
        _arguments.choice("swap_channels", swap_channels, (False, True))
        means, stds = _constants(mean, std)
        vars(self).update(
            mean=means,
            std=stds,
            scale=as_scale(scale),
            layout=layout,
            input_layout=input_layout,
            swap_channels=swap_channels,
            dtype=_dtype(dtype),
            _folded={},
        )
        self._fold(np.dtype(np.float32))  # refuses what cannot be folded

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{name} cannot be changed: constants are folded once; make another Normalize")

    def __delattr__(self, name: str) -> None:
        self.__setattr__(name, None)

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
            folded, order = self._fold(img.dtype), _ORDERS[self.input_layout]
            result = _ops.picture(img, folded, self.dtype, order, self.layout == "CHW", self.swap_channels, out)
        return self._apply(as_picture("img", img), out) if result is None else result

    def inverse(self, x: Any, *, dtype: Any = np.uint8, out: Any = None) -> Any:
        """Restore pictures: ``(x * std + mean) / scale``.

        Parameters
        ----------
        x : array_like of float
            One tensor or a batch, in `layout`: (C, H, W), (N, C, H, W), or for "HWC" (H, W, C), (N, H, W, C); (H, W)
            of one channel.
        dtype : {uint8, uint16, bool, float32, float16, bfloat16}, default uint8
            dtype of the picture, which decides its scale if `scale` is None: say uint16 for a uint16 picture. Integers
            are rounded to nearest, ties to even, and clipped; NaN becomes 0.
        out : ndarray, optional
            Where to write the picture.

        Returns
        -------
        img : ndarray
            In `input_layout`, or HWC where that is None, with channels swapped back; a grey one is (H, W, 1).

        Raises
        ------
        ValueError
            If `x` has another number of axes or channels than expected; for `out` as from `normalize`.
        TypeError
            If `x` is not of floats; for another dtype.

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
        return self._apply(tensor, out, _dtype(dtype, _INTEGERS))

    def __repr__(self) -> str:
        options = {name: value for name, value in self._options().items() if value != _OPTIONS[name]}
        if "dtype" in options:
            options["dtype"] = self.dtype.name
        shown = {"mean": self.mean.tolist(), "std": self.std.tolist(), **options}
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_folded": {}}  # folded anew

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        for constants in (self.mean, self.std):  # NumPy's copies and pickles can be written
            constants.setflags(write=False)

    def _options(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _OPTIONS}

    def _fold(self, dtype: np.dtype) -> np.ndarray:
        """The constants folded for what is stored in a dtype."""
        folded = self._folded.get(dtype.char)
        if folded is None:
            scale = unit(dtype) if self.scale is None else self.scale
            folded = _ops.fold_picture(self.mean, self.std, scale, self.scale is None)
            if folded is None:
                _refuse_constants(self.mean, self.std, self.scale)
            self._folded[dtype.char] = folded
        return folded

    def _apply(self, x: np.ndarray, out: Any, picture: np.dtype | None = None) -> Any:
        """Normalize any picture, or restore one of the dtype `picture`: canonicalized or refused here."""
        inverse = picture is not None
        name, source, target = (
            ("x", self.layout, self.input_layout) if inverse else ("img", self.input_layout, self.layout)
        )
        channels_first = self._has_channels_first(name, x, source)
        pixels = channels_last(x, channels_first)
        result = np.moveaxis(pixels, -1, -3) if target == "CHW" else pixels
        dtype, stored = (self.dtype, x.dtype) if picture is None else (picture, picture)
        into = _arguments.output(out, result, dtype, source=name)
        order = _ORDERS["CHW" if channels_first else "HWC"]
        y = _ops.picture(x, self._fold(stored), dtype, order, target == "CHW", self.swap_channels, into, inverse, True)
        return _arguments.as_given(y, out, False)

    def _has_channels_first(self, name: str, x: np.ndarray, layout: str | None) -> bool:
        """Whether channels come first in a picture; refused where there are not as many as there are constants."""
        count = self.mean.size
        first = layout == "CHW" if layout else _ops.is_channels_first(x, count)
        channels = 1 if x.ndim == 2 else x.shape[-3 if first else -1]
        got = f"{name} has shape {x.shape}, {channels} channel{'' if channels == 1 else 's'}"
        if count not in (1, channels):
            kept = "[:3]" if first and x.ndim == 3 else "[:, :3]" if first else "[..., :3]"
            hint = f"; {name}{kept} drops the fourth" if (channels, count) == (4, 3) else ""
            raise ValueError(f"{got}; expected {count}, one for each number of mean and std{hint}")
        if self.swap_channels and channels not in (3, 4):
            raise ValueError(f"{got}; expected 3 or 4, of which swap_channels changes the first and the third")
        if channels > _MOST_CHANNELS:
            raise ValueError(f"{got}; expected {_MOST_CHANNELS} at most")
        return first


def _constants(mean: Any, std: Any) -> tuple[np.ndarray, np.ndarray]:
    """Mean and std as float64 arrays of one shape, () or (C,), that nobody can change."""
    means, stds = _numbers("mean", mean), _numbers("std", std)
    if means.shape != stds.shape:
        if means.size != stds.size and 1 not in (means.size, stds.size):
            raise ValueError(f"mean has {means.size} numbers and std has {stds.size}; expected equally many, or one")
        means, stds = (np.array(values) for values in np.broadcast_arrays(means, stds))
    means.setflags(write=False)
    stds.setflags(write=False)
    return means, stds


def _numbers(name: str, value: Any) -> np.ndarray:
    try:
        values = _arguments.array(name, value).astype(np.float64)
    except ValueError:  # a ragged list, of which NumPy does not say whose
        raise ValueError(f"{name} must be one number, or one for each channel, got {value!r}") from None
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
    raise ValueError(f"mean / scale and std / scale must be numbers that a double can hold and divide by, got {given}")


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


_OPTIONS = {
    name: option.default
    for name, option in inspect.signature(Normalize).parameters.items()
    if option.kind is option.KEYWORD_ONLY
}
_PLAIN = Normalize(0.0, 1.0, input_layout="HWC")
