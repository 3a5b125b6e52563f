"""A replica while its experiment is paused, ramped, stopped and redefined, and its certificate and token renewed."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from contracts.config.experiment import Arm, Experiment
from contracts.config.settings import TlsSettings, dump, load
from contracts.kafka import bus
from contracts.messages.experiments import definition_record
from serving.calls import ClientTls
from serving.client import RecallClient, RecallError
from serving.reload import at_a_restart
from tests.serving.replicas import LONG_S, Authority, Cluster, address_of, cluster, driftline, until

USERS = range(1, 41)
DEFINED = Experiment(
    name="e",
    salt="s",
    start_ms=0,
    end_ms=10_000,
    arms={"a": Arm(weight=1, model="two_tower"), "b": Arm(weight=1, model="two_tower")},
    control="a",
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("running")) as replicas:
        yield replicas


def command(path: Path, *words: str) -> str:
    done = driftline("experiment", *words, "-s", str(path))
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(path: Path, *words: str) -> str:
    done = driftline("experiment", *words, "-s", str(path))
    assert done.returncode == 2
    return done.stderr


def arms(client: RecallClient, time_ms: int) -> dict[int, str]:
    return {user: client.recall(user, 3, time_ms=time_ms).arm for user in USERS}


def test_paused_ramped_and_stopped_by_command_nobody_changes_arm(made: Cluster, tmp_path: Path) -> None:
    child, other = made.start("one", "other")
    path = tmp_path / "settings.yaml"
    dump(made.settings, path)
    with RecallClient([address_of(child)], deadline_s=LONG_S) as client:
        before = arms(client, 4999)
        assert set(before.values()) == {"a", "b"}
        assert "e is paused from 1970-01-01" in command(path, "pause", "--at", "5000", "--simulated", "--why", "a fire")
        assert "the experiment is paused then already" in refused(path, "pause", "--at", "5500", "--simulated")
        command(path, "resume", "--at", "6000", "--simulated")
        command(path, "ramp", "0.3", "--at", "7000", "--simulated")
        command(path, "stop", "--yes", "--at", "8000", "--simulated")
        assert "the experiment has been stopped" in refused(path, "resume", "--at", "9000", "--simulated")
        until(lambda: not client.recall(1, 3, time_ms=8000).arm)
        assert arms(client, 4999) == before
        assert set(arms(client, 5000).values()) == {""}
        assert arms(client, 6000) == before
        few = {user: arm for user, arm in arms(client, 7000).items() if arm}
        assert 0 < len(few) < len(USERS)
        assert few.items() <= before.items()
        with RecallClient([address_of(other)], deadline_s=LONG_S) as another:
            until(lambda: not another.recall(1, 3, time_ms=8000).arm)
            assert [arms(another, at) for at in (4999, 7000)] == [arms(client, at) for at in (4999, 7000)]
    shown = driftline("status", address_of(child), address_of(other)).stdout
    assert f"Experiment e ({DEFINED.hash}): not running." in shown
    told = command(path, "status")
    assert [word in told for word in ("pause", "resume", "30.00%", "stop", "a fire", DEFINED.hash)] == [True] * 6
    made.end(child, other)


def test_an_experiment_is_redefined_under_load_without_a_lost_call(made: Cluster, tmp_path: Path) -> None:
    (child,) = made.start("redefined")
    path = made.directory / "redefined.yaml"
    with RecallClient([address_of(child)], deadline_s=LONG_S) as client:

        def told() -> dict[str, Any]:
            (reply,) = client.status().values()
            assert not isinstance(reply, RecallError)
            return {"hash": reply.experiment.experiment_hash, "error": reply.experiment.error}

        assert told() == {"hash": DEFINED.hash, "error": ""}
        settings = load(path)
        reshuffled = settings.experiment.model_copy(update={"salt": "another", "name": "next"})
        dump(settings.model_copy(update={"experiment": reshuffled}), path)
        child.process.send_signal(signal.SIGHUP)
        until(lambda: client.recall(1, 3, time_ms=1000).experiment == "next")
        assert told()["hash"] == reshuffled.hash
        assert reshuffled.hash != DEFINED.hash

        path.write_text(path.read_text().replace("salt: another", "salt: [1]"))
        child.process.send_signal(signal.SIGHUP)
        until(lambda: "settings not reloaded" in child.log.read_text())
        assert client.recall(1, 3, time_ms=1000).experiment == "next"

        # A collector that runs the experiment otherwise: the replica says so, and takes no third definition.
        sender = bus.producer(made.settings.kafka)
        collected = reshuffled.model_copy(update={"salt": "theirs"})
        sender.send(made.settings.kafka.topic(bus.EXPERIMENTS), value=definition_record(collected, 1)).get(LONG_S)
        sender.close()
        until(lambda: told()["error"] != "")
        assert told()["error"] == (
            "The experiment's collector has another definition of it: salt differs from these settings."
        )
        dump(settings.model_copy(update={"experiment": reshuffled.model_copy(update={"salt": "third"})}), path)
        child.process.send_signal(signal.SIGHUP)
        until(lambda: child.log.read_text().count("settings not reloaded") == 2)
        dump(settings.model_copy(update={"experiment": collected}), path)
        child.process.send_signal(signal.SIGHUP)
        until(lambda: told() == {"hash": collected.hash, "error": ""})
    made.end(child)


def test_certificate_and_token_are_renewed_without_a_restart(made: Cluster, tmp_path: Path) -> None:
    authority, next_authority = Authority(tmp_path / "ca"), Authority(tmp_path / "next")
    server, renewed = authority.sign("server"), next_authority.sign("server")
    token = tmp_path / "token"
    token.write_text("first\n")
    tls = TlsSettings(certificate=server.certificate, key=server.key)
    (child,) = made.start("renewed", tls=tls, token_file=token)

    def recall(ca: Authority, said: str) -> str:
        tls = ClientTls(ca.own.certificate)
        with RecallClient([address_of(child)], deadline_s=2.0, tls=tls, token=said, wait_for_ready=False) as client:
            try:
                return client.recall(1, 3, time_ms=1000).snapshot_version
            except RecallError as error:
                return error.code.name

    until(lambda: recall(authority, "first") == "v000001")
    trusted, token_held = ClientTls(authority.own.certificate), token.read_text().strip()
    with RecallClient([address_of(child)], deadline_s=LONG_S, tls=trusted, token=token_held) as held:
        assert held.recall(1, 3, time_ms=1000).snapshot_version == "v000001"
        token.write_text("first\nsecond\n")
        until(lambda: recall(authority, "second") == "v000001")
        server.key.write_bytes(renewed.key.read_bytes())  # half of it: key and certificate do not belong together
        assert recall(authority, "first") == "v000001", "what cannot be used is not taken up"
        server.certificate.write_bytes(renewed.certificate.read_bytes())
        until(lambda: recall(next_authority, "first") == "v000001")
        assert recall(authority, "first") == "UNAVAILABLE"
        assert held.recall(1, 3, time_ms=1000).snapshot_version == "v000001", "connections that stand go on"
        token.write_text("second\n")
        until(lambda: recall(next_authority, "first") == "UNAUTHENTICATED")
    made.end(child)
    assert "first" not in child.log.read_text()


def test_what_is_taken_up_at_a_restart_alone_is_named(made: Cluster) -> None:
    settings = made.settings
    other = settings.model_copy(
        update={
            "snapshots": Path("elsewhere"),
            "serving": settings.serving.model_copy(update={"max_k": 7, "drain_s": 1.0}),
        }
    )
    assert at_a_restart(settings, other) == ["snapshots", "serving.max_k", "serving.drain_s"]
    assert at_a_restart(settings, settings) == []


def test_without_an_experiment_one_model_answers_everybody(made: Cluster, tmp_path: Path) -> None:
    path = tmp_path / "alone.yaml"
    dump(made.settings.model_copy(update={"experiment": Experiment.none("two_tower")}), path)
    assert "experiment" not in yaml.safe_load(path.read_text())
    (child,) = made.start("alone", settings=load(path))
    with RecallClient([address_of(child)], deadline_s=LONG_S) as client:
        answer = client.recall(1, 3, time_ms=1000)
        assert (answer.model, answer.experiment, answer.arm) == ("two_tower", "", "")
        (reply,) = client.status().values()
        assert not isinstance(reply, RecallError)
        assert not reply.HasField("experiment")
    made.end(child)
    for words in (("collect",), ("report",), ("pause",), ("assign", "7")):
        assert f"{path}: experiment: there is none; it serves one model to everybody." in refused(path, *words)
