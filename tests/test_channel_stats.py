"""The statistics of a data set of pictures are those of all its pixels in one table."""

import doctest
import io
import math
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import reference
from cases import FLOATS, HALVES, UNEVEN, supported_isas, threshold, uniform
from memory import peak_growth, run_fresh
from reference import strict

import fastnorm
from fastnorm import _ops, _pictures
from fastnorm._pictures import as_picture, channel_stats, unit

EPS = 2.0**-52
LEVELS = (np.dtype(np.uint8), np.dtype(np.uint16))
DTYPES = (*LEVELS, np.dtype(bool), *HALVES, *FLOATS, np.dtype(">u2"), np.dtype(">f4"))
SIZES = [(1, 1), (7, 5), (64, 33), (3, 130), (40, 41)]


def pictures(dtype, channels=3):
    """Pictures of many sizes whose channels differ."""
    dtype = np.dtype(dtype)
    made = [uniform((*size, channels), dtype.newbyteorder("="), seed) for seed, size in enumerate(SIZES)]
    return [np.where(np.arange(channels) == 1, x[:1, :1], x).astype(dtype) for x in made]


def table(images, axis=-1):
    """Every pixel as a row of stored numbers in float64."""
    return np.concatenate([np.moveaxis(x, axis, -1).reshape(-1, x.shape[axis]).astype(np.float64) for x in images])


def check(got, pixels, scale, ddof=0):
    """The bounds that statistics have; scaling rounds once more, and the twin rounds each scaled pixel."""
    mean, std = got
    assert (mean.dtype, std.dtype) == (np.float64, np.float64)
    assert not (std < 0).any()
    reference.assert_mean_var(mean, std**2, pixels * scale, 0, ddof)


def same(a, b):
    return [x.tobytes() for x in a] == [x.tobytes() for x in b]


# ---- values


def test_statistics_are_those_of_all_pixels_together():
    for dtype in DTYPES:
        scale = 1 / {"uint8": 255, "uint16": 65535}.get(dtype.name, 1)
        for channels in (1, 2, 3, 4, 5):
            images = pictures(dtype, channels)
            planar = [np.ascontiguousarray(np.moveaxis(x, -1, 0)) for x in images]
            batch = np.stack([images[2], images[2][::-1]])
            crops = [x[::2, ::-1][:9] for x in images]
            check(channel_stats(images), table(images), scale)
            check(channel_stats(planar, input_layout="CHW"), table(images), scale)
            check(channel_stats([np.moveaxis(x, -1, 0) for x in images], input_layout="CHW"), table(images), scale)
            check(channel_stats([*images, batch]), table([*images, batch]), scale)
            check(channel_stats([batch.transpose(0, 3, 1, 2)], input_layout="CHW"), table([batch]), scale)
            check(channel_stats(batch), table([batch]), scale)
            check(channel_stats(crops), table(crops), scale)
        flat = [x[..., 0] for x in images]
        for layout in ("HWC", "CHW"):
            check(channel_stats(flat, input_layout=layout), table([x[..., None] for x in flat]), scale)
    lists = [[[0.5, 0.25], [0.125, 1.0]], np.float32([[2.0]]), np.array([[True]])]
    assert channel_stats(lists)[0] == [4.875 / 6]


@pytest.mark.parametrize("dtype", LEVELS, ids=str)
def test_levels_give_exact_statistics(dtype):
    white = np.iinfo(dtype).max
    for seed in range(200):
        images = [uniform((1 + seed % 7, 1 + seed % 11, 2), dtype, seed), uniform((3, 1 + seed % 5, 2), dtype, 999 - seed)]
        mean, std = channel_stats(images, ddof=1)
        for i, column in enumerate(table(images).T):
            exact, var = reference.exact_mean_var(column, ddof=1)
            # The mean comes in two doubles, so that dividing it rounds once: less than an ulp is lost in all.
            assert reference.ulps(mean[i], exact / white) <= 1
            # 64 eps of the variance are 32 of its root, which is rounded, and once more when it is divided.
            assert abs(Fraction(std[i]) / reference.root(var / white**2) - 1) <= 33 * EPS


def test_a_constant_has_its_level_as_mean_and_no_deviation():
    for dtype in LEVELS:
        white = np.iinfo(dtype).max
        levels = np.arange(0, white + 1, white // 255).astype(dtype)  # one channel for each
        mean, std = channel_stats([np.broadcast_to(levels, (*size, levels.size)) for size in SIZES])
        assert same((mean, std), (levels / np.float64(white), np.zeros(levels.size)))
    for k in (0.1, -7.3, 1e300, 5e-324):
        assert same(channel_stats([np.full(size, k) for size in SIZES]), (np.array([k]), np.array([0.0])))


def test_order_and_batches_do_not_matter():
    # Each is within the bounds of `Moments`, so two are within twice these of each other.
    for dtype, offset in ((np.uint8, 0), (np.uint16, 0), (np.float32, 0), (np.float32, 1000), (np.float64, 1e6)):
        images = [x + np.dtype(dtype).type(offset) for x in (pictures(dtype) * 20)]
        same_size = [x[:7, :5] for x in images if x.shape[0] > 5 and x.shape[1] >= 5]
        for one, others in (
            (images, [images[::-1], sorted(images, key=lambda x: x.size), iter(images)]),
            (same_size, [[np.stack(same_size)], np.stack(same_size), [np.stack(same_size[:3]), *same_size[3:]]]),
        ):
            mean, std = channel_stats(one)
            size = np.abs(table(one)).mean(0) / unit(one[0].dtype)
            for other in others:
                other_mean, other_std = channel_stats(other)
                reference.assert_within(other_mean, mean, 2 * (4 * EPS * np.abs(mean) + 2.0**-50 * size))
                reference.assert_within(other_std, std, 2 * 33 * EPS * std)


def test_bytes_do_not_depend_on_the_machine():
    for dtype in (np.uint8, np.float16, np.float32):
        images = [*pictures(dtype), uniform((2, 300, 200, 3), dtype, 9)]
        with fastnorm.threads(1), fastnorm.use_isa("baseline"):
            want = channel_stats(images)
        for isa in supported_isas():
            for n in (1, 2, UNEVEN):
                with fastnorm.use_isa(isa), fastnorm.threads(n), threshold(_ops.set_work_threshold, 0):
                    assert same(channel_stats(images), want), (dtype, isa, n)


def test_scale_and_ddof():
    for dtype in (np.uint8, np.uint16, np.float32):
        images = pictures(dtype)
        pixels = table(images)
        for scale in (1, 1 / 128, -2.5, 1e-300):
            check(channel_stats(images, scale=scale, ddof=3), pixels, scale, 3)
        assert same(channel_stats(images, scale=1), channel_stats([x.astype(np.float64) for x in images]))
    one = np.full((1, 1, 3), 51, np.uint8)
    with strict():
        assert np.isnan(channel_stats([one], ddof=1)[1]).all()
        assert channel_stats([one, one + np.uint8(51)], ddof=2)[1].tolist() == [np.inf] * 3
        assert channel_stats([np.full((2, 2), 1e300)], scale=1e300)[0] == np.inf


def test_what_is_not_finite_stays_in_its_channel():
    for dtype in (*HALVES, *FLOATS):
        images = pictures(dtype, 4)
        want = channel_stats(images)
        images[3][1, 4, 1], images[2][0, 0, 3] = np.nan, np.inf
        with strict():
            mean, std = channel_stats(images)
        assert same((mean[[0, 2]], std[[0, 2]]), [x[[0, 2]] for x in want])
        np.testing.assert_array_equal(mean[[1, 3]], [np.nan, np.inf])
        assert np.isnan(std[[1, 3]]).all()


def test_photos_of_different_sizes():
    photos = pytest.importorskip("sklearn.datasets").load_sample_images().images
    parts = [part for photo in photos for part in (photo[:100, :171], photo[100:], photo[:100, 171:])]
    pixels = table(photos)
    for images in (photos, parts, np.stack(photos), (photo[None] for photo in photos)):
        mean, std = channel_stats(images)
        check((mean, std), pixels, 1 / 255)
        for value, total in zip(mean, pixels.sum(0), strict=True):
            assert reference.ulps(value, Fraction(int(total), 255 * len(pixels))) <= 1


# ---- what the pictures come from


class DataSet:
    """Items by number and no iterator, as loaders of data sets have them."""

    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        return self.items[i]


def test_a_stream_is_read_once_and_one_item_at_a_time():
    images, asked = pictures(np.uint8), []

    def stream():
        for i, x in enumerate(images):
            asked.append(i)
            yield x

    want = channel_stats(images)
    assert same(channel_stats(stream()), want)
    assert asked == [0, 1, 2, 3, 4]
    assert same(channel_stats(DataSet(images)), want)
    images[1] = images[1][..., :2]
    asked.clear()
    with pytest.raises(ValueError, match=r"images\[1\]"):
        channel_stats(stream())
    assert asked == [0, 1]


def test_files_give_what_their_arrays_do(tmp_path):
    image = pytest.importorskip("PIL.Image")

    def saved(name, picture):
        picture.save(tmp_path / name)
        return tmp_path / name

    rgb, rgba = pictures(np.uint8)[1], pictures(np.uint8, 4)[1]
    deep = pictures(np.uint16, 1)[3][..., 0]
    kinds = {
        "rgb": (image.fromarray(rgb), rgb),
        "rgba": (image.fromarray(rgba), rgba),
        "grey": (image.fromarray(rgb[..., 0]), rgb[..., :1]),
        "grey with alpha": (image.fromarray(np.ascontiguousarray(rgba[..., :2])), rgba[..., :2]),
        "bits": (image.fromarray(rgb[..., 0] > 99), (rgb[..., :1] > 99)),
        "deep": (image.fromarray(deep), deep[..., None]),
    }
    for kind, (picture, x) in kinds.items():
        path = saved(f"{kind}.png", picture)
        want = channel_stats([x, x])
        assert same(channel_stats([path, str(path)]), want), kind
        assert same(channel_stats([picture, x]), want), kind

    few = rgb // 86 * 86  # 27 colours at most
    palette = image.fromarray(few).quantize(32)
    assert palette.mode == "P"
    np.testing.assert_array_equal(palette.convert("RGB"), few)
    assert same(channel_stats([saved("palette.png", palette)]), channel_stats([few]))
    palette.info["transparency"] = 0
    transparent = np.asarray(palette.convert("RGBA"))
    assert transparent[..., 3].min() == 0
    assert same(channel_stats([saved("transparent.png", palette)]), channel_stats([transparent]))

    check(channel_stats([kinds["rgb"][0], tmp_path / "rgb.png", few]), table([rgb, rgb, few]), 1 / 255)
    descriptors = Path("/proc/self/fd")
    if descriptors.is_dir():
        before = len(list(descriptors.iterdir()))
        channel_stats([tmp_path / "rgb.png"] * 3)
        assert len(list(descriptors.iterdir())) == before


def test_tensors():
    torch = pytest.importorskip("torch")
    images = pictures(np.float32)
    planar = [torch.from_numpy(x.transpose(2, 0, 1)) for x in images]
    assert same(channel_stats(planar, input_layout="CHW"), channel_stats(images))
    assert same(channel_stats(planar[2][None], input_layout="CHW"), channel_stats([images[2]]))


def test_memory_does_not_grow_with_the_data(tmp_path):
    image = pytest.importorskip("PIL.Image")
    pixels = 3 << 20
    image.new("RGB", (1024, 1024), (1, 2, 3)).save(tmp_path / "a.png")
    start = "from fastnorm._pictures import channel_stats; import PIL.PngImagePlugin; "
    jobs = [
        ("arrays", start + "x = (filled((1024, 1024, 3), 'u1') for _ in range(BIG))", "channel_stats(x)"),
        ("files", start + f"x = (p for p in [{str(tmp_path / 'a.png')!r}] * BIG)", "channel_stats(x)"),
    ]
    for name, grown in peak_growth(jobs, 24).items():
        assert grown < 8 * pixels, name  # a picture, the one before, and what a decoder holds; 24 are asked for


# ---- the bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


def shown(monkeypatch, stream, images, progress):
    monkeypatch.setattr(sys, "stderr", stream)
    result = channel_stats(images, progress=progress)
    monkeypatch.undo()
    return result, stream.getvalue()


def test_progress(monkeypatch):
    pytest.importorskip("tqdm")
    images = pictures(np.uint8)
    want = channel_stats(images)
    for progress, stream, visible in (
        (True, io.StringIO(), True),
        (True, Terminal(), True),
        (None, io.StringIO(), False),
        (None, Terminal(), True),
        (False, Terminal(), False),
    ):
        for given, total in ((images, "5/5"), (iter(images), "5 pictures"), (DataSet(images), "5/5")):
            stream.seek(0)
            stream.truncate()
            result, text = shown(monkeypatch, stream, given, progress)
            assert same(result, want)
            assert (total in text) == visible, (progress, text)
            assert bool(text) == visible


def test_without_pillow_and_tqdm(monkeypatch, tmp_path):
    images = pictures(np.uint8)
    for name in ("PIL", "PIL.Image", "tqdm"):
        monkeypatch.setitem(sys.modules, name, None)
    want = channel_stats(images, progress=False)
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert same(channel_stats(images), want)
    assert sys.stderr.getvalue() == ""
    with pytest.raises(ImportError, match=r"progress=True needs tqdm: pip install fastnorm\[image\]"):
        channel_stats(images, progress=True)
    with pytest.raises(ImportError, match=r"reading files needs Pillow: pip install fastnorm\[image\]"):
        channel_stats([tmp_path / "a.png"])


def test_neither_is_imported_without_need():
    code = """
import sys
import numpy as np
from fastnorm._pictures import channel_stats
channel_stats([np.zeros((2, 2, 3), np.uint8)], progress=False)
print([name for name in ("PIL", "tqdm", "fractions") if name in sys.modules])
"""
    assert run_fresh(code) == "[]"


# ---- what is refused


def test_errors_name_the_picture(tmp_path):
    rgb = uniform((4, 5, 3), np.uint8)
    for images, kind, message in (
        ([rgb, rgb[..., :2]], ValueError, r"images\[1\] has shape \(4, 5, 2\), 2 channels; expected 3"),
        ([rgb, rgb[..., 0]], ValueError, r"images\[1\] has shape \(4, 5, 1\), 1 channels; expected 3"),
        ([rgb, rgb / 255.0], ValueError, r"images\[1\] has dtype float64; .* uint8"),
        ([rgb, rgb.astype(np.uint16)], ValueError, r"images\[1\] has dtype uint16; .* uint8"),
        ([rgb, rgb > 1], ValueError, r"images\[1\] has dtype bool; .* uint8"),
        ([rgb, rgb.astype(np.int64)], TypeError, r"images\[1\] has dtype int64; .*astype\(np.uint8\)"),
        ([rgb, rgb.astype(complex)], TypeError, r"images\[1\] has dtype complex128"),
        ([rgb, np.ma.array(rgb)], TypeError, r"images\[1\] is a masked array"),
        ([rgb, rgb[0, 0]], ValueError, r"images\[1\] has shape \(3,\)"),
        ([rgb, rgb[None, None]], ValueError, r"images\[1\] has shape \(1, 1, 4, 5, 3\)"),
        ([rgb, (rgb, 7)], ValueError, r"images\[1\] is a tuple of unequal parts"),
        ([rgb, None], TypeError, r"images\[1\] has dtype object"),
        ([], ValueError, "images has no pixels"),
        (iter(()), ValueError, "images has no pixels"),
        ([rgb[:0], rgb[:, :0]], ValueError, "images has no pixels"),
        ("a.png", TypeError, r"images is a single str; .*\[images\]"),
        (tmp_path, TypeError, r"images is a single \w+; .*\[images\]"),
        (b"a.png", TypeError, r"images is a single bytes; .*\[images\]"),
        (7, TypeError, "images is of type int"),
        (rgb, ValueError, r"images has shape \(4, 5, 3\), that of a single picture; .*\[images\]"),
        (rgb[..., 0], ValueError, r"images has shape \(4, 5\), that of a single picture; .*\[images\]"),
    ):
        with strict(), pytest.raises(kind, match=message):
            channel_stats(images)
    with pytest.raises(ValueError, match=r"images has shape \(3, 4, 5\), that of a single picture"):
        channel_stats(rgb.transpose(2, 0, 1), input_layout="CHW")
    assert channel_stats([rgb, rgb[:0]])[0].shape == (3,)
    assert channel_stats(np.zeros((9, 28, 28), np.uint8))[0].shape == (1,)
    asked = []
    for name, value, kind in (
        ("input_layout", "NHWC", ValueError),
        ("input_layout", None, ValueError),
        ("ddof", "1", TypeError),
        ("ddof", math.nan, ValueError),
        ("scale", 0, ValueError),
        ("scale", math.inf, ValueError),
        ("scale", math.nan, ValueError),
        ("scale", "1", TypeError),
        ("progress", 1, ValueError),
    ):
        with pytest.raises(kind, match=name):
            channel_stats(map(asked.append, [rgb]), **{name: value})
    assert asked == []


def test_errors_of_files_name_the_file(tmp_path, monkeypatch):
    image = pytest.importorskip("PIL.Image")
    good, cut, text, wide, missing = (tmp_path / f"{name}.png" for name in ("good", "cut", "text", "wide", "missing"))
    x = uniform((64, 64, 3), np.uint8)
    image.fromarray(x).save(good)
    cut.write_bytes(good.read_bytes()[:4000])
    text.write_text("no picture")
    image.fromarray(uniform((4, 4), np.int32)).save(wide.with_suffix(".tiff"))
    for path, kind in ((cut, OSError), (text, OSError), (missing, FileNotFoundError), (tmp_path, OSError)):
        with pytest.raises(kind, match=path.name):
            channel_stats([good, path])
    with pytest.raises(TypeError, match=r"images\[1\] \('.*wide.tiff'\) has dtype int32"):
        channel_stats([good, wide.with_suffix(".tiff")])
    with pytest.raises(ValueError, match=r"images\[1\] \('.*good.png'\) .* 3 channels; expected 4"):
        channel_stats([uniform((5, 5, 4), np.uint8), good])
    with pytest.raises(TypeError, match=r"images is a single Image; .*\[images\]"):
        channel_stats(image.fromarray(x))

    def decoder(error):
        def fail(_path):
            raise error

        return fail

    for error, kind in ((SyntaxError("broken chunk"), OSError), (MemoryError(), MemoryError)):
        monkeypatch.setattr(image, "open", decoder(error))
        with pytest.raises(kind, match="good.png" if kind is OSError else None):
            channel_stats([good])
    palette = image.fromarray(x).quantize(32)
    for value in (palette, [palette, palette], palette.convert("PA")):
        with pytest.raises(ValueError, match=r'images\[0\] has mode "PA?", .*\.convert\("RGB"\)'):
            channel_stats([value])


def test_pictures_are_views_of_what_was_given():
    for dtype in DTYPES:
        for shape in ((4, 5), (4, 5, 3), (2, 4, 5, 3)):
            x = uniform(shape, dtype.newbyteorder("=")).astype(dtype)[:, ::-1]
            found = as_picture("img", x)
            assert type(found) is np.ndarray
            assert found.dtype == dtype
            assert np.shares_memory(found, x) or dtype.kind == "b"
            np.testing.assert_array_equal(found, x)
    bits = np.array([[0, 1, 7, 255]], np.uint8).view(bool)
    assert as_picture("img", bits).view(np.uint8).tolist() == [[0, 1, 1, 1]]
    assert type(as_picture("img", np.rec.array(np.eye(3)))) is np.ndarray
    assert [unit(dtype) for dtype in DTYPES] == [255, 65535, *[1] * (len(DTYPES) - 4), 65535, 1]


def test_examples():
    pytest.importorskip("fastnorm.image")
    results = doctest.testmod(_pictures)
    assert results.attempted
    assert not results.failed
