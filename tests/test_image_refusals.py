"""What `fastnorm.image` refuses, by whose name, and what it says is expected."""

from pathlib import Path

import numpy as np
import pytest
from cases import uniform
from memory import GARBAGE, garbage
from pictures import IMAGENET, UINT8, UINT16

from fastnorm import image

INF = np.inf

U8 = uniform((6, 5, 3), UINT8)
F4 = uniform((3, 6, 5), np.float32)
LINE = np.zeros(400, np.float32)


def taken(**how):
    return lambda: image.Normalize(*IMAGENET, **how)


def on(img, mean=0.5, std=0.5, **how):
    return lambda: image.normalize(img, mean, std, **how)


def to(img, **how):
    return lambda: image.to_tensor(img, **how)


def back(x, **how):
    return lambda: image.Normalize(*IMAGENET).inverse(x, **how)


ANY_NUMBER = "expected float16, bfloat16, float32, float64, an integer type or bool"
STORED = "expected uint8, uint16, bool, float16, bfloat16, float32 or float64"
PICTURE = "expected two dimensions (HW), three, or four for a batch"
PER_NUMBER = "one for each number of mean and std"
PER_CHANNEL = "expected one number, or one for each channel"
FLOATING = "dtype must be float32, float16 or bfloat16"
LAYOUTS = "layout must be 'CHW' or 'HWC'"
INPUT_LAYOUTS = "input_layout must be None or 'CHW' or 'HWC'"
SWAP = "swap_channels must be False or True"
SWAPS = "of which swap_channels changes the first and the third"
TOO_EXTREME = "mean / scale and std / scale must be numbers that a double can hold"
ITSELF_OR_NONE = "expected img itself or separate memory"
swapped = F4.dtype.newbyteorder()

# What is called, the error, how its message begins, and what else it says.
REFUSED = {
    "complex": (on(U8.astype(complex)), TypeError, "img has dtype complex128", STORED),
    "int64": (on(U8.astype(np.int64)), TypeError, "img has dtype int64", STORED, ".astype(np.uint8)"),
    "int8": (on(U8.view(np.int8)), TypeError, "img has dtype int8", STORED),
    "uint32": (on(U8.astype(np.uint32)), TypeError, "img has dtype uint32", STORED),
    "longdouble": (on(U8.astype("g")), TypeError, f"img has dtype {np.dtype('g')}", STORED),
    "object": (on(U8.astype(object)), TypeError, "img has dtype object", STORED),
    "a list of ints": (on([[1, 2], [3, 4]]), TypeError, "img has dtype int64", STORED),
    "nothing": (on(None), TypeError, "img has dtype object", STORED),
    "a path": (on("china.jpg"), TypeError, "img is a str", "expected a picture, for example PIL.Image.open(path)"),
    "a path object": (on(Path("china.jpg")), TypeError, f"img is a {type(Path()).__name__}", "expected a picture"),
    "bytes of a file": (to(b"\x89PNG"), TypeError, "img is a bytes", "expected a picture"),
    "masked": (on(np.ma.masked_array(U8)), TypeError, "img is a masked array", "img.filled(...)"),
    "a number": (on(np.uint8(3)), ValueError, "img has shape ()", PICTURE),
    "one axis": (on(U8[0, 0]), ValueError, "img has shape (3,)", PICTURE),
    "five axes": (on(U8[None, None]), ValueError, "img has shape (1, 1, 6, 5, 3)", PICTURE),
    "4097 channels": (
        on(np.zeros((1, 1, 4097), UINT8), input_layout="HWC"),
        ValueError,
        "img has shape (1, 1, 4097), 4097 channels; expected 4096 at most",
    ),
    "to_tensor: int64": (to(U8.astype(np.int64)), TypeError, "img has dtype int64", STORED),
    "to_tensor: five axes": (to(U8[None, None]), ValueError, "img has shape (1, 1, 6, 5, 3)", PICTURE),
    "to_tensor: dtype": (to(U8, dtype=np.int8), TypeError, FLOATING, "got <class 'numpy.int8'>"),
    "to_tensor: out": (to(U8, out=LINE), ValueError, "out has shape (400,)", "expected (3, 6, 5)"),
    "to_tensor: input_layout": (to(U8, input_layout="CWH"), ValueError, f"input_{LAYOUTS}", "got 'CWH'"),
    "to_tensor: input_layout None": (to(U8, input_layout=None), ValueError, f"input_{LAYOUTS}", "got None"),
    "more channels than mean": (
        on(uniform((8, 8, 4), UINT8), *IMAGENET),
        ValueError,
        "img has shape (8, 8, 4), 4 channels; expected 3",
        PER_NUMBER,
        "img[..., :3]",
    ),
    "fewer channels than std": (
        on(U8, 0.5, [1] * 7),
        ValueError,
        "img has shape (6, 5, 3), 3 channels; expected 7",
        PER_NUMBER,
    ),
    "a gray picture": (
        on(U8[..., 0], *IMAGENET),
        ValueError,
        "img has shape (6, 5), 1 channel; expected 3",
        PER_NUMBER,
    ),
    "channels elsewhere": (
        on(U8, *IMAGENET, input_layout="CHW"),
        ValueError,
        "img has shape (6, 5, 3), 6 channels; expected 3",
        PER_NUMBER,
    ),
    "mean of other length": (
        on(U8, (0.5, 0.5), (1, 1, 1)),
        ValueError,
        "mean has 2 numbers and std has 3; expected equally many, or one",
    ),
    "mean NaN": (on(U8, np.nan), ValueError, "mean must be finite", "got nan"),
    "mean infinite": (on(U8, (0, INF, 0)), ValueError, "mean must be finite", "got [0.0, inf, 0.0]"),
    "mean a word": (on(U8, "grey"), TypeError, "mean has dtype <U4", ANY_NUMBER),
    "mean None": (on(U8, None), TypeError, "mean has dtype object", ANY_NUMBER),
    "mean complex": (on(U8, 1j), TypeError, "mean has dtype complex128", ANY_NUMBER),
    "mean of two axes": (on(U8, np.zeros((3, 1))), ValueError, "mean has shape (3, 1)", PER_CHANNEL),
    "mean of unequal parts": (on(U8, [1, [2, 3]]), ValueError, "mean must be one number", "got [1, [2, 3]]"),
    "mean of nothing": (on(U8, ()), ValueError, "mean has shape (0,)", PER_CHANNEL),
    "std 0": (on(U8, 0.5, 0), ValueError, "std must not be 0", "got 0.0"),
    "std -0 among others": (on(U8, 0.5, (1, -0.0, 1)), ValueError, "std must not be 0", "got [1.0, -0.0, 1.0]"),
    "std NaN": (on(U8, 0.5, np.nan), ValueError, "std must be finite", "got nan"),
    "std infinite": (on(U8, 0.5, (1, 1, -INF)), ValueError, "std must be finite", "got [1.0, 1.0, -inf]"),
    "std with a reciprocal beyond double": (
        on(U8, 0.5, (1, 1e-310, 1)),
        ValueError,
        TOO_EXTREME,
        "std=[1.0, 1e-310, 1.0]",
    ),
    "mean beyond double in levels": (
        on(U8, 1e200, scale=1e-200),
        ValueError,
        TOO_EXTREME,
        "mean=1e+200",
        "scale=1e-200",
    ),
    "std a word": (on(U8, 0.5, ["a", "b", "c"]), TypeError, "std has dtype <U1", ANY_NUMBER),
    "std when made": (lambda: image.Normalize(0.5, (1, 0, 1)), ValueError, "std must not be 0", "got [1.0, 0.0, 1.0]"),
    "scale NaN": (taken(scale=np.nan), ValueError, "scale must be a number", "got nan"),
    "scale infinite": (taken(scale=INF), ValueError, "scale must be finite and not 0", "got inf"),
    "scale 0": (taken(scale=0), ValueError, "scale must be finite and not 0", "got 0"),
    "scale a word": (taken(scale="1"), TypeError, "scale must be a number", "got '1'"),
    "scale of channels": (taken(scale=[1, 2, 3]), TypeError, "scale must be a number", "got [1, 2, 3]"),
    "layout": (taken(layout="WHC"), ValueError, LAYOUTS, "got 'WHC'"),
    "layout of a batch": (taken(layout="NCHW"), ValueError, LAYOUTS, "got 'NCHW'"),
    "layout None": (taken(layout=None), ValueError, LAYOUTS, "got None"),
    "input_layout": (taken(input_layout="hwc"), ValueError, INPUT_LAYOUTS, "got 'hwc'"),
    "input_layout a number": (taken(input_layout=3), ValueError, INPUT_LAYOUTS, "got 3"),
    "dtype float64": (taken(dtype=np.float64), TypeError, FLOATING, "got <class 'numpy.float64'>"),
    "dtype uint8": (taken(dtype=np.uint8), TypeError, FLOATING, "got <class 'numpy.uint8'>"),
    "dtype of nothing known": (taken(dtype="float33"), TypeError, FLOATING, "got 'float33'"),
    "swap_channels None": (taken(swap_channels=None), ValueError, SWAP, "got None"),
    "swap_channels a word": (on(U8, swap_channels="False"), ValueError, SWAP, "got 'False'"),
    "swap_channels a number": (taken(swap_channels=2), ValueError, SWAP, "got 2"),
    "swapping one channel": (
        on(U8[..., :1], swap_channels=True),
        ValueError,
        "img has shape (6, 5, 1), 1 channel; expected 3 or 4",
        SWAPS,
    ),
    "swapping two": (
        on(U8[..., :2], swap_channels=True),
        ValueError,
        "img has shape (6, 5, 2), 2 channels; expected 3 or 4",
        SWAPS,
    ),
    "swapping five": (
        on(np.zeros((6, 4, 5)), swap_channels=True),
        ValueError,
        "img has shape (6, 4, 5), 5 channels; expected 3 or 4",
        SWAPS,
    ),
    "swapping gray": (
        on(U8[..., 0], swap_channels=True),
        ValueError,
        "img has shape (6, 5), 1 channel; expected 3 or 4",
        SWAPS,
    ),
    "out a list": (on(U8, out=[1.0]), TypeError, "out must be an array", "got list"),
    "out of other shape": (
        on(U8, out=np.zeros((6, 5, 3), np.float32)),
        ValueError,
        "out has shape (6, 5, 3)",
        "expected (3, 6, 5)",
    ),
    "out of other dtype": (on(U8, out=np.zeros((3, 6, 5))), ValueError, "out has dtype float64", "expected float32"),
    "out of half": (
        on(U8, dtype=np.float16, out=F4.copy()),
        ValueError,
        "out has dtype float32",
        "expected float16",
    ),
    "out swapped": (on(U8, out=F4.astype(swapped)), ValueError, f"out has dtype {swapped}", "expected float32"),
    "out read-only": (
        on(U8, out=np.broadcast_to(F4[:1], (3, 6, 5))),
        ValueError,
        "out is read-only",
        "expected a writeable array",
    ),
    "out in part the picture": (
        on(LINE[:300].reshape(10, 10, 3), layout="HWC", out=LINE[3:303].reshape(10, 10, 3)),
        ValueError,
        "out overlaps img in part or in another order",
        ITSELF_OR_NONE,
    ),
    "out inside the bytes of the picture": (
        on(LINE.view(np.uint8)[:90].reshape(6, 5, 3), out=LINE[10:100].reshape(3, 6, 5)),
        ValueError,
        "out overlaps img in part or in another order",
        ITSELF_OR_NONE,
    ),
    "out on itself": (
        on(U8, out=np.lib.stride_tricks.as_strided(LINE, (3, 6, 5), (4, 20, 4))),
        ValueError,
        "out has strides (4, 20, 4)",
        "share memory",
        "expected separate elements",
    ),
    "inverse: complex": (back(F4.astype(complex)), TypeError, "x has dtype complex128", STORED),
    "inverse: masked": (back(np.ma.masked_array(F4)), TypeError, "x is a masked array", "x.filled(...)"),
    "inverse: integers": (back(U8), TypeError, "x has dtype uint8", "expected a floating type"),
    "inverse: one axis": (back(F4[0, 0]), ValueError, "x has shape (5,)", PICTURE),
    "inverse: five axes": (back(F4[None, None]), ValueError, "x has shape (1, 1, 3, 6, 5)", PICTURE),
    "inverse: channels": (
        back(uniform((4, 6, 5), np.float32)),
        ValueError,
        "x has shape (4, 6, 5), 4 channels; expected 3",
        PER_NUMBER,
    ),
    "inverse: dtype": (
        back(F4, dtype=np.int32),
        TypeError,
        "dtype must be uint8, uint16, bool, float32, float16 or bfloat16",
        "got <class 'numpy.int32'>",
    ),
    "inverse: out of other shape": (
        back(F4, out=np.zeros((3, 6, 5), UINT8)),
        ValueError,
        "out has shape (3, 6, 5)",
        "expected (6, 5, 3)",
    ),
    "inverse: out of other dtype": (
        back(F4, out=np.zeros((6, 5, 3), UINT16)),
        ValueError,
        "out has dtype uint16",
        "expected uint8",
    ),
}


@pytest.mark.parametrize(("call", "error", "begins", "says"), [(*r[:3], r[3:]) for r in REFUSED.values()], ids=REFUSED)
def test_bad_input_is_refused_by_name(call, error, begins, says):
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    assert message.startswith(begins)
    assert [part for part in says if part not in message] == []
    assert not LINE.any()


def test_what_is_refused_leaves_out_as_it_was():
    out = garbage((3, 6, 5), np.float32)
    for call in (
        on(U8, 0.5, (1, 1), out=out),
        on(U8.astype(np.int64), out=out),
        on(U8[..., :2], out=out),
        on(U8, np.nan, out=out),
        on(uniform((6, 5, 4), UINT8), *IMAGENET, out=out),
        lambda: image.to_tensor(U8[:5], out=out),
    ):
        with pytest.raises((TypeError, ValueError)):
            call()
    assert (out.view(np.uint8) == GARBAGE).all()
