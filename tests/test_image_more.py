"""`fastnorm.image` as its users meet it: what a picture is, the way back, photos, refusals, threads, its rivals."""

import copy
import itertools
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import reference_image as twin
from cases import FLOATS, HALVES, uniform
from memory import GARBAGE, garbage, peak_growth, run_fresh
from pictures import CONSTANTS, ENDS, IMAGENET, STORED, TENSORS, UINT8, UINT16, check, constants_of, levels, same_bytes

from fastnorm import _ops, image

INF = np.inf


def test_pictures_on_disk_and_lists_and_subclasses_are_pictures(tmp_path):
    img = uniform((2, 20, 31, 3), UINT8)
    want = image.normalize(img, *IMAGENET)
    (tmp_path / "raw").write_bytes(b"head" + img.tobytes())
    mapped = np.memmap(tmp_path / "raw", np.uint8, "r", 4, img.shape)
    for given in (mapped, list(img), [list(batch) for batch in img], memoryview(img)):
        got = image.normalize(given, *IMAGENET)
        assert type(got) is np.ndarray
        same_bytes(got, want, type(given))
    place_for = np.memmap(tmp_path / "result", np.float32, "w+", shape=want.shape)
    assert image.normalize(img, *IMAGENET, out=place_for) is place_for
    same_bytes(np.asarray(place_for), want)
    values = [[0.0, 0.25], [0.5, 1.0]]
    same_bytes(image.to_tensor(values), np.array([values], np.float32))
    same_bytes(image.normalize(values, 0.5, 0.5, layout="HWC"), np.array(values, np.float32)[..., None] * 2 - 1)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "I;16", "I;16B", "F"])
def test_pictures_of_pillow(mode):
    pillow = pytest.importorskip("PIL.Image")
    rgba = pillow.fromarray(np.asarray(uniform((17, 23, 4), UINT8)))
    if mode.startswith("I;16"):
        img = pillow.frombytes(mode, (23, 17), uniform((17, 23), UINT16).astype("<>"[mode[-1] == "B"] + "u2").tobytes())
    elif mode in ("1", "L", "LA", "F"):
        img = rgba.convert("L").convert(mode)
    else:
        img = rgba.convert("RGB").convert(mode) if mode != "RGBA" else rgba
    values = np.asarray(img)
    channels = 1 if values.ndim == 2 else values.shape[2]
    mean, std = constants_of(channels)
    same_bytes(image.to_tensor(img), image.to_tensor(values.astype(values.dtype.newbyteorder("="))), mode)
    check(img, mean, std, mode)
    if values.dtype.newbyteorder("=") in twin.WHITE:
        back = image.Normalize(mean, std).inverse(image.normalize(img, mean, std), dtype=values.dtype.newbyteorder("="))
        assert np.array_equal(back.reshape(values.shape), values), mode


def test_palettes_are_refused_with_the_remedy():
    pillow = pytest.importorskip("PIL.Image")
    for mode in ("P", "PA"):
        for call in (image.to_tensor, lambda img: image.normalize(img, 0.5, 0.5), image.Normalize(*IMAGENET)):
            with pytest.raises(ValueError, match=r'\bimg\b.*\.convert\("RGB"\)'):
                call(pillow.new(mode, (4, 4)))
    with pytest.raises(TypeError, match=r"\bimg\b.*int32"):
        image.to_tensor(pillow.new("I", (4, 4)))


# ---- channels


def test_where_channels_lie_is_inferred_from_their_number():
    for shape, count, found in [
        ((5, 7, 3), 3, "HWC"),
        ((3, 5, 7), 3, "CHW"),
        ((3, 5, 3), 3, "HWC"),
        ((3, 7, 5), 1, "HWC"),
        ((1, 7, 5), 1, "CHW"),
        ((1, 7, 1), 1, "HWC"),
        ((4, 3, 5, 7), 3, "CHW"),
        ((3, 4, 5, 3), 3, "HWC"),
        ((3, 3, 5, 4), 3, "CHW"),
    ]:
        x = uniform(shape, UINT8)
        for mean, std in ((np.full(count, 0.3), 0.2), (0.3, np.full(count, 0.2))):
            same_bytes(image.normalize(x, mean, std), image.normalize(x, mean, std, input_layout=found), (shape, found))
    for shape in [(1, 7, 5), (3, 7, 5), (7, 5, 3)]:  # one number for all channels tells nothing
        x = uniform(shape, UINT8)
        same_bytes(image.normalize(x, 0.3, 0.2), image.normalize(x, 0.3, 0.2, input_layout="HWC"))
        if shape[0] > 1:
            same_bytes(image.normalize(x, [0.3], [0.2]), image.normalize(x, 0.3, 0.2))
    for shape in [(3, 7), (7, 3), (1, 1)]:
        x, three = uniform(shape, UINT8), uniform((*shape, 1), UINT8)
        same_bytes(image.normalize(x, 0.5, 0.2), image.normalize(three, 0.5, 0.2))
        same_bytes(image.normalize(x, [0.5], [0.2], layout="HWC"), image.normalize(three, 0.5, 0.2, layout="HWC"))


@pytest.mark.usefixtures("machine")
def test_swapping_channels_is_swapping_them_by_hand():
    for dtype, channels, (input_layout, layout) in itertools.product(STORED, (3, 4), itertools.product(ENDS, ENDS)):
        for lead, width in (((), 1), ((), 47), ((2,), 16)):
            x, how = uniform((*lead, 5, width, channels), dtype, 3), {"input_layout": input_layout, "layout": layout}
            for result in TENSORS:
                norm = image.Normalize(*constants_of(channels), swap_channels=True, dtype=result, **how)
                plain = image.Normalize(*constants_of(channels), dtype=result, **how)
                want = plain(np.ascontiguousarray(twin.to_layout(twin.swapped(x), input_layout)))
                got = norm(np.ascontiguousarray(twin.to_layout(x, input_layout)))
                same_bytes(got, want, (dtype, channels, width, how))


def test_one_object_serves_pictures_of_every_kind_at_once():
    norm = image.Normalize(0.4, 0.3)
    jobs = [uniform(s, d, 1) for d in STORED for s in [(5, 7), (6, 9, 3), (7, 5, 1), (2, 5, 6, 4), (3, 70, 30)]]
    want = [image.normalize(img, 0.4, 0.3) for img in jobs]
    with ThreadPoolExecutor(4) as pool:
        for results in pool.map(lambda _: [norm(img) for img in jobs], range(8)):
            for got, expected in zip(results, want, strict=True):
                same_bytes(got, expected)


def test_an_object_keeps_what_it_was_given():
    mean, std = np.array(IMAGENET[0]), np.array(IMAGENET[1], np.float32)
    how = {"scale": 1 / 1023, "layout": "HWC", "input_layout": "CHW", "swap_channels": True, "dtype": np.float16}
    img = uniform((3, 9, 11), UINT16)
    for given in ({}, how):
        norm = image.Normalize(mean, std, **given)
        want = norm(img)
        for other in (pickle.loads(pickle.dumps(norm)), copy.deepcopy(norm)):
            assert type(other) is image.Normalize
            same_bytes(other(img), want)
            same_bytes(other.inverse(want, dtype=UINT16), norm.inverse(want, dtype=UINT16))
            assert repr(other) == repr(norm)
            for name in ("scale", "layout", "input_layout", "swap_channels", "dtype"):
                assert getattr(other, name) == getattr(norm, name), name
        for name, value in (("mean", mean), ("std", std)):
            kept = getattr(norm, name)
            assert (kept.dtype, kept.tolist()) == (np.float64, value.tolist())
            with pytest.raises(ValueError, match="read-only"):
                kept[0] = 1
    assert repr(image.Normalize(*IMAGENET)).startswith("Normalize(")
    for text in ("0.485", "0.225"):
        assert text in repr(image.Normalize(*IMAGENET))
    for text in ("HWC", "CHW", "float16", "swap_channels=True", repr(1 / 1023)):
        assert text in repr(image.Normalize(mean, std, **how)), text
    norm = image.Normalize(mean, std)
    want = norm(img)
    mean[:], std[:] = 7, 9
    same_bytes(norm(img), want, "changed from outside")
    assert (norm.scale, norm.layout, norm.input_layout, norm.swap_channels) == (None, "CHW", None, False)
    assert norm.dtype == np.float32


# ---- and back


@pytest.mark.usefixtures("machine")
def test_every_level_comes_back():
    kinds = [(UINT8, np.float32), (UINT8, np.float16), (UINT16, np.float32)]
    for label in ("ImageNet", "random", "a mean that is a level", "one of each", "no mean"):
        mean, std = CONSTANTS[label]
        for (dtype, result), layout, input_layout, swap in itertools.product(kinds, ENDS, ENDS, (False, True)):
            if result == np.float16 and label == "random":
                continue  # 3.3 / 0.5555 in steps of 2^-8 is coarser than levels are
            img = np.ascontiguousarray(twin.to_layout(levels(dtype, 3).reshape(-1, 16, 3), input_layout))
            how = {"layout": layout, "input_layout": input_layout, "swap_channels": swap}
            norm = image.Normalize(mean, std, dtype=result, **how)
            y = norm(img)
            same_bytes(norm.inverse(y, dtype=dtype), img, (label, dtype, result, how))
            out = garbage((2, *img.shape), dtype)
            back = out[1]
            assert norm.inverse(y[..., ::-1].copy()[..., ::-1], dtype=dtype, out=back) is back
            same_bytes(back, img, (label, dtype, result, how, "out"))
            assert (out[0].view(np.uint8) == GARBAGE).all()
            batch = np.ascontiguousarray(np.stack([y, y[::-1]])[:, ::-1])[:, ::-1]
            same_bytes(norm.inverse(batch, dtype=dtype)[0], img, (label, dtype, result, how, "batch"))
    gray = uniform((5, 9), UINT8)
    same_bytes(image.Normalize(0.5, 0.3).inverse(image.normalize(gray, 0.5, 0.3)), gray[..., None])
    three = uniform((3, 5, 7), UINT8)  # inferred to be planes, given back with channels last
    same_bytes(image.Normalize(*IMAGENET).inverse(image.normalize(three, *IMAGENET)), np.moveaxis(three, 0, -1))


@pytest.mark.usefixtures("machine")
def test_the_way_back_rounds_half_to_even_clips_and_takes_nan_for_black():
    values = [0.5, 1.5, 2.5, 2.500001, -0.5, -0.6, 254.5, 255.49, 255.5, 1e9, -1e9, INF, -INF, np.nan, -np.nan, 7]
    want = [0, 2, 2, 3, 0, 0, 254, 255, 255, 255, 0, 255, 0, 0, 0, 7]
    wide = [65534.5, 65535.4, 65535.5, 65536, 1e30, 3e38, -3e38, 32767.5, 32768.5]
    for dtype in (*FLOATS, np.dtype(np.float16)):
        with twin.silent():
            x = np.array(values, dtype)[None, None]
        got = image.Normalize(0, 1, scale=1).inverse(x)
        assert got.ravel().tolist() == [*want[:3], 3 if dtype.itemsize > 2 else 2, *want[4:]], dtype
    for dtype in FLOATS:
        got = image.Normalize(0, 1, scale=1).inverse(np.array(wide, dtype)[None, None], dtype=UINT16)
        expected = [65534, 65535, 65535, 65535, 65535, 65535, 0, 32768, 32768]
        assert got.ravel().tolist() == expected, dtype


@pytest.mark.usefixtures("isa")
def test_the_way_back_of_any_tensor_is_the_formula():
    for x_dtype, channels, layout in itertools.product((*FLOATS, *HALVES), (1, 3, 4, 7), ENDS):
        x = np.asarray(uniform((9, 16, channels), x_dtype, 6)) if layout == "HWC" else None
        x = np.asarray(uniform((channels, 9, 16), x_dtype, 6)) if x is None else x
        mean, std = constants_of(channels)
        for scale in (None, 1 / 1023, 3.0):
            norm = image.Normalize(mean, std, scale=scale, layout=layout)
            for dtype in (UINT8, UINT16):
                want = twin.inverse(x, mean, std, dtype=dtype, scale=scale, layout=layout).astype(int)
                got = norm.inverse(x, dtype=dtype)
                assert got.dtype == dtype
                exact = twin.inverse(x, mean, std, dtype=np.float64, scale=scale, layout=layout)
                exact = exact * (twin.WHITE[dtype] if scale is None else 1)
                tie = np.abs(np.abs(exact - np.floor(exact)) - 0.5) < 1e-5 * np.maximum(np.abs(exact), 1)
                assert (np.abs(got - want) <= tie).all(), (x_dtype, channels, layout, scale, dtype)
            want = twin.inverse(x, mean, std, dtype=np.float64, scale=scale, layout=layout)
            got = norm.inverse(x, dtype=np.float32)
            np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6 * np.abs(want).max())


# ---- real pictures


@pytest.fixture(scope="module", params=["china.jpg", "flower.jpg"])
def photo(request):
    pytest.importorskip("PIL")
    img = pytest.importorskip("sklearn.datasets").load_sample_image(request.param)
    assert (img.dtype, img.ndim) == (np.uint8, 3)
    return img.copy()  # theirs is read-only, of which PyTorch warns


@pytest.mark.usefixtures("machine")
def test_photos_go_there_and_back(photo):
    norm = image.Normalize(*IMAGENET)
    same_bytes(image.to_tensor(photo), np.moveaxis(photo.astype(np.float32) / np.float32(255), -1, 0))
    y = check(photo, *IMAGENET, "photo")
    same_bytes(norm.inverse(y), photo)
    crop = photo[101:325, 401:177:-1]
    batch = garbage((2, 3, 224, 224), np.float32)
    norm(crop, out=batch[1])
    same_bytes(batch[1], np.ascontiguousarray(y[:, 101:325, 401:177:-1]))
    bgr = image.Normalize(*IMAGENET, swap_channels=True)
    same_bytes(bgr(photo[..., ::-1]), y)
    same_bytes(bgr.inverse(y), photo[..., ::-1].copy())
    same_bytes(image.Normalize(*IMAGENET, layout="HWC")(photo), np.ascontiguousarray(np.moveaxis(y, 0, -1)))


# ---- refusals

U8 = uniform((6, 5, 3), UINT8)
F4 = uniform((3, 6, 5), np.float32)
HALF = (0.5, 0.5)
LINE = np.zeros(400, np.float32)


def taken(**how):
    return lambda: image.Normalize(*IMAGENET, **how)


def on(img, mean=0.5, std=0.5, **how):
    return lambda: image.normalize(img, mean, std, **how)


def back(x, **how):
    return lambda: image.Normalize(*IMAGENET).inverse(x, **how)


# What is called, the error, and what its message must say.
REFUSED = {
    "complex": (on(U8.astype(complex)), TypeError, r"\bimg\b.*complex128"),
    "int64": (on(U8.astype(np.int64)), TypeError, r"\bimg\b.*int64"),
    "int8": (on(U8.view(np.int8)), TypeError, r"\bimg\b.*int8"),
    "uint32": (on(U8.astype(np.uint32)), TypeError, r"\bimg\b.*uint32"),
    "longdouble": (on(U8.astype(np.longdouble)), TypeError, r"\bimg\b.*longdouble|float128"),
    "object": (on(U8.astype(object)), TypeError, r"\bimg\b"),
    "a list of ints": (on([[1, 2], [3, 4]]), TypeError, r"\bimg\b.*int"),
    "nothing": (on(None), TypeError, r"\bimg\b"),
    "a path": (on("china.jpg"), TypeError, r"\bimg\b"),
    "masked": (on(np.ma.masked_array(U8)), TypeError, r"\bimg\b.*masked"),
    "a number": (on(np.uint8(3)), ValueError, r"\bimg\b.*\(\)"),
    "one axis": (on(U8[0, 0]), ValueError, r"\bimg\b.*\(3,\)"),
    "five axes": (on(U8[None, None]), ValueError, r"\bimg\b.*\(1, 1, 6, 5, 3\)"),
    "4097 channels": (on(np.zeros((1, 1, 4097), UINT8)), ValueError, r"\bimg\b.*4097 channels.*4096"),
    "to_tensor: int64": (lambda: image.to_tensor(U8.astype(np.int64)), TypeError, r"\bimg\b.*int64"),
    "to_tensor: five axes": (lambda: image.to_tensor(U8[None, None]), ValueError, r"\bimg\b"),
    "to_tensor: dtype": (lambda: image.to_tensor(U8, dtype=np.int8), TypeError, r"\bdtype\b.*int8"),
    "to_tensor: out": (lambda: image.to_tensor(U8, out=LINE), ValueError, r"\bout\b.*\(400,\)"),
    "more channels than mean": (
        on(uniform((6, 5, 4), UINT8), *IMAGENET),
        ValueError,
        r"^(?=.*\b3\b)(?=.*\b4\b).*\b(mean|std)\b",
    ),
    "fewer channels than std": (on(U8, 0.5, [1] * 7), ValueError, r"^(?=.*\b3\b)(?=.*\b7\b).*\b(mean|std)\b"),
    "a gray picture": (on(U8[..., 0], *IMAGENET), ValueError, r"\(6, 5\).*\b3\b.*\b(mean|std)\b"),
    "channels elsewhere": (
        on(U8, *IMAGENET, input_layout="CHW"),
        ValueError,
        r"^(?=.*\b3\b)(?=.*\b6\b).*\b(mean|std)\b",
    ),
    "mean of other length": (on(U8, (0.5, 0.5), (1, 1, 1)), ValueError, r"\bmean\b.*2|\bstd\b.*3"),
    "mean NaN": (on(U8, np.nan), ValueError, r"\bmean\b.*nan"),
    "mean infinite": (on(U8, (0, INF, 0)), ValueError, r"\bmean\b.*inf"),
    "mean a word": (on(U8, "grey"), TypeError, r"\bmean\b"),
    "mean None": (on(U8, None), TypeError, r"\bmean\b"),
    "mean complex": (on(U8, 1j), TypeError, r"\bmean\b"),
    "mean of two axes": (on(U8, np.zeros((3, 1))), ValueError, r"\bmean\b.*\(3, 1\)"),
    "mean of nothing": (on(U8, ()), ValueError, r"\bmean\b"),
    "std 0": (on(U8, 0.5, 0), ValueError, r"\bstd\b.*0"),
    "std -0 among others": (on(U8, 0.5, (1, -0.0, 1)), ValueError, r"\bstd\b.*0"),
    "std NaN": (on(U8, 0.5, np.nan), ValueError, r"\bstd\b.*nan"),
    "std infinite": (on(U8, 0.5, (1, 1, -INF)), ValueError, r"\bstd\b.*inf"),
    "std with a reciprocal beyond double": (on(U8, 0.5, (1, 1e-310, 1)), ValueError, r"\bstd\b.*1e-310"),
    "mean beyond double in levels": (on(U8, 1e200, scale=1e-200), ValueError, r"\bmean\b.*\bscale\b.*1e-200"),
    "std a word": (on(U8, 0.5, ["a", "b", "c"]), TypeError, r"\bstd\b"),
    "std when made": (lambda: image.Normalize(0.5, (1, 0, 1)), ValueError, r"\bstd\b.*0"),
    "scale NaN": (taken(scale=np.nan), ValueError, r"\bscale\b.*nan"),
    "scale infinite": (taken(scale=INF), ValueError, r"\bscale\b.*inf"),
    "scale 0": (taken(scale=0), ValueError, r"\bscale\b.*0"),
    "scale a word": (taken(scale="1"), TypeError, r"\bscale\b"),
    "scale of channels": (taken(scale=[1, 2, 3]), TypeError, r"\bscale\b"),
    "layout": (taken(layout="WHC"), ValueError, r"\blayout\b.*WHC"),
    "layout of a batch": (taken(layout="NCHW"), ValueError, r"\blayout\b.*NCHW"),
    "layout None": (taken(layout=None), (TypeError, ValueError), r"\blayout\b.*None"),
    "input_layout": (taken(input_layout="hwc"), ValueError, r"\binput_layout\b.*hwc"),
    "input_layout a number": (taken(input_layout=3), (TypeError, ValueError), r"\binput_layout\b.*3"),
    "dtype float64": (taken(dtype=np.float64), TypeError, r"\bdtype\b.*float64"),
    "dtype uint8": (taken(dtype=np.uint8), TypeError, r"\bdtype\b.*uint8"),
    "dtype of nothing known": (taken(dtype="float33"), TypeError, r"\bdtype\b.*float33"),
    "swapping one channel": (on(U8[..., :1], swap_channels=True), ValueError, r"^(?=.*\b1 channel).*\bswap_channels\b"),
    "swapping two": (on(U8[..., :2], swap_channels=True), ValueError, r"^(?=.*\b2 channel).*\bswap_channels\b"),
    "swapping five": (
        on(np.zeros((4, 4, 5)), swap_channels=True),
        ValueError,
        r"^(?=.*\b5 channel).*\bswap_channels\b",
    ),
    "swapping gray": (on(U8[..., 0], swap_channels=True), ValueError, r"^(?=.*\b1 channel).*\bswap_channels\b"),
    "out a list": (on(U8, out=[1.0]), TypeError, r"\bout\b.*list"),
    "out of other shape": (
        on(U8, out=np.zeros((6, 5, 3), np.float32)),
        ValueError,
        r"\bout\b.*\(6, 5, 3\).*\(3, 6, 5\)",
    ),
    "out of other dtype": (on(U8, out=np.zeros((3, 6, 5))), ValueError, r"\bout\b.*float64.*float32"),
    "out of half": (on(U8, dtype=np.float16, out=F4.copy()), ValueError, r"\bout\b.*float32.*float16"),
    "out swapped": (on(U8, out=F4.astype(F4.dtype.newbyteorder())), ValueError, r"\bout\b"),
    "out read-only": (on(U8, out=np.broadcast_to(F4[:1], (3, 6, 5))), ValueError, r"\bout\b.*read-only"),
    "out in part the picture": (
        on(LINE[:300].reshape(10, 10, 3), layout="HWC", out=LINE[3:303].reshape(10, 10, 3)),
        ValueError,
        r"\bout\b.*overlaps.*\bimg\b",
    ),
    "out inside the bytes of the picture": (
        on(LINE.view(np.uint8)[:90].reshape(6, 5, 3), out=LINE[10:100].reshape(3, 6, 5)),
        ValueError,
        r"\bout\b.*overlaps.*\bimg\b",
    ),
    "out on itself": (
        on(U8, out=np.lib.stride_tricks.as_strided(LINE, (3, 6, 5), (4, 20, 4))),
        ValueError,
        r"\bout\b",
    ),
    "inverse: complex": (back(F4.astype(complex)), TypeError, r"\bx\b.*complex"),
    "inverse: masked": (back(np.ma.masked_array(F4)), TypeError, r"\bx\b.*masked"),
    "inverse: integers": (back(U8), TypeError, r"\bx\b.*uint8"),
    "inverse: one axis": (back(F4[0, 0]), ValueError, r"\bx\b.*\(5,\)"),
    "inverse: five axes": (back(F4[None, None]), ValueError, r"\bx\b.*\(1, 1, 3, 6, 5\)"),
    "inverse: channels": (back(uniform((4, 6, 5), np.float32)), ValueError, r"^(?=.*\b3\b)(?=.*\b4\b).*\b(mean|std)\b"),
    "inverse: dtype": (back(F4, dtype=np.int32), TypeError, r"\bdtype\b.*\buint8\b.*\bint32\b"),
    "inverse: out of other shape": (back(F4, out=np.zeros((3, 6, 5), UINT8)), ValueError, r"\bout\b.*\(3, 6, 5\)"),
    "inverse: out of other dtype": (back(F4, out=np.zeros((6, 5, 3), UINT16)), ValueError, r"\bout\b.*uint16.*uint8"),
}


@pytest.mark.parametrize(("call", "error", "says"), REFUSED.values(), ids=REFUSED)
def test_bad_input_is_refused_by_name(call, error, says):
    with pytest.raises(error, match=says):
        call()
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


# ---- threads and temporaries

_STARTED = """
import os, numpy, fastnorm
from fastnorm import image
norm = image.Normalize(image.IMAGENET_MEAN, image.IMAGENET_STD)
small = numpy.zeros((224, 224, 3), numpy.uint8)
batch = numpy.zeros((8, 512, 512, 3), numpy.uint8)
def started(call, *args):
    before = len(os.listdir("/proc/self/task"))
    with fastnorm.threads(3):
        call(*args)
    return len(os.listdir("/proc/self/task")) - before
print(started(norm, small), started(image.to_tensor, small), started(norm.inverse, norm(small)), started(norm, batch))
"""


@pytest.mark.skipif(not _ops.config()["openmp"], reason="this build has no OpenMP")
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts threads in /proc/self/task")
def test_a_picture_starts_no_thread_and_a_batch_does():
    assert run_fresh(_STARTED) == "0 0 0 2"


_NORM = "from fastnorm import image; n = image.Normalize(image.IMAGENET_MEAN, image.IMAGENET_STD{}); "
_JOBS = {
    "uint8": ("x = filled((BIG, 1, 3), 'u1'); y = filled((3, BIG, 1), 'f4')", "", "n(x, out=y)"),
    "uint8 to HWC": ("x = filled((BIG, 1, 3), 'u1'); y = filled((BIG, 1, 3), 'f4')", ", layout='HWC'", "n(x, out=y)"),
    "planes": ("x = filled((3, BIG, 1), 'u1'); y = filled((3, BIG, 1), 'f4')", ", input_layout='CHW'", "n(x, out=y)"),
    "a crop": ("x = filled((BIG, 2, 4), 'u1')[:, ::-1, :3]; y = filled((3, BIG, 2), 'f4')", "", "n(x, out=y)"),
    "swapped uint16": ("x = filled((BIG, 1, 3), '>u2'); y = filled((3, BIG, 1), 'f4')", "", "n(x, out=y)"),
    "half": ("x = filled((BIG, 1, 3), 'u1'); y = filled((3, BIG, 1), 'f2')", ", dtype='f2'", "n(x, out=y)"),
    "in place": ("x = filled((BIG, 1, 3), 'f4')", ", layout='HWC'", "n(x, out=x)"),
    "double": ("x = filled((BIG, 1, 3), 'f8'); y = filled((3, BIG, 1), 'f4')", "", "n(x, out=y)"),
    "bool": ("x = filled((BIG, 1, 3), '?'); x[...] = True; y = filled((3, BIG, 1), 'f4')", "", "n(x, out=y)"),
    "many channels": (
        "x = filled((BIG // 8, 1, 24), 'u1'); y = filled((24, BIG // 8, 1), 'f4'); n = image.Normalize(0.5, 0.3)",
        "",
        "n(x, out=y)",
    ),
    "to_tensor": ("x = filled((BIG, 1, 3), 'u1'); y = filled((3, BIG, 1), 'f4')", "", "image.to_tensor(x, out=y)"),
    "inverse": ("x = filled((3, BIG, 1), 'f4'); y = filled((BIG, 1, 3), 'u1')", "", "n.inverse(x, out=y)"),
}


@pytest.mark.wide
def test_no_temporary_grows_with_the_picture():
    jobs = [(name, _NORM.format(how) + setup, call) for name, (setup, how, call) in _JOBS.items()]
    grown = peak_growth(jobs, 2_000_000)  # bytes of one channel of uint8: a copy in float32 would be 24 MB
    assert {name: n for name, n in grown.items() if n > 3 << 20} == {}


# ---- other libraries


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


@pytest.mark.peers
def test_tensors_are_torchs(torch, photo):
    mean, std = (torch.tensor(v)[:, None, None] for v in IMAGENET)
    planes = torch.from_numpy(photo).permute(2, 0, 1).contiguous()
    tensor = planes.to(torch.float32).div(255)
    same_bytes(image.to_tensor(photo), tensor.numpy())
    same_bytes(image.to_tensor(torch.from_numpy(photo)), tensor.numpy())
    every = torch.from_numpy(levels(UINT8, 3)).permute(2, 0, 1)
    same_bytes(image.to_tensor(levels(UINT8, 3)), every.to(torch.float32).div(255).contiguous().numpy())
    # Theirs rounds x / 255, mean, the difference, std and the quotient in float32: 2 units of numbers up to 1 / std.
    want = tensor.sub(mean).div(std).numpy()
    for given in (photo, planes, torch.from_numpy(photo)):
        np.testing.assert_allclose(image.normalize(given, *IMAGENET), want, rtol=2.0**-22, atol=2.0**-23 / 0.224)
    batch = torch.stack([planes, planes.flip(2)])
    got = image.normalize(batch, *IMAGENET)
    np.testing.assert_allclose(got, batch.div(255).sub(mean).div(std).numpy(), rtol=2.0**-22, atol=2.0**-23 / 0.224)
    slot = torch.empty(2, *want.shape)
    image.normalize(photo, *IMAGENET, out=slot.numpy()[1])
    same_bytes(slot[1].numpy(), image.normalize(photo, *IMAGENET))
    deep = torch.from_numpy(levels(UINT16, 3))
    same_bytes(image.to_tensor(deep), np.moveaxis(levels(UINT16, 3) / np.float32(65535), -1, 0))


@pytest.mark.peers
def test_blobs_are_those_of_opencv(photo):
    cv2 = pytest.importorskip("cv2")
    bgr = photo[..., ::-1].copy()
    for mean, std in ((IMAGENET[0], 0.226), ((0.5, 0.5, 0.5), 0.5), ((0, 0, 0), 1)):
        shift = tuple(255 * m for m in mean)
        want = cv2.dnn.blobFromImages([bgr, bgr[::-1].copy()], 1 / (255 * std), mean=shift, swapRB=True)
        got = image.normalize(np.stack([bgr, bgr[::-1]]), mean, std, swap_channels=True)
        # Theirs rounds 255 mean, x - 255 mean and the factor in float32.
        np.testing.assert_allclose(got, want, rtol=2.0**-22, atol=2.0**-23 / std)


@pytest.mark.peers
def test_normalized_pictures_are_those_of_albumentations(photo, monkeypatch):
    monkeypatch.setenv("NO_ALBUMENTATIONS_UPDATE", "1")  # else it asks the network for a newer version
    albumentations = pytest.importorskip("albumentations")
    for mean, std in (IMAGENET, ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))):
        want = albumentations.Normalize(mean, std, max_pixel_value=255.0)(image=photo)["image"]
        got = image.normalize(photo, mean, std, layout="HWC")
        # Theirs is a table, or x times a factor less a mean, in float32.
        np.testing.assert_allclose(got, want, rtol=2.0**-21, atol=2.0**-21 / 0.224)
