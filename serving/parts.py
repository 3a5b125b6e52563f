"""The parts of a replica that may be others where requests are traced."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from contracts.config.settings import SettingsError
from contracts.config.tracing import TracingSettings
from serving.answerer import Answerer, Asked, Outcome
from serving.batcher import Batcher
from serving.exposures import ExposureLog
from serving.service import Recall


class Parts(NamedTuple):
    """What makes each, from the same arguments as the class that it stands for."""

    answerer: Callable[..., Answerer]
    batcher: Callable[..., Batcher[Asked, Outcome]]
    exposures: Callable[..., ExposureLog]
    recall: Callable[..., Recall]


PLAIN = Parts(Answerer, Batcher, ExposureLog, Recall)


@contextmanager
def parts_of(tracing: TracingSettings | None, replica: str) -> Iterator[Parts]:
    """The parts of a replica; on the way out the spans that wait are sent.

    Raises:
        SettingsError: requests shall be traced, and OpenTelemetry is not installed.

    """
    if tracing is None:
        yield PLAIN
        return
    try:
        from serving.tracing import provider_of, traced
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"tracing: it needs {error.name}, which is not installed; `pip install 'driftline[tracing]'` brings it."
        ) from error
    provider = provider_of(tracing, replica)
    try:
        yield traced(provider.get_tracer("driftline"))
    finally:
        provider.shutdown()
