"""The call of each library for each operation of accuracy.py: a table of functions of x and dy per library.

NumPy's are the formulas as they are usually written. PyTorch and scikit-learn are imported when they are asked for.
"""

import importlib.util

import numpy as np
from accuracy_lines import ALPHA, EPS, WINDOW, window_sums

import fastnorm


def fastnorm_calls():
    f = fastnorm

    def moments(x):
        return f.moments(x, 1, order=4)

    def layer_backward(x, dy):
        return f.layer_norm_backward(dy, x, *f.layer_norm(x, return_stats=True)[1:], ones(x, 1))

    def rms_backward(x, dy):
        return f.rms_norm_backward(dy, x, f.rms_norm(x, eps=EPS, return_stats=True)[1], ones(x, 1))

    def batch_backward(x, dy):
        return f.batch_norm_backward(dy, x, *f.batch_norm(x, training=True, return_stats=True)[1:], ones(x, 1))

    calls = {
        "mean": lambda x, _: f.mean(x, 1),
        "var": lambda x, _: f.var(x, 1),
        "std": lambda x, _: f.std(x, 1),
        "minmax": lambda x, _: f.minmax(x, 1),
        "skewness": lambda x, _: moments(x).skewness(),
        "kurtosis": lambda x, _: moments(x).kurtosis(),
        "layer_norm": lambda x, _: f.layer_norm(x),
        "rms_norm": lambda x, _: f.rms_norm(x, eps=EPS),
        "batch_norm": lambda x, _: f.batch_norm(x, training=True),
        "group_norm": lambda x, _: f.group_norm(x, 2),
        "instance_norm": lambda x, _: f.instance_norm(x),
        "normalize": lambda x, _: f.normalize(x),
        "local_response_norm": lambda x, _: f.local_response_norm(x, WINDOW, ALPHA),
        "standardize": lambda x, _: f.standardize(x),
        "min_max_scale": lambda x, _: f.min_max_scale(x),
        "layer_norm_backward: dx": lambda x, dy: layer_backward(x, dy)[0],
        "layer_norm_backward: dweight": lambda x, dy: layer_backward(x, dy)[1],
        "rms_norm_backward: dx": lambda x, dy: rms_backward(x, dy)[0],
        "rms_norm_backward: dweight": lambda x, dy: rms_backward(x, dy)[1],
        "batch_norm_backward: dx": lambda x, dy: batch_backward(x, dy)[0],
        "batch_norm_backward: dweight": lambda x, dy: batch_backward(x, dy)[1],
    }
    if importlib.util.find_spec("sklearn"):
        from fastnorm.preprocessing import StandardScaler

        calls["StandardScaler"] = lambda x, _: StandardScaler().fit_transform(x)
    return calls


def ones(x, axis):
    """Weights, which give the gradient of one."""
    return np.ones(x.shape[axis], x.dtype)


def numpy_calls():
    def rstd(x, axes=1, eps=EPS):
        return 1 / np.sqrt(x.var(axes, keepdims=True) + eps)

    def norm(x, axes=1, eps=EPS):
        return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + eps)

    def root_mean_square(x):
        return np.sqrt(np.square(x).mean(1, keepdims=True) + EPS)

    def along(dy, z, axes=1):
        return z * (dy * z).mean(axes, keepdims=True)

    def norm_dx(x, dy, axes=1):
        return rstd(x, axes) * (dy - dy.mean(axes, keepdims=True) - along(dy, norm(x, axes), axes))

    def min_max_scale(x):
        low, high = x.min(0), x.max(0)
        return (x - low) / np.where(high == low, 1, high - low).astype(x.dtype)

    def groups(x):
        return x.reshape(len(x), 2, -1)

    batch = (0, 2, 3)
    return {
        "mean": lambda x, _: x.mean(1),
        "var": lambda x, _: x.var(1),
        "std": lambda x, _: x.std(1),
        "minmax": lambda x, _: (x.min(1), x.max(1)),
        "skewness": lambda x, _: (norm(x, eps=0) ** 3).mean(1),
        "kurtosis": lambda x, _: (norm(x, eps=0) ** 4).mean(1) - 3,
        "layer_norm": lambda x, _: norm(x),
        "rms_norm": lambda x, _: x / root_mean_square(x),
        "batch_norm": lambda x, _: norm(x, batch),
        "group_norm": lambda x, _: norm(groups(x), 2).reshape(x.shape),
        "instance_norm": lambda x, _: norm(x, 2),
        "normalize": lambda x, _: x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12),
        "local_response_norm": lambda x, _: x / (1 + ALPHA / WINDOW * window_sums(np.square(x))) ** 0.75,
        "standardize": lambda x, _: norm(x, 0, 0),
        "min_max_scale": lambda x, _: min_max_scale(x),
        "layer_norm_backward: dx": norm_dx,
        "layer_norm_backward: dweight": lambda x, dy: (dy * norm(x)).sum(0),
        "rms_norm_backward: dx": lambda x, dy: (dy - along(dy, x / root_mean_square(x))) / root_mean_square(x),
        "rms_norm_backward: dweight": lambda x, dy: (dy * (x / root_mean_square(x))).sum(0),
        "batch_norm_backward: dx": lambda x, dy: norm_dx(x, dy, batch),
        "batch_norm_backward: dweight": lambda x, dy: (dy * norm(x, batch)).sum(batch),
    }


def torch_calls():
    import torch

    torch.set_num_threads(1)
    f = torch.nn.functional

    def layer_norm(x, weight=None):
        return f.layer_norm(x, x.shape[1:], weight, eps=EPS)

    def rms_norm(x, weight=None):
        return f.rms_norm(x, x.shape[1:], weight, eps=EPS)

    def batch_norm(x, weight=None):
        return f.batch_norm(x, None, None, weight, training=True, eps=EPS)

    def forward(function):
        def call(x, _):
            answer = function(torch.from_numpy(x))
            return [part.numpy() for part in answer] if isinstance(answer, tuple) else answer.numpy()

        return call

    def gradient(norm, which):
        def call(x, dy):
            inputs = [torch.from_numpy(made).requires_grad_() for made in (x.copy(), ones(x, 1))]
            norm(*inputs).backward(torch.from_numpy(dy))
            return inputs[which].grad.numpy()

        return call

    return {
        "mean": forward(lambda x: x.mean(1)),
        "var": forward(lambda x: x.var(1, correction=0)),
        "std": forward(lambda x: x.std(1, correction=0)),
        "minmax": forward(lambda x: tuple(x.aminmax(dim=1))),
        "layer_norm": forward(layer_norm),
        "rms_norm": forward(rms_norm),
        "batch_norm": forward(batch_norm),
        "group_norm": forward(lambda x: f.group_norm(x, 2)),
        "instance_norm": forward(f.instance_norm),
        "normalize": forward(f.normalize),
        "local_response_norm": forward(lambda x: f.local_response_norm(x, WINDOW, ALPHA)),
        "layer_norm_backward: dx": gradient(layer_norm, 0),
        "layer_norm_backward: dweight": gradient(layer_norm, 1),
        "rms_norm_backward: dx": gradient(rms_norm, 0),
        "rms_norm_backward: dweight": gradient(rms_norm, 1),
        "batch_norm_backward: dx": gradient(batch_norm, 0),
        "batch_norm_backward: dweight": gradient(batch_norm, 1),
    }


def sklearn_calls():
    from sklearn import preprocessing

    return {
        "normalize": lambda x, _: preprocessing.normalize(x),
        "standardize": lambda x, _: preprocessing.scale(x),
        "StandardScaler": lambda x, _: preprocessing.StandardScaler().fit_transform(x),
        "min_max_scale": lambda x, _: preprocessing.minmax_scale(x),
    }


TABLES = {"fastnorm": fastnorm_calls, "NumPy": numpy_calls, "PyTorch": torch_calls, "scikit-learn": sklearn_calls}


# ---- mean and variance of what comes in chunks


class FastnormStream:
    def __init__(self):
        self.moments = fastnorm.Moments()

    def update(self, x):
        self.moments.update(x)

    def result(self):
        return self.moments.mean, self.moments.var()


class NumpyStream:
    def __init__(self):
        self.count, self.total, self.squares = 0, 0.0, 0.0

    def update(self, x):
        self.count += x.size
        self.total += x.sum(dtype=np.float64)
        self.squares += np.square(x, dtype=np.float64).sum()

    def result(self):
        mean = self.total / self.count
        return mean, self.squares / self.count - mean**2


class SklearnStream:
    def __init__(self):
        from sklearn.preprocessing import StandardScaler

        self.scaler = StandardScaler()

    def update(self, x):
        self.scaler.partial_fit(x[:, None])

    def result(self):
        return self.scaler.mean_[0], self.scaler.var_[0]


STREAMS = {"fastnorm": FastnormStream, "NumPy": NumpyStream, "scikit-learn": SklearnStream}
