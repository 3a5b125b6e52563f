"""The accumulator that everything rests on: count, means and centred cross-products of columns over users.

Sources:
    [C83] Chan, Golub, LeVeque: Algorithms for Computing the Sample Variance. The American Statistician 37(3), 1983.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from abtest.stats.columns import AnyColumn

Floats: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Moments:
    """Moments of k columns over n users. `a + b` is as if all users had been in one: order-free up to rounding.

    Centred products instead of sums of squares: these lose digits where a mean is large against its spread.
    """

    columns: tuple[AnyColumn, ...]
    n: int
    means: Floats  # (k,)
    products: Floats  # (k, k) sum over users of (x - mean)(x - mean)ᵀ

    @classmethod
    def of(cls, columns: Sequence[AnyColumn], values: Floats) -> "Moments":
        """Moments of `values` (users, k).

        >>> Moments.of(("x",), np.array([[1.0], [3.0]])).covariance("x", "x")
        2.0
        """
        columns = tuple(columns)
        if not len(values):
            return cls(columns, 0, np.zeros(len(columns)), np.zeros((len(columns), len(columns))))
        means = values.mean(axis=0)
        centred = values - means
        return cls(columns, len(values), means, centred.T @ centred)

    def __add__(self, other: "Moments") -> "Moments":
        """Pairwise update, [C83] eq. 2.1."""
        if self.columns != other.columns:
            raise ValueError(f"moments of {self.columns} and of {other.columns} do not merge")
        n = self.n + other.n
        if n == 0:
            return self
        shift = other.means - self.means
        return Moments(
            self.columns,
            n,
            self.means + shift * (other.n / n),
            self.products + other.products + np.outer(shift, shift) * (self.n * other.n / n),
        )

    def linear(self, columns: Sequence[AnyColumn], weights: Floats) -> "Moments":
        """Moments of linear combinations: row j of `weights` (j, k) makes column j.

        >>> both = Moments.of(("x", "y"), np.array([[1.0, 2.0], [3.0, 5.0]]))
        >>> both.linear(["sum"], np.array([[1.0, 1.0]])).mean("sum")
        5.5
        """
        return Moments(tuple(columns), self.n, weights @ self.means, weights @ self.products @ weights.T)

    def sums(self, wanted: Iterable[tuple[AnyColumn, Sequence[AnyColumn]]]) -> "Moments":
        """Moments of sums of columns: of each name the sum of the columns beside it."""
        named = [(name, [self.place(column) for column in summands]) for name, summands in wanted]
        weights = np.zeros((len(named), len(self.columns)))
        for row, (_, places) in enumerate(named):
            np.add.at(weights[row], places, 1.0)
        return self.linear([name for name, _ in named], weights)

    def within(self, indicator: AnyColumn) -> "Moments":
        """Moments over the users whose `indicator` (0 or 1) is 1, if every other column is 0 where it is 0.

        Nothing about the others is needed then: leaving out z users of zeros changes no sum, so n and means follow, and
        the products lose z n' / n times the outer product of the new means ([C83] eq. 2.1, solved for one part). The
        caller sees to the columns: one that is not 0 for the others gives wrong moments.
        """
        inside = round(self.n * self.mean(indicator))
        if inside in (0, self.n):
            return self if inside else Moments.of(self.columns, np.zeros((0, len(self.columns))))
        means = self.means * (self.n / inside)
        products = self.products - np.outer(means, means) * ((self.n - inside) * inside / self.n)
        return Moments(self.columns, inside, means, products)

    def embedded(self, columns: Sequence[AnyColumn]) -> "Moments":
        """The same users among more columns: those that they lack are 0 for every one of them.

        >>> Moments.of(("x",), np.array([[1.0], [3.0]])).embedded(("y", "x")).means.tolist()
        [0.0, 2.0]
        """
        columns = tuple(columns)
        at = {column: place for place, column in enumerate(columns)}
        places = [at[column] for column in self.columns]
        means, products = np.zeros(len(columns)), np.zeros((len(columns), len(columns)))
        means[places] = self.means
        products[np.ix_(places, places)] = self.products
        return Moments(columns, self.n, means, products)

    def only(self, columns: Sequence[AnyColumn]) -> "Moments":
        """Of some of the columns, in their order.

        Raises:
            KeyError: one is not there.

        """
        places = [self.place(column) for column in columns]
        return Moments(tuple(columns), self.n, self.means[places], self.products[np.ix_(places, places)])

    def place(self, column: AnyColumn) -> int:
        """Where a column stands.

        Raises:
            KeyError: there is none of that name.

        """
        return self._places[column]

    def mean(self, column: AnyColumn) -> float:
        """Mean over users. Zero users: 0."""
        return float(self.means[self.place(column)])

    def total(self, column: AnyColumn) -> float:
        """Sum over users."""
        return self.n * self.mean(column)

    def covariance(self, a: AnyColumn, b: AnyColumn) -> float:
        """Unbiased covariance over users; needs two of them."""
        return float(self.products[self.place(a), self.place(b)]) / (self.n - 1)

    @cached_property
    def covariances(self) -> Floats:
        """Unbiased covariances (k, k); needs two users."""
        return self.products / (self.n - 1)

    @cached_property
    def _places(self) -> dict[AnyColumn, int]:
        return {column: place for place, column in enumerate(self.columns)}
