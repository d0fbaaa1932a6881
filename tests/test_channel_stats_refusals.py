"""What `channel_stats` refuses: the message names the picture, or its file."""

import math

import numpy as np
import pytest
from cases import uniform
from reference import strict

from fastnorm.image import channel_stats

BEFORE = "as the pictures before it"


def test_errors_name_the_picture(tmp_path):
    rgb = uniform((4, 5, 3), np.uint8)
    for images, kind, message in (
        (
            [rgb, rgb[..., :2]],
            ValueError,
            rf"images\[1\] has shape \(4, 5, 2\), 2 channels; expected 3, {BEFORE}",
        ),
        (
            [rgb, rgb[..., 0]],
            ValueError,
            rf"images\[1\] has shape \(4, 5\), 1 channel; expected 3, {BEFORE}",
        ),
        ([rgb, rgb / 255.0], ValueError, rf"images\[1\] has dtype float64; expected uint8, {BEFORE}"),
        (
            [rgb, rgb.astype(np.uint16)],
            ValueError,
            rf"images\[1\] has dtype uint16; expected uint8, {BEFORE}",
        ),
        ([rgb, rgb > 1], ValueError, rf"images\[1\] has dtype bool; expected uint8, {BEFORE}"),
        (
            [rgb > 1, rgb / 255.0, rgb],
            ValueError,
            rf"images\[2\] has dtype uint8; expected bool, {BEFORE}",
        ),
        ([rgb, rgb.astype(np.int64)], TypeError, r"images\[1\] has dtype int64; .*astype\(np.uint8\)"),
        ([rgb, rgb.astype(complex)], TypeError, r"images\[1\] has dtype complex128"),
        ([rgb, np.ma.array(rgb)], TypeError, r"images\[1\] is a masked array"),
        ([rgb, rgb[0, 0]], ValueError, r"images\[1\] has shape \(3,\)"),
        ([rgb, rgb[None, None]], ValueError, r"images\[1\] has shape \(1, 1, 4, 5, 3\)"),
        (
            [rgb, (rgb, 7)],
            ValueError,
            r"images\[1\] is a tuple .*\(picture for picture, _ in dataset\)",
        ),
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
