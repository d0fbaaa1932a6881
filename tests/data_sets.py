"""Data sets of pictures, and their statistics compared with those of all pixels in one table."""

import numpy as np
import reference
from cases import FLOATS, HALVES, uniform

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


def check_stats(got, pixels, scale, ddof=0):
    """The bounds that statistics have; scaling rounds once more, and the twin rounds each scaled pixel."""
    mean, std = got
    assert (mean.dtype, std.dtype) == (np.float64, np.float64)
    assert not (std < 0).any()
    reference.assert_mean_var(mean, std**2, pixels * scale, 0, ddof)


class DataSet:
    """Items by number and no iterator, as loaders of data sets have them."""

    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        return self.items[i]
