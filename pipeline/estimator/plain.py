"""What an estimator has from scikit-learn, in small: for where scikit-learn is absent.

The names and the behaviour are those of its public interface, as far as `KMeans` leans on them.
"""

from __future__ import annotations

import inspect
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray


class ConvergenceWarning(UserWarning):
    """A fit has ended in fewer clusters than it was asked for."""


class NotFittedError(ValueError, AttributeError):
    """A method that needs a fit came before it."""


class BaseEstimator:
    """Parameters are the arguments of the constructor, and nothing else."""

    @classmethod
    def _parameter_names(cls) -> list[str]:
        return sorted({*inspect.signature(cls.__init__).parameters} - {"self"})

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Parameters by name; ``deep`` means nothing where no parameter is an estimator."""
        return {name: getattr(self, name) for name in self._parameter_names()}

    def set_params(self, **params: Any) -> Self:
        """Set parameters by name; a name that there is not is a ValueError."""
        known = self._parameter_names()
        for name, value in params.items():
            if name not in known:
                raise ValueError(f"no parameter {name!r}; there are {', '.join(known)}")
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        """Show what differs from the defaults."""
        defaults = inspect.signature(type(self).__init__).parameters
        shown = [
            f"{name}={value!r}"
            for name, value in self.get_params().items()
            if value is not defaults[name].default and repr(value) != repr(defaults[name].default)
        ]
        return f"{type(self).__name__}({', '.join(shown)})"


class ClusterMixin:
    """Nothing is needed of it here."""


class TransformerMixin:
    """Nothing is needed of it here."""


class ClassNamePrefixFeaturesOutMixin:
    """Columns of `transform` are named after the class."""

    @property
    def _n_features_out(self) -> int:
        raise NotImplementedError

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """``kmeans0``, ``kmeans1``, …: one name a column of `transform`."""
        prefix = type(self).__name__.lower()
        return np.array([f"{prefix}{i}" for i in range(self._n_features_out)], object)
