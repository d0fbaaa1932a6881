"""Pictures become the tensors that ToTensor and Normalize would make, whatever memory they come from and go to."""

import functools
import itertools

import numpy as np
import pytest
import reference_image as twin
from cases import FLOATS, HALVES, VALUES, layouts, threshold, uniform
from memory import GARBAGE, garbage, guarded, place
from pictures import (
    BOOL,
    CONSTANTS,
    ENDS,
    FLOATS_LOSE,
    IMAGENET,
    STORED,
    TENSORS,
    UINT8,
    UINT16,
    check,
    constants_of,
    levels,
    same_bytes,
)

import fastnorm
from fastnorm import _ops, image

# ---- values


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("result", TENSORS, ids=str)
def test_every_level_is_right_in_every_layout(result):
    for dtype in (UINT8, UINT16):
        img = levels(dtype, 3)
        for label, (mean, std) in CONSTANTS.items():
            want = check(img, mean, std, (label, dtype), result)
            planes, turned = np.ascontiguousarray(np.moveaxis(img, -1, 0)), np.moveaxis(want, 0, -1)
            for x, input_layout in ((img, "HWC"), (planes, "CHW")):
                how = {"input_layout": input_layout, "dtype": result}
                same_bytes(image.normalize(x, mean, std, **how), want, (label, dtype, input_layout))
                y = image.normalize(x, mean, std, layout="HWC", **how)
                same_bytes(y, turned, (label, dtype, input_layout, "HWC"))


@pytest.mark.usefixtures("isa")
def test_a_mean_that_is_a_level_is_subtracted_exactly():
    for dtype in (UINT8, UINT16):
        for some in np.split(levels(dtype).ravel(), 1 << 8 * dtype.itemsize - 8):  # a channel for each level
            for std in (0.2, 1e-30, 1e-40):
                norm = image.Normalize(some / np.float64(twin.WHITE[dtype]), std)
                for x in (some[None, None], some[:, None, None], np.stack([some, some])[None, ::-1]):
                    assert not norm(x).view(np.int32).any(), (dtype, std, x.shape)


@pytest.mark.usefixtures("machine")
def test_to_tensor_gives_quotients_rounded_once():
    for dtype, white in twin.WHITE.items():
        img = levels(dtype, 3)
        want = img.astype(np.float32) / np.float32(white)
        same_bytes(want, twin.rounded(img / np.float64(white), np.float32))
        for result in TENSORS:
            nearest = twin.rounded(want.astype(np.float64), result)  # what a cast of float32 gives
            same_bytes(image.to_tensor(img, dtype=result), np.moveaxis(nearest, -1, 0), (dtype, result))
            same_bytes(image.to_tensor(img[..., 0], dtype=result), nearest[None, ..., 0], (dtype, result, "HW"))
            batch = np.stack([img, img[:, ::-1]])
            same_bytes(image.to_tensor(batch, dtype=result)[1, :, :, ::-1], np.moveaxis(nearest, -1, 0), "NHWC")
    flags = uniform((5, 7, 3), BOOL)
    for result in TENSORS:
        same_bytes(image.to_tensor(flags, dtype=result), np.moveaxis(flags, -1, 0).astype(result))


def float_pictures(dtype):
    """(label, picture) of three channels: every value of half precision; every kind of value of the others."""
    if dtype in HALVES:
        yield "every value", np.moveaxis(levels(UINT16, 3).view(dtype).reshape(256, 256, 3), 0, 1)
        return
    for label in VALUES:
        yield label, np.asarray(VALUES[label]((7, 33, 3), dtype, 4))


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("dtype", [*FLOATS, *HALVES], ids=str)
def test_floats_are_computed_in_double_and_rounded_once(dtype):
    for label, img in float_pictures(dtype):
        for constants, (mean, std) in CONSTANTS.items():
            for result, scale in zip(TENSORS, (None, 1 / 255, 1e30), strict=False):
                check(img, mean, std, (label, constants, result, scale), result, scale=scale)
        for result in TENSORS:
            tensor = image.to_tensor(img, dtype=result)
            with twin.silent():
                want = np.moveaxis(img, -1, 0).astype(np.float64)
            twin.assert_close(tensor, want, FLOATS_LOSE[0][tensor.itemsize], 0, label)
            missing = tensor[np.isnan(want)]
            same_bytes(missing, np.full_like(missing, np.nan), "not the canonical NaN")


@pytest.mark.usefixtures("isa")
def test_stored_numbers_are_multiplied_by_scale():
    for dtype in STORED:
        img = uniform((9, 17, 3), dtype, 3)
        for scale in (1 / 1023, 1, 3, 1e-3, np.float32(0.1), 1e300):
            check(img, *CONSTANTS["random"], (dtype, scale), scale=scale)
        given = {UINT8: 1 / 255, UINT16: 1 / 65535}.get(dtype, 1)
        want = image.normalize(img, *IMAGENET)
        np.testing.assert_allclose(image.normalize(img, *IMAGENET, scale=given), want, rtol=1e-6, atol=1e-12)


# ---- any memory, any size, the same bytes

# (channels, width): around the sizes of vectors, and blocks of them.
SIZES = [*itertools.product((1, 2, 3, 4), (0, 1, 15, 16, 17, 31, 33, 64, 97)), *itertools.product((5, 7, 30), (1, 17))]
SIZES += [(200, 3)]


@functools.cache
def pictures(dtype, channels, width, result):
    """A batch and its tensor (NCHW), made of one channel at a time by one thread of the plainest instruction set."""
    x = np.asarray(uniform((2, 3, width, channels), dtype, channels + width))
    y = np.empty((2, channels, 3, width), result)
    with fastnorm.use_isa("baseline"), fastnorm.threads(1), threshold(_ops.set_stream_threshold, 1 << 62):
        for k, (mean, std) in enumerate(zip(*constants_of(channels), strict=True)):
            for n in range(2):
                y[n, k] = check(np.ascontiguousarray(x[n, ..., k]), mean, std, (channels, width), result)[0]
    return x, y


@pytest.mark.usefixtures("machine", "stores")
@pytest.mark.parametrize("dtype", STORED, ids=str)
def test_no_byte_depends_on_size_layout_threads_or_isa(dtype):
    for number, (channels, width) in enumerate(SIZES):
        result, (mean, std) = TENSORS[number % len(TENSORS)], constants_of(channels)
        x, want = pictures(dtype, channels, width, result)
        for input_layout, layout in itertools.product(ENDS, ENDS):
            norm = image.Normalize(mean, std, layout=layout, input_layout=input_layout, dtype=result)
            img, y = (np.ascontiguousarray(twin.to_layout(*how)) for how in ((x, input_layout), (want, layout, "CHW")))
            label = (channels, width, input_layout, layout, result)
            same_bytes(norm(img[1]), y[1], label)
            out = np.ascontiguousarray(garbage(y.shape, result))
            assert norm(img, out=out) is out
            same_bytes(out, y, label)


def memories(x):
    """(label, array) of a picture (channels last) as crops, flips, slices of channels and the like."""
    yield from layouts(x)
    for axis in range(x.ndim):
        yield f"flipped along {axis}", np.flip(np.flip(x, axis).copy(), axis)
    yield "planes", np.moveaxis(np.ascontiguousarray(np.moveaxis(x, -1, -3)), -3, -1)
    yield "turned", np.swapaxes(np.ascontiguousarray(np.swapaxes(x, -2, -3)), -2, -3)
    channels, around = x.shape[-1], [(0, 0)] * (x.ndim - 3)
    yield "channels of more", np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, 1)])[..., :channels]
    yield "channels behind others", np.pad(x, [(0, 0)] * (x.ndim - 1) + [(2, 0)])[..., 2:]
    yield "a crop", np.pad(x, [*around, (2, 3), (5, 1), (0, 0)])[..., 2:-3, 5:-1, :]
    yield "a flipped crop", np.pad(np.flip(x, -2), [*around, (1, 1), (4, 3), (0, 0)])[..., 1:-1, -4:3:-1, :]
    yield "every second row", np.repeat(x, 2, axis=-3)[..., ::2, :, :]
    yield "unaligned planes", np.moveaxis(place(np.ascontiguousarray(np.moveaxis(x, -1, -3)), 1), -3, -1)
    thin = np.broadcast_to(x[..., :1], x.shape)
    if np.array_equal(thin, x, equal_nan=x.dtype.kind == "f"):
        yield "one channel for all", thin


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize("dtype", STORED, ids=str)
def test_no_byte_depends_on_the_memory_of_a_picture(dtype):
    for number, shape in enumerate([(19, 33, 3), (5, 64, 4), (3, 7, 1), (6, 17, 30), (2, 5, 37, 3)]):
        result, x = TENSORS[number % len(TENSORS)], np.asarray(uniform(shape, dtype, number))
        if number == 1:
            x = np.repeat(x[..., :1], shape[-1], axis=-1)
        before, (mean, std) = x.tobytes(), constants_of(shape[-1])
        for layout in ENDS:
            first = image.Normalize(mean, std, layout=layout, dtype=result, input_layout="HWC")
            planar = image.Normalize(mean, std, layout=layout, dtype=result, input_layout="CHW")
            want = first(x)
            for label, view in memories(x):
                assert np.array_equal(view, x, equal_nan=True) if dtype.kind == "f" else (view == x).all(), label
                same_bytes(first(view), want, (shape, label, layout))
                same_bytes(planar(np.moveaxis(view, -1, -3)), want, (shape, label, layout, "CHW"))
                if layout == "CHW" and result == np.float32:
                    same_bytes(image.to_tensor(view), image.to_tensor(x), (shape, label, "to_tensor"))
        grey = x[..., 0]
        for label, view in layouts(grey):
            same_bytes(image.normalize(view, 0.5, 0.3), image.normalize(grey.copy(), 0.5, 0.3), (shape, label, "HW"))
        assert x.tobytes() == before


@pytest.mark.usefixtures("machine", "stores")
@pytest.mark.parametrize("dtype", [UINT8, UINT16, *FLOATS[:1], *HALVES], ids=str)
def test_a_result_goes_anywhere_and_nowhere_else(dtype):
    for number, (shape, layout) in enumerate(itertools.product([(9, 17, 3), (4, 33, 1), (3, 5, 40), (5, 64, 4)], ENDS)):
        result, img = TENSORS[number % len(TENSORS)], uniform(shape, dtype, number)
        norm = image.Normalize(*constants_of(shape[-1]), layout=layout, dtype=result)
        want = norm(img)
        batch = garbage((3, *want.shape), result)
        slot = batch[1]
        assert norm(img, out=slot) is slot
        same_bytes(slot, want, (shape, layout))
        assert (batch[::2].view(np.uint8) == GARBAGE).all(), (shape, layout)
        room = garbage((*want.shape, 3), result)
        norm(img, out=room[..., 1])
        same_bytes(room[..., 1].copy(), want, (shape, layout, "gaps"))
        assert (np.ascontiguousarray(room[..., ::2]).view(np.uint8) == GARBAGE).all(), (shape, layout)
        for label, out in memories(np.zeros(want.shape, result)):
            if out.dtype.isnative and out.flags.writeable and label != "one channel for all":
                norm(img, out=out)
                same_bytes(np.ascontiguousarray(out), want, (shape, layout, label))
    gray = uniform((6, 7), dtype)
    batch = garbage((2, 1, 6, 7), np.float32)
    image.to_tensor(gray, out=batch[1])
    same_bytes(batch[1], image.to_tensor(gray))
    assert (batch[0].view(np.uint8) == GARBAGE).all()


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize("dtype", TENSORS, ids=str)
def test_a_result_may_take_the_place_of_its_picture(dtype):
    for shape, layout in itertools.product([(9, 17, 3), (4, 33, 1), (2, 7, 9, 4), (3, 3, 3)], ENDS):
        norm = image.Normalize(0.5, 0.3, layout=layout, input_layout=layout, dtype=dtype)
        plain = uniform(shape, dtype, 2)
        for label, img in memories(plain):
            if img.dtype.isnative and img.flags.writeable and label != "one channel for all":
                img = img.copy("K") if img is plain else img  # noqa: PLW2901
                want = norm(img)
                assert norm(img, out=img) is img
                same_bytes(np.ascontiguousarray(img), want, (shape, layout, label))


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize("dtype", TENSORS, ids=str)
def test_channels_may_be_swapped_in_place(dtype):
    for layout, channels, (lead, width) in itertools.product(ENDS, (3, 4), (((), 3), ((), 1100), ((2,), 19))):
        pixels = np.asarray(uniform((*lead, 7, width, channels), dtype, 2))
        plain = np.ascontiguousarray(twin.to_layout(pixels, layout))
        how = {"layout": layout, "input_layout": layout, "swap_channels": True, "dtype": dtype}
        norm, label = image.Normalize(*constants_of(channels), **how), (layout, channels, lead, width)
        for img in (plain.copy(), np.flip(np.flip(plain, -2).copy(), -2), np.repeat(plain, 2, -2)[..., ::2, :]):
            restored = norm.inverse(plain, dtype=dtype)
            want = norm(img)
            assert norm(img, out=img) is img
            same_bytes(np.ascontiguousarray(img), want, label)
            img[...] = plain
            assert norm.inverse(img, dtype=dtype, out=img) is img
            same_bytes(np.ascontiguousarray(img), restored, (label, "inverse"))


def test_a_picture_is_not_turned_in_place():
    for layout, input_layout in (ENDS, ENDS[::-1]):
        for norm in (image.Normalize(0.5, 0.3, layout=layout, input_layout=input_layout), image.Normalize(0.5, 0.3)):
            img = uniform((3, 3, 3), np.float32, 2)
            before = img.tobytes()
            with pytest.raises(ValueError, match=r"^out overlaps img .*in another order; expected .*separate memory"):
                norm(img, out=img)
            with pytest.raises(ValueError, match=r"^out overlaps x .*in another order; expected .*separate memory"):
                norm.inverse(img, dtype=np.float32, out=img)
            assert img.tobytes() == before


@pytest.mark.wide
@pytest.mark.usefixtures("isa", "stores", "no_work_threshold")
@pytest.mark.parametrize("side", ["before", "behind"])
def test_nothing_outside_the_arrays_is_touched(side):
    shapes = [(1, 1, 1), (3, 17, 1), (2, 15, 3), (1, 16, 3), (5, 31, 3), (1, 65, 3), (3, 7, 4), (2, 33, 4), (2, 5, 7)]
    dtypes = (UINT8, UINT16, np.dtype(np.float32), np.dtype(np.float16))
    for number, (dtype, shape, threads) in enumerate(itertools.product(dtypes, shapes, (1, 3))):
        x, (mean, std), result = uniform(shape, dtype), constants_of(shape[-1]), TENSORS[number % 5 % len(TENSORS)]
        planes = np.ascontiguousarray(np.moveaxis(x, -1, 0))
        with fastnorm.threads(threads):
            for layout in ENDS:
                norm = image.Normalize(mean, std, layout=layout, input_layout="HWC", dtype=result)
                want = norm(x)
                whole = guarded(np.zeros((*shape[:-1], shape[-1] + 1), dtype), side)
                part = whole[..., :-1] if side == "before" else whole[..., 1:]
                part[...] = x
                views = [
                    part,
                    guarded(x, side),
                    guarded(x[:, ::-1], side)[:, ::-1],
                    guarded(x[..., ::-1], side)[..., ::-1],
                ]
                views += [guarded(x.astype(dtype.newbyteorder()), side), np.moveaxis(guarded(planes, side), 0, -1)]
                for which, view in enumerate(views):
                    out = guarded(garbage(want.shape, result), side)
                    same_bytes(norm(view, out=out), want, (shape, dtype, layout, which))
                back = guarded(garbage(shape, UINT8), side)
                same_bytes(norm.inverse(guarded(want, side), out=back), norm.inverse(want), (shape, layout, result))
