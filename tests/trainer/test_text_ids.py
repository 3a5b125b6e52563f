"""The numbers of text ids fill an int64: what is learned, published, searched and exported keeps every bit of them."""

from pathlib import Path

import numpy as np
import pytest

from contracts.features import Floats, Positives, sampling_noise
from contracts.messages.ids import id_of_text
from contracts.messages.placement import key_of
from contracts.runtime.clock import HOUR_MS
from contracts.snapshots import index
from contracts.snapshots.snapshot import Snapshot, live, read
from contracts.wire.events_pb2 import Example
from serving.model import NOTHING_KEPT, LoadedModel, Want
from tests.trainer.conftest import MakeRig
from tests.trainer.trainer_cases import START_MS, make_item, markov_examples, small_settings
from tests.trainer.trainer_rig import ITEMS as LOG
from trainer.learn import item_tower

ITEMS, EXAMPLES = 12, 150
MODELS = ("two_tower", "t2diff")
# In the order of the numbers, so that what goes by order goes the same way; odd and even ones, most above 2⁵³.
NUMBERS = sorted(id_of_text(f"film/{n}") for n in range(1, ITEMS + 1))

pytestmark = pytest.mark.usefixtures("trace_once")


def by_text(example: Example) -> Example:
    """The example with the numbers of texts for its user and its items."""
    example.user_id = id_of_text(f"user/{example.user_id}")
    example.item_id = NUMBERS[example.item_id - 1]
    for ids in (example.history.item_ids, example.page.item_ids):
        ids[:] = [NUMBERS[item - 1] for item in ids]
    return example


def published(root: Path, make_rig: MakeRig, items: list[int], examples: list[Example]) -> dict[str, Snapshot]:
    rig = make_rig(small_settings(root))
    for small, number in enumerate(items, 1):
        item = make_item(small)  # its categories
        item.item_id = number
        rig.log.append(LOG, item.SerializeToString(), key=key_of(number))
    rig.add_examples(examples)
    rig.steps(80)
    assert rig.value("trainer_examples_total") > 0
    assert rig.value("trainer_skipped_examples_total") == 0
    assert rig.outbox.sent == []
    return {model: read(root / "snapshots", model, str(live(root / "snapshots", model))) for model in MODELS}


def test_a_model_of_text_ids_is_the_one_of_small_numbers_bit_for_bit(
    tmp_path: Path, make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for an item's first vector, which is drawn by its number: here both draw by the small one."""
    assert max(NUMBERS) > 2**53
    small_of = {number: small for small, number in enumerate(NUMBERS, 1)}

    def drawn(number: int, seed: int, shape: tuple[int, ...]) -> Floats:
        assert np.isfinite(sampling_noise(number, seed, shape)).all()
        return sampling_noise(small_of.get(number, number), seed, shape)

    monkeypatch.setattr(item_tower, "sampling_noise", drawn)
    small = published(tmp_path / "numbers", make_rig, [*range(1, ITEMS + 1)], markov_examples(EXAMPLES, ITEMS))
    texts = published(
        tmp_path / "texts", make_rig, NUMBERS, [by_text(each) for each in markov_examples(EXAMPLES, ITEMS)]
    )
    for model in MODELS:
        assert texts[model].item_ids.tolist() == NUMBERS
        np.testing.assert_array_equal(texts[model].item_vectors, small[model].item_vectors)
        np.testing.assert_array_equal(texts[model].item_counts, small[model].item_counts)
        assert texts[model].tower == small[model].tower

        def recalled(snapshot: Snapshot, user_id: int, watched: list[int]) -> list[int]:
            now_ms = START_MS + HOUR_MS
            positives = Positives(np.array(watched), np.array([START_MS, START_MS + 1]))
            want = Want(user_id, positives, NOTHING_KEPT, now_ms, ITEMS, frozenset(watched))
            (found,) = LoadedModel(snapshot).recall([want])
            return list(found.item_ids)

        user = id_of_text("user/1")
        of_texts = recalled(texts[model], user, [NUMBERS[0], NUMBERS[4]])
        of_numbers = recalled(small[model], user, [1, 5])
        assert of_texts == [NUMBERS[item - 1] for item in of_numbers]
        assert len(of_texts) == ITEMS - 2


def test_an_index_of_lists_finds_each_item_by_its_number() -> None:
    rng = np.random.default_rng(0)
    ids = np.array(sorted(id_of_text(str(n)) for n in range(5000)))
    vectors = (
        rng.standard_normal((ids.size, 16), np.float32)
        + 5 * rng.standard_normal((50, 16), np.float32)[rng.integers(50, size=ids.size)]
    )
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    built = index.build(vectors, vectors[:256], seed=0, exact_below=1000)
    loaded = index.Index.load(built, ids, vectors)
    assert loaded.describe().startswith("ivf")
    scores, found = loaded.search(vectors[:500], 100)
    rows = np.searchsorted(ids, found)
    np.testing.assert_array_equal(ids[rows], found)
    np.testing.assert_allclose(np.einsum("qd,qkd->qk", vectors[:500], vectors[rows]), scores, rtol=1e-4, atol=1e-5)
    assert (found[:, 0] == ids[:500]).all()
