"""Scalers for scikit-learn that learn and apply at the speed of memory.

They take the place of those of `sklearn.preprocessing` by a change of the import line, and of nothing else. This
package is the only part of fastnorm that imports scikit-learn.
"""

try:
    import sklearn  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "sklearn":
        raise
    message = "fastnorm.preprocessing needs scikit-learn: pip install fastnorm[sklearn]"
    raise ModuleNotFoundError(message, name="sklearn") from None

from ._normalizer import Normalizer, normalize
from ._range import MaxAbsScaler, MinMaxScaler, maxabs_scale, minmax_scale
from ._standard import StandardScaler, scale

__all__ = [
    "MaxAbsScaler",
    "MinMaxScaler",
    "Normalizer",
    "StandardScaler",
    "maxabs_scale",
    "minmax_scale",
    "normalize",
    "scale",
]
