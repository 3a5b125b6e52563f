"""What all mappings of settings have in common."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[str, Field(min_length=1)]


class Section(BaseModel):
    """A mapping of settings: what it does not know, it refuses; nothing changes it."""

    model_config = ConfigDict(extra="forbid", frozen=True)
