"""What replicas and the trainer load: snapshots and checkpoints."""

import ast
import asyncio
import io
import json
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from contracts.config.settings import Arm, Experiment, KafkaSettings, Settings
from contracts.features import Positives
from contracts.runtime import arrays
from contracts.runtime.clock import ManualClock
from contracts.snapshots import delta, index, retention, snapshot
from serving.metrics import ServingMetrics
from serving.model import NOTHING_KEPT, Want
from serving.swapper import Swapper
from tests.safety.kind import Files, Kind, Refused, npz
from tests.safety.mutations import CRAFTED, Random, as_json, changed_value, mutated
from tests.serving.serving_cases import make_delta, make_snapshot
from tests.trainer.trainer_cases import markov_examples, small_settings
from tests.trainer.trainer_rig import Rig
from trainer import checkpoint


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
        return npz(changed_value(random, arrays.unzip(content)))
    buffer = io.BytesIO()
    values: Any = changed_value(random, np.array(arrays.view(content)))
    np.save(buffer, values if isinstance(values, np.ndarray) else np.zeros(3))
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
