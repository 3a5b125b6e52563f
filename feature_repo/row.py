"""One user's features."""

from feature_repo.store import UserRow

__all__ = ["FeaturesUnavailable", "UserRow"]


class FeaturesUnavailable(Exception):
    """The store does not answer; one sentence says why."""
