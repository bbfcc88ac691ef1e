"""The simulated network: what every link of this node does to what is sent over it.

Each link has `Conditions`: a law that delays are drawn from, a probability of loss, and whether it is cut. They are
the same for all links unless one has its own, and may be changed while the node runs.

* The delay is drawn per entry and follower. Only replicated entries are delayed.
* Loss drops a copy of an entry, or any other message, that this node sends. It acts on one direction: to lose
  acknowledgements as well, set it on the other node too.
* In order, a link delivers an entry no sooner than those sent before it, as one TCP connection would: a late entry
  holds up all that follow. Otherwise entries overtake each other.
* A cut acts on both directions of the link, from whichever end it is set. TCP stays open, as with a pulled cable.

What we leave out: bandwidth, duplication, and delays that depend on each other. With a seed, the draws of one link
depend on the seed and the name of the peer only, never on the traffic of other links.
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Mapping
from statistics import NormalDist

import msgspec

from retinue.errors import SettingsConflict

DISTRIBUTIONS = ("uniform", "fixed", "exponential", "lognormal")

# Above an hour a delay is a cut; the limit keeps a mistyped number from filling the queues with entries never sent.
DELAY_LIMIT_MS = 3_600_000.0

# Spread of the lognormal law: the standard deviation of the delay's logarithm. 0.5 gives the tail that is usual for
# round trips on shared networks: p99 is 3.2 times the median.
LOGNORMAL_SIGMA = 0.5

# A node sends again after this time at the least, so that a busy but healthy follower is not sent everything twice.
RETRANSMIT_FLOOR_MS = 1000.0

# Which draw counts as the largest of a law without an upper end: one in a million lies above.
LARGEST_DRAW = 1 - 1e-6

_NORMAL = NormalDist()
_SHARED_FIELDS = {
    "min_delay_ms": "min_ms",
    "max_delay_ms": "max_ms",
    "delay_distribution": "distribution",
    "loss": "loss",
    "in_order_delivery": "in_order",
}
_SHARED_NAMES = {field: name for name, field in _SHARED_FIELDS.items()}
_LINK_FIELDS = ("min_ms", "max_ms", "distribution", "loss", "in_order", "cut")


class Contradiction(ValueError):
    """Values that are each allowed and exclude each other."""


class Conditions(msgspec.Struct, frozen=True):
    """What one link does to what is sent over it.

    The delay in milliseconds, with `a` = `min_ms` and `b` = `max_ms`:

    * `uniform`: between a and b, all values equally likely; mean (a + b) / 2
    * `fixed`: always b; a does not matter
    * `exponential`: a plus an exponential of mean b - a, so the mean is b; more than a third of the draws lie above b
    * `lognormal`: a plus a lognormal of median (b - a) / 2 and sigma 0.5; mean a + 0.567 (b - a); 8 % lie above b

    `loss` is the probability, 0 to 1, that a message is dropped. With `in_order` no entry overtakes another. Raises
    `ValueError` with one sentence, and `Contradiction` for a `min_ms` above `max_ms`.
    """

    distribution: str = "uniform"
    min_ms: float = 0.0
    max_ms: float = 0.0
    loss: float = 0.0
    in_order: bool = False
    cut: bool = False

    def __post_init__(self) -> None:
        if self.distribution not in DISTRIBUTIONS:
            raise ValueError(
                f"There is no delay distribution {self.distribution!r}: choose one of {', '.join(DISTRIBUTIONS)}."
            )
        for what, value in (("smallest", self.min_ms), ("largest", self.max_ms)):
            if not 0 <= value <= DELAY_LIMIT_MS:
                raise ValueError(f"The {what} delay is {value:g} ms: give a number from 0 to {DELAY_LIMIT_MS:.0f}.")
        if not 0 <= self.loss <= 1:
            raise ValueError(f"The loss is {self.loss:g}: give a probability from 0 to 1.")
        if self.min_ms > self.max_ms:
            raise Contradiction(
                f"The smallest delay ({self.min_ms:g} ms) is above the largest ({self.max_ms:g} ms): "
                "raise the largest or lower the smallest."
            )

    @property
    def delayed(self) -> bool:
        """Whether delays are drawn at all."""
        return self.max_ms > 0

    @property
    def active(self) -> bool:
        """Whether this link differs from a plain one."""
        return self.max_ms > 0 or self.loss > 0 or self.cut

    @property
    def mean(self) -> float:
        """The mean delay in milliseconds."""
        width_ms = self.max_ms - self.min_ms
        if self.distribution == "uniform":
            return self.min_ms + width_ms / 2
        if self.distribution == "lognormal":
            return self.min_ms + width_ms / 2 * math.exp(LOGNORMAL_SIGMA**2 / 2)
        return self.max_ms

    def quantile(self, p: float) -> float:
        """The delay in milliseconds that a fraction `p` of the draws does not exceed; `p` in [0, 1)."""
        width_ms = self.max_ms - self.min_ms
        if self.distribution == "uniform":
            return self.min_ms + width_ms * p
        if self.distribution == "fixed":
            return self.max_ms
        if self.distribution == "exponential":
            return self.min_ms - width_ms * math.log1p(-p)
        return self.min_ms + width_ms / 2 * math.exp(LOGNORMAL_SIGMA * _NORMAL.inv_cdf(p)) if p > 0 else self.min_ms


class _Dice:
    """The random draws of one link. Delays and losses are drawn apart: a loss leaves the delays as they were."""

    def __init__(self, seed: int | None, peer: str) -> None:
        self.delay = random.Random(None if seed is None else f"{seed}/{peer}/delay")  # noqa: S311 - a simulation
        self.loss = random.Random(None if seed is None else f"{seed}/{peer}/loss")  # noqa: S311 - a simulation


class Network:
    """The conditions of all links of one node. `quiet` is true while every link is a plain one."""

    def __init__(self, shared: Conditions | None = None, *, seed: int | None = None) -> None:
        self.shared = Conditions() if shared is None else shared
        self.seed = seed
        self.quiet = not self.shared.active
        self._own: dict[str, dict[str, object]] = {}
        self._cut: frozenset[str] = frozenset()
        self._of_link: dict[str, Conditions] = {}
        self._dice: dict[str, _Dice] = {}

    def conditions(self, peer: str) -> Conditions:
        """What is in force on the link with `peer`."""
        return self._of_link.get(peer, self.shared)

    def active(self, peer: str) -> bool:
        """Whether the link with `peer` is delayed, lossy or cut."""
        return not self.quiet and self.conditions(peer).active

    def cut(self, peer: str) -> bool:
        """Whether the link with `peer` passes nothing."""
        return peer in self._cut or self.shared.cut

    def draw_delay_ms(self, peer: str) -> float:
        """The delay of the next entry to `peer`, in milliseconds; 0 where none is simulated, without a draw."""
        return self.draw_delays_ms(peer, 1)[0]

    def draw_delays_ms(self, peer: str, count: int) -> list[float]:
        """The delays of the next `count` entries to `peer`; see `draw_delay_ms`."""
        conditions = self.conditions(peer)
        if conditions.max_ms == 0:
            return [0.0] * count
        draw = self._dice_of(peer).delay.random
        if conditions.distribution == "uniform":
            # What `quantile` does, without a call for each draw: the leader draws five for every write.
            low_ms, width_ms = conditions.min_ms, conditions.max_ms - conditions.min_ms
            return [low_ms + width_ms * draw() for _ in range(count)]
        quantile = conditions.quantile
        return [quantile(draw()) for _ in range(count)]

    def lost(self, peer: str) -> bool:
        """Whether the next message to `peer` is lost; drawn only where there is a loss."""
        if self.quiet:
            return False
        loss = self.conditions(peer).loss
        return loss > 0 and self._dice_of(peer).loss.random() < loss

    @property
    def retransmit_ms(self) -> float:
        """How long to wait for an acknowledgement before sending again: above the largest delay of any link."""
        largest_ms = max(c.quantile(LARGEST_DRAW) for c in (self.shared, *self._of_link.values()))
        return max(RETRANSMIT_FLOOR_MS, 1.2 * largest_ms + 200)

    def settings(self) -> dict[str, object]:
        """What is in force, in the shape that `configure` takes."""
        shared = {name: getattr(self.shared, field) for name, field in _SHARED_FIELDS.items()}
        return shared | {"seed": self.seed, "links": dict(self._own), "cut": sorted(self._cut)}

    def configure(self, patch: Mapping[str, object], peers: Collection[str]) -> None:
        """Change what `patch` names, all of it or (with a `ValueError` or `SettingsConflict`) nothing.

        * `min_delay_ms`, `max_delay_ms`, `delay_distribution`, `loss`, `in_order_delivery`: all links that have no
          value of their own
        * `seed`: an integer or `None`; starts the draws of all links anew
        * `links`: per peer an object of `min_ms`, `max_ms`, `distribution`, `loss`, `in_order`, `cut` (its own from now
          on), or `None` to make it like the others
        * `cut`: the peers whose links are cut from now on; the others are healed

        `peers` are the names that may occur. `SettingsConflict` is for values that are each allowed and exclude each
        other or what is in force: a smallest delay above the largest.
        """
        unknown = [name for name in patch if name not in (*_SHARED_FIELDS, "seed", "links", "cut")]
        if unknown:
            raise ValueError(f"The simulated network has no setting {unknown[0]!r}.")
        shared_changes = {
            field: _checked(name, field, patch[name]) for name, field in _SHARED_FIELDS.items() if name in patch
        }
        shared = _replace(self.shared, shared_changes)
        seed = _checked_seed(patch.get("seed", self.seed))
        own, cut = _patched_links(self._own, self._cut, patch.get("links", {}), peers)
        if "cut" in patch:
            cut = frozenset(_checked_peers(patch["cut"], peers))
        of_link = {
            peer: _replace(shared, {**own.get(peer, {}), "cut": peer in cut}, peer) for peer in sorted({*own, *cut})
        }
        self.shared, self.seed, self._own, self._cut, self._of_link = shared, seed, own, cut, of_link
        self.quiet = not any(c.active for c in (shared, *of_link.values()))
        if "seed" in patch:
            self._dice = {}  # not emptied: a copy on which a change is tried shares it

    def _dice_of(self, peer: str) -> _Dice:
        dice = self._dice.get(peer)
        if dice is None:
            dice = self._dice[peer] = _Dice(self.seed, peer)
        return dice


def _replace(conditions: Conditions, changes: Mapping[str, object], peer: str | None = None) -> Conditions:
    """`conditions` with these changes: those of all links, or those of the link with `peer`."""
    wanted = {**msgspec.structs.asdict(conditions), **changes}
    try:
        return Conditions(**wanted)
    except Contradiction:
        low, high = (
            f"{_SHARED_NAMES[field] if peer is None else f'links.{peer}.{field}'}={wanted[field]:.12g}"
            for field in ("min_ms", "max_ms")
        )
        raise SettingsConflict(
            f"{low} would be above {high}, so nothing was changed: send both, the smallest delay not above the largest."
        ) from None


def _checked(name: str, field: str, value: object) -> object:
    if field == "distribution":
        if not isinstance(value, str):
            raise ValueError(f"{name} must be one of {', '.join(DISTRIBUTIONS)}.")
        return value
    if field in ("cut", "in_order"):
        if not isinstance(value, bool):
            raise ValueError(f"{name} must be true or false.")
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} must be a number.")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{name} is too large.") from None


def _checked_seed(value: object) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
        raise ValueError("seed must be an integer, or null for draws that differ from run to run.")
    return value


def _checked_peers(names: object, peers: Collection[str]) -> list[str]:
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise ValueError("cut must be a list of member names.")
    for name in names:
        _check_peer(name, peers)
    return list(names)


def _check_peer(name: str, peers: Collection[str]) -> None:
    if name not in peers:
        raise ValueError(f"There is no link with a member {name!r}: this node has links with {', '.join(peers)}.")


def _patched_links(
    own: Mapping[str, dict[str, object]], cut: frozenset[str], links: object, peers: Collection[str]
) -> tuple[dict[str, dict[str, object]], frozenset[str]]:
    if not isinstance(links, Mapping):
        raise ValueError("links must be an object from member names to conditions.")
    result = dict(own)
    for peer, changes in links.items():
        _check_peer(peer, peers)
        if changes is None:
            result.pop(peer, None)
            cut -= {peer}
            continue
        if not isinstance(changes, Mapping) or any(field not in _LINK_FIELDS for field in changes):
            raise ValueError(f"links.{peer} must be an object with some of {', '.join(_LINK_FIELDS)}, or null.")
        checked = {field: _checked(f"links.{peer}.{field}", field, value) for field, value in changes.items()}
        if "cut" in checked:
            cut = cut | {peer} if checked.pop("cut") else cut - {peer}
        if checked:
            result[peer] = {**result.get(peer, {}), **checked}
    return result, cut
