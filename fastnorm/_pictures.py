"""What counts as a picture.

Pictures come as arrays, Pillow's images, lists or CPU tensors. Pillow is not imported here: an image of its exists only
where somebody else has imported it.
"""

import sys
from typing import Any

import numpy as np

from . import _arguments

_UNITS = {"uint8": 255.0, "uint16": 65535.0}  # the level that is 1.0; bools and floats are in units of 1 already
_STORED = "uint8, uint16, bool, float16, bfloat16, float32 or float64"


def as_picture(name: str, value: Any) -> np.ndarray:
    """`value` as an exact ndarray of two, three or four dimensions and of a dtype that pictures have."""
    _refuse_palette(name, value)
    if isinstance(value, (list, tuple)):
        for item in value:
            _refuse_palette(name, item)
    try:
        x = _arguments.array(name, value)
    except ValueError:  # parts of different shapes: NumPy does not say whose
        if isinstance(value, (list, tuple)):
            raise ValueError(f"{name} is a {type(value).__name__} of unequal parts; expected one picture") from None
        raise
    if x.dtype.kind in "iu" and x.dtype.name not in _UNITS:
        hint = "give .astype(np.uint8) of levels up to 255, or floats"
        raise TypeError(f"{name} has dtype {x.dtype}; expected {_STORED}: {hint}")
    if x.ndim not in (2, 3, 4):
        raise ValueError(f"{name} has shape {x.shape}; expected two dimensions (HW), three, or four for a batch")
    return x


def unit(dtype: np.dtype) -> float:
    """What stands for 1.0 in a picture of this dtype."""
    return _UNITS.get(dtype.name, 1.0)


def is_pillow(value: Any) -> bool:
    """Whether `value` is an image of Pillow's."""
    module = sys.modules.get("PIL.Image")
    return module is not None and isinstance(value, module.Image)


def _refuse_palette(name: str, value: Any) -> None:
    if is_pillow(value) and value.mode in ("P", "PA"):
        raise ValueError(f'{name} has mode "{value.mode}", numbers of colours; expected colours: {name}.convert("RGB")')
