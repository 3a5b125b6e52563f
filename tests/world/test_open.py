import pytest

from world.base import WorldError
from world.open import open_world


def test_without_data_the_world_is_synthetic():
    world = open_world(None, days=1, users=30, items=60)
    assert (world.name, world.simulated_log, world.quality) == ("synthetic", True, None)
    assert (world.experiment_start_ms - world.start_ms) // 86_400_000 == 2


def test_with_data_the_world_is_the_logs(tmp_path, small_log, write_folder):
    world = open_world(write_folder(tmp_path, small_log), days=1, warmup_days=2)
    assert (world.name, world.simulated_log) == ("kuairand-pure", False)
    assert world.quality is not None


def test_a_folder_that_is_not_there_or_a_choice_that_does_not_fit(tmp_path):
    with pytest.raises(WorldError, match="is not a folder"):
        open_world(tmp_path / "nowhere")
    with pytest.raises(WorldError, match="only be chosen in the synthetic world"):
        open_world(tmp_path, items=5)
