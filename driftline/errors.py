"""Errors that end the command with one sentence and no traceback."""

from contracts.config.settings import SettingsError
from contracts.runtime.durable import StateError
from contracts.snapshots.version import SnapshotError
from contracts.storage.objects import StoreError


class UsageError(Exception):
    """What the user asked for cannot be done; one sentence says why. Exit code 2."""


class RunError(Exception):
    """Something failed while it ran; the message says what and where to look. Exit code 1."""


USER_ERRORS = (UsageError, SettingsError, StateError)
RUN_ERRORS = (RunError, StoreError, SnapshotError)
