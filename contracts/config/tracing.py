"""Traces of requests: off unless they are asked for."""

from typing import Annotated

from pydantic import Field

from contracts.config.section import Section


class TracingSettings(Section):
    """Where a replica's spans go, and of how many requests."""

    endpoint: Annotated[str, Field(pattern=r"^https?://\S+$")]  # OTLP over gRPC; https: encrypted
    share: Annotated[float, Field(ge=0, le=1)] = 0.01  # of requests that come without a trace; else the caller decides
