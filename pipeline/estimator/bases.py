"""The bases of an estimator: scikit-learn's own where it is installed, else ours in small."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # scikit-learn has no types, and these have the same names
    from pipeline.estimator.plain import (
        BaseEstimator,
        ClassNamePrefixFeaturesOutMixin,
        ClusterMixin,
        ConvergenceWarning,
        NotFittedError,
        TransformerMixin,
    )
else:
    try:
        from sklearn.base import (
            BaseEstimator,
            ClassNamePrefixFeaturesOutMixin,
            ClusterMixin,
            TransformerMixin,
        )
        from sklearn.exceptions import ConvergenceWarning, NotFittedError
    except ImportError:
        from pipeline.estimator.plain import (
            BaseEstimator,
            ClassNamePrefixFeaturesOutMixin,
            ClusterMixin,
            ConvergenceWarning,
            NotFittedError,
            TransformerMixin,
        )

__all__ = [
    "BaseEstimator",
    "ClassNamePrefixFeaturesOutMixin",
    "ClusterMixin",
    "ConvergenceWarning",
    "NotFittedError",
    "TransformerMixin",
]
