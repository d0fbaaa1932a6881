"""What counts as a picture, and the statistics of a data set of them.

Pictures come as arrays, Pillow's images, lists or CPU tensors; `channel_stats` also reads files. Pillow and tqdm are
optional: neither is imported before a file is read or a bar is shown, and an image of Pillow's is recognized without.
"""

import contextlib
import importlib
import math
import os
import sys
from typing import Any

import numpy as np

from . import _arguments
from .runtime import threads
from .stats import Moments

# The level that is 1, by the character of a dtype; bools and floats are in units of 1 already.
_UNITS = {np.dtype(np.uint8).char: 255, np.dtype(np.uint16).char: 65535}
_STORED = "uint8, uint16, bool, float16, bfloat16, float32 or float64"
_SMALL = 1 << 20  # pictures of fewer numbers are left to one thread, as by `Normalize`
_PALETTES = ("P", "PA")  # Pillow's modes of numbers that stand for colours


def channel_stats(
    images: Any,
    *,
    scale: float | None = None,
    input_layout: str = "HWC",
    ddof: float = 0,
    progress: bool | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    r"""Mean and standard deviation of each channel over all pixels of a data set: what `Normalize` is made of.

    ``mean = scale * sum(x) / n`` and ``std = |scale| * sqrt(sum((x - sum(x) / n)**2) / (n - ddof))``, where ``x`` is
    one channel of the ``n`` pixels of all pictures together. A large picture counts for more than a small one.

    Parameters
    ----------
    images : iterable
        Pictures, batches of them, or paths of files: a list, a generator, an array (N, H, W, C), which is N pictures,
        or (N, H, W), which is N grey ones. Pictures are arrays, Pillow's images or CPU tensors of two dimensions (HW,
        one channel) or three, batches have four; all are uint8, all are uint16, or all are bools and floats. Sizes may
        differ, the number of channels may not. Pillow reads files, one at a time; their palettes become RGB, or RGBA
        where a colour is transparent.
    scale : float, optional
        What stored numbers are multiplied by: finite and not 0. By default as `Normalize` does: 1/255 for uint8,
        1/65535 for uint16, 1 for bool and floats, so that results lie in [0, 1].
    input_layout : {"HWC", "CHW"}, default "HWC"
        Whether channels are the last axis of an array or come before height and width. It is not inferred here.
    ddof : float, default 0
        Delta degrees of freedom, in pixels. Where none is left std is inf or NaN.
    progress : bool, optional
        Whether tqdm shows a bar, on stderr. By default it does if it is installed and stderr is a terminal.

    Returns
    -------
    mean, std : ndarray of shape (C,)
        float64, in the units of ``scale * x``, which are those that `Normalize` of the same `scale` expects. A channel
        of one level has std 0, which `Normalize` refuses. NaN in a float picture makes NaN of its channel. Channels are
        in the order of the pictures; `Normalize` with `swap_channels` wants the first and the third exchanged.

    Raises
    ------
    ValueError
        For pictures that differ in their number of channels or in what stands for 1 (uint8 among floats, for example),
        for shapes that no picture has or that are one picture's where many are expected, and for no pixels
        at all. The message names the picture: ``images[i]``.
    TypeError
        For a path or a Pillow image where an iterable is expected, and for dtypes that pictures do not have.
    OSError
        For a file that cannot be read. The message names it.
    ImportError
        If Pillow is needed to read a file, or tqdm for ``progress=True``, and is not installed
        (``pip install fastnorm[image]``).

    Notes
    -----
    The moments of each picture are merged into those of the ones before it, in order, by the pairwise formula of Chan,
    Golub and LeVeque, "Algorithms for Computing the Sample Variance", The American Statistician 37 (1983):
    ``delta = mean_b - mean_a``, ``mean = mean_a + delta * n_b / n`` and
    ``m2 = m2_a + m2_b + delta**2 * n_a * n_b / n``. Means and variances are carried in two doubles each, so the same
    pictures in another order or in other batches give the same numbers within the accuracy of `Moments`. In the same
    order they give the same bytes, on any number of threads.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnorm.image import Normalize, channel_stats
    >>> dark, light = np.zeros((2, 3, 3), np.uint8), np.full((4, 3, 3), 255, np.uint8)
    >>> mean, std = channel_stats([dark, light])
    >>> mean.round(4), std.round(4)
    (array([0.6667, 0.6667, 0.6667]), array([0.4714, 0.4714, 0.4714]))
    >>> Normalize(mean, std)(light).mean().round(4)
    np.float32(0.7071)

    Files, with a bar::

        mean, std = channel_stats(sorted(Path("train").rglob("*.jpg")), progress=True)
    """
    _arguments.choice("input_layout", input_layout, ("HWC", "CHW"))
    _arguments.choice("progress", progress, (None, True, False))
    ddof = _arguments.real("ddof", ddof)
    scale = as_scale(scale)
    _refuse_single(images, input_layout)
    total, first = Moments(), None
    with _shown(images, progress) as items:
        for i, item in enumerate(items):
            first = _take(total, i, item, input_layout, first)
    if first is None or total.count == 0:
        raise ValueError("images has no pixels; expected at least one picture")
    factor = (1, unit(first)) if scale is None else scale.as_integer_ratio()
    with np.errstate(invalid="ignore"):  # of infinity
        means = zip(total.mean.tolist(), total._mean_lo().tolist(), strict=True)
    mean = [_multiplied(high, low, *factor) for high, low in means]
    std = [_multiplied(value, 0.0, abs(factor[0]), factor[1]) for value in total.std(ddof).tolist()]
    return np.array(mean), np.array(std)


def as_picture(name: str, value: Any) -> np.ndarray:
    """`value` as an exact ndarray of two, three or four dimensions and of a dtype that pictures have."""
    if isinstance(value, (str, bytes, os.PathLike)):
        raise TypeError(f"{name} is a {type(value).__name__}; expected a picture, for example PIL.Image.open(path)")
    _refuse_palette(name, value)
    if isinstance(value, (list, tuple)):
        for item in value:
            _refuse_palette(name, item)
    try:
        x = _arguments.array(name, value, _STORED)
    except ValueError:  # parts of different shapes: NumPy does not say whose
        if isinstance(value, (list, tuple)):
            raise ValueError(
                f"{name} is a {type(value).__name__} of unequal parts; expected one picture: of (picture, label) pairs "
                f"give (picture for picture, _ in dataset)"
            ) from None
        raise
    if x.dtype.kind in "iu" and x.dtype.char not in _UNITS:
        hint = "convert with .astype(np.uint8) if levels are 0 to 255, else to a floating type"
        raise TypeError(f"{name} has dtype {x.dtype}; expected {_STORED}: {hint}")
    if x.ndim not in (2, 3, 4):
        raise ValueError(f"{name} has shape {x.shape}; expected two dimensions (HW), three, or four for a batch")
    return x


def channels_last(x: np.ndarray, is_first: bool) -> np.ndarray:
    """A view of a picture with its channels last, wherever they are; (H, W) has one."""
    if x.ndim == 2:
        return x[..., np.newaxis]
    return np.moveaxis(x, -3, -1) if is_first else x


def as_scale(value: Any) -> float | None:
    """What stored numbers are multiplied by, or None."""
    if value is None:
        return None
    scale = _arguments.real("scale", value)
    if scale == 0 or math.isinf(scale):
        raise ValueError(f"scale must be finite and not 0, got {value!r}")
    return scale


def unit(dtype: np.dtype) -> int:
    """What stands for 1.0 in a picture of this dtype."""
    return _UNITS.get(dtype.char, 1)


def _is_pillow(value: Any) -> bool:
    """Whether `value` is an image of Pillow's."""
    module = sys.modules.get("PIL.Image")
    return module is not None and isinstance(value, module.Image)


def _refuse_palette(name: str, value: Any) -> None:
    if _is_pillow(value) and value.mode in _PALETTES:
        raise ValueError(
            f'{name} has mode "{value.mode}", indices of a palette; expected colours: {name}.convert("RGB")'
        )


def _refuse_single(images: Any, input_layout: str) -> None:
    """Refuse what is no iterable of pictures: above all one picture, of which each row would be taken for one."""
    example = "expected an iterable of pictures, for example [images]"
    if isinstance(images, (str, bytes, os.PathLike)) or _is_pillow(images):
        raise TypeError(f"images is a single {type(images).__name__}; {example}")
    if not np.iterable(images):
        raise TypeError(f"images is of type {type(images).__name__}; {example}")
    shape = tuple(getattr(images, "shape", ()))
    if len(shape) == 2 or (len(shape) == 3 and shape[-1 if input_layout == "HWC" else 0] in (2, 3, 4)):
        raise ValueError(f"images has shape {shape}, that of a single picture; {example}")


def _take(total: Moments, i: int, item: Any, input_layout: str, first: np.dtype | None) -> np.dtype:
    """Merge the moments of a picture, a batch or a file into the total; return the dtype that came first."""
    name = f"images[{i}]"
    if isinstance(item, (str, os.PathLike)):
        name = f"{name} ({os.fspath(item)!r})"
        x = _read(name, item)
    else:
        x = as_picture(name, item)
    if first is not None and unit(x.dtype) != unit(first):
        raise ValueError(f"{name} has dtype {x.dtype}; expected {first}, as the pictures before it")
    pixels = channels_last(x, input_layout == "CHW")
    channels = pixels.shape[-1]
    if total._shape not in (None, (channels,)):
        got = f"{name} has shape {x.shape}, {channels} channel{'' if channels == 1 else 's'}"
        raise ValueError(f"{got}; expected {total._shape[0]}, as the pictures before it")
    with threads(1) if pixels.size < _SMALL else contextlib.nullcontext():
        total.update(pixels, tuple(range(pixels.ndim - 1)))
    return x.dtype if first is None else first


def _read(name: str, path: Any) -> np.ndarray:
    """The picture in a file, with colours where the file has numbers of a palette."""
    pillow = _import("PIL.Image", "Pillow", "reading files")
    try:
        with pillow.open(path) as stored:
            stored.load()
            colours = "RGBA" if stored.has_transparency_data else "RGB"
            found = stored.convert(colours) if stored.mode in _PALETTES else stored
    except MemoryError:
        raise
    except Exception as error:  # decoders raise nearly anything, and seldom say of which file
        if getattr(error, "filename", None) is not None:
            raise
        raise OSError(f"{name} cannot be read: {error}") from error
    return as_picture(name, found)


def _shown(images: Any, progress: bool | None) -> Any:
    """A context in which `images` are iterated, under a bar or not."""
    if progress is not False:
        try:
            tqdm = _import("tqdm", "tqdm", "progress=True")
        except ModuleNotFoundError:
            if progress:
                raise
        else:
            return tqdm.tqdm(images, disable=None if progress is None else False, unit=" pictures")
    return contextlib.nullcontext(images)


def _import(module: str, package: str, purpose: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name not in (module, module.partition(".")[0]):
            raise
        message = f"{purpose} needs {package}: pip install fastnorm[image]"
        raise ModuleNotFoundError(message, name=error.name) from None


def _multiplied(high: float, low: float, numerator: int, denominator: int) -> float:
    """(high + low) * numerator / denominator, rounded once: integers of Python's are divided so."""
    if math.isfinite(high):
        a, b = high.as_integer_ratio()
        c, d = low.as_integer_ratio()
        with contextlib.suppress(OverflowError):
            return (a * d + c * b) * numerator / (b * d * denominator)
    return high * (numerator / denominator)
