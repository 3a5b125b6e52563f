"""What a replica takes up while it serves: another definition of its experiment, when it is told to (SIGHUP).

Certificates and tokens are looked at by themselves (`serving.security`); everything else takes a restart.
"""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from contracts.config.experiment import Experiment
from contracts.config.settings import Settings, SettingsError

log = structlog.get_logger()
USED = ("kafka", "feature_repo", "snapshots", "serving")  # sections that a replica goes by, beside the experiment


def at_a_restart(before: Settings, after: Settings) -> list[str]:
    """The settings of a replica that differ and are not taken up before it is started again, by name."""
    found: list[str] = []
    for section in USED:
        old, new = getattr(before, section), getattr(after, section)
        if old != new:
            fields = getattr(type(old), "model_fields", None)
            differ = [f"{section}.{name}" for name in fields or () if getattr(old, name) != getattr(new, name)]
            found += differ or [section]
    return found


async def reload(
    settings: Settings, read: Callable[[], Settings], redefine: Callable[[Experiment], Awaitable[None]]
) -> Settings:
    """The settings that are in force after reading them again: the same, where they cannot be used.

    Args:
        settings: those in force.
        read: reads them again.
        redefine: goes by another definition of the experiment.

    """
    try:
        fresh = await asyncio.to_thread(read)
        if fresh.experiment != settings.experiment or fresh.experiment.hash != settings.experiment.hash:
            await redefine(fresh.experiment)
    except SettingsError as error:
        log.warning("settings not reloaded; those from before are in force", why=str(error))
        return settings
    left = at_a_restart(settings, fresh)
    if left:
        log.warning("some settings are taken up at a restart alone", settings=left)
    log.info("settings reloaded", experiment=fresh.experiment.name, hash=fresh.experiment.hash)
    return settings.model_copy(update={"experiment": fresh.experiment})
