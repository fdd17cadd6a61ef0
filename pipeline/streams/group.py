"""A consumer group, as the memory twin keeps it: members, generations, committed offsets."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipeline.streams.transactions import Transaction


@dataclass(eq=False, slots=True)
class Member:
    """What a member of a group believes, which may be out of date."""

    instance_id: str | None
    generation: int = -1
    owned: set[int] = field(default_factory=set)
    """Nobody else may have these."""
    told: set[int] = field(default_factory=set)
    """Those of the owned ones that its process has been told of."""
    is_fenced: bool = False


@dataclass(eq=False, slots=True)
class Group:
    """A consumer group on one topic, with cooperative sticky rebalances.

    A rebalance is decided at once, but each member learns of it when it polls next; until then
    its generation is stale. A partition moves only after its owner has given it up, which takes
    a second generation, as in the cooperative protocol.
    """

    n_partitions: int
    generation: int = 0
    targets: dict[Member, set[int]] = field(default_factory=dict)
    """Members in the order in which they joined, with what each shall own."""
    offsets: dict[int, int] = field(default_factory=dict)
    pending: dict[Transaction, dict[int, int]] = field(default_factory=dict)

    def join(self, member: Member) -> None:
        for other in self.targets:
            if other.instance_id is not None and other.instance_id == member.instance_id:
                self._replace(other, member)
                return
        self.targets[member] = set()
        self._rebalance()

    def leave(self, member: Member) -> None:
        del self.targets[member]
        member.generation = -1
        self._rebalance()

    def sync(self, member: Member) -> frozenset[int]:
        """Let a member take part in what was decided; what it has to give up.

        One that gives something up stays stale until it comes again: only then has the second
        rebalance, which hands its partitions on, ended for it.
        """
        surplus = member.owned - self.targets[member]
        if surplus:
            revoked = frozenset(surplus & member.told)
            member.owned -= surplus
            member.told -= surplus
            self.generation += 1
            return revoked
        member.generation = self.generation
        taken = {p for other in self.targets if other is not member for p in other.owned}
        member.owned |= self.targets[member] - taken
        return frozenset()

    def hand_over(self, member: Member) -> dict[int, int | None]:
        """Tell a member what is new to it, except where offsets are pending (barrier 1)."""
        ready = sorted(p for p in member.owned - member.told if not self.is_pending(p))
        member.told.update(ready)
        return {p: self.offsets.get(p) for p in ready}

    def is_pending(self, partition: int) -> bool:
        return any(partition in offsets for offsets in self.pending.values())

    def refusal(self, member: Member) -> str | None:
        """The broker's word for why this member's offsets are refused."""
        if member.is_fenced:
            return "FENCED_INSTANCE_ID"
        if member not in self.targets:
            return "UNKNOWN_MEMBER_ID"
        return None if member.generation == self.generation else "ILLEGAL_GENERATION"

    def end(self, transaction: Transaction, *, commits: bool) -> None:
        offsets = self.pending.pop(transaction)
        if commits:
            self.offsets.update(offsets)

    def _replace(self, old: Member, new: Member) -> None:
        """The same instance came back in time: its partitions are its own, nobody else stirs."""
        old.is_fenced = True
        self.targets = {new if m is old else m: target for m, target in self.targets.items()}
        new.owned = old.owned & self.targets[new]

    def _rebalance(self) -> None:
        """Even shares; each keeps what it has as far as that goes."""
        self.generation += 1
        if not self.targets:
            return
        share, n_larger = divmod(self.n_partitions, len(self.targets))
        by_size = sorted(self.targets, key=lambda member: -len(self.targets[member]))
        sizes = {member: share + (i < n_larger) for i, member in enumerate(by_size)}
        for member, target in self.targets.items():
            self.targets[member] = set(sorted(target)[: sizes[member]])
        kept = {p for target in self.targets.values() for p in target}
        free = (p for p in range(self.n_partitions) if p not in kept)
        for member, target in self.targets.items():
            target.update(p for _, p in zip(range(sizes[member] - len(target)), free, strict=False))
