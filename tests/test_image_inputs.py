"""What `fastnorm.image` takes for a picture, and where it looks for the channels."""

import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import reference_image as twin
from cases import uniform
from memory import garbage
from pictures import ENDS, IMAGENET, STORED, TENSORS, UINT8, UINT16, check, constants_of, same_bytes

from fastnorm import image


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


def test_where_channels_lie_is_inferred_from_the_constants():
    for shape, count, found in [
        ((5, 7, 3), 3, "HWC"),
        ((3, 5, 7), 3, "CHW"),
        ((3, 5, 3), 3, "HWC"),
        ((5, 7, 2), 5, "CHW"),
        ((2, 9, 7), 7, "HWC"),
        ((4, 3, 5, 7), 3, "CHW"),
        ((3, 4, 5, 3), 3, "HWC"),
        ((3, 3, 5, 4), 3, "CHW"),
    ]:
        x = uniform(shape, UINT8)
        for mean, std in ((np.full(count, 0.3), 0.2), (0.3, np.full(count, 0.2))):
            same_bytes(image.normalize(x, mean, std), image.normalize(x, mean, std, input_layout=found), (shape, found))


# Where one number serves every channel, the axes alone tell where these are: where at most four are, and more are not.
INFERRED = [
    ((7, 5, 3), "HWC"),
    ((1, 7, 5), "CHW"),
    ((2, 7, 5), "CHW"),
    ((3, 7, 5), "CHW"),
    ((4, 7, 5), "CHW"),
    ((5, 7, 5), "HWC"),
    ((5, 7, 4), "HWC"),
    ((3, 7, 4), "HWC"),
    ((4, 3, 1), "HWC"),
    ((1, 7, 1), "HWC"),
    ((3, 1, 5), "CHW"),
    ((9, 3, 7, 5), "CHW"),
    ((2, 5, 7, 5), "HWC"),
    ((2, 9, 7, 3), "HWC"),
    ((2, 3, 7, 4), "HWC"),
]


@pytest.mark.parametrize(("shape", "found"), INFERRED, ids=str)
def test_where_channels_lie_is_inferred_from_the_axes(shape, found):
    for dtype in (UINT8, np.float32):
        x = uniform(shape, dtype)
        for given in (x, np.flip(np.flip(x).copy()), x.tolist() if dtype == np.float32 else list(x)):
            for mean, std in ((0.3, 0.2), ([0.3], [0.2]), (np.full(1, 0.3), 0.2)):
                got = image.normalize(given, mean, std)
                want = image.normalize(x, mean, std, input_layout=found)
                np.testing.assert_array_equal(got, want, err_msg=f"{shape} {found}")
                assert got.shape[-3] == shape[-1 if found == "HWC" else -3]


def test_pictures_without_an_axis_of_channels_have_one():
    for shape in [(3, 7), (7, 3), (1, 1)]:
        x, three = uniform(shape, UINT8), uniform((*shape, 1), UINT8)
        same_bytes(image.normalize(x, 0.5, 0.2), image.normalize(three, 0.5, 0.2))
        same_bytes(image.normalize(x, [0.5], [0.2], layout="HWC"), image.normalize(three, 0.5, 0.2, layout="HWC"))


def test_to_tensor_takes_channels_for_the_last_axis_unless_told():
    for shape, dtype, result in itertools.product([(5, 7, 3), (3, 7, 5), (2, 6, 9, 4)], STORED, TENSORS):
        x = uniform(shape, dtype, 3)
        want = image.to_tensor(x, dtype=result)
        assert want.shape == np.moveaxis(x, -1, -3).shape
        same_bytes(image.to_tensor(x, dtype=result, input_layout="HWC"), want, (shape, dtype))
        planes = np.ascontiguousarray(np.moveaxis(x, -1, -3))
        out = garbage(want.shape, result)
        assert image.to_tensor(planes, dtype=result, input_layout="CHW", out=out) is out
        same_bytes(out, want, (shape, dtype, "CHW"))
    gray = uniform((6, 7), UINT8)
    same_bytes(image.to_tensor(gray, input_layout="CHW"), image.to_tensor(gray))


@pytest.mark.usefixtures("machine")
def test_a_tensor_is_normalized_like_the_picture_it_was_made_of():
    for shape in [(6, 9, 3), (9, 6, 1), (2, 8, 7, 4), (6, 9)]:
        img = uniform(shape, UINT8)
        tensor = image.to_tensor(img)
        for mean, std in ((0.5, 0.5), ([0.5], 0.25)):
            got = image.normalize(tensor, mean, std)
            # The tensor is rounded to half an ulp of 1 before; both results to a few of numbers up to 1 / std.
            np.testing.assert_allclose(got, image.normalize(img, mean, std), rtol=0, atol=2.0**-22 / 0.25)
            same_bytes(got, twin.rounded((tensor.astype(np.float64) - 0.5) / std, np.float32), shape)
            restored = image.Normalize(mean, std).inverse(got)
            assert np.array_equal(restored.reshape(shape), img)


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
