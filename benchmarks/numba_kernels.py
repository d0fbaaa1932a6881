"""Kernels for Numba as its users write them by hand: a few passes over a row that is in cache, parallel over rows.

They sum in the dtype of x: rows, planes, and blocks of columns, which are then merged in float64 (Chan, Golub, LeVeque
1983). All are plain functions until `compiled`. Outputs come first; `parts` are those of a sum over rows.
"""

import functools

import numpy as np
from jobs import EPS, MOMENTUM
from libraries import numba

NAN_SAFE = {"reassoc", "nsz", "arcp", "contract", "afn"}  # fastmath that does not assume that there are no NaN
prange = numba.prange if numba else range


@functools.cache
def compiled(kernel, parallel):
    return numba.njit(parallel=parallel, fastmath=getattr(kernel, "fastmath", True), cache=True)(kernel)


def inner(function):
    """Compile what is called from kernels."""
    return numba.njit(fastmath=True, cache=True)(function) if numba else function


def inlined(function):
    """Make what kernels call a part of them, so that its loops are parallel where theirs are."""
    return numba.njit(inline="always", cache=True)(function) if numba else function


def nan_safe(kernel):
    kernel.fastmath = NAN_SAFE
    return kernel


# ---- rows


def layer_norm(y, x, weight, bias):
    rows, cols = x.shape
    for i in prange(rows):
        total = x.dtype.type(0)
        for j in range(cols):
            total += x[i, j]
        mean = x.dtype.type(total / cols)
        squares = x.dtype.type(0)
        for j in range(cols):
            squares += (x[i, j] - mean) ** 2
        rstd = x.dtype.type(1 / np.sqrt(squares / cols + EPS))
        for j in range(cols):
            y[i, j] = (x[i, j] - mean) * rstd * weight[j] + bias[j]


def add_layer_norm(y, s, x, residual, weight, bias):
    rows, cols = x.shape
    for i in prange(rows):
        total = x.dtype.type(0)
        for j in range(cols):
            s[i, j] = x[i, j] + residual[i, j]
            total += s[i, j]
        mean = x.dtype.type(total / cols)
        squares = x.dtype.type(0)
        for j in range(cols):
            squares += (s[i, j] - mean) ** 2
        rstd = x.dtype.type(1 / np.sqrt(squares / cols + EPS))
        for j in range(cols):
            y[i, j] = (s[i, j] - mean) * rstd * weight[j] + bias[j]


def rms_norm(y, x, weight):
    rows, cols = x.shape
    for i in prange(rows):
        squares = x.dtype.type(0)
        for j in range(cols):
            squares += x[i, j] * x[i, j]
        rstd = x.dtype.type(1 / np.sqrt(squares / cols + EPS))
        for j in range(cols):
            y[i, j] = x[i, j] * rstd * weight[j]


def add_rms_norm(y, s, x, residual, weight):
    rows, cols = x.shape
    for i in prange(rows):
        squares = x.dtype.type(0)
        for j in range(cols):
            s[i, j] = x[i, j] + residual[i, j]
            squares += s[i, j] * s[i, j]
        rstd = x.dtype.type(1 / np.sqrt(squares / cols + EPS))
        for j in range(cols):
            y[i, j] = s[i, j] * rstd * weight[j]


def layer_norm_backward(dx, x, dy, mean, rstd, weight, parts):
    rows, cols = x.shape
    dweights, dbiases = np.zeros((parts, cols), x.dtype), np.zeros((parts, cols), x.dtype)
    for part in prange(parts):
        dweight, dbias = dweights[part], dbiases[part]
        for i in range(rows * part // parts, rows * (part + 1) // parts):
            sum_dz, sum_dzz = x.dtype.type(0), x.dtype.type(0)
            for j in range(cols):
                z = (x[i, j] - mean[i]) * rstd[i]
                dz = dy[i, j] * weight[j]
                sum_dz += dz
                sum_dzz += dz * z
                dweight[j] += dy[i, j] * z
                dbias[j] += dy[i, j]
            mean_dz, mean_dzz = x.dtype.type(sum_dz / cols), x.dtype.type(sum_dzz / cols)
            for j in range(cols):
                z = (x[i, j] - mean[i]) * rstd[i]
                dx[i, j] = (dy[i, j] * weight[j] - mean_dz - z * mean_dzz) * rstd[i]
    return dweights.sum(0), dbiases.sum(0)


def rms_norm_backward(dx, x, dy, rstd, weight, parts):
    rows, cols = x.shape
    dweights = np.zeros((parts, cols), x.dtype)
    for part in prange(parts):
        dweight = dweights[part]
        for i in range(rows * part // parts, rows * (part + 1) // parts):
            sum_dzz = x.dtype.type(0)
            for j in range(cols):
                z = x[i, j] * rstd[i]
                sum_dzz += dy[i, j] * weight[j] * z
                dweight[j] += dy[i, j] * z
            mean_dzz = x.dtype.type(sum_dzz / cols)
            for j in range(cols):
                dx[i, j] = (dy[i, j] * weight[j] - x[i, j] * rstd[i] * mean_dzz) * rstd[i]
    return dweights.sum(0)


def normalize(y, x):
    rows, cols = x.shape
    for i in prange(rows):
        squares = x.dtype.type(0)
        for j in range(cols):
            squares += x[i, j] * x[i, j]
        scale = x.dtype.type(1 / max(np.sqrt(squares), 1e-12))
        for j in range(cols):
            y[i, j] = x[i, j] * scale


def normalize_backward(dx, x, dy):
    rows, cols = x.shape
    for i in prange(rows):
        squares, products = x.dtype.type(0), x.dtype.type(0)
        for j in range(cols):
            squares += x[i, j] * x[i, j]
            products += dy[i, j] * x[i, j]
        scale = x.dtype.type(1 / max(np.sqrt(squares), 1e-12))
        along = x.dtype.type(products * scale * scale)
        for j in range(cols):
            dx[i, j] = (dy[i, j] - x[i, j] * along) * scale


# ---- groups of channels: planes, or single values, lie behind one another; an instance norm has groups of one channel


def group_norm(y, x, weight, bias, groups):
    samples, channels, size = x.shape
    each = channels // groups
    for row in prange(samples * groups):
        n, first = row // groups, row % groups * each
        total = x.dtype.type(0)
        for c in range(first, first + each):
            for k in range(size):
                total += x[n, c, k]
        mean = x.dtype.type(total / (each * size))
        squares = x.dtype.type(0)
        for c in range(first, first + each):
            for k in range(size):
                squares += (x[n, c, k] - mean) ** 2
        rstd = x.dtype.type(1 / np.sqrt(squares / (each * size) + EPS))
        for c in range(first, first + each):
            for k in range(size):
                y[n, c, k] = (x[n, c, k] - mean) * rstd * weight[c] + bias[c]


def group_norm_backward(dx, x, dy, mean, rstd, weight):
    samples, channels, size = x.shape
    groups = mean.shape[1]
    each = channels // groups
    dweight, dbias = np.zeros(channels, x.dtype), np.zeros(channels, x.dtype)
    for group in prange(groups):
        for n in range(samples):
            centre, scale = mean[n, group], rstd[n, group]
            sum_dz, sum_dzz = x.dtype.type(0), x.dtype.type(0)
            for c in range(group * each, (group + 1) * each):
                sum_dy, sum_dyz = x.dtype.type(0), x.dtype.type(0)
                for k in range(size):
                    sum_dy += dy[n, c, k]
                    sum_dyz += dy[n, c, k] * (x[n, c, k] - centre)
                dbias[c] += sum_dy
                dweight[c] += sum_dyz * scale
                sum_dz += sum_dy * weight[c]
                sum_dzz += sum_dyz * scale * weight[c]
            mean_dz, mean_dzz = x.dtype.type(sum_dz / (each * size)), x.dtype.type(sum_dzz / (each * size))
            for c in range(group * each, (group + 1) * each):
                for k in range(size):
                    z = (x[n, c, k] - centre) * scale
                    dx[n, c, k] = (dy[n, c, k] * weight[c] - mean_dz - z * mean_dzz) * scale
    return dweight, dbias


# ---- batch norm of planes: a thread has a channel


@inner
def plane_moments(x, c):
    """Return mean and population variance of a channel."""
    samples, _, size = x.shape
    total, squares = 0.0, 0.0
    for n in range(samples):
        part = x.dtype.type(0)
        for k in range(size):
            part += x[n, c, k]
        total += part
    mean = x.dtype.type(total / (samples * size))
    for n in range(samples):
        part = x.dtype.type(0)
        for k in range(size):
            part += (x[n, c, k] - mean) ** 2
        squares += part
    return mean, squares / (samples * size)


@inner
def apply_to_plane(y, x, c, mean, scale, shift, relu):
    samples, _, size = x.shape
    for n in range(samples):
        for k in range(size):
            value = (x[n, c, k] - mean) * scale + shift
            y[n, c, k] = max(value, x.dtype.type(0)) if relu else value


@inner
def move_running(running_mean, running_var, c, mean, var, count):
    running_mean[c] = (1 - MOMENTUM) * running_mean[c] + MOMENTUM * mean
    running_var[c] = (1 - MOMENTUM) * running_var[c] + MOMENTUM * var * count / (count - 1)


def batch_norm_training(y, x, running_mean, running_var, weight, bias, relu):
    samples, channels, size = x.shape
    for c in prange(channels):
        mean, var = plane_moments(x, c)
        move_running(running_mean, running_var, c, mean, var, samples * size)
        scale = x.dtype.type(weight[c] / np.sqrt(var + EPS))
        apply_to_plane(y, x, c, mean, scale, bias[c], relu)


def batch_norm_evaluation(y, x, running_mean, running_var, weight, bias, relu):
    samples, channels, _ = x.shape
    for plane in prange(samples * channels):
        n, c = plane // channels, plane % channels
        scale = x.dtype.type(weight[c] / np.sqrt(running_var[c] + EPS))
        apply_to_plane(y[n : n + 1], x[n : n + 1], c, running_mean[c], scale, bias[c], relu)


def batch_norm_backward(dx, x, dy, mean, rstd, weight):
    samples, channels, size = x.shape
    dweight, dbias = np.empty(channels, x.dtype), np.empty(channels, x.dtype)
    for c in prange(channels):
        sum_dy, sum_dyz = 0.0, 0.0
        for n in range(samples):
            part_dy, part_dyz = x.dtype.type(0), x.dtype.type(0)
            for k in range(size):
                part_dy += dy[n, c, k]
                part_dyz += dy[n, c, k] * (x[n, c, k] - mean[c])
            sum_dy += part_dy
            sum_dyz += part_dyz
        dbias[c], dweight[c] = sum_dy, sum_dyz * rstd[c]
        scale = weight[c] * rstd[c]
        constant = x.dtype.type(sum_dy / (samples * size))
        slope = x.dtype.type(sum_dyz * rstd[c] * rstd[c] / (samples * size))
        for n in range(samples):
            for k in range(size):
                dx[n, c, k] = (dy[n, c, k] - constant - (x[n, c, k] - mean[c]) * slope) * scale
    return dweight, dbias
