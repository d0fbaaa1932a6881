# The native module, for type checkers. Doors answer None for what `_arguments` has to look at first.

from os import PathLike
from typing import Any, TypedDict

import numpy as np

def set_work_threshold(elements: int) -> int: ...
def set_stream_threshold(n_bytes: int) -> int: ...
def set_bfloat16(number: int) -> None: ...
def mean_var(
    x: Any,
    axis: Any,
    ddof: Any,
    keepdims: bool,
    dtype: Any,
    want_mean: bool,
    want_spread: bool,
    root: bool,
    where: Any = ...,
    weights: Any = ...,
    omit: bool = ...,
    checked: bool = ...,
) -> Any: ...
def can_weigh(weights: np.ndarray, x: np.ndarray) -> bool: ...
def update(
    state: np.ndarray,
    x: np.ndarray,
    axis: Any,
    extrema: bool,
    where: np.ndarray | None = ...,
    weights: np.ndarray | None = ...,
    omit: bool = ...,
) -> None: ...
def contains_nan(x: np.ndarray, where: np.ndarray | None, weights: np.ndarray | None) -> bool: ...
def merge(into: np.ndarray, state: np.ndarray) -> None: ...
def finish(state: np.ndarray, what: str, ddof: float, out: np.ndarray) -> None: ...
def block_rows(columns: int) -> int: ...
def minmax(x: Any, axis: Any, keepdims: bool, where: Any = ..., omit: bool = ...) -> Any: ...
def layer_norm(
    x: Any,
    residual: Any,
    normalized_shape: Any,
    weight: Any,
    bias: Any,
    eps: Any,
    axis: Any,
    where: Any,
    out: Any,
    return_stats: bool,
    checked: bool = ...,
) -> Any: ...
def rms_norm(
    x: Any,
    residual: Any,
    normalized_shape: Any,
    weight: Any,
    eps: Any,
    axis: Any,
    out: Any,
    return_stats: bool,
    checked: bool = ...,
) -> Any: ...
def standardize(
    x: Any, axis: Any, ddof: Any, eps: Any, omit: bool, out: Any, return_stats: bool, checked: bool = ...
) -> Any: ...
def min_max_scale(
    x: Any, axis: Any, least: Any, most: Any, omit: bool, out: Any, return_stats: bool, checked: bool = ...
) -> Any: ...
def layer_norm_backward(
    dy: Any,
    x: Any,
    mean: Any,
    rstd: Any,
    weight: Any,
    normalized_shape: Any,
    axis: Any,
    where: Any,
    out: Any,
    dtype: np.dtype | None = ...,
) -> Any: ...
def rms_norm_backward(
    dy: Any,
    x: Any,
    rstd: Any,
    weight: Any,
    normalized_shape: Any,
    axis: Any,
    out: Any,
    dtype: np.dtype | None = ...,
) -> Any: ...
def batch_norm_backward(
    dy: Any,
    x: Any,
    mean: Any,
    rstd: Any,
    weight: Any,
    training: Any,
    channel_axis: Any,
    activation: Any,
    y: Any,
    where: Any,
    out: Any,
    dtype: np.dtype | None = ...,
) -> Any: ...
def group_norm_backward(
    dy: Any,
    x: Any,
    mean: Any,
    rstd: Any,
    num_groups: Any,
    weight: Any,
    channel_axis: Any,
    out: Any,
    dtype: np.dtype | None = ...,
) -> Any: ...
def sum_positions(values: np.ndarray, dtype: np.dtype) -> np.ndarray: ...
def instance_norm_backward(
    dy: Any,
    x: Any,
    mean: Any,
    rstd: Any,
    weight: Any,
    use_input_stats: Any,
    channel_axis: Any,
    out: Any,
    dtype: np.dtype | None = ...,
) -> Any: ...
def batch_norm(
    x: Any,
    running_mean: Any,
    running_var: Any,
    weight: Any,
    bias: Any,
    training: bool,
    momentum: Any,
    eps: Any,
    axis: Any,
    relu: bool,
    where: Any,
    skip: bool,
    out: Any,
    return_stats: bool,
    checked: bool = ...,
) -> Any: ...
def group_norm(
    x: Any,
    groups: Any,
    weight: Any,
    bias: Any,
    eps: Any,
    axis: Any,
    out: Any,
    return_stats: bool,
    checked: bool = ...,
) -> Any: ...
def instance_norm(
    x: Any,
    running_mean: Any,
    running_var: Any,
    weight: Any,
    bias: Any,
    momentum: Any,
    eps: Any,
    axis: Any,
    out: Any,
    return_stats: bool,
    checked: bool = ...,
) -> Any: ...
def normalize_by_norm(x: Any, p: Any, axis: Any, eps: Any, out: Any, checked: bool = ...) -> Any: ...
def normalize_telling(x: Any, p: Any, axis: Any, eps: Any, out: Any) -> tuple[np.ndarray, int] | None: ...
def normalize_backward(dy: Any, x: Any, p: Any, axis: Any, eps: Any) -> Any: ...
def local_response_norm(x: Any, size: Any, alpha: Any, beta: Any, k: Any, out: Any, checked: bool = ...) -> Any: ...
def local_response_norm_backward(dy: Any, x: Any, size: Any, alpha: Any, beta: Any, k: Any) -> Any: ...
def rescale(
    x: Any,
    axis: Any,
    center: Any,
    center_lo: Any,
    scale: Any,
    shift: Any,
    least: Any,
    most: Any,
    inverse: bool,
    out: Any,
    checked: bool = ...,
) -> tuple[np.ndarray, int] | None: ...
def fold_batch_norm(
    weight: Any,
    bias: Any,
    running_mean: Any,
    running_var: Any,
    bn_weight: Any,
    bn_bias: Any,
    eps: Any,
    axis: Any,
) -> tuple[np.ndarray, np.ndarray] | None: ...
def find_nonfinite(x: Any) -> int | None: ...
def quantiles(x: np.ndarray, axis: int, q: np.ndarray) -> tuple[np.ndarray, np.ndarray, int] | None: ...
def fold_picture(mean: np.ndarray, std: np.ndarray, scale: float, divides: bool) -> np.ndarray | None: ...
def is_channels_first(x: np.ndarray, count: int) -> bool: ...
def picture(
    x: Any,
    folded: np.ndarray,
    dtype: np.dtype,
    order: int,
    channels_first: bool,
    swap: bool,
    out: Any = ...,
    inverse: bool = ...,
    checked: bool = ...,
) -> np.ndarray | None: ...
def normalize_picture(
    x: Any, mean: Any, std: Any, layout: Any, input_layout: Any, swap: Any, dtype: Any, out: Any
) -> np.ndarray | None: ...

class _Config(TypedDict):
    compiler: str
    openmp: int

class _ThreadLimits(TypedDict):
    affinity: int
    quota: int
    quota_file: str
    omp_max_threads: int
    omp_thread_limit: int
    set: int
    forced: int
    forked: bool

def isa_names() -> tuple[str, ...]: ...
def isa_active() -> str: ...
def set_default_isa(name: str) -> None: ...
def force_isa(name: str | None) -> str | None: ...
def set_threads(n: int) -> None: ...
def get_threads() -> int: ...
def force_threads(n: int) -> int: ...
def cgroup_quota(root: str | PathLike[str] = "") -> tuple[int, str]: ...
def thread_limits() -> _ThreadLimits: ...
def config() -> _Config: ...
