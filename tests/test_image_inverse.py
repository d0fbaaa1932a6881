"""Tensors become the pictures that they were made of."""

import itertools

import numpy as np
import pytest
import reference_image as twin
from cases import FLOATS, HALVES, uniform
from memory import GARBAGE, garbage
from pictures import (
    CONSTANTS,
    ENDS,
    IMAGENET,
    PHOTOS,
    UINT8,
    UINT16,
    check,
    constants_of,
    levels,
    load_photo,
    same_bytes,
)

import fastnorm
from fastnorm import image

INF = np.inf


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


# Ties are exact where mean is 0 and std and scale are 1.
HARD = [0.5, 1.5, 2.5, 127.5, 254.5, 255.5, 65534.5, -0.5, 254.50002, 0.49999997, -0.0, 1e-40, 256, -1, 7, 200.25]
HARD += [np.nan, -np.nan, INF, -INF, 2.0**31, -(2.0**31), 2.0**32 + 512, 1e10, -1e10, 1e30, 3e38, -3e38, 2.0**23 + 1]


def hard_planes(channels, width):
    """Planes of three rows: over all widths, each of HARD stands in each place of a vector."""
    c, h, w = np.indices((channels, 3, width))
    return np.float32(HARD)[(w + 11 * c + 7 * h + width) % len(HARD)]


@pytest.mark.usefixtures("isa")
def test_planes_of_any_width_are_restored_as_one_number_at_a_time():
    for width, channels, swap in itertools.product(range(1, 41), (2, 3, 4), (False, True)):
        if swap and channels == 2:
            continue
        x, label = hard_planes(channels, width), (width, channels, swap)
        for mean, std, scale in ((0, 1, 1), (*constants_of(channels), None)):
            norm = image.Normalize(mean, std, scale=scale, swap_channels=swap)
            with fastnorm.use_isa("baseline"):
                want = norm.inverse(x)
            if scale:
                same_bytes(want, twin.inverse(x, mean, std, scale=scale, swap_channels=swap), label)
            room = garbage((3, *want.shape), UINT8)
            norm.inverse(x, out=room[1])
            same_bytes(room[1], want, label)
            assert (room[::2] == GARBAGE).all(), label
            rows = np.pad(x, [(0, 0), (0, 0), (0, 1)])[..., :-1]  # not one after the other
            same_bytes(norm.inverse(rows), want, label)


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize("name", PHOTOS)
def test_photos_go_there_and_back(name):
    norm, photo = image.Normalize(*IMAGENET), load_photo(name)
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
