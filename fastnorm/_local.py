"""Vectors of unit p-norm, and normalization by neighbouring channels: forward and backward."""

import math
from typing import Any

import numpy as np

from . import _arguments, _ops

__all__ = ["local_response_norm", "local_response_norm_backward", "normalize", "normalize_backward"]


def normalize(x: Any, p: float = 2.0, axis: Any = 1, eps: float = 1e-12, *, out: np.ndarray | None = None) -> Any:
    r"""Divide by the p-norm of each group of elements, so that vectors have length 1.

    ``y = x / max(norm, eps)`` with ``norm = sum(abs(x)**p)**(1/p)`` over the axes. p = 0 counts the elements that are
    not 0; infinity and -infinity take the largest and the least magnitude. For p = 1, 2 and infinity memory is read
    once and written once where a group fits a cache; any other p takes a power of each element.

    Parameters
    ----------
    x : array_like
        Real array. Floats keep their dtype (half precision is computed in float32); integers and booleans give float64.
    p : float, default 2
        Order of the norm: any number but NaN.
    axis : int, tuple of int or None, default 1
        Axes over which the norm is taken; None for all.
    eps : float, default 1e-12
        What smaller norms are replaced by; not negative.
    out : ndarray, optional
        Where the result goes: the shape of x and the dtype of the result; may be x itself.

    Returns
    -------
    y : ndarray
        Same shape as x. Norms beyond the range of the dtype are right, too. NaN and infinity make NaN and zeros of
        their own group only; with ``eps=0``, zeros whose norm is 0 become NaN.

    Raises
    ------
    ValueError
        For an axis that x does not have or that is repeated, no axes, a p that is NaN, a negative or NaN `eps`, and an
        `out` that cannot be written or overlaps in part.
    TypeError
        For dtypes that are not supported (complex, longdouble, object, masked arrays) and arguments that are not
        numbers.

    Examples
    --------
    >>> import numpy as np, fastnorm
    >>> x = np.array([[3.0, -4.0], [0.0, 0.0]])
    >>> fastnorm.normalize(x)
    array([[ 0.6, -0.8],
           [ 0. ,  0. ]])
    >>> fastnorm.normalize(x, np.inf, axis=None)
    array([[ 0.75, -1.  ],
           [ 0.  ,  0.  ]])
    """
    result = _ops.normalize_by_norm(x, p, axis, eps, out)
    if result is not None:
        return result
    x = _arguments.array("x", x)
    p, axes, eps = _norm(x, p, axis, eps)
    into = _arguments.output(out, x, _arguments.result_dtype(x))
    result = _ops.normalize_by_norm(x, p, axes, eps, into, True)
    return _arguments.as_given(result, out, False)


def normalize_backward(dy: Any, x: Any, p: float = 2.0, axis: Any = 1, eps: float = 1e-12) -> Any:
    r"""Gradient of `normalize` with respect to x.

    With ``d = max(norm, eps)``, ``y = x / d`` and sums over the axes::

        dx = (dy - slope * sum(dy * y)) / d

    where ``slope`` is that of the norm, ``sign(x) * (abs(x) / norm)**(p - 1)``; for p = infinity and -infinity
    ``sign(x)``, shared evenly among the elements whose magnitude is the norm, and 0 elsewhere. It is 0 where eps is
    larger than the norm, for p = 0, and at zeros (where for p < 1 it does not exist).

    Parameters
    ----------
    dy : array_like
        Gradient with respect to y: the shape of x, and a dtype that is computed in the same type.
    x, p, axis, eps
        As for `normalize`.

    Returns
    -------
    dx : ndarray
        Same shape as x, and the dtype that the norm of x has. NaN and infinity make NaN of their own group only.

    Raises
    ------
    ValueError, TypeError
        As `normalize`; also for a `dy` of another shape or dtype.

    Examples
    --------
    >>> import numpy as np, fastnorm
    >>> fastnorm.normalize_backward([[1.0, 0.0]], np.array([[3.0, 4.0]])).round(4)
    array([[ 0.128, -0.096]])
    """
    result = _ops.normalize_backward(dy, x, p, axis, eps)
    if result is not None:
        return result
    x = _arguments.array("x", x)
    dy = _arguments.goes_with("dy", dy, x)
    return _ops.normalize_backward(dy, x, *_norm(x, p, axis, eps))


def local_response_norm(
    x: Any,
    size: int,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 1.0,
    *,
    out: np.ndarray | None = None,
) -> Any:
    r"""Divide each element by what its neighbours in other channels amount to.

    ``y = x / base**beta`` with ``base = k + alpha / size * sum(x**2)``, the sum over the `size` channels from
    ``c - size // 2`` to ``c + (size - 1) // 2``, as far as they exist. A beta of 1, 3/4 or 1/2 is taken by square
    roots; any other costs a power of each element.

    Parameters
    ----------
    x : array_like, shape (N, C, *)
        Real array of at least three dimensions, channels on axis 1. Floats keep their dtype (half precision is computed
        in float32); integers and booleans give float64.
    size : int
        Channels of a window, 1 or more.
    alpha, beta, k : float
        As in the formula: finite.
    out : ndarray, optional
        Where the result goes: the shape of x and the dtype of the result; may be x itself.

    Returns
    -------
    y : ndarray
        Same shape as x. Squares beyond the range of the dtype are right, too. NaN and infinity reach the elements
        whose windows hold them, and no others.

    Raises
    ------
    ValueError
        For fewer than three dimensions, a size below 1, an `alpha`, `beta` or `k` that is not finite, and an `out` that
        cannot be written or overlaps in part.
    TypeError
        For dtypes that are not supported (complex, longdouble, object, masked arrays) and arguments that are not
        numbers.

    References
    ----------
    Krizhevsky, Sutskever, Hinton, "ImageNet Classification with Deep Convolutional Neural Networks", NIPS 2012,
    section 3.3; with alpha divided by the size of the window, as PyTorch has it.

    Examples
    --------
    >>> import numpy as np, fastnorm
    >>> x = np.array([1.0, 2.0, 3.0]).reshape(1, 3, 1)
    >>> fastnorm.local_response_norm(x, 2, alpha=2.0, beta=0.5).ravel().round(4)
    array([0.7071, 0.8165, 0.8018])
    """
    result = _ops.local_response_norm(x, size, alpha, beta, k, out)
    if result is not None:
        return result
    x = _arguments.array("x", x)
    window = _window(x, size, alpha, beta, k)
    into = _arguments.output(out, x, _arguments.result_dtype(x))
    result = _ops.local_response_norm(x, *window, into, True)
    return _arguments.as_given(result, out, False)


def local_response_norm_backward(
    dy: Any, x: Any, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Any:
    r"""Gradient of `local_response_norm` with respect to x.

    With the base of each element, as forward::

        dx = dy / base**beta - 2 * alpha / size * beta * x * sum(dy * x / base ** (beta + 1))

    the sum over the channels whose windows hold this one, from ``c - (size - 1) // 2`` to ``c + size // 2``.

    Parameters
    ----------
    dy : array_like
        Gradient with respect to y: the shape of x, and a dtype that is computed in the same type.
    x, size, alpha, beta, k
        As for `local_response_norm`.

    Returns
    -------
    dx : ndarray
        Same shape as x, and the dtype that the norm of x has.

    Raises
    ------
    ValueError, TypeError
        As `local_response_norm`; also for a `dy` of another shape or dtype.

    Examples
    --------
    >>> import numpy as np, fastnorm
    >>> x = np.array([1.0, 2.0, 3.0]).reshape(1, 3, 1)
    >>> fastnorm.local_response_norm_backward(np.ones_like(x), x, 2, alpha=2.0, beta=0.5).ravel().round(4)
    array([0.2175, 0.0215, 0.0955])
    """
    result = _ops.local_response_norm_backward(dy, x, size, alpha, beta, k)
    if result is not None:
        return result
    x = _arguments.array("x", x)
    dy = _arguments.goes_with("dy", dy, x)
    return _ops.local_response_norm_backward(dy, x, *_window(x, size, alpha, beta, k))


def _norm(x: np.ndarray, p: Any, axis: Any, eps: Any) -> tuple[float, tuple[int, ...] | None, float]:
    """Order, axes and eps in the form that the doors know."""
    p = _arguments.real("p", p)
    axes = _arguments.axes("axis", axis, x.ndim)
    if axes == ():
        raise ValueError("axis must name at least one axis, got (); expected None for all axes")
    return p, axes, _arguments.real("eps", eps, least=0)


def _window(x: np.ndarray, size: Any, alpha: Any, beta: Any, k: Any) -> tuple[int, float, float, float]:
    """The size of a window and the numbers of its formula in the form that the doors know."""
    if x.ndim < 3:
        raise ValueError(f"x has shape {x.shape}; expected at least 3 dimensions, (N, C, *)")
    channels = _arguments.integer("size", size)
    if not 1 <= channels < 1 << 53:
        raise ValueError(f"size must be a number of channels, 1 or more, got {size!r}")
    numbers = []
    for name, value in (("alpha", alpha), ("beta", beta), ("k", k)):
        numbers.append(_arguments.real(name, value))
        if math.isinf(numbers[-1]):
            raise ValueError(f"{name} must be a finite number, got {value!r}")
    return channels, numbers[0], numbers[1], numbers[2]
