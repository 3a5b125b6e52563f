"""The names that settings accept and the models that exist are the same."""

from typing import get_args

from contracts.config.settings import ModelName
from trainer.models import REGISTRY


def test_settings_accept_exactly_the_models_that_exist() -> None:
    assert sorted(get_args(ModelName)) == sorted(REGISTRY)
