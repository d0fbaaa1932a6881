"""NumPy and SciPy: the formulas as their users write them."""

from dataclasses import replace

import numpy as np
from jobs import EPS, MOMENTUM, NEIGHBOURS
from libraries import formula, scipy


def numpy_layer_norm(made):
    mean = made.x.mean(-1, keepdims=True)
    var = made.x.var(-1, keepdims=True)
    return (made.x - mean) / np.sqrt(var + EPS) * made.weight + made.bias


def numpy_layer_norm_out(made):
    x, out = made.x, made.out
    mean = x.mean(-1, keepdims=True)
    var = x.var(-1, keepdims=True)
    np.subtract(x, mean, out=out)
    np.divide(out, np.sqrt(var + EPS), out=out)
    np.multiply(out, made.weight, out=out)
    return np.add(out, made.bias, out=out)


def numpy_rms_norm(made):
    return made.x / np.sqrt(np.mean(made.x * made.x, -1, keepdims=True) + EPS) * made.weight


def numpy_layer_norm_backward(made):
    mean = made.x.mean(-1, keepdims=True)
    rstd = 1 / np.sqrt(made.x.var(-1, keepdims=True) + EPS)

    def call():
        z = (made.x - mean) * rstd
        dz = made.dy * made.weight
        dx = (dz - dz.mean(-1, keepdims=True) - z * np.mean(dz * z, -1, keepdims=True)) * rstd
        return dx, np.sum(made.dy * z, 0), made.dy.sum(0)

    return call


def numpy_rms_norm_backward(made):
    rstd = 1 / np.sqrt(np.mean(made.x * made.x, -1, keepdims=True) + EPS)

    def call():
        z = made.x * rstd
        dz = made.dy * made.weight
        return (dz - z * np.mean(dz * z, -1, keepdims=True)) * rstd, np.sum(made.dy * z, 0)

    return call


def numpy_add_layer_norm(made):
    s = made.x + made.residual
    return numpy_layer_norm(replace(made, x=s)), s


def numpy_add_rms_norm(made):
    s = made.x + made.residual
    return numpy_rms_norm(replace(made, x=s)), s


def numpy_batch_norm(made, mean, var):
    x, scale, shift = made.x, made.per_channel(made.weight), made.per_channel(made.bias)
    return (x - made.per_channel(mean)) / np.sqrt(made.per_channel(var) + EPS) * scale + shift


def numpy_batch_norm_training(made):
    mean, var = made.x.mean(made.all_but_channels), made.x.var(made.all_but_channels)
    count = made.x.size // mean.size
    running_mean = (1 - MOMENTUM) * made.running_mean + MOMENTUM * mean
    running_var = (1 - MOMENTUM) * made.running_var + MOMENTUM * count / (count - 1) * var
    return numpy_batch_norm(made, mean, var), running_mean, running_var


def numpy_batch_norm_evaluation(made):
    return numpy_batch_norm(made, made.running_mean, made.running_var), made.running_mean, made.running_var


def numpy_batch_norm_backward(made):
    axes = made.all_but_channels
    mean = made.x.mean(axes, keepdims=True)
    rstd = 1 / np.sqrt(made.x.var(axes, keepdims=True) + EPS)
    weight = made.per_channel(made.weight)

    def call():
        z = (made.x - mean) * rstd
        dweight, dbias = np.sum(made.dy * z, axes), made.dy.sum(axes)
        count = z.size // dbias.size
        dx = weight * rstd * (made.dy - made.per_channel(dbias / count) - z * made.per_channel(dweight / count))
        return dx, dweight, dbias

    return call


def numpy_group_norm(made, groups):
    """Normalize the rows of a view: an instance norm is a group norm of one channel in each group."""
    rows = made.x.reshape(len(made.x), groups, -1)
    z = (rows - rows.mean(-1, keepdims=True)) / np.sqrt(rows.var(-1, keepdims=True) + EPS)
    return z.reshape(made.x.shape) * made.per_channel(made.weight) + made.per_channel(made.bias)


def numpy_group_norm_backward(made, groups):
    shape, weight = made.x.shape, made.per_channel(made.weight)
    rows = made.x.reshape(len(made.x), groups, -1)
    mean = rows.mean(-1, keepdims=True)
    rstd = 1 / np.sqrt(rows.var(-1, keepdims=True) + EPS)

    def call():
        z = (rows - mean) * rstd
        dz = (made.dy * weight).reshape(rows.shape)
        dx = (dz - dz.mean(-1, keepdims=True) - z * np.mean(dz * z, -1, keepdims=True)) * rstd
        dweight = np.sum(made.dy * z.reshape(shape), made.all_but_channels)
        return dx.reshape(shape), dweight, made.dy.sum(made.all_but_channels)

    return call


def numpy_normalize(made):
    return made.x / np.linalg.norm(made.x, axis=made.axis, keepdims=True)


def numpy_normalize_backward(made):
    norm = np.linalg.norm(made.x, axis=made.axis, keepdims=True)
    y = made.x / norm
    return lambda: (made.dy - y * np.sum(made.dy * y, made.axis, keepdims=True)) / norm


def numpy_window_sums(terms, before, after):
    padded = np.pad(terms, [(0, 0), (before, after), (0, 0), (0, 0)])
    return sum(padded[:, i : i + terms.shape[1]] for i in range(before + after + 1))


def numpy_local_response_base(made):
    size = NEIGHBOURS["size"]
    total = numpy_window_sums(made.x * made.x, size // 2, (size - 1) // 2)
    return NEIGHBOURS["k"] + NEIGHBOURS["alpha"] / size * total


def numpy_local_response_norm(made):
    return made.x / numpy_local_response_base(made) ** NEIGHBOURS["beta"]


def numpy_local_response_norm_backward(made):
    size, beta = NEIGHBOURS["size"], NEIGHBOURS["beta"]
    base = numpy_local_response_base(made)

    def call():
        direct = made.dy / base**beta
        total = numpy_window_sums(direct * made.x / base, (size - 1) // 2, size // 2)
        return direct - 2 * NEIGHBOURS["alpha"] / size * beta * made.x * total

    return call


def numpy_min_max_scale(made):
    low, high = made.x.min(made.axis), made.x.max(made.axis)
    return (made.x - low) / (high - low)


def numpy_moments(made):
    x, axis = made.x, made.axis
    mean, var = x.mean(axis), x.var(axis)
    z = (x - mean) / np.sqrt(var)
    return mean, var, np.mean(z**3, axis), np.mean(z**4, axis) - 3, x.min(axis), x.max(axis)


def numpy_fold_batch_norm(made):
    scale = made.weight / np.sqrt(made.running_var + EPS)
    return made.x * made.per_channel(scale), made.bias - made.running_mean * scale


def numpy_mean_var_where(made):
    return np.mean(made.x, made.axis, where=made.where), np.var(made.x, made.axis, where=made.where)


def numpy_mean_var_weights(made):
    mean = np.average(made.x, made.axis, weights=made.weights)
    return mean, np.average((made.x - mean) ** 2, made.axis, weights=made.weights)


NUMPY = {
    "layer_norm": formula(numpy_layer_norm),
    "layer_norm out=": formula(numpy_layer_norm_out),
    "layer_norm_backward": numpy_layer_norm_backward,
    "rms_norm": formula(numpy_rms_norm),
    "rms_norm_backward": numpy_rms_norm_backward,
    "add_layer_norm": formula(numpy_add_layer_norm),
    "add_rms_norm": formula(numpy_add_rms_norm),
    "batch_norm training": formula(numpy_batch_norm_training),
    "batch_norm evaluation": formula(numpy_batch_norm_evaluation),
    "batch_norm_backward": numpy_batch_norm_backward,
    "group_norm": formula(lambda made: numpy_group_norm(made, made.groups)),
    "group_norm_backward": lambda made: numpy_group_norm_backward(made, made.groups),
    "instance_norm": formula(lambda made: numpy_group_norm(made, made.x.shape[1])),
    "instance_norm_backward": lambda made: numpy_group_norm_backward(made, made.x.shape[1]),
    "normalize": formula(numpy_normalize),
    "normalize_backward": numpy_normalize_backward,
    "local_response_norm": formula(numpy_local_response_norm),
    "local_response_norm_backward": numpy_local_response_norm_backward,
    "standardize": formula(lambda made: (made.x - made.x.mean(made.axis)) / made.x.std(made.axis)),
    "min_max_scale": formula(numpy_min_max_scale),
    "fold_batch_norm": formula(numpy_fold_batch_norm),
    "mean": formula(lambda made: made.x.mean(made.axis)),
    "var": formula(lambda made: made.x.var(made.axis)),
    "std": formula(lambda made: made.x.std(made.axis)),
    "mean_var": formula(lambda made: (made.x.mean(made.axis), made.x.var(made.axis))),
    "mean_var where=": formula(numpy_mean_var_where),
    "mean_var weights=": formula(numpy_mean_var_weights),
    "mean_var nan_policy=": formula(lambda made: (np.nanmean(made.x, made.axis), np.nanvar(made.x, made.axis))),
    "moments order=4 minmax=": formula(numpy_moments),
    "minmax": formula(lambda made: (made.x.min(made.axis), made.x.max(made.axis))),
}


def scipy_moments(made):
    """Take what SciPy has from SciPy and the rest from NumPy."""
    x, axis = made.x, made.axis
    shape = scipy.stats.skew(x, axis), scipy.stats.kurtosis(x, axis)
    return x.mean(axis), x.var(axis), *shape, x.min(axis), x.max(axis)


SCIPY = {"moments order=4 minmax=": formula(scipy_moments)}
