"""Kernels for Numba that sum columns, or all values, as its users write them by hand.

A thread has a part of the rows, or of the columns where these are more. Inner loops count from 0 along a slice: of
other indices Numba asks whether they are negative, and does not vectorize. See numba_kernels.py for what all share.
"""

import numpy as np
from jobs import EPS
from numba_kernels import inlined, inner, move_running, nan_safe, prange

BLOCK_ROWS = 256
BLOCK_VALUES = 2**13
TILE = 2**11  # columns that are summed at a time

# ---- columns


@inner
def block_moments(mean, m2, x, first, last, left, right):
    """Add moments of columns left to right to those that are there, one block of rows after another."""
    for tile in range(left, right, TILE):
        end = min(tile + TILE, right)
        width, count = end - tile, 0
        sums, squares = np.empty(width, x.dtype), np.empty(width, x.dtype)
        step = max(BLOCK_ROWS, BLOCK_VALUES // width)
        for start in range(first, last, step):
            stop = min(start + step, last)
            sums[:] = 0
            squares[:] = 0
            for i in range(start, stop):
                row = x[i, tile:end]
                for j in range(width):
                    sums[j] += row[j]
            sums /= x.dtype.type(stop - start)
            for i in range(start, stop):
                row = x[i, tile:end]
                for j in range(width):
                    squares[j] += (row[j] - sums[j]) ** 2
            share = (stop - start) / (count + stop - start)
            for j in range(width):
                delta = sums[j] - mean[tile + j]
                mean[tile + j] += delta * share
                m2[tile + j] += squares[j] + delta * delta * count * share
            count += stop - start


@inner
def merge(means, m2s, rows):
    """Merge the parts' moments into the first part's."""
    parts, cols = means.shape
    for part in range(1, parts):
        before = rows * part // parts
        share = (rows * (part + 1) // parts - before) / (rows * (part + 1) // parts)
        for j in range(cols):
            delta = means[part, j] - means[0, j]
            means[0, j] += delta * share
            m2s[0, j] += m2s[part, j] + delta * delta * before * share


@inlined
def column_moments(x, parts):
    """Return mean and population variance of every column."""
    rows, cols = x.shape
    by_rows = rows >= cols
    means, m2s = np.zeros((parts if by_rows else 1, cols)), np.zeros((parts if by_rows else 1, cols))
    for part in prange(parts):
        if by_rows:
            first, last = rows * part // parts, rows * (part + 1) // parts
            block_moments(means[part], m2s[part], x, first, last, 0, cols)
        else:
            block_moments(means[0], m2s[0], x, 0, rows, cols * part // parts, cols * (part + 1) // parts)
    merge(means, m2s, rows)
    return means[0], m2s[0] / rows


@inner
def block_limits(low, high, x, first, last, left, right):
    low, high = low[left:right], high[left:right]
    low[:] = x[first, left:right]
    high[:] = x[first, left:right]
    for i in range(first + 1, last):
        row = x[i, left:right]
        for j in range(right - left):
            low[j] = min(low[j], row[j])
            high[j] = max(high[j], row[j])


@inlined
def column_limits(x, parts):
    """Return the extrema of every column."""
    rows, cols = x.shape
    by_rows = rows >= cols
    low, high = np.empty((parts if by_rows else 1, cols), x.dtype), np.empty((parts if by_rows else 1, cols), x.dtype)
    for part in prange(parts):
        if by_rows:
            first, last = rows * part // parts, rows * (part + 1) // parts
            block_limits(low[part], high[part], x, first, last, 0, cols)
        else:
            block_limits(low[0], high[0], x, 0, rows, cols * part // parts, cols * (part + 1) // parts)
    for part in range(1, len(low)):
        for j in range(cols):
            low[0, j] = min(low[0, j], low[part, j])
            high[0, j] = max(high[0, j], high[part, j])
    return low[0], high[0]


def mean_var(x, parts):
    mean, var = column_moments(x, parts)
    return mean.astype(x.dtype), var.astype(x.dtype)


def minmax(x, parts):
    return column_limits(x, parts)


def standardize(y, x, parts):
    mean, var = column_moments(x, parts)
    centre, scale = mean.astype(x.dtype), (1 / np.sqrt(var)).astype(x.dtype)
    for i in prange(len(x)):
        for j in range(len(scale)):
            y[i, j] = (x[i, j] - centre[j]) * scale[j]


def min_max_scale(y, x, parts):
    low, high = column_limits(x, parts)
    scale = x.dtype.type(1) / (high - low)
    for i in prange(len(x)):
        for j in range(len(scale)):
            y[i, j] = (x[i, j] - low[j]) * scale[j]


# ---- batch norm of columns


@inner
def affine_row(y, x, mean, scale, bias, relu):
    for j in range(len(x)):
        value = (x[j] - mean[j]) * scale[j] + bias[j]
        y[j] = max(value, x.dtype.type(0)) if relu else value


def batch_norm_training(y, x, running_mean, running_var, weight, bias, relu, parts):
    mean, var = column_moments(x, parts)
    for j in range(len(mean)):
        move_running(running_mean, running_var, j, mean[j], var[j], len(x))
    centre, scale = mean.astype(x.dtype), (weight / np.sqrt(var + EPS)).astype(x.dtype)
    for i in prange(len(x)):
        affine_row(y[i], x[i], centre, scale, bias, relu)


def batch_norm_evaluation(y, x, running_mean, running_var, weight, bias, relu):
    scale = (weight / np.sqrt(running_var + EPS)).astype(x.dtype)
    for i in prange(len(x)):
        affine_row(y[i], x[i], running_mean, scale, bias, relu)


def batch_norm_backward(dx, x, dy, mean, rstd, weight, parts):
    rows, cols = x.shape
    sums_dy, sums_dyz = np.zeros((parts, cols), x.dtype), np.zeros((parts, cols), x.dtype)
    for part in prange(parts):
        sum_dy, sum_dyz = sums_dy[part], sums_dyz[part]
        for i in range(rows * part // parts, rows * (part + 1) // parts):
            for j in range(cols):
                sum_dy[j] += dy[i, j]
                sum_dyz[j] += dy[i, j] * (x[i, j] - mean[j])
    dbias, dweight = sums_dy.sum(0), sums_dyz.sum(0) * rstd
    constant, slope, scale = dbias / x.dtype.type(rows), dweight * rstd / x.dtype.type(rows), weight * rstd
    for i in prange(rows):
        for j in range(cols):
            dx[i, j] = (dy[i, j] - constant[j] - (x[i, j] - mean[j]) * slope[j]) * scale[j]
    return dweight, dbias


# ---- all values


def all_moments(x, parts):
    means, m2s = np.zeros((parts, 1)), np.zeros((parts, 1))
    for part in prange(parts):
        first, last = x.size * part // parts, x.size * (part + 1) // parts
        mean, m2, count = 0.0, 0.0, 0
        for start in range(first, last, BLOCK_VALUES):
            stop = min(start + BLOCK_VALUES, last)
            total, squares = x.dtype.type(0), x.dtype.type(0)
            block = x[start:stop]
            for i in range(len(block)):
                total += block[i]
            own = x.dtype.type(total / len(block))
            for i in range(len(block)):
                squares += (block[i] - own) ** 2
            share = (stop - start) / (count + stop - start)
            delta = own - mean
            mean += delta * share
            m2 += squares + delta * delta * count * share
            count += stop - start
        means[part, 0], m2s[part, 0] = mean, m2
    merge(means, m2s, x.size)
    return means[0, 0], m2s[0, 0] / x.size


def all_limits(x, parts):
    low, high = np.empty(parts, x.dtype), np.empty(parts, x.dtype)
    for part in prange(parts):
        own = x[x.size * part // parts : x.size * (part + 1) // parts]
        least = most = own[0]
        for i in range(len(own)):
            least = min(least, own[i])
            most = max(most, own[i])
        low[part], high[part] = least, most
    return low.min(), high.max()


# ---- columns, of whose values some do not count


@nan_safe
def omitted_moments(x, parts):
    """Leave out NaN, in two passes over memory."""
    rows, cols = x.shape
    counts, totals, m2s = np.zeros((parts, cols)), np.zeros((parts, cols)), np.zeros((parts, cols))
    for part in prange(parts):
        count, total = counts[part], totals[part]
        for i in range(rows * part // parts, rows * (part + 1) // parts):
            for j in range(cols):
                value = x[i, j]
                there = value == value  # noqa: PLR0124, NaN is not itself
                count[j] += there
                total[j] += value if there else x.dtype.type(0)
    count = counts.sum(0)
    mean = totals.sum(0) / count
    for part in prange(parts):
        m2 = m2s[part]
        for i in range(rows * part // parts, rows * (part + 1) // parts):
            for j in range(cols):
                value = x[i, j]
                m2[j] += (value - mean[j]) ** 2 if value == value else 0.0  # noqa: PLR0124
    return mean, m2s.sum(0) / count


def weighted_moments(x, weights, parts):
    """Weigh each row, in two passes over memory."""
    rows, cols = x.shape
    totals, m2s = np.zeros((parts, cols)), np.zeros((parts, cols))
    for part in prange(parts):
        total = totals[part]
        for i in range(rows * part // parts, rows * (part + 1) // parts):
            for j in range(cols):
                total[j] += weights[i] * x[i, j]
    mass = 0.0
    for i in range(rows):
        mass += weights[i]
    mean = totals.sum(0) / mass
    for part in prange(parts):
        m2 = m2s[part]
        for i in range(rows * part // parts, rows * (part + 1) // parts):
            for j in range(cols):
                m2[j] += weights[i] * (x[i, j] - mean[j]) ** 2
    return mean, m2s.sum(0) / mass


def chosen_moments(x, where, parts):
    """Take what a mask says, in two passes over memory."""
    rows, cols = x.shape
    counts, totals, m2s = np.zeros((parts, cols)), np.zeros((parts, cols)), np.zeros((parts, cols))
    for part in prange(parts):
        count, total = counts[part], totals[part]
        for i in range(rows * part // parts, rows * (part + 1) // parts):
            for j in range(cols):
                count[j] += where[i, j]
                total[j] += x[i, j] if where[i, j] else x.dtype.type(0)
    count = counts.sum(0)
    mean = totals.sum(0) / count
    for part in prange(parts):
        m2 = m2s[part]
        for i in range(rows * part // parts, rows * (part + 1) // parts):
            for j in range(cols):
                m2[j] += (x[i, j] - mean[j]) ** 2 if where[i, j] else 0.0
    return mean, m2s.sum(0) / count
