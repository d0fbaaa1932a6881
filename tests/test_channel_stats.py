"""The statistics of a data set of pictures are those of all its pixels in one table."""

from fractions import Fraction

import numpy as np
import pytest
import reference
import reference_image as twin
from cases import FLOATS, HALVES, UNEVEN, same, supported_isas, threshold, uniform
from data_sets import DTYPES, LEVELS, SIZES, check_stats, pictures, table
from reference import strict

import fastnorm
from fastnorm import _ops
from fastnorm.image import Normalize, channel_stats, to_tensor

EPS = 2.0**-52


def test_statistics_are_those_of_all_pixels_together():
    for dtype in DTYPES:
        scale = 1 / {"uint8": 255, "uint16": 65535}.get(dtype.name, 1)
        for channels in (1, 2, 3, 4, 5):
            images = pictures(dtype, channels)
            planar = [np.ascontiguousarray(np.moveaxis(x, -1, 0)) for x in images]
            batch = np.stack([images[2], images[2][::-1]])
            crops = [x[::2, ::-1][:9] for x in images]
            check_stats(channel_stats(images), table(images), scale)
            check_stats(channel_stats(planar, input_layout="CHW"), table(images), scale)
            check_stats(
                channel_stats([np.moveaxis(x, -1, 0) for x in images], input_layout="CHW"), table(images), scale
            )
            check_stats(channel_stats([*images, batch]), table([*images, batch]), scale)
            check_stats(channel_stats([batch.transpose(0, 3, 1, 2)], input_layout="CHW"), table([batch]), scale)
            check_stats(channel_stats(batch), table([batch]), scale)
            check_stats(channel_stats(crops), table(crops), scale)
        flat = [x[..., 0] for x in images]
        for layout in ("HWC", "CHW"):
            check_stats(channel_stats(flat, input_layout=layout), table([x[..., None] for x in flat]), scale)
    lists = [[[0.5, 0.25], [0.125, 1.0]], np.float32([[2.0]]), np.array([[True]])]
    assert channel_stats(lists)[0] == [4.875 / 6]


@pytest.mark.parametrize("dtype", LEVELS, ids=str)
def test_levels_give_exact_statistics(dtype):
    white = np.iinfo(dtype).max
    for seed in range(200):
        sizes = (1 + seed % 7, 1 + seed % 11), (3, 1 + seed % 5)
        images = [uniform((*size, 2), dtype, seed + 200 * i) for i, size in enumerate(sizes)]
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
            size = np.abs(table(one)).mean(0) / twin.WHITE.get(one[0].dtype, 1)
            for other in others:
                other_mean, other_std = channel_stats(other)
                reference.assert_within(other_mean, mean, 2 * (4 * EPS * np.abs(mean) + 2.0**-50 * size))
                reference.assert_within(other_std, std, 2 * 33 * EPS * std)


def test_bytes_do_not_depend_on_the_machine():
    for dtype in (np.uint8, np.float16, np.float32):
        images = [*pictures(dtype), uniform((2, 600, 300, 3), dtype, 9)]  # one thread takes fewer than 2^20
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
            check_stats(channel_stats(images, scale=scale, ddof=3), pixels, scale, 3)
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
        check_stats((mean, std), pixels, 1 / 255)
        for value, total in zip(mean, pixels.sum(0), strict=True):
            assert reference.ulps(value, Fraction(int(total), 255 * len(pixels))) <= 1


def test_normalized_by_them_a_data_set_has_mean_0_and_deviation_1():
    for dtype, scale in ((np.uint8, None), (np.uint16, None), (np.float32, None), (np.uint8, 1), (np.uint16, -1e-3)):
        images = pictures(dtype)
        prepare = Normalize(*channel_stats(images, scale=scale), scale=scale)
        y = table([prepare(x) for x in images], 0)
        # A normalized value is within 3 ulp of float32 of exact; none here is beyond 4.
        np.testing.assert_allclose(y.mean(0), 0, rtol=0, atol=3 * 2.0**-22)
        np.testing.assert_allclose(y.std(0), 1, rtol=0, atol=3 * 2.0**-22)


def test_a_bool_is_true_whatever_its_byte():
    flags = np.array([[0, 1, 7, 255]], np.uint8).view(bool)
    assert to_tensor(flags).tolist() == [[[0, 1, 1, 1]]]
    assert channel_stats([flags, flags])[0] == [0.75]
