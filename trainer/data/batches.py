"""From training examples to the arrays that models test and learn on."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from contracts.features import Floats, Ints, lag_of, moment_of, positives, rows_of, windows
from contracts.wire.events_pb2 import Example
from trainer.data.catalogue import Catalogue


@dataclass(frozen=True)
class Batch:
    """B examples. Rows are the catalogue's rows (order of arrival), n is the window."""

    rows: Ints  # (B, n) of the behaviours, -1 where there is none
    mask: Floats  # (B, n)
    lag: Floats  # (B, n) log1p of seconds
    served_lag: Floats  # (B, n) the same from the request's `moment_of`, as a replica gives it to a tower
    targets: Ints  # (B,) row of the positive item
    seen: tuple[Ints, ...]  # B arrays: rows of all items in the history, positive or not
    user_ids: Ints  # (B,)
    arms: tuple[str, ...]  # the arm that showed the item; "" outside any experiment
    passed: Ints  # (B, m) rows of what stood on the same page and had not been watched, -1 where there is no more
    weights: Floats | None = None  # (B,) that the losses of each are multiplied by; None: 1
    # (B,) at how many of a window's last places each is learned from; None: where `trainer.model.learn_at` says
    last: Ints | None = None

    def __len__(self) -> int:
        return len(self.arms)

    @property
    def places(self) -> list[int]:
        """How many examples each of the B stands for: the new places of a packed window, else 1."""
        return [1] * len(self) if self.last is None else self.last.tolist()

    @property
    def taught(self) -> Ints:
        """Rows of the items that these examples are to teach for the first time: targets, with `last` other places too.

        Without `last` each behaviour of a window had an example of its own, wherever else it is learned from.
        """
        if self.last is None:
            return self.targets
        follow = np.concatenate((self.rows[:, 1:], self.targets[:, np.newaxis]), 1)
        new = np.arange(follow.shape[1], 0, -1) <= self.last[:, np.newaxis]
        return follow[new & (follow >= 0)]

    def only(self, keep: npt.NDArray[np.bool_]) -> "Batch":
        """The examples where `keep` (B,) is true, in the same order."""
        places = np.flatnonzero(keep)
        return Batch(
            self.rows[places],
            self.mask[places],
            self.lag[places],
            self.served_lag[places],
            self.targets[places],
            tuple(self.seen[i] for i in places),
            self.user_ids[places],
            tuple(self.arms[i] for i in places),
            self.passed[places],
            None if self.weights is None else self.weights[places],
            None if self.last is None else self.last[places],
        )


def encode(examples: Sequence[Example], catalogue: Catalogue, window: int) -> Batch:
    """Encode examples whose targets are all in the catalogue; behaviours that are not are left out.

    The lag of a behaviour is counted back from the example's own time, as a request's is when it is served.
    """
    histories = [np.fromiter(e.history.item_ids, np.int64, len(e.history.item_ids)) for e in examples]
    users = [
        positives(
            ids,
            np.fromiter(e.history.times_ms, np.int64, len(ids)),
            np.fromiter(e.history.effective_views, np.bool_, len(ids)),
        )
        for e, ids in zip(examples, histories, strict=True)
    ]
    now_ms = np.array([e.time_ms for e in examples], np.int64)
    targets = np.array([e.item_id for e in examples], np.int64)
    passed = [_passed(e) for e in examples]
    # Only ids that occur here are looked up, so a batch costs the same whatever the catalogue's size.
    occurring = np.unique(np.concatenate((targets, *histories, *passed)))
    at = catalogue.rows(occurring)
    known_ids, rows = occurring[at >= 0], at[at >= 0]
    places, age_ms = windows(users, now_ms, known_ids, window)
    rounding_ms = np.array(
        [moment_of(u, e.time_ms) - e.time_ms for u, e in zip(users, examples, strict=True)], np.int64
    )
    return Batch(
        rows=np.where(places >= 0, rows[places], -1),
        mask=(places >= 0).astype(np.float32),
        lag=lag_of(age_ms),
        served_lag=lag_of(np.where(places >= 0, age_ms + rounding_ms[:, np.newaxis], 0)),
        targets=catalogue.rows(targets),
        seen=tuple(rows[at[at >= 0]] for at in (rows_of(ids, known_ids) for ids in histories)),
        user_ids=np.array([e.user_id for e in examples], np.int64),
        arms=tuple(e.arm for e in examples),
        passed=_padded([catalogue.rows(ids) for ids in passed]),
    )


def _passed(example: Example) -> Ints:
    """What stood beside the example's item and had not been watched effectively when the example was made.

    What was watched later is among them: it is an example of its own then, beside which this one's item is not passed.
    """
    page = example.page
    pairs = zip(page.item_ids, page.effective_views, strict=True)
    ids = [item_id for item_id, watched in pairs if not watched and item_id != example.item_id]
    return np.array(ids, np.int64)


def _padded(rows: Sequence[Ints]) -> Ints:
    """(B, m) of B arrays of rows; those below 0, which are not in the catalogue, are left out."""
    kept = [each[each >= 0] for each in rows]
    padded = np.full((len(kept), max(map(len, kept), default=0)), -1, np.int64)
    for row, each in zip(padded, kept, strict=True):
        row[: len(each)] = each
    return padded
