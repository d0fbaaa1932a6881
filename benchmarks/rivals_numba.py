"""Numba: the calls of kernels that its users would write by hand (numba_kernels.py, numba_columns.py).

Each kernel is compiled by its first call, which is the one that is checked and not timed.
"""

from functools import partial

import numba_columns as columns
import numba_kernels as kernels
import numpy as np
from jobs import EPS
from libraries import limited, numba

PARALLEL_BYTES = 2**15  # of x, from which on a second thread helps: a parallel loop costs about 2 us


def parts_for(x):
    return numba.get_num_threads() if x.nbytes >= PARALLEL_BYTES else 1


def chosen(kernel, x):
    """Compile a kernel for several threads or for one, for which Numba's scheduler is left out."""
    return kernels.compiled(kernel, parts_for(x) > 1)


def filled(kernel, shape, x, *others, out=None):
    """Return the call that fills a new array like x, or `out`, and returns it in its shape."""
    kernel = chosen(kernel, x)

    def call():
        y = np.empty(x.shape, x.dtype) if out is None else out.reshape(x.shape)
        kernel(y, x, *others)
        return y.reshape(shape)

    return call


def filled_two(kernel, shape, x, *others, outs=None):
    """Return the call that fills two arrays, as `filled` does."""
    kernel = chosen(kernel, x)

    def call():
        made = [np.empty(x.shape, x.dtype) if out is None else out.reshape(x.shape) for out in outs or (None, None)]
        kernel(*made, x, *others)
        return tuple(array.reshape(shape) for array in made)

    return call


def gradient(kernel, shape, x, *others):
    """Return the call that fills dx and returns it with the gradients of the parameters, which the kernel makes."""
    kernel = chosen(kernel, x)

    def call():
        dx = np.empty(x.shape, x.dtype)
        sums = kernel(dx, x, *others)
        return dx.reshape(shape), *(sums if isinstance(sums, tuple) else (sums,))

    return call


def rows_of(array):
    return array.reshape(-1, array.shape[-1])


def planes_of(array):
    return array.reshape(*array.shape[:2], -1)


def is_planes(made):
    return made.x.ndim > 2 and made.channel_axis == 1


# ---- rows


def layer_norm(made, out=None):
    return filled(kernels.layer_norm, made.x.shape, rows_of(made.x), made.weight, made.bias, out=out)


def rms_norm(made, out=None):
    return filled(kernels.rms_norm, made.x.shape, rows_of(made.x), made.weight, out=out)


def add_layer_norm(made, outs=None):
    arrays = rows_of(made.x), rows_of(made.residual)
    return filled_two(kernels.add_layer_norm, made.x.shape, *arrays, made.weight, made.bias, outs=outs)


def add_rms_norm(made, outs=None):
    arrays = rows_of(made.x), rows_of(made.residual)
    return filled_two(kernels.add_rms_norm, made.x.shape, *arrays, made.weight, outs=outs)


def layer_norm_backward(made):
    x = rows_of(made.x)
    mean, rstd = x.mean(1), (1 / np.sqrt(x.var(1) + EPS)).astype(x.dtype)
    others = rows_of(made.dy), mean, rstd, made.weight, parts_for(x)
    return gradient(kernels.layer_norm_backward, made.x.shape, x, *others)


def rms_norm_backward(made):
    x = rows_of(made.x)
    rstd = (1 / np.sqrt(np.square(x).mean(1) + EPS)).astype(x.dtype)
    return gradient(kernels.rms_norm_backward, made.x.shape, x, rows_of(made.dy), rstd, made.weight, parts_for(x))


def normalize(made, out=None):
    return filled(kernels.normalize, made.x.shape, rows_of(made.x), out=out)


def normalize_backward(made):
    return filled(kernels.normalize_backward, made.x.shape, rows_of(made.x), rows_of(made.dy))


# ---- channels


def batch_norm(made, mode, relu=False, out=None):
    running = made.running_mean, made.running_var
    others = *running, made.weight, made.bias, relu
    if is_planes(made):
        x, kernel = planes_of(made.x), getattr(kernels, f"batch_norm_{mode}")
    else:
        x, kernel = rows_of(made.x), getattr(columns, f"batch_norm_{mode}")
        others = (*others, parts_for(x)) if mode == "training" else others
    norm = filled(kernel, made.x.shape, x, *others, out=out)
    return lambda: (norm(), *running)


def batch_norm_backward(made):
    axes = made.all_but_channels
    mean, rstd = made.x.mean(axes), (1 / np.sqrt(made.x.var(axes) + EPS)).astype(made.x.dtype)
    if is_planes(made):
        others = planes_of(made.dy), mean, rstd, made.weight
        return gradient(kernels.batch_norm_backward, made.x.shape, planes_of(made.x), *others)
    x = rows_of(made.x)
    others = rows_of(made.dy), mean, rstd, made.weight, parts_for(x)
    return gradient(columns.batch_norm_backward, made.x.shape, x, *others)


def group_norm(made, groups, out=None):
    return filled(kernels.group_norm, made.x.shape, planes_of(made.x), made.weight, made.bias, groups, out=out)


def group_norm_backward(made, groups):
    rows = made.x.reshape(len(made.x), groups, -1)
    mean, rstd = rows.mean(-1), (1 / np.sqrt(rows.var(-1) + EPS)).astype(rows.dtype)
    others = planes_of(made.dy), mean, rstd, made.weight
    return gradient(kernels.group_norm_backward, made.x.shape, planes_of(made.x), *others)


def instance_norm(made, out=None):
    return group_norm(made, made.x.shape[1], out)


def instance_norm_backward(made):
    return group_norm_backward(made, made.x.shape[1])


# ---- statistics


def scaled(kernel, made, out=None):
    x = made.x
    return filled(kernel, x.shape, x, parts_for(x), out=out)


def moments(made, take=slice(None)):
    """Take mean and variance, or one of them."""
    everything = made.axis is None or made.x.ndim == 1
    x = made.x.reshape(-1) if everything else made.x
    kernel, parts = chosen(columns.all_moments if everything else columns.mean_var, x), parts_for(x)
    return lambda: kernel(x, parts)[take]


def std(made):
    var = moments(made, 1)
    return lambda: np.sqrt(var())


def minmax(made):
    everything = made.axis is None or made.x.ndim == 1
    x = made.x.reshape(-1) if everything else made.x
    return partial(chosen(columns.all_limits if everything else columns.minmax, x), x, parts_for(x))


def partly(kernel, made, *others):
    return partial(chosen(kernel, made.x), made.x, *others, parts_for(made.x))


def suits(job):
    """Know float32 and float64, channels second or last, tables whose columns are summed, and rows normalized."""
    dims, axis = len(job.shape), job.axis
    if job.op.startswith("batch_norm"):
        fits = axis in {None, 1, -1, dims - 1}
    elif job.op.startswith(("group_norm", "instance_norm")):
        fits = axis in {None, 1}
    elif job.op.startswith("normalize"):
        fits = axis in {-1, dims - 1}
    elif job.parameter_axis is None:
        only_columns = job.variant or job.op in {"standardize", "min_max_scale"}
        fits = (axis == 0 and dims == 2) or (not only_columns and (axis is None or dims == 1))
    else:
        fits = axis is None
    return fits and job.dtype in {"float32", "float64"}


NUMBA = {
    "layer_norm": layer_norm,
    "layer_norm out=": lambda made: layer_norm(made, made.out),
    "layer_norm_backward": layer_norm_backward,
    "rms_norm": rms_norm,
    "rms_norm out=": lambda made: rms_norm(made, made.out),
    "rms_norm_backward": rms_norm_backward,
    "add_layer_norm": add_layer_norm,
    "add_layer_norm out=": lambda made: add_layer_norm(made, (made.out, made.out_sum)),
    "add_rms_norm": add_rms_norm,
    "add_rms_norm out=": lambda made: add_rms_norm(made, (made.out, made.out_sum)),
    "normalize": normalize,
    "normalize out=": lambda made: normalize(made, made.out),
    "normalize_backward": normalize_backward,
    **{
        f"batch_norm {mode}{variant}": build
        for mode in ["training", "evaluation"]
        for variant, build in {
            "": partial(batch_norm, mode=mode),
            " relu": partial(batch_norm, mode=mode, relu=True),
            " out=": lambda made, mode=mode: batch_norm(made, mode, out=made.out),
        }.items()
    },
    "batch_norm_backward": batch_norm_backward,
    "group_norm": lambda made: group_norm(made, made.groups),
    "group_norm out=": lambda made: group_norm(made, made.groups, made.out),
    "group_norm_backward": lambda made: group_norm_backward(made, made.groups),
    "instance_norm": instance_norm,
    "instance_norm out=": lambda made: instance_norm(made, made.out),
    "instance_norm_backward": instance_norm_backward,
    "standardize": partial(scaled, columns.standardize),
    "standardize out=": lambda made: scaled(columns.standardize, made, made.out),
    "min_max_scale": partial(scaled, columns.min_max_scale),
    "min_max_scale out=": lambda made: scaled(columns.min_max_scale, made, made.out),
    "mean_var": moments,
    "mean": partial(moments, take=0),
    "var": partial(moments, take=1),
    "std": std,
    "mean_var where=": lambda made: partly(columns.chosen_moments, made, made.where),
    "mean_var weights=": lambda made: partly(columns.weighted_moments, made, made.weights),
    "mean_var nan_policy=": lambda made: partly(columns.omitted_moments, made),
    "minmax": minmax,
}
NUMBA = limited(NUMBA, suits)
