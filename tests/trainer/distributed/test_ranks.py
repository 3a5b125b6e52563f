"""Two processes and one: the same order, offsets, versions and gate; weights that differ by rounding alone."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import multiprocessing

import trainer.model_line
from contracts.config.settings import Settings, SettingsError
from tests.trainer.test_resume import REGIMES, assert_equal, fill, leaves
from tests.trainer.trainer_cases import small_settings
from tests.trainer.trainer_rig import EXAMPLES, Rig
from trainer.checkpoint import Checkpoints, DivergedError, dumps, loads
from trainer.distributed.ranks import ALONE, Ranks, TorchRanks, assemble
from trainer.publish.onnx_export import TowerTemplate

SIZE = 2


def settings_of(root: Path, softmax: str) -> Settings:
    regimes = REGIMES if softmax == "full" else {}
    return small_settings(root / softmax, softmax=softmax, negatives=5, checkpoint_every_examples=30, regimes=regimes)


def learn(settings: Settings, ranks: Ranks = ALONE) -> Rig:
    """A rig that has gone through the log, the last record of which is no example."""
    rig = Rig(settings, per_poll=7, ranks=ranks)
    fill(rig.log)
    rig.log.append(EXAMPLES[1], b"no example")
    rig.worker.resume()
    rig.steps(150)
    rig.worker.finish()
    rig.close()
    return rig


def _join(rank: int, root: Path) -> Ranks:
    torch.set_num_threads(1)
    return TorchRanks(init_method=f"file://{root / 'store'}", rank=rank, world_size=SIZE)


def _learn_and_tell(rank: int, root: Path) -> None:
    ranks = _join(rank, root)
    trainer.model_line.TowerTemplate = cache(TowerTemplate)  # type: ignore[misc]  # as the fixture `trace_once`
    for softmax in ("full", "sampled"):
        rig = learn(settings_of(root, softmax), ranks)
        told = {"state": rig.engine.state(), "letters": len(rig.outbox.sent)}
        (root / f"{softmax}-{rank}.pt").write_bytes(dumps(told))
    checkpoints = Checkpoints(small_settings(root / "apart"), ranks=ranks)
    with pytest.raises(DivergedError):
        checkpoints.write({"rank": rank})
    assert checkpoints.newest() is None
    ranks.close()


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two processes have learned, and told what they came to."""
    root = tmp_path_factory.mktemp("together")
    multiprocessing.spawn(_learn_and_tell, args=(root,), nprocs=SIZE)
    return root


@pytest.mark.usefixtures("trace_once")
@pytest.mark.parametrize("softmax", ["full", "sampled"])
def test_two_processes_come_to_what_one_comes_to(tmp_path: Path, together: Path, softmax: str) -> None:
    leader, other = (loads((together / f"{softmax}-{rank}.pt").read_bytes()) for rank in range(SIZE))
    assert_equal(leader["state"], other["state"])
    assert (leader["letters"], other["letters"]) == (1, 0)

    alone, both = learn(settings_of(tmp_path, softmax)).engine.state(), leader["state"]
    for name in ("catalogue", "boundaries", "learned_offsets", "item_offsets", "event_time_ms", "tested"):
        assert_equal(alone[name], both[name], at_least=1)
    for model in ("two_tower", "t2diff"):
        one, two = alone["pupils"][model], both["pupils"][model]
        for name in ("shares", "arrivals", "version", "unpublished", "served"):
            assert_equal(one[name], two[name], at_least=1)
        assert two["progress"]["sums"]["all"][0] == alone["tested"]
    if softmax == "full":  # sampled negatives are other draws
        one, two = (state["pupils"]["two_tower"]["regimes"] for state in (alone, both))
        for (path, a), (_, b) in zip(leaves(one), leaves(two), strict=True):
            if isinstance(a, torch.Tensor | np.ndarray) and "generator" not in path:
                np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-3, atol=1e-4, err_msg=path)
    homes = (settings_of(root, softmax).snapshots for root in (tmp_path, together))
    versions = [sorted(path.name for path in home.glob("t*/v*")) for home in homes]
    assert versions[0] == versions[1]
    assert len(versions[0]) > 10


@pytest.mark.usefixtures("trace_once")
def test_one_process_goes_on_from_what_two_have_kept(together: Path) -> None:
    rig = Rig(settings_of(together, "full"))
    assert rig.worker.resume()
    assert_equal(rig.engine.state(), loads((together / "full-0.pt").read_bytes())["state"])
    rig.close()


def refuse(why: str) -> None:
    raise SettingsError(why)


def _average(rank: int, root: Path) -> None:
    ranks = _join(rank, root)
    with pytest.raises(SettingsError, match="the leader's own"):
        ranks.lead(lambda: refuse("the leader's own"))
    weights = [torch.nn.Parameter(torch.zeros(3)) for _ in range(3)]
    running = torch.tensor([3.0 * rank])
    if rank == 0:  # the other has nothing to do, and nobody has a gradient of the last
        weights[0].grad = torch.tensor([1.0, 2.0, 3.0])
        weights[1].grad = torch.sparse_coo_tensor(torch.tensor([[2]]), torch.tensor([4.0]), (3,))
    loss = ranks.average([weights[0], weights[2]], [weights[1]], [running], torch.tensor(float(rank)), 5 * (1 - rank))
    assert float(loss) == float(running) == 0.0
    assert weights[0].grad is not None
    assert weights[0].grad.tolist() == [1.0, 2.0, 3.0]
    assert weights[1].grad is not None
    assert weights[1].grad.to_dense().tolist() == [0.0, 0.0, 4.0]
    assert weights[2].grad is None
    ranks.close()


def test_ranks_average_what_they_have_and_share_what_the_leader_meets(tmp_path: Path) -> None:
    multiprocessing.spawn(_average, args=(tmp_path,), nprocs=SIZE)


def test_more_processes_than_partitions_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(SettingsError, match="3 processes, and the examples have 2 partitions"):
        assemble(2)
    monkeypatch.delenv("WORLD_SIZE")
    assert assemble(2) is ALONE
