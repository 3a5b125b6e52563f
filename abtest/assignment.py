"""Which arm a user belongs to: a pure function, the same in every process and on every machine.

Serving imports this module on its request path, so it needs nothing but the standard library and the settings' types.
It does not log exposures: being assigned is not being exposed.
"""

from hashlib import blake2b

from contracts.settings import Experiment

_BITS = 53  # a float holds 53 bits exactly: more would round the largest hashes up to 1.0


def bucket(salt: str, user_id: int) -> float:
    """The user's place in [0, 1): the top 53 bits of BLAKE2b-64 of ``"{salt}:{user_id}"``, big-endian, over 2**53.

    >>> bucket("spring", 7) == bucket("spring", 7), 0 <= bucket("spring", 7) < 1
    (True, True)
    """
    digest = blake2b(f"{salt}:{user_id}".encode(), digest_size=8).digest()
    return float((int.from_bytes(digest, "big") >> (64 - _BITS)) / (1 << _BITS))


def assign(experiment: Experiment, user_id: int) -> str:
    """The user's arm.

    [0, 1) is cut into one stretch per arm, in the arms' written order, each as long as the arm's share of the weights.
    Another salt shuffles every user anew, independently of this one.

    >>> from contracts.settings import Arm
    >>> arms = {"control": Arm(weight=1, model="two_tower"), "treatment": Arm(weight=1, model="t2diff")}
    >>> experiment = Experiment(name="e", salt="s", start_ms=0, end_ms=1, arms=arms, control="control")
    >>> [assign(experiment, user) for user in (1, 2, 3, 4)]
    ['control', 'treatment', 'control', 'treatment']
    """
    place = bucket(experiment.salt, user_id) * sum(arm.weight for arm in experiment.arms.values())
    edge = 0.0
    for name, arm in experiment.arms.items():
        edge += arm.weight
        if place < edge:
            return name
    return name  # place can reach the last edge where the weights' sum rounds


def active(experiment: Experiment, time_ms: int) -> bool:
    """Whether the experiment runs at `time_ms` (Unix milliseconds): from `start_ms` on, until just before `end_ms`.

    >>> from contracts.settings import Arm
    >>> arms = {"a": Arm(weight=1, model="two_tower"), "b": Arm(weight=1, model="t2diff")}
    >>> experiment = Experiment(name="e", salt="s", start_ms=10, end_ms=20, arms=arms, control="a")
    >>> [active(experiment, time) for time in (9, 10, 19, 20)]
    [False, True, True, False]
    """
    return experiment.start_ms <= time_ms < experiment.end_ms
