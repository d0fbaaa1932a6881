"""What a data set is made of: streams, files, tensors; one picture of it is held at a time. And the bar."""

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from cases import same
from data_sets import DataSet, check_stats, pictures, table
from memory import peak_growth, run_fresh

from fastnorm.image import channel_stats


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

    check_stats(channel_stats([kinds["rgb"][0], tmp_path / "rgb.png", few]), table([rgb, rgb, few]), 1 / 255)
    descriptors = Path("/proc/self/fd")
    if descriptors.is_dir():
        before = len(list(descriptors.iterdir()))
        channel_stats([tmp_path / "rgb.png"] * 3)
        assert len(list(descriptors.iterdir())) == before


@pytest.mark.peers
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
    start = "from fastnorm.image import channel_stats; import PIL.PngImagePlugin; "
    jobs = [
        ("arrays", start + "x = (filled((1024, 1024, 3), 'u1') for _ in range(BIG))", "channel_stats(x)"),
        ("files", start + f"x = (p for p in [{str(tmp_path / 'a.png')!r}] * BIG)", "channel_stats(x)"),
    ]
    for name, grown in peak_growth(jobs, 24).items():
        assert grown < 8 * pixels, name  # a picture, the one before, and what a decoder holds; 24 are asked for


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
from fastnorm.image import channel_stats
channel_stats([np.zeros((2, 2, 3), np.uint8)], progress=False)
print([name for name in ("PIL", "tqdm", "fractions") if name in sys.modules])
"""
    assert run_fresh(code) == "[]"
