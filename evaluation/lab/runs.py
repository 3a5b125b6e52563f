"""Runs one after the other, or several processes of them. Outcomes come in the order of the runs."""

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TypeAlias

from evaluation.lab.plan import PolicyPlan, Run, WorldPlan, execute
from evaluation.lab.results import Outcome

Progress: TypeAlias = Callable[[Run, float], None]


def plan_runs(world: WorldPlan, seeds: Sequence[int], policies: Sequence[PolicyPlan], *, shared: bool) -> list[Run]:
    """A run of each policy by itself in each seed's world; `shared`: and one in which they share the users."""
    runs = []
    for seed in seeds:
        runs += [Run(world, seed, (policy,)) for policy in policies]
        runs += [Run(world, seed, tuple(policies))] if shared else []
    return runs


def simulate(runs: Sequence[Run], jobs: int = 1, progress: Progress = lambda _run, _share: None) -> list[Outcome]:
    """Carry out runs; `progress` is told the share of a run that is done, of processes' runs only the whole.

    Raises:
        WorldError: a world cannot be made, or a policy cannot answer in it.

    """
    if jobs == 1 or len(runs) == 1:
        found = [execute(run, lambda share, run=run: progress(run, share)) for run in runs]  # type: ignore[misc]
        return [outcome for outcomes in found for outcome in outcomes]
    # Not forked: torch and ONNX Runtime have threads of their own by now.
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        futures = {pool.submit(execute, run): run for run in runs}
        try:
            for future in as_completed(futures):
                future.result()
                progress(futures[future], 1.0)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)  # one that failed is reason enough
    return [outcome for future in futures for outcome in future.result()]
