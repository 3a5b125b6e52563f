"""The processes of one trainer: `torchrun` starts them, each has a rank, rank 0 leads.

Every rank holds the whole state and makes every decision, from the same records in the same order, so they agree
without asking. What they share is the work: each fetches its own partitions (`trainer.distributed.ranks_consumer`), and
tests and derives gradients of its own part of every batch. What only one of them can know comes to all by `gather` or
`lead`.

`Ranks` itself is a trainer of one process, for which all of this is nothing.
"""

import os
from collections.abc import Callable, Sequence
from threading import Event
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from contracts.config.settings import SettingsError
from contracts.features import Ints
from trainer.data.batches import Batch
from trainer.evaluation.ranking import Foresight

T = TypeVar("T")
F = TypeVar("F", Foresight, Ints)


class Ranks:
    """One process alone."""

    rank, size = 0, 1

    @property
    def leads(self) -> bool:
        """Whether this one writes, publishes and shows metrics."""
        return self.rank == 0

    def part(self, batch: Batch) -> Batch:
        """What of a batch is this rank's; the parts differ by one example at most."""
        return batch

    def gather(self, value: T) -> list[T]:
        """Every rank's value, by rank, on all."""
        return [value]

    def lead(self, act: Callable[[], T]) -> T:
        """Let the leader act; its result, or its exception, on all."""
        return act()

    def heard(self, event: Event) -> Event:
        """An event that is set on all ranks at once, in `hear`, after this one was set on any."""
        return event

    def hear(self) -> None:
        """Learn of the events that were set; only here they change."""

    def own(self, generator: torch.Generator) -> torch.Generator:
        """A generator for this rank's part, from one that all ranks have alike."""
        return generator

    def spread(self, batch: Batch, judge: Callable[[Batch], F]) -> F:
        """What `judge` says of a batch, each rank judging its part."""
        return judge(batch)

    def average(
        self,
        dense: Sequence[nn.Parameter],
        sparse: Sequence[nn.Parameter],
        running: Sequence[Tensor],
        loss: Tensor,
        weight: int,
    ) -> Tensor:
        """Turn what each rank found in its part into what the whole batch gives.

        Args:
            dense: parameters whose gradients are dense or missing.
            sparse: parameters whose gradients are sparse or missing.
            running: float buffers that follow the batches, such as running means.
            loss: (), a mean; the gradients are its own.
            weight: over how much it is a mean; 0: this rank had nothing to do, and no gradients.

        Returns:
            the mean over all ranks, ().

        """
        del dense, sparse, running, weight
        return loss

    def close(self) -> None:
        """Leave the others."""


ALONE = Ranks()


class TorchRanks(Ranks):
    """One of several processes, joined by `torch.distributed`: gloo for the CPU, NCCL for gradients on GPUs."""

    def __init__(self, **how: Any) -> None:
        """Join the others; `how` is that of `init_process_group`, by default the environment that torchrun makes."""
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", **how)
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self._events: list[tuple[Event, Event]] = []

    def part(self, batch: Batch) -> Batch:
        return batch.only(np.arange(len(batch)) * self.size // max(len(batch), 1) == self.rank)

    def gather(self, value: T) -> list[T]:
        gathered: list[T | None] = [None] * self.size
        dist.all_gather_object(gathered, value)
        return gathered  # type: ignore[return-value]  # all of them have come

    def lead(self, act: Callable[[], T]) -> T:
        outcome: list[Any] = [None, None]
        if self.leads:
            try:
                outcome[0] = act()
            except Exception as error:  # noqa: BLE001  whatever it is, all of them meet it
                outcome[1] = error
        dist.broadcast_object_list(outcome, src=0)
        if outcome[1] is not None:
            raise outcome[1]
        return outcome[0]  # type: ignore[no-any-return]

    def heard(self, event: Event) -> Event:
        self._events.append((event, Event()))
        return self._events[-1][1]

    def hear(self) -> None:
        for (here, everywhere), flags in zip(
            self._events, zip(*self.gather([event.is_set() for event, _ in self._events]), strict=True), strict=True
        ):
            if any(flags):
                here.clear()
                everywhere.set()

    def own(self, generator: torch.Generator) -> torch.Generator:
        seed = int(torch.randint(2**62, (), generator=generator))
        return torch.Generator().manual_seed(seed + self.rank)

    def spread(self, batch: Batch, judge: Callable[[Batch], F]) -> F:
        part = self.part(batch)
        parts = [one for one in self.gather(judge(part) if len(part) else None) if one is not None]
        if isinstance(parts[0], Foresight):
            return Foresight(*map(np.concatenate, zip(*parts, strict=True)))
        return np.concatenate(parts)

    def average(
        self,
        dense: Sequence[nn.Parameter],
        sparse: Sequence[nn.Parameter],
        running: Sequence[Tensor],
        loss: Tensor,
        weight: int,
    ) -> Tensor:
        missing = loss.new_tensor([parameter.grad is None for parameter in dense])
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in dense]
        parts = [loss.detach().reshape(1), *(t.flatten() for t in (*gradients, *running))]
        flat = torch.cat([loss.new_tensor([1.0]), *parts]) * weight
        dist.all_reduce(flat := torch.cat([missing, flat]))
        missing, total, rest = flat[: len(dense)], flat[len(dense)], flat[len(dense) + 1 :]
        mean, *means = torch.split(rest / total, [part.numel() for part in parts])
        for parameter, averaged, lack in zip(dense, means[: len(dense)], missing.tolist(), strict=True):
            # What no rank has a gradient of must stay without: Adam passes it over then.
            parameter.grad = averaged.view_as(parameter) if lack < self.size else None
        for buffer, averaged in zip(running, means[len(dense) :], strict=True):
            buffer.copy_(averaged.view_as(buffer))
        for parameter in sparse:
            parameter.grad = (self._summed(parameter, weight) / total.cpu()).to(parameter.device)
        return mean.squeeze(0)

    def close(self) -> None:
        dist.destroy_process_group()

    def _summed(self, parameter: nn.Parameter, weight: int) -> Tensor:
        """A sparse gradient over all ranks, on the CPU: NCCL has none."""
        gradient = parameter.grad
        if gradient is None:
            gradient = torch.sparse_coo_tensor(
                torch.empty(1, 0, dtype=torch.int64), torch.empty(0, *parameter.shape[1:]), parameter.shape
            )
        gradient = (gradient * weight).coalesce().cpu()
        dist.all_reduce(gradient)
        return gradient.coalesce()


def assemble(partitions: int) -> Ranks:
    """The ranks that torchrun has started, or one process alone.

    Raises:
        SettingsError: there are more processes than partitions of examples.

    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return ALONE
    if size > partitions:
        raise SettingsError(
            f"{size} processes, and the examples have {partitions} partitions (kafka.partitions): some would have "
            "nothing to read."
        )
    return TorchRanks()
