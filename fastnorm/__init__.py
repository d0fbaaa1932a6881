"""Moments and normalization of arrays on a CPU, at the speed of memory and with the same bits everywhere."""

from . import nn
from .functional import (
    add_layer_norm,
    add_rms_norm,
    batch_norm,
    batch_norm_backward,
    fold_batch_norm,
    group_norm,
    group_norm_backward,
    instance_norm,
    instance_norm_backward,
    layer_norm,
    layer_norm_backward,
    local_response_norm,
    local_response_norm_backward,
    min_max_scale,
    normalize,
    normalize_backward,
    rms_norm,
    rms_norm_backward,
    standardize,
)
from .runtime import get_num_threads, isa, set_num_threads, show_config, threads, use_isa
from .stats import Moments, mean, mean_var, minmax, moments, std, var

__version__ = "0.1.0"

__all__ = [
    "Moments",
    "add_layer_norm",
    "add_rms_norm",
    "batch_norm",
    "batch_norm_backward",
    "fold_batch_norm",
    "get_num_threads",
    "group_norm",
    "group_norm_backward",
    "instance_norm",
    "instance_norm_backward",
    "isa",
    "layer_norm",
    "layer_norm_backward",
    "local_response_norm",
    "local_response_norm_backward",
    "mean",
    "mean_var",
    "min_max_scale",
    "minmax",
    "moments",
    "nn",
    "normalize",
    "normalize_backward",
    "rms_norm",
    "rms_norm_backward",
    "set_num_threads",
    "show_config",
    "standardize",
    "std",
    "threads",
    "use_isa",
    "var",
]
