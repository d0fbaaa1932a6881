"""scikit-learn's estimators and fastnorm's: one table of calls serves both, as they are called alike."""

from functools import partial

import numpy as np
from jobs import ESTIMATORS, NORMS
from libraries import fastnorm, sklearn


class InPlace:
    """A call that changes its own copy of x; `refresh`, which is not timed, brings the values back."""

    def __init__(self, transform, x):
        self.transform, self.x, self.own = transform, x, x.copy()

    def __call__(self):
        return self.transform(self.own)

    def refresh(self):
        np.copyto(self.own, self.x)


def fit(make, made):
    return partial(make().fit, made.x)


def transform(make, made):
    return partial(make().fit(made.x).transform, made.x)


def transform_into_out(make, made):
    """Fill `out`, which only fastnorm's estimators take."""
    return partial(make().fit(made.x).transform, made.x, out=made.out)


def inverse_transform(make, made):
    """Take x for what was scaled."""
    return partial(make().fit(made.x).inverse_transform, made.x)


def transform_in_place(make, made):
    return InPlace(make(copy=False).fit(made.x).transform, made.x)


def fit_transform(make, made):
    return partial(make().fit_transform, made.x)


def calls(preprocessing):
    """Return the table of one of the two modules."""
    made = {name: getattr(preprocessing, name) for name in ESTIMATORS}
    made |= {f"Normalizer {norm}": partial(preprocessing.Normalizer, norm=norm) for norm in NORMS}
    table = {}
    for name, make in made.items():
        estimator, _, norm = name.partition(" ")
        for op, call in {
            "fit": fit,
            "transform": transform,
            "transform copy=False": transform_in_place,
            "transform out=": transform_into_out,
            "fit_transform": fit_transform,
            "inverse_transform": inverse_transform,
        }.items():
            table[f"{estimator}.{op} {norm}".rstrip()] = partial(call, make)
    return table


FASTNORM_ESTIMATORS = calls(fastnorm.preprocessing) if sklearn else {}
SKLEARN = calls(sklearn.preprocessing) if sklearn else {}
