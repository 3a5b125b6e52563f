"""How likely correlated normal variables all lie within limits: what bounds over several looks or days are solved from.

scipy has the integral (`scipy.stats.multivariate_normal.cdf`), but takes tens of milliseconds in seven dimensions and
draws anew at each call. A bound is a root of it, so it must be quick, and the same at the same place.

Sources:
    [G92] Genz: Numerical Computation of Multivariate Normal Probabilities. Journal of Computational and Graphical
        Statistics 1(2), 1992.
    [GB09] Genz, Bretz: Computation of Multivariate Normal and t Probabilities. Springer 2009, section 4.2.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from scipy.special import ndtr, ndtri

from abtest.stats.moments import Floats

POINTS = 256  # enough for bounds good to 1e-3 in 7 dimensions (tests)
NEAR = 3e-3  # a value this near 0 needs but one straight step more; the logarithm of a probability is nearly straight
NARROW = 1e-6  # ends this near each other are one
SMALLEST, LARGEST = 1e-300, 1 - 1e-16  # probabilities that the normal quantile keeps finite
RIDGE = 1e-10  # lets days or looks that say the same thing have a Cholesky factor


def correlation(covariance: Floats) -> Floats:
    """The correlations (..., k, k) of a covariance, or of several.

    Raises:
        ValueError: it is not square and symmetric, a variance is not above 0, or it is no covariance at all.

    >>> correlation(np.array([[4.0, 1.0], [1.0, 1.0]]))[0, 1]
    np.float64(0.5)

    """
    covariance = np.asarray(covariance, np.float64)
    if covariance.ndim < 2 or covariance.shape[-2] != covariance.shape[-1] or not covariance.size:
        raise ValueError(f"a covariance has the shape (k, k), not {covariance.shape}")
    variances = np.diagonal(covariance, axis1=-2, axis2=-1)
    if not np.isfinite(covariance).all() or (variances <= 0).any():
        raise ValueError("every estimate needs a finite variance above 0")
    errors = np.sqrt(variances)
    correlations: Floats = covariance / (errors[..., :, None] * errors[..., None, :])
    if (
        not np.allclose(correlations, np.swapaxes(correlations, -1, -2), atol=1e-9)
        or (np.linalg.eigvalsh(correlations) < -1e-8).any()
    ):
        raise ValueError("the matrix is no covariance: it is not symmetric, or has a negative eigenvalue")
    return correlations


def rectangle(correlations: Floats, low: Floats, high: Floats, points: int = POINTS) -> Floats:
    """P(low < Z < high) for normal Z (k,) with means 0, variances 1 and `correlations` (k, k).

    Separation of variables ([G92] section 3) over `points` fixed quasi-random points. Variables are taken in their
    order: a rare event put first makes it a probability given that event, with few digits lost. Tails belong at the
    lower end, where a float has its digits. Limits are (k,), or (k, A) of A rectangles, and there may be as many
    `correlations` (A, k, k): (A,) comes back, each as if it were alone.

    >>> both = rectangle(np.array([[1.0, 0.5], [0.5, 1.0]]), np.full(2, -np.inf), np.zeros(2))
    >>> round(float(both), 4)  # 1/4 + arcsin(1/2) / 2π
    0.3333
    """
    size = correlations.shape[-1]
    root = np.linalg.cholesky(correlations + RIDGE * np.eye(size)).reshape(-1, size, size)
    scale = np.diagonal(root, axis1=1, axis2=2)
    limits = np.stack([low.reshape(size, -1), high.reshape(size, -1)], axis=1) / scale.T[:, None]  # (k, 2, A)
    root /= scale[:, :, None]
    uniform = _points(size - 1, points)
    normal = np.empty((limits.shape[2], size - 1, uniform.shape[1]))
    below, above = ndtr(limits[0])[..., None]
    product = inside = above - below
    for i in range(1, size):
        chosen = uniform[i - 1] * inside
        chosen += below
        np.minimum(np.maximum(chosen, SMALLEST, out=chosen), LARGEST, out=chosen)
        ndtri(chosen, out=normal[:, i - 1])
        between = limits[i][..., None] - np.matmul(root[:, i, None, :i], normal[:, :i])[:, 0]
        below, above = ndtr(between, out=between)
        inside = above - below
        product = product * inside
    return np.asarray(product.mean(axis=1).reshape(low.shape[1:]), np.float64)


def falling_root(function: Callable[[Floats], Floats], low: Floats, high: Floats, at_high: Floats) -> Floats:
    """Where each of several smooth, falling functions is 0: the Illinois rule, up to one step past `NEAR`.

    `low` and `high` (A,) enclose the roots; `at_high`, the values at `high`, are known beforehand. `function` takes all
    A arguments at once; each root is as if it were alone. Where there is no change of sign, it is the end at which the
    function is nearer to 0.

    >>> falling_root(lambda x: 2 - x * x, np.array([1.0]), np.array([2.0]), np.array([-2.0])).round(4)
    array([1.4142])
    """
    at_low = function(low)
    near = unenclosed = (at_low <= 0) | (at_high >= 0)
    root = np.where(np.abs(at_low) < np.abs(at_high), low, high)
    side_kept = np.zeros(len(low))  # which end the last step left where it was: -1 the low one, +1 the high one
    done = unenclosed
    for _ in range(60):
        with np.errstate(invalid="ignore", divide="ignore"):
            root = np.where(done, root, (low * at_high - high * at_low) / (at_high - at_low))
        done = done | near
        if done.all():
            break
        value = function(root)
        near = near | (np.abs(value) < NEAR) | (high - low < NARROW)
        right = value > 0  # the root lies right of here
        at_low, at_high = (
            np.where(right, value, at_low / np.where((side_kept == -1) & ~near, 2, 1)),
            np.where(right, at_high / np.where((side_kept == 1) & ~near, 2, 1), value),
        )
        low, high, side_kept = np.where(right, root, low), np.where(right, high, root), np.where(right, 1, -1)
    return root


@lru_cache(maxsize=64)
def _points(size: int, n: int) -> Floats:
    """Scrambled Sobol points (size, points) by a fixed seed; for no dimension, one point."""
    if size == 0:
        return np.empty((0, 1))
    from scipy.stats import qmc  # a third of a second to import

    points: Floats = np.ascontiguousarray(qmc.Sobol(size, seed=0).random(n).T)
    points.flags.writeable = False
    return points
