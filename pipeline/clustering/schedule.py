"""When a full reclustering is due, and why. The caller brings the clock."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from croniter import CroniterError, croniter

from pipeline.errors import ConfigError

MAX_SAMPLE_ITEMS = 2**23 - 1  # what one accumulator of statistics can hold
MAX_DOUBLINGS = 16


class Trigger(StrEnum):
    """Why a fit is due: a metric's label and a field of the manifest."""

    FIRST = "first"
    UPDATES = "updates"
    AGE = "age"
    DRIFT = "drift"
    SCHEDULE = "schedule"
    QUALITY = "quality"
    COMMAND = "command"
    EMBEDDING = "embedding"


@dataclass(frozen=True, slots=True)
class ReclusterPolicy:
    """The first bound that is reached makes a fit due, but never before ``min_interval_s``."""

    bootstrap_items: int = 5000
    """The first model is fitted once so many items are there,"""
    bootstrap_max_wait_s: float = 60.0
    """or so long after the first of them."""
    max_iterations: int = 300
    """Passes over the sample that one fit takes at most."""
    max_updates: int = 10_000
    """Records of the input since the last fit."""
    max_age_s: float = 3600.0
    """Seconds since the last attempt, whether it was published or not."""
    schedule: str | None = None
    """A cron expression, in UTC."""
    on_drift: bool = True
    """Whether a drift alarm asks for a fit."""
    max_inertia_growth: float | None = 0.1
    """How far the inertia per item may grow above that of the fit; null: however far."""
    min_interval_s: float = 60.0
    """Between two attempts; a command does not wait for it."""
    sample_items: int = 1_000_000
    """Items that a fit looks at; all of them while they fit."""
    min_gain: float = 0.005
    """The share of the inertia that a new model must save to be worth the moves."""
    keep_epochs: int = 10
    """Models that stay in the topic, to go back to."""

    def __post_init__(self) -> None:
        for name in ("bootstrap_items", "max_iterations", "max_updates", "keep_epochs"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"recluster.{name} is {getattr(self, name)}, but must be at least 1"
                )
        for name in ("bootstrap_max_wait_s", "min_interval_s"):
            if not 0.0 <= getattr(self, name) < float("inf"):
                raise ConfigError(
                    f"recluster.{name} is {getattr(self, name)}, but must be finite and not below 0"
                )
        if self.max_inertia_growth is not None and not 0.0 < self.max_inertia_growth < float("inf"):
            raise ConfigError(
                f"recluster.max_inertia_growth is {self.max_inertia_growth}, but must be null, or "
                "finite and above 0"
            )
        if not self.max_age_s > 0.0:
            raise ConfigError(f"recluster.max_age_s is {self.max_age_s}, but must be above 0")
        if not 1 <= self.sample_items <= MAX_SAMPLE_ITEMS:
            raise ConfigError(
                f"recluster.sample_items is {self.sample_items}, but must be in "
                f"1..{MAX_SAMPLE_ITEMS}"
            )
        if not 0.0 <= self.min_gain < 1.0:
            raise ConfigError(
                f"recluster.min_gain is {self.min_gain}, but must be at least 0 and below 1"
            )
        if self.schedule is not None:
            try:
                next_instant(self.schedule, after_s=0.0)
            except CroniterError as error:
                raise ConfigError(
                    f"recluster.schedule is {self.schedule!r}, but must be a cron expression that "
                    f"comes true, like '0 3 * * *': {error}"
                ) from error


@dataclass(frozen=True, slots=True)
class Standing:
    """How the model that stands is doing."""

    n_updates: int
    """Records of the input since its fit. What a model itself reassigns is none."""
    is_drifting: bool = False
    """Whether an alarm stands."""
    inertia_growth: float = 0.0
    """Of the inertia per item, as a share of that at the fit."""


@dataclass(slots=True)
class ReclusterSchedule:
    """Remembers the last attempt; all times are seconds since 1970.

    No trigger feeds itself. What an attempt has seen and could not change does not ask for the
    next one: updates and growth count from there, and while candidates are rejected, or an alarm
    outlives its attempts, the pause doubles.
    """

    policy: ReclusterPolicy
    last_attempt_s: float
    """Before there was any: when the waiting began."""
    n_rejected: int = 0
    """Attempts in a row that ended without a new model."""
    n_updates_tried: int = 0
    """Updates since the fit that the last rejected attempt has already seen."""
    growth_tried: float = 0.0
    """Growth of the inertia that it has seen."""
    n_drifting: int = 0
    """Attempts in a row during which the same alarm stood."""
    _is_told: bool = False
    """Whether there was any attempt."""
    _next_instant_s: float | None = None
    """Of the cron expression, after the last attempt; None: not computed yet."""

    def fitted(self, now_s: float) -> None:
        """A model was published: ages and updates count from here."""
        self.attempted(now_s, published=True)

    def attempted(self, now_s: float, *, published: bool, standing: Standing | None = None) -> None:
        """An attempt ended at ``now_s``; ``standing`` is what it saw when it began.

        Attempts may be told again when a process starts: the latest counts.
        """
        seen = Standing(n_updates=0) if standing is None else standing
        if published:
            self.n_rejected, self.n_updates_tried, self.growth_tried = 0, 0, 0.0
        else:
            self.n_rejected += 1
            self.n_updates_tried = seen.n_updates
            self.growth_tried = max(0.0, seen.inertia_growth)
        self.n_drifting = self.n_drifting + 1 if seen.is_drifting else 0
        self.last_attempt_s = max(self.last_attempt_s if self._is_told else now_s, now_s)
        self._is_told = True
        self._next_instant_s = None

    def bootstrap_due(self, *, n_items: int, waited_s: float | None) -> Trigger | None:
        """Whether the first model is due; ``waited_s``: since the first item came."""
        if not n_items or waited_s is None:
            return None
        is_due = n_items >= self.policy.bootstrap_items
        return Trigger.FIRST if is_due or waited_s >= self.policy.bootstrap_max_wait_s else None

    def due(self, now_s: float, standing: Standing) -> Trigger | None:
        """Why a fit is due, or None; asked all the time, for it also sees alarms end."""
        if not standing.is_drifting:
            self.n_drifting = 0
        age_s = self._age_s(now_s)
        if age_s < self.policy.min_interval_s:
            return None
        trigger = self._due_by_standing(age_s, standing)
        if trigger is None and self.policy.schedule is not None:
            if self._next_instant_s is None:
                self._next_instant_s = next_instant(
                    self.policy.schedule, after_s=self.last_attempt_s
                )
            if now_s >= self._next_instant_s:
                trigger = Trigger.SCHEDULE
        if trigger is None and age_s >= self.policy.max_age_s:
            trigger = Trigger.AGE
        return trigger

    def rests(self, now_s: float) -> bool:
        """Whether an attempt was rejected just now, so that the next one waits."""
        return self.n_rejected > 0 and self._age_s(now_s) < self.pause_s

    def _age_s(self, now_s: float) -> float:
        """Since the last attempt.

        One that lies ahead was told by a clock that was set back since. It counts as of this
        moment, or nothing would be due until the clock has come there again.
        """
        if now_s < self.last_attempt_s:
            self.last_attempt_s, self._next_instant_s = now_s, None
        return now_s - self.last_attempt_s

    def _due_by_standing(self, age_s: float, standing: Standing) -> Trigger | None:
        """What waits for the pause: it was there before, and may have been in vain."""
        if age_s < self.pause_s:
            return None
        if standing.n_updates - self.n_updates_tried >= self.policy.max_updates:
            return Trigger.UPDATES
        is_alarmed = self.policy.on_drift and standing.is_drifting
        if is_alarmed and age_s >= self._pause_s(max(self.n_rejected, self.n_drifting)):
            return Trigger.DRIFT
        limit = self.policy.max_inertia_growth
        if limit is not None and standing.inertia_growth - self.growth_tried >= limit:
            return Trigger.QUALITY
        return None

    @property
    def pause_s(self) -> float:
        """How long updates, drift and quality wait: doubled by each rejection, at most the age.

        What moved the items once may go on moving them, and each time for nothing.
        """
        return self._pause_s(self.n_rejected)

    def _pause_s(self, n_in_vain: int) -> float:
        doubled = self.policy.min_interval_s * 2.0 ** min(n_in_vain, MAX_DOUBLINGS)
        return max(self.policy.min_interval_s, min(doubled, self.policy.max_age_s))


def next_instant(expression: str, *, after_s: float) -> float:
    """The first time after ``after_s`` at which a cron expression comes true; UTC.

    Raises
    ------
    CroniterError
        It is none, or never comes true.
    """
    start = datetime.fromtimestamp(after_s, UTC)
    return float(croniter(expression, start).get_next(float))
