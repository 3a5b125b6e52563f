"""The files that processes load, each kind as a small sound example and the way in which it is read."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from abtest.aggregate import archive
from abtest.aggregate.aggregate import aggregate
from abtest.collect import store
from abtest.collect.state import CollectorState, close
from abtest.incremental import store as incremental
from abtest.incremental.add_day import add_day
from contracts.config.experiment import load_experiment
from contracts.config.settings import load
from contracts.runtime import arrays
from contracts.runtime.clock import DAY_MS
from contracts.runtime.durable import StateError
from contracts.runtime.worker import announce
from contracts.wire.stream_state_pb2 import Outbox
from driftline.catalogue.files import columns_of, format_of, rows
from driftline.errors import RunError, UsageError
from driftline.processes.supervisor import read_facts
from feature_repo.config import online_store
from feature_repo.store import apply
from stream.partition import PartitionStore
from tests.abtest.abtest_cases import START, exposure, feedback, observe, rules
from tests.abtest.incremental.incremental_cases import COLUMNS, COVARIATES, WEEK, Crowd
from tests.contracts.config.test_settings import sound
from tests.safety.kind import Files, Kind, npz
from tests.safety.model_kinds import CheckpointKind, SnapshotKind
from tests.safety.mutations import Random, as_json, changed_value
from tests.stream.test_partition import FEW, TOPIC, behave, hold
from trainer import checkpoint


class CollectorKind(Kind):
    """What a collector goes on from, and reports are made of."""

    refuses = (StateError,)

    def prepare(self) -> None:
        """A state with all that one may have."""
        full = exposure(at=START + 1, request="told", replica="a:1", answer_ms=2.0, model_time_ms=START)
        before = exposure(at=START - DAY_MS, request="before")
        state = observe(CollectorState(rules()), full, before, feedback(request="later"), feedback(request="told"))
        for user in range(20):
            shown = exposure(user=user, at=START + user, request=f"r{user}")
            observe(state, shown, feedback(user=user, at=START + user, request=f"r{user}"))
        close(state, START + DAY_MS)
        store.save(store.Saved(state, {"exposures:0": 5}, {"exposures:0": START}), self.home / "abtest.npz")

    def read(self) -> Any:
        """The state with its place in the log."""
        saved = store.load(self.home / "abtest.npz", rules())
        return repr((saved.offsets, saved.newest_ms, sorted(vars(saved.state).items(), key=lambda each: each[0])))

    def as_before(self, value: str, sound: str) -> bool:
        """Where there is no file, nothing was collected yet."""
        return value == sound or not (self.home / "abtest.npz").exists()

    def crafted(self, random: Random) -> Files:
        """Other tables, or another header, in an archive that is whole."""
        tables = dict(arrays.unzip(self.sound["abtest.npz"]))
        if random.random() < 0.6:
            header = as_json(changed_value(random, json.loads(tables["header"].tobytes())))
            tables["header"] = np.frombuffer(header, np.uint8)
            return {"abtest.npz": npz(tables)}
        return {"abtest.npz": npz(changed_value(random, tables))}


class AggregateKind(Kind):
    """A saved aggregate, from which reports are made."""

    refuses = (StateError,)

    def prepare(self) -> None:
        """A week's."""
        made = aggregate(Crowd(users=60).table(range(3)), spread=("play_s",), looks=range(3))
        archive.save(archive.Counted(made, {"rows": 5}), WEEK, self.home / "days.npz")

    def read(self) -> Any:
        """All of it."""
        return repr(archive.load(self.home / "days.npz", WEEK))

    def crafted(self, random: Random) -> Files:
        """Another header."""
        tables = dict(arrays.unzip(self.sound["days.npz"]))
        header = as_json(changed_value(random, json.loads(tables["header"].tobytes())))
        return {"days.npz": npz(tables | {"header": np.frombuffer(header, np.uint8)})}


class IncrementalKind(Kind):
    """An experiment to which days are added."""

    refuses = (StateError,)

    def prepare(self) -> None:
        """Two days."""
        crowd = Crowd(users=60)
        kept = incremental.create(self.home, WEEK, COLUMNS, COVARIATES, spread=("play_s",))
        for day in range(2):
            kept = add_day(kept, crowd.table([day]))

    def read(self) -> Any:
        """All files of it."""
        kept = incremental.load(self.home, WEEK)
        roster = {name: each.tolist() for name, each in incremental.load_roster(kept).items()}
        days = [kept.array(what, day.day).tolist() for day in kept.days for what in incremental.DAY_FILES]
        return repr((kept.aggregate, kept.runs, roster, days))

    def crafted(self, random: Random) -> Files:
        """Another manifest."""
        tables = dict(arrays.unzip(self.sound[incremental.MANIFEST]))
        header = as_json(changed_value(random, json.loads(tables["header"].tobytes())))
        return {incremental.MANIFEST: npz(tables | {"header": np.frombuffer(header, np.uint8)})}


class StreamKind(Kind):
    """A partition's state, which RocksDB keeps."""

    refuses = (StateError,)
    bare = True  # of a log that is cut the last commits are missing, with their offsets: it is an earlier state

    def prepare(self) -> None:
        """A few commits."""
        opened = PartitionStore(self.home, TOPIC, 0, FEW)
        for number in range(3):
            for user in range(6):
                behave(opened, user, 10 * number + user)
            hold(opened, f"r{number}", number)
            opened.commit(Outbox(user_ids=[number]))
        opened.close()

    def counts(self, path: Path) -> bool:
        """All but locks, and the log that nobody reads."""
        return path.name not in ("owner.lock", "LOCK") and not path.name.startswith("LOG")

    def read(self) -> Any:
        """All that the steps would ask for."""
        opened = PartitionStore(self.home, TOPIC, 0, FEW)
        try:
            users = [opened.user(user) for user in range(6)]
            requests = [opened.request(f"r{number}") for number in range(3)]
            due = [*opened.users_due(100)], [*opened.requests_due(100)], [*opened.user_ids()]
            return repr((users, requests, due, opened.outbox, opened.is_new))
        finally:
            opened.close()

    def repair(self) -> None:
        """Start over: to open it is to write into it."""
        shutil.rmtree(self.home)
        for name, content in self.sound.items():
            (self.home / name).parent.mkdir(parents=True, exist_ok=True)
            (self.home / name).write_bytes(content)


class SettingsKind(Kind):
    """A deployment's settings, with the experiment in a file of its own."""

    names_files = True
    refuses = (checkpoint.SettingsError,)
    bare = True

    def prepare(self) -> None:
        """Both files."""
        data = sound()
        (self.home / "experiment.yaml").write_text(yaml.safe_dump(data["experiment"]))
        security = {"security_protocol": "SASL_SSL", "sasl_plain_password": "pw", "ssl_cafile": "ca.pem"}
        data["kafka"]["security"] = security
        data |= {"experiment": str(self.home / "experiment.yaml"), "serving": {"port": 7, "host": "127.0.0.1"}}
        data |= {"trainer": {"models": ["t2diff"], "regimes": {"variants": {"q": {"average": 0.5}}}}}
        (self.home / "settings.yaml").write_text(yaml.safe_dump(data))

    def read(self) -> Any:
        """Both."""
        load_experiment(self.home / "experiment.yaml")
        return load(self.home / "settings.yaml", {}).model_dump_json()

    def crafted(self, random: Random) -> Files:
        """Other values in YAML that is right."""
        name = ("settings.yaml", "experiment.yaml")[random.integers(2)]
        value = changed_value(random, yaml.safe_load(self.sound[name]))
        return {name: yaml.safe_dump(json.loads(as_json(value))).encode()}


class FeatureStoreKind(Kind):
    """A Feast repository's feature_store.yaml and registry, as replicas read them."""

    refuses = (checkpoint.SettingsError,)
    bare = True

    def prepare(self) -> None:
        """An applied repository."""
        apply(self.home)

    def counts(self, path: Path) -> bool:
        """The two."""
        return path.name in ("feature_store.yaml", "registry.db")

    def read(self) -> Any:
        """Where the rows are."""
        return online_store(self.home)


class ReadyFileKind(Kind):
    """What a worker announces to who started it."""

    refuses = (RunError,)
    bare = True

    def prepare(self) -> None:
        """One."""
        announce(self.home / "ready.json", {"port": 5, "metrics_port": 6})

    def read(self) -> Any:
        """The facts."""
        return read_facts(self.home / "ready.json")


class CatalogueKind(Kind):
    """Files of items that people load, in each format."""

    refuses = (UsageError,)
    bare = True

    def prepare(self) -> None:
        """One of each format."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns = {"item_id": [*range(50)], "category_ids": [str(each % 3) for each in range(50)]}
        pq.write_table(pa.table(columns), self.home / "items.parquet")
        lines = zip(*columns.values(), strict=True)
        self.home.joinpath("items.csv").write_text(
            "item_id,category_ids\n" + "".join(f"{item},{categories}\n" for item, categories in lines)
        )
        self.home.joinpath("items.jsonl").write_text(
            "".join(json.dumps({"item_id": item}) + "\n" for item in columns["item_id"])
        )

    def read(self) -> Any:
        """All rows."""
        read = []
        for name in self.sound:
            path = self.home / name
            columns_of(path, format_of(path))
            read.append([*rows(path, format_of(path))])
        return read


KINDS: dict[str, type[Kind]] = {
    "snapshot": SnapshotKind,
    "checkpoint": CheckpointKind,
    "collector": CollectorKind,
    "aggregate": AggregateKind,
    "incremental": IncrementalKind,
    "stream": StreamKind,
    "settings": SettingsKind,
    "feature store": FeatureStoreKind,
    "ready file": ReadyFileKind,
    "catalogue": CatalogueKind,
}
