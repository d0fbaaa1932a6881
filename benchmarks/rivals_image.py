"""Pictures: what is written with each library, and quicker ways to the same numbers.

A way is a table like any rival's. The way that bears a library's name alone is what its users write or its
documentation shows; the others were found by trying what is quickest. Most of those fold the constants: what is
divided by white, less mean, and divided by std takes one difference and one product, or a table with a value for each
byte. A table leads to None where a way knows pictures of bytes only.
"""

from functools import partial

import numpy as np
from jobs import CROP, LEVELS, MEAN, STD, per_plane
from libraries import albumentations, cv2, fastnorm, formula, torch

MEANS, STDS = np.float32(MEAN), np.float32(STD)


def white(x):
    """Return the number that a picture, an array or tensor, stores for white."""
    return LEVELS[str(x.dtype).removeprefix("torch.")]


def folded(x):
    """Return what is subtracted from the numbers that x stores, and by what the differences are multiplied."""
    return np.float32(np.multiply(MEAN, white(x))), np.float32(1 / np.multiply(STD, white(x)))


def values_of_bytes(mean=MEAN, std=STD):
    """Tabulate the value of each byte in each channel: (256, C)."""
    return np.float32((np.arange(256)[:, None] / 255 - mean) / std)


def as_planes(y, out=None):
    """Bring the channels of y to the front, in a fresh array or in `out`."""
    if out is None:
        return np.ascontiguousarray(y.transpose(2, 0, 1))
    np.copyto(out, y.transpose(2, 0, 1))
    return out


def fresh_planes(x):
    return np.empty((x.shape[2], *x.shape[:2]), np.float32)


def to_planes(make, flip, half):
    """Return the table of a way: `make` is given a picture and returns a function of such pictures and `out`.

    How the way's library flips a view from left to right, and how it rounds to half precision, are its own.
    """

    def build(made, form):
        call, x = make(made.x), made.x
        if call is None:
            return None
        if form == "float16":
            return lambda: half(call(x))
        if form == "flipped crop":
            return lambda: call(flip(x[CROP]))
        return partial(fill, call, x, made.out) if form == "out=" else partial(call, x)

    forms = ["", "function", "float16", "flipped crop", "out="]
    return {f"image_normalize CHW {form}".rstrip(): partial(build, form=form) for form in forms}


def fill(call, pictures, out):
    """Put each picture of a batch into its place, while it is in cache."""
    for picture, place in zip(pictures, out, strict=True):
        call(picture, place)
    return out


# ---- fastnorm


def fastnorm_normalize(made, **keywords):
    """Make the object once and call it on each picture, as the rivals' objects are."""
    return partial(fastnorm.image.Normalize(MEAN, STD, **keywords), made.x)


def fastnorm_flipped_crop(made):
    normalize = fastnorm.image.Normalize(MEAN, STD)
    return lambda: normalize(made.x[CROP][:, ::-1])


FASTNORM = {
    "image_normalize CHW": fastnorm_normalize,
    "image_normalize CHW function": formula(lambda made: fastnorm.image.normalize(made.x, MEAN, STD)),
    "image_normalize CHW float16": partial(fastnorm_normalize, dtype=np.float16),
    "image_normalize CHW flipped crop": fastnorm_flipped_crop,
    "image_normalize CHW out=": lambda made: partial(fastnorm_normalize(made), out=made.out),
    "image_normalize HWC": partial(fastnorm_normalize, layout="HWC"),
    "image_to_tensor CHW": formula(lambda made: fastnorm.image.to_tensor(made.x)),
    "image_inverse HWC": lambda made: partial(fastnorm.image.Normalize(MEAN, STD).inverse, made.x),
}


# ---- NumPy


def numpy_in_unit_range(x):
    return x if x.dtype == np.float32 else x.astype(np.float32) / white(x)


def numpy_channels_last(x):
    return (numpy_in_unit_range(x) - MEANS) / STDS


def numpy_planes(_):
    return lambda x, out=None: as_planes(numpy_channels_last(x), out)


def numpy_folded_planes(sample):
    mean, factor = map(per_plane, folded(sample))

    def call(x, out=None):
        y = fresh_planes(x) if out is None else out
        np.subtract(x.transpose(2, 0, 1), mean, out=y)
        return np.multiply(y, factor, out=y)

    return call


def numpy_folded_rows(made):
    """Repeat the constants along a row of pixels: NumPy's inner loop is then a row long, not three channels."""
    height, width, channels = made.x.shape
    mean, factor = (np.tile(numbers, width) for numbers in folded(made.x))

    def call():
        y = np.subtract(made.x.reshape(height, width * channels), mean, dtype=np.float32)
        y *= factor
        return y.reshape(made.x.shape)

    return call


def numpy_to_tensor(made):
    return as_planes(numpy_in_unit_range(made.x))


def numpy_divided_planes(made):
    return np.divide(made.x.transpose(2, 0, 1), np.float32(white(made.x)), out=fresh_planes(made.x))


def numpy_inverse(made):
    y = (made.x.transpose(1, 2, 0) * STDS + MEANS) * 255
    return np.ascontiguousarray(np.clip(np.rint(y), 0, 255).astype(np.uint8))


def numpy_folded_inverse(made):
    factor, shift = per_plane(255 * STDS), per_plane(255 * MEANS)

    def call():
        y = made.x * factor
        y += shift
        np.clip(np.rint(y, out=y), 0, 255, out=y)
        picture = np.empty((*y.shape[1:], len(y)), np.uint8)
        np.copyto(picture.transpose(2, 0, 1), y, casting="unsafe")
        return picture

    return call


def numpy_flip(x):
    return x[:, ::-1]


def numpy_half(y):
    return y.astype(np.float16)


NUMPY = {
    **to_planes(numpy_planes, numpy_flip, numpy_half),
    "image_normalize HWC": formula(lambda made: numpy_channels_last(made.x)),
    "image_to_tensor CHW": formula(numpy_to_tensor),
    "image_inverse HWC": formula(numpy_inverse),
}
NUMPY_FOLDED = {
    **to_planes(numpy_folded_planes, numpy_flip, numpy_half),
    "image_normalize HWC": numpy_folded_rows,
    "image_to_tensor CHW": formula(numpy_divided_planes),
    "image_inverse HWC": numpy_folded_inverse,
}


# ---- PyTorch


def torch_to_tensor(x):
    """Do as torchvision's to_tensor, which divides bytes only; pictures of 16 bits are divided by what they store."""
    y = x.permute(2, 0, 1).contiguous().to(torch.float32)
    return y if x.dtype == torch.float32 else y.div(white(x))


def torch_planes(_):
    """Do as torchvision's to_tensor and normalize, less the latter's checks and its copy."""
    mean, std = torch.from_numpy(per_plane(MEANS)), torch.from_numpy(per_plane(STDS))

    def call(x, out=None):
        y = torch_to_tensor(x).sub_(mean).div_(std)
        return y if out is None else out.copy_(y)

    return call


def torch_converted(x, out=None):
    """Convert and transpose in one pass."""
    planes = x.permute(2, 0, 1)
    return (torch.empty(planes.shape) if out is None else out).copy_(planes)


def torch_folded_planes(sample):
    mean, factor = (torch.from_numpy(per_plane(numbers)) for numbers in folded(sample))
    return lambda x, out=None: torch_converted(x, out).sub_(mean).mul_(factor)


def torch_channels_last(made):
    mean, std = torch.from_numpy(MEANS), torch.from_numpy(STDS)
    return lambda: made.x.to(torch.float32).div_(white(made.x)).sub_(mean).div_(std)


def torch_folded_rows(made):
    height, width, channels = made.x.shape
    mean, factor = (torch.from_numpy(numbers).repeat(width) for numbers in folded(made.x))
    rows = made.x.view(height, width * channels)
    return lambda: rows.to(torch.float32).sub_(mean).mul_(factor).view(made.x.shape)


def torch_inverse(made):
    mean, std = torch.from_numpy(per_plane(MEANS)), torch.from_numpy(per_plane(STDS))

    def call():
        y = made.x.mul(std).add_(mean).mul_(255).round_().clamp_(0, 255)
        return y.to(torch.uint8).permute(1, 2, 0).contiguous()

    return call


def torch_flip(x):
    return x.flip(1)


def torch_half(y):
    return y.to(torch.float16)


TORCH = {
    **to_planes(torch_planes, torch_flip, torch_half),
    "image_normalize HWC": torch_channels_last,
    "image_to_tensor CHW": formula(lambda made: torch_to_tensor(made.x)),
    "image_inverse HWC": torch_inverse,
}
TORCH_FOLDED = {
    **to_planes(torch_folded_planes, torch_flip, torch_half),
    "image_normalize HWC": torch_folded_rows,
    "image_to_tensor CHW": formula(lambda made: torch_converted(made.x).div_(white(made.x))),
}


# ---- OpenCV


def cv2_blob(x, **keywords):
    """Make one picture's blob; dnn takes no pictures of 16 bits."""
    return cv2.dnn.blobFromImage(x.astype(np.float32) if x.dtype == np.uint16 else x, **keywords)[0]


def cv2_planes(sample):
    """Divide afterwards: blobFromImage takes one factor for all channels."""
    scale, means, std = 1 / white(sample), folded(sample)[0].tolist(), per_plane(STDS)

    def call(x, out=None):
        blob = cv2_blob(x, scalefactor=scale, mean=means)
        return np.divide(blob, std, out=blob if out is None else out)

    return call


def cv2_parameters(sample):
    """Give blobFromImageWithParams a factor for each channel, which it takes since OpenCV 4.8."""
    if sample.dtype != np.uint8:
        return None
    parameters = cv2.dnn.Image2BlobParams()
    parameters.mean, parameters.scalefactor = ((*numbers.tolist(), 1.0) for numbers in folded(sample))

    def call(x, out=None):
        blob = cv2.dnn.blobFromImageWithParams(x, parameters)[0]
        if out is None:
            return blob
        np.copyto(out, blob)
        return out

    return call


def cv2_tables(sample, values=None):
    """Look the bytes of each channel up."""
    if sample.dtype != np.uint8:
        return None
    tables = np.ascontiguousarray((values_of_bytes() if values is None else values).T)

    def call(x, out=None):
        y = fresh_planes(x) if out is None else out
        for channel, table, plane in zip(cv2.split(x), tables, y, strict=True):
            cv2.LUT(channel, table, plane)
        return y

    return call


def cv2_sums(sample):
    """Compute channel * factor + shift, which addWeighted does in one pass."""
    mean, factor = (numbers.astype(float) for numbers in folded(sample))

    def call(x, out=None):
        y = fresh_planes(x) if out is None else out
        for channel, m, f, plane in zip(cv2.split(x), mean, factor, y, strict=True):
            cv2.addWeighted(channel, f, channel, 0, -m * f, plane, cv2.CV_32F)
        return y

    return call


def cv2_table(made):
    return partial(cv2.LUT, made.x, values_of_bytes()[None])


def cv2_arithmetic(made):
    mean, factor = (np.append(numbers, 0.0) for numbers in map(np.float64, folded(made.x)))  # of four channels

    def call():
        y = made.x.astype(np.float32)
        cv2.subtract(y, mean, y)
        return cv2.multiply(y, factor, y)

    return call


def cv2_inverse(made):
    """Round and clip in the conversion: OpenCV's saturate."""
    factor, shift = ((255 * numbers).tolist() for numbers in (STDS, MEANS))
    channels = range(len(factor))

    def call():
        x = made.x
        return cv2.merge([cv2.addWeighted(x[c], factor[c], x[c], 0, shift[c], None, cv2.CV_8U) for c in channels])

    return call


def cv2_flip(x):
    return cv2.flip(x, 1)


CV2 = {
    **to_planes(cv2_planes, cv2_flip, numpy_half),
    "image_normalize HWC": cv2_table,
    "image_to_tensor CHW": formula(lambda made: cv2_blob(made.x, scalefactor=1 / white(made.x))),
    "image_inverse HWC": cv2_inverse,
}
CV2_PARAMETERS = to_planes(cv2_parameters, cv2_flip, numpy_half)
CV2_TABLES = {
    **to_planes(cv2_tables, cv2_flip, numpy_half),
    "image_to_tensor CHW": lambda made: partial(cv2_tables(made.x, values_of_bytes(0, np.ones(3))), made.x),
}
CV2_SUMS = to_planes(cv2_sums, cv2_flip, numpy_half)
CV2_ARITHMETIC = {"image_normalize HWC": cv2_arithmetic}


# ---- albumentations


def albumentations_normalize(x):
    transform = albumentations.Normalize(MEAN, STD, max_pixel_value=white(x))
    return lambda x: transform(image=x)["image"]


def albumentations_planes(sample):
    normalize = albumentations_normalize(sample)
    return lambda x, out=None: as_planes(normalize(x), out)


def albumentations_to_tensor(made):
    transform = albumentations.ToFloat(max_value=white(made.x))
    return lambda: as_planes(transform(image=made.x)["image"])


ALBUMENTATIONS = {
    **to_planes(albumentations_planes, cv2_flip, numpy_half),
    "image_normalize HWC": lambda made: partial(albumentations_normalize(made.x), made.x),
    "image_to_tensor CHW": albumentations_to_tensor,
}
