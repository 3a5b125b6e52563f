"""The files that processes load, each kind as a small sound example and the way in which it is read."""

import ast
import asyncio
import io
import json
import shutil
from abc import ABC, abstractmethod
from dataclasses import replace
from hashlib import sha256
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
from contracts.config.settings import Arm, Experiment, KafkaSettings, Settings, load
from contracts.features import Positives
from contracts.runtime import arrays
from contracts.runtime.clock import DAY_MS, ManualClock
from contracts.runtime.durable import StateError
from contracts.runtime.worker import announce
from contracts.snapshots import delta, index, retention, snapshot
from contracts.wire.stream_state_pb2 import Outbox
from driftline.catalogue.files import columns_of, format_of, rows
from driftline.errors import RunError, UsageError
from driftline.processes.supervisor import read_facts
from feature_repo.config import online_store
from feature_repo.store import apply
from serving.metrics import ServingMetrics
from serving.model import NOTHING_KEPT, Want
from serving.swapper import Swapper
from stream.partition import PartitionStore
from tests.abtest.abtest_cases import START, exposure, feedback, observe, rules
from tests.abtest.incremental.incremental_cases import COLUMNS, COVARIATES, WEEK, Crowd
from tests.contracts.config.test_settings import sound
from tests.safety.mutations import CRAFTED, Random, as_json, changed_value, mutated
from tests.serving.serving_cases import make_delta, make_snapshot
from tests.stream.test_partition import FEW, TOPIC, behave, hold
from tests.trainer.trainer_cases import markov_examples, small_settings
from tests.trainer.trainer_rig import Rig
from trainer import checkpoint

Files = dict[str, bytes]


class Refused(Exception):
    """What is wrong with the files, in a sentence, where it is told and not raised."""


class Kind(ABC):
    """Sound files below `home`, and how they are changed and read."""

    refuses: tuple[type[Exception], ...] = (Refused,)
    bare = False  # whether the files have no checksum, as people write them: what is accepted may differ then
    names_files = False  # whether what is read says which other files are

    def __init__(self, home: Path) -> None:
        self.home = home
        home.mkdir(parents=True)
        self.prepare()
        self.sound = {str(path.relative_to(home)): path.read_bytes() for path in self._files()}

    def _files(self) -> list[Path]:
        return sorted(path for path in self.home.rglob("*") if path.is_file() and self.counts(path))

    def counts(self, path: Path) -> bool:
        """Whether a file is one of those that are changed."""
        return path.name not in ("lock", ".lock", "owner.lock")

    @abstractmethod
    def prepare(self) -> None:
        """Write the sound files."""

    @abstractmethod
    def read(self) -> Any:
        """What they hold, as something that compares by value."""

    def as_before(self, value: str, sound: str) -> bool:
        """Whether what was accepted is what the sound files hold."""
        return value == sound

    def close(self) -> None:
        """Let go of what is held; by default nothing is."""
        return

    def crafted(self, random: Random) -> Files:
        """Files with other values in a form that is right, as somebody would write who can; none where not done."""
        return {}

    def change(self, random: Random) -> bool:
        """Change the files on the disk; whether what is accepted must be as before."""
        if random.random() < 0.3 and (files := self.crafted(random)):
            for name, content in files.items():
                (self.home / name).write_bytes(content)
            return False
        for _ in range(1 if random.random() < 0.8 else 2):
            self._damage(random)
        return not self.bare

    def _damage(self, random: Random) -> None:
        names = list(self.sound)
        name = names[random.integers(len(names))]
        path, others = self.home / name, [self.sound[each] for each in names if each != name]
        choice = random.random()
        if path.is_dir() or path.is_symlink():
            return
        if choice < 0.02:
            path.unlink(missing_ok=True)
        elif choice < 0.03:
            path.unlink(missing_ok=True)
            path.mkdir(exist_ok=True)
        elif choice < 0.05:
            path.unlink(missing_ok=True)
            path.symlink_to(("/dev/null", path.parent, path)[random.integers(3)])
        elif path.is_file() or not path.exists():
            path.write_bytes(mutated(random, self.sound[name], others))

    def repair(self) -> None:
        """Put the sound files back."""
        for path in sorted(self.home.rglob("*"), reverse=True):
            is_file = path.is_symlink() or path.is_file()
            if is_file and self.counts(path) and str(path.relative_to(self.home)) not in self.sound:
                path.unlink()
        for name, content in self.sound.items():
            path = self.home / name
            if path.is_symlink():
                path.unlink()
            elif path.is_dir():
                path.rmdir()
            if not path.is_file() or path.read_bytes() != content:
                path.write_bytes(content)


class SnapshotKind(Kind):
    """What a replica loads: pointers, a snapshot with an index of lists, a delta on it, one on trial."""

    def prepare(self) -> None:
        """Two snapshots and a delta."""
        base = make_snapshot(rows=600)
        vectors = np.random.default_rng(0).standard_normal((600, 2), np.float32)
        lists = index.build(vectors, vectors[:64], seed=0, exact_below=1, recall=0.5)
        assert lists, "searched by lists"
        snapshot.write(self.home, replace(base, item_vectors=vectors, index=lists))
        delta.write(self.home, make_delta())
        snapshot.write(self.home, make_snapshot(number=2))
        model = self.home / "two_tower"
        self.settings = self._settings()
        (model / "LIVE").write_text("v000001")
        self.others = self.read()  # what a pointer that is another one may let serve
        (model / "LIVE").write_text("v000001+001")
        (model / "CANARY").write_text(json.dumps({"version": "v000002", "share": 0.5, "group": "v000002"}))
        (model / "PINNED").write_text("v000001\n")

    def _settings(self) -> Settings:
        arms = {name: Arm(weight=1, model="two_tower") for name in ("a", "b")}
        return Settings(
            kafka=KafkaSettings(bootstrap_servers="nowhere:1"),
            feature_repo=self.home,
            snapshots=self.home,
            state=self.home,
            experiment=Experiment(name="e", salt="s", start_ms=0, end_ms=1, arms=arms, control="a"),
        )

    def read(self) -> Any:
        """Who answers, and what."""
        swapper = Swapper(self.settings, list, ServingMetrics(), ManualClock(), throw=lambda: 0.5)
        try:
            asyncio.run(swapper.check())
        finally:
            swapper.close()
        retention.held(self.home, "two_tower")
        (status,) = swapper.status()
        want = Want(7, Positives(np.array([3]), np.array([0])), NOTHING_KEPT, 0, 5, ())
        loaded = [*swapper.models.values(), *(each.model for each in swapper.canaries.values())]
        answers = {
            model.manifest.version: [tuple(model.recall([want])[0].item_ids), tuple(model.popular(want).item_ids)]
            for model in loaded
        }
        if status.error:
            raise Refused(status.error)
        return answers

    def as_before(self, value: str, sound: str) -> bool:
        """A pointer may name another version, or nothing: what serves is as it was."""
        answers, before = ast.literal_eval(value), ast.literal_eval(sound)
        before |= {version: self.others[version] for version in self.others}
        return all(before[version] == answer for version, answer in answers.items())

    def crafted(self, random: Random) -> Files:
        """Other values under checksums that are right."""
        version = ("v000001", "v000001+001", "v000002")[random.integers(3)]
        home = f"two_tower/{version}/"
        content = {name.removeprefix(home): self.sound[name] for name in self.sound if name.startswith(home)}
        manifest = json.loads(content.pop("manifest.json"))
        names = list(content)
        name = names[random.integers(len(names))]
        choice = random.random()
        if choice < 0.5:
            content[name] = _crafted_array(random, name, content[name])
        elif choice < 0.6:
            content[name] = CRAFTED[random.integers(len(CRAFTED))]
        manifest["checksums"] = {each: sha256(content[each]).hexdigest() for each in content}
        if choice >= 0.6:
            manifest = changed_value(random, manifest)
        if random.random() < 0.1 and isinstance(manifest, dict) and isinstance(manifest.get("checksums"), dict):
            outside = ("../v000002/tower.onnx", "/etc/passwd", "../../../x", "", ".", "a\x00b")[random.integers(6)]
            manifest["checksums"][outside] = sha256(self.sound["two_tower/v000002/tower.onnx"]).hexdigest()
        if isinstance(manifest, dict):
            manifest.pop("checksum", None)
            manifest = json.loads(as_json(manifest))
            manifest["checksum"] = sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
        return {home + each: content[each] for each in content} | {home + "manifest.json": as_json(manifest)}


def _crafted_array(random: Random, name: str, content: bytes) -> bytes:
    if name == "tower.onnx":
        return mutated(random, content, ())
    if name.endswith(".npz"):
        return _npz(changed_value(random, arrays.unzip(content)))
    buffer = io.BytesIO()
    values: Any = changed_value(random, np.array(arrays.view(content)))
    np.save(buffer, values if isinstance(values, np.ndarray) else np.zeros(3))
    return buffer.getvalue()


def _npz(tables: Any) -> bytes:
    buffer = io.BytesIO()
    if isinstance(tables, dict):
        plain = {name: each for name, each in tables.items() if isinstance(each, np.ndarray)}
        np.savez(buffer, **plain)
    return buffer.getvalue()


class CheckpointKind(Kind):
    """What a trainer goes on from."""

    def prepare(self) -> None:
        """A checkpoint of a trainer that has learned a little."""
        self.settings = small_settings(self.home, models=["two_tower"], replay={"batches": 1, "size": 40})
        self.rig = Rig(self.settings)
        self.rig.add_items(12)
        self.rig.add_examples(markov_examples(60, 12))
        self.rig.steps(6)
        self.rig.checkpoints.write(self.rig.engine.state())
        (self.folder,) = (path for path in (self.home / "state" / "trainer").iterdir() if path.is_dir())
        self.state = checkpoint.loads((self.folder / "state.pt").read_bytes())

    def counts(self, path: Path) -> bool:
        """The checkpoint alone."""
        return path.parent.name.isdigit()

    refuses = (Refused, checkpoint.SettingsError)

    def read(self) -> Any:
        """The state, after the trainer has taken it."""
        state = self.rig.checkpoints.newest()
        if state is None:
            raise Refused("No checkpoint can be read.")
        self.rig.worker.resume()
        return checkpoint.digest(state)

    def close(self) -> None:
        """Let go of the directory."""
        self.rig.close()

    def crafted(self, random: Random) -> Files:
        """Another state under a checksum that is right."""
        content = checkpoint.dumps(changed_value(random, self.state))
        if random.random() < 0.2:
            content = mutated(random, content, ())
        manifest = json.loads((self.folder / "manifest.json").read_bytes())
        manifest["sha256"] = sha256(content).hexdigest()
        if random.random() < 0.1:
            manifest = changed_value(random, manifest)
        home = str(self.folder.relative_to(self.home))
        return {f"{home}/state.pt": content, f"{home}/manifest.json": as_json(manifest)}


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
            return {"abtest.npz": _npz(tables)}
        return {"abtest.npz": _npz(changed_value(random, tables))}


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
        return {"days.npz": _npz(tables | {"header": np.frombuffer(header, np.uint8)})}


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
        return {incremental.MANIFEST: _npz(tables | {"header": np.frombuffer(header, np.uint8)})}


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
