"""A user is forgotten by the trainer: in all that a checkpoint has, and in the checkpoints before it."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError

from contracts.config.settings import GateSettings, Settings
from contracts.wire.events_pb2 import Example, ExposedItem, Exposure, Forget
from tests.trainer.conftest import MakeRig
from tests.trainer.trainer_cases import START_MS, make_example, markov_examples, small_settings
from tests.trainer.trainer_rig import Rig
from trainer.checkpoint import KEPT, Checkpoints, digest, loads
from trainer.gate.trial import Trials

ITEM = ExposedItem(item_id=1)
USER = 6_149_554_607_595_376_846

pytestmark = pytest.mark.usefixtures("trace_once")


def forget(user: int = USER, time_ms: int = START_MS) -> Example:
    return Example(schema_version=1, event_id="f", user_id=user, time_ms=time_ms, forget=Forget())


def theirs(count: int) -> list[Example]:
    """Examples of the user between those of others, of which batches are made."""
    return [make_example([1, 2], 3 + n % 5, START_MS + 60_000 * 7 * n + 1, user_id=USER) for n in range(count)]


@pytest.fixture(params=["canary", "recall"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    gate = {"judge": request.param, "window": 50, "user_share": 1.0}
    return small_settings(tmp_path, replay={"batches": 1, "size": 500}, gate=gate)


def leaves(value: Any) -> Iterator[Any]:
    """All plain values in a state; the users of examples in their encoded form."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield key
            yield from leaves(each)
    elif isinstance(value, list | tuple | set):
        for each in value:
            yield from leaves(each)
    elif isinstance(value, bytes):
        with contextlib.suppress(DecodeError):  # what drift detection keeps is no message
            yield Example.FromString(value).user_id
    elif isinstance(value, np.ndarray):
        yield from value.ravel().tolist()
    else:
        yield value


def knows(state: dict[str, Any], user: int = USER) -> bool:
    return any(type(value) is int and value == user for value in leaves(state["pupils"]))


def fed(settings: Settings, make_rig: MakeRig) -> Rig:
    rig = make_rig(settings)
    rig.add_items(12)
    rig.add_examples(sorted([*markov_examples(150, 12), *theirs(20)], key=lambda example: example.time_ms))
    rig.steps(60)
    return rig


def test_the_state_lets_go_of_the_user_and_goes_on_learning(settings: Settings, make_rig: MakeRig) -> None:
    rig = fed(settings, make_rig)
    assert knows(rig.engine.state())
    rig.add_examples([forget(time_ms=START_MS + 60_000 * 150)])
    rig.steps(12)
    assert rig.value("trainer_forgotten_users_total") == 1
    assert not knows(rig.engine.state())
    assert rig.value("trainer_progressive_loss", model="two_tower", scope="all") > 0
    tested = rig.engine.tested
    rig.add_examples([make_example([1, 2], 3, START_MS + 60_000 * (160 + n), user_id=n + 1) for n in range(40)])
    rig.steps(40)
    assert rig.engine.tested > tested


def test_no_checkpoint_from_before_is_left(settings: Settings, make_rig: MakeRig) -> None:
    rig = fed(settings, make_rig)
    rig.worker.keep()
    home = settings.state / "trainer"
    assert any(knows(loads(path.read_bytes())) for path in home.glob("*/state.pt"))
    rig.add_examples([forget(time_ms=START_MS + 60_000 * 150)])
    rig.steps(12)
    states = [loads(path.read_bytes()) for path in home.glob("*/state.pt")]
    assert len(states) == KEPT
    assert not any(map(knows, states))
    content = b"".join(path.read_bytes() for path in home.rglob("*") if path.is_file())
    assert USER.to_bytes(8, "little") not in content


def test_a_restart_comes_to_the_same_state(settings: Settings, make_rig: MakeRig) -> None:
    """Killed right after the request, with a checkpoint from before it, and with the batch half full."""
    rig = fed(settings, make_rig)
    rig.worker.keep()
    rig.close()
    again = make_rig(settings, log=rig.log)
    assert again.worker.resume()
    rest = [forget(time_ms=START_MS + 60_000 * 150)]
    rest += [make_example([1, 2], 3, START_MS + 60_000 * (160 + n), user_id=n + 1) for n in range(40)]
    again.add_examples(rest)
    again.steps(60)
    undisturbed = make_rig(small_settings(settings.state.parent / "other", **_trainer_of(settings)), log=again.log)
    again.log.rewind()
    undisturbed.steps(140)
    assert not knows(again.engine.state())
    assert undisturbed.engine.tested == again.engine.tested
    assert digest(undisturbed.engine.state()["pupils"]["t2diff"]["regimes"]) == digest(
        again.engine.state()["pupils"]["t2diff"]["regimes"]
    )


def _trainer_of(settings: Settings) -> dict[str, Any]:
    return {"replay": settings.trainer.replay.model_dump(), "gate": settings.trainer.gate.model_dump()}


def test_a_crash_before_the_older_ones_are_removed_is_finished_at_the_start(settings: Settings) -> None:
    class Killed(Exception):
        pass

    def arrived(step: str) -> None:
        if step == "renamed":
            raise Killed

    checkpoints = Checkpoints(settings)
    for number in range(2):
        checkpoints.write({"with the user": number})
    checkpoints.close()
    killed = Checkpoints(settings, arrived)
    with pytest.raises(Killed):
        killed.write({"without": 0}, alone=True)
    killed.close()
    home = settings.state / "trainer"
    (home / ".00000001.gone").mkdir()
    assert len([*home.glob("0*")]) == 3
    started = Checkpoints(settings)
    assert [path.name for path in home.iterdir() if path.is_dir()] == ["00000003"]
    assert started.newest() == {"without": 0}
    started.close()


def shown(user: int, version: str = "v000001") -> Exposure:
    return Exposure(request_id=f"r{user}", user_id=user, time_ms=START_MS, snapshot_version=version, items=[ITEM])


def test_a_trial_counts_the_user_no_more() -> None:
    trials = Trials("two_tower", GateSettings(), live=True)
    trials.show(shown(1))
    trials.admit("v000001")
    for user in (USER, 3):
        trials.show(shown(user))
        trials.view(Example(user_id=user, request_id=f"r{user}"))
    assert any(value == USER for value in leaves(trials.state()))
    trials.forget(USER)
    assert not any(value == USER for value in leaves(trials.state()))
    assert trials.state()["trial"]["sums"] == {3: [0, 0, 1, 1]}
    assert trials.state()["trial"]["requests"] == {"r3": (3, True)}
