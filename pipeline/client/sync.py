"""`EddyClient`: asks the server, writes to the input, follows the events; each call blocks."""

from __future__ import annotations

import copy
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Self, TypeVar

from numpy.typing import ArrayLike

from pipeline.client import following, jobs, questions, results
from pipeline.client.jobs import Job
from pipeline.client.live import CHANNELS, Channel, Live, query_of
from pipeline.client.opening import open_topics
from pipeline.client.pages import Pages, pages
from pipeline.client.problems import NoModelError, NotFoundError
from pipeline.client.questions import By, Order, Sort, State, When, Window
from pipeline.client.results import Change, Item, JobState, Put, Scalar
from pipeline.client.topics import Start, Subscription, Wanted
from pipeline.client.transport import Question, Transport
from pipeline.streams.contract import Broker, Place

T = TypeVar("T")


class EddyClient:
    """Eddy from Python. Threads may share one; close it, or use it as a context manager.

    Parameters
    ----------
    url
        Of the server.
    token
        ``eddy_...``, where the server wants one.
    timeout_s
        What every call may take, tries after a failure included.
    kafka
        librdkafka's settings, ``bootstrap.servers`` at least: for `put`, `delete`, `subscribe`.
    broker
        Instead of ``kafka``: one that is open already.
    input_topic, topics_prefix
        As the server's ``topics.input`` and ``topics.prefix``.
    embedding_model
        Named with each vector that is put.
    ca_file
        Certificates that the server's is signed by, if not one that everybody knows.

    Notes
    -----
    All calls raise `pipeline.client.problems.ServerError` for what the server refuses, a class for
    each kind of it, and `pipeline.errors.UnreachableError` if it does not answer.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8080",
        *,
        token: str | None = None,
        timeout_s: float = 30.0,
        kafka: Mapping[str, object] | None = None,
        broker: Broker | None = None,
        input_topic: str = "embedding-changes",
        topics_prefix: str = "eddy.",
        embedding_model: str | None = None,
        ca_file: str | None = None,
    ) -> None:
        self.timeout_s = timeout_s
        self._embedding_model = embedding_model
        self._transport = Transport(url, token=token, ca_file=ca_file)
        self._topics = open_topics(kafka, broker, input_topic, topics_prefix)
        self._at_least: Mapping[str, str] = {}

    def after(self, put: Put) -> EddyClient:
        """The same client, whose answers know the record of ``put``; `ViewBehindError` else."""
        other = copy.copy(self)
        other._at_least = {"min_offset": following.min_offset(Place(put.partition, put.offset))}
        return other

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- clusters -----------------------------------------------------------------------------

    def clusters(
        self,
        *,
        state: State | None = None,
        sort: Sort = "size",
        q: str | None = None,
        limit: int | None = None,
    ) -> Pages[results.Cluster]:
        """The clusters of the newest model; ``q`` searches ids, labels and typical items."""
        return self._pages(results.Cluster, "/clusters", limit, state=state, sort=sort, q=q)

    def cluster(self, cluster: str) -> results.ClusterDetail:
        """One cluster; `ClusterRetiredError` names the successors of one that is no more."""
        return self._ask(questions.cluster(cluster))

    def members(
        self, cluster: str, *, order: Order = "distance", limit: int | None = None
    ) -> Pages[results.Member]:
        """The items of a cluster, the most typical first, or the least, or by id."""
        path = f"{questions.cluster_path(cluster)}/members"
        return self._pages(results.Member, path, limit, order=order)

    def near_clusters(self, cluster: str, *, limit: int = 10) -> Sequence[results.NearCluster]:
        """Clusters by distance of the centroids."""
        return self._ask(questions.near_clusters(cluster, limit))

    def timeline(self, cluster: str, *, since: When = None, until: When = None) -> results.Timeline:
        """A cluster over time: sizes, what happened to it, alarms."""
        return self._ask(questions.timeline(cluster, since, until))

    # --- items ----------------------------------------------------------------------------------

    def item(self, item: str) -> Item:
        """Where an item is, how sure that is, and what happened to it lately."""
        return self._ask(questions.item(item))

    def items(self) -> Pages[results.Placed]:
        """Every item and its cluster, cluster by cluster.

        It is no picture of one moment: an item that moves meanwhile may come twice or not at all.
        """

        def begin() -> Iterator[results.Placed]:
            for found in self.clusters(state="live"):
                for member in self.members(found.cluster, order="item_id"):
                    yield results.Placed(member.item, found.cluster, found.label, member.distance)

        return Pages(begin)

    def related(
        self, item: str, *, limit: int = 10, min_similarity: float | None = None
    ) -> Sequence[results.NearItem]:
        """The nearest members of the item's own cluster."""
        return self._ask(questions.related(item, limit, min_similarity))

    def similar(
        self, given: str | ArrayLike, *, limit: int = 10, min_similarity: float | None = None
    ) -> Sequence[results.NearItem]:
        """The nearest of all items, to an item (its id) or to a vector."""
        return self._ask(questions.similar(given, limit, min_similarity))

    def assign(self, vector: ArrayLike) -> results.Assigned:
        """The cluster that a vector would belong to; nothing is stored."""
        return self._ask(questions.assign(vector))

    # --- what happens ---------------------------------------------------------------------------

    def trending(
        self, *, window: Window = "1h", by: By = "rate", limit: int = 20
    ) -> Sequence[results.Trend]:
        """Clusters by what a window did to them, the strongest first."""
        return self._ask(questions.trending(window, by, limit))

    def flows(self, *, window: Window = "1h") -> Sequence[results.Flow]:
        """From which to which clusters items went."""
        return self._ask(questions.flows(window))

    def frames(
        self, *, since: When = None, until: When = None, step_s: int = 10
    ) -> Sequence[results.Frame]:
        """The map of the last six hours, the oldest first; longer steps for much of it."""
        return self._ask(questions.frames(since, until, step_s))

    def changes(
        self,
        *,
        item: str | None = None,
        cluster: str | None = None,
        since: When = None,
        limit: int | None = None,
    ) -> Pages[Change]:
        """Change events that the server keeps, the newest first."""
        since = questions.moment(since)
        return self._pages(Change, "/changes", limit, item=item, cluster=cluster, since=since)

    def lifecycle(
        self,
        *,
        type: str | None = None,
        cluster: str | None = None,
        since: When = None,
        limit: int | None = None,
    ) -> Pages[results.LifecycleEvent]:
        """What happened to clusters and the model, the newest first."""
        return self._pages(
            results.LifecycleEvent, "/lifecycle", limit,
            type=type, cluster=cluster, since=questions.moment(since),
        )  # fmt: skip

    def drift(self) -> results.DriftBoard:
        """The last word on every signal of drift."""
        return self._ask(questions.drift())

    def alarms(
        self, *, state: str | None = None, cluster: str | None = None, limit: int | None = None
    ) -> Pages[results.Signal]:
        """Alarms, the newest first."""
        path = "/drift/alarms"
        return self._pages(results.Signal, path, limit, state=state, cluster=cluster)

    def stats(self) -> results.Stats:
        """Totals, rates, lag and delay."""
        return self._ask(questions.stats())

    def model(self) -> results.Model:
        """The newest model."""
        return self._ask(questions.model())

    def models(self) -> Sequence[results.ModelSummary]:
        """Those that can be gone back to, the newest first."""
        return self._ask(questions.models())

    # --- commands -------------------------------------------------------------------------------

    def recluster(
        self,
        *,
        cold: bool = False,
        force: bool = False,
        reason: str | None = None,
        key: str | None = None,
    ) -> Job:
        """Ask for a new model.

        Of every command: ``key`` makes it one command however often it is given.
        """
        return self._command("/recluster", key, cold=cold, force=force, reason=reason)

    def rollback(self, epoch: int, *, reason: str | None = None, key: str | None = None) -> Job:
        """Ask for an epoch's model again."""
        return self._command("/model/rollback", key, epoch=epoch, reason=reason)

    def split(self, cluster: str, *, reason: str | None = None, key: str | None = None) -> Job:
        """Ask for a cluster to become two."""
        return self._command(f"{questions.cluster_path(cluster)}/split", key, reason=reason)

    def merge(
        self, clusters: Sequence[str], *, reason: str | None = None, key: str | None = None
    ) -> Job:
        """Ask for clusters to become one."""
        return self._command("/clusters/merge", key, clusters=list(clusters), reason=reason)

    def label(
        self, cluster: str, label: str, *, reason: str | None = None, key: str | None = None
    ) -> Job:
        """Ask for a cluster to be called something."""
        path = f"{questions.cluster_path(cluster)}/label"
        return self._command(path, key, method="PUT", label=label, reason=reason)

    def job(self, job_id: str, *, wait_s: float = 0.0) -> Job:
        """A command, whoever gave it; ``wait_s``: at most so many seconds for its end."""
        state = self._look(job_id, jobs.wait_s(wait_s) if wait_s > 0.0 else 0)
        return Job(state, self._look, self.timeout_s)

    def jobs(self, *, limit: int | None = None) -> Pages[JobState]:
        """Commands, the newest first."""
        return self._pages(JobState, "/jobs", limit)

    # --- through Kafka --------------------------------------------------------------------------

    def put(
        self,
        item: str,
        vector: ArrayLike,
        metadata: Mapping[str, Scalar] | None = None,
        *,
        sequence: int = 0,
        wait: bool = True,
    ) -> Put:
        """Write an item to the input, and see what exactly that record did.

        Parameters
        ----------
        sequence
            Its version: a record that is not above the item's last one is ignored; 0 is none.
        wait
            Until the server shows it; else the record is only acknowledged.

        Raises
        ------
        RecordError
            It would be a dead letter; nothing was written.
        NotAppliedError
            It was written, and did nothing.
        ViewBehindError
            It was written, and does not show within the client's limit.
        TransientError
            Not acknowledged in time; it may still be written.
        """
        record = self._topics.upsert(
            item, vector, model=self._known_model(), metadata=metadata, sequence=sequence,
            embedding_model=self._embedding_model,
        )  # fmt: skip
        place = self._topics.write(record, self.timeout_s)
        if not wait:
            return Put(item, *place)
        return self._shown(item, place, removes=False)

    def delete(self, item: str, *, wait: bool = True) -> Put:
        """Remove an item, and see what exactly that did; errors as those of `put`."""
        place = self._topics.write(self._topics.tombstone(item), self.timeout_s)
        return self._shown(item, place, removes=True) if wait else Put(item, *place)

    def subscribe(
        self,
        *,
        start: Start = "latest",
        items: Collection[str] | None = None,
        clusters: Collection[str] | None = None,
        types: Collection[str] | None = None,
        idle_s: float | None = None,
    ) -> Subscription:
        """Change events as they are committed, from the topic itself; resume by `positions`.

        Parameters
        ----------
        start
            ``"latest"``, ``"earliest"``, or the `positions` of a former subscription.
        items, clusters, types
            Only events of these; None: of all.
        idle_s
            End after so many seconds without an event; None: never.
        """
        return self._topics.subscribe(start, Wanted.of(items, clusters, types), idle_s)

    def live(
        self,
        *,
        channels: Sequence[Channel] = CHANNELS,
        items: Collection[str] | None = None,
        clusters: Collection[str] | None = None,
        types: Collection[str] | None = None,
        resume: str | None = None,
        idle_s: float | None = None,
    ) -> Live:
        """What happens from now on, as the server tells it; see `Live`, which needs no Kafka."""
        query = query_of(channels, items=items, clusters=clusters, types=types)
        return Live(self._transport, query, resume, idle_s)

    # --- how ------------------------------------------------------------------------------------

    def _ask(self, question: Question[T]) -> T:
        return self._transport.ask(self._knowing(question), self.timeout_s)

    def _knowing(self, question: Question[T]) -> Question[T]:
        if not self._at_least:
            return question
        return replace(question, query={**question.query, **self._at_least})

    def _pages(self, shape: type[T], path: str, limit: int | None, **query: object) -> Pages[T]:
        def ask(cursor: str | None, size: int) -> Question[questions.Page[T]]:
            return questions.page_of(shape, path, cursor, size, **query)

        return pages(self._ask, ask, limit)

    def _command(self, path: str, key: str | None, *, method: str = "POST", **body: Any) -> Job:
        state = self._ask(questions.command(path, body, key, method=method))
        return Job(state, self._look, self.timeout_s)

    def _look(self, job_id: str, wait_s: int) -> JobState:
        return self._transport.ask(questions.job(job_id, wait_s), self.timeout_s + wait_s)

    def _known_model(self) -> results.Model | None:
        try:
            return self._transport.ask(replace(questions.model(), again=False), self.timeout_s)
        except NoModelError:
            return None

    def _placed(self, item: str, place: Place) -> Item | None:
        """Where the item is once the record shows."""
        asked = questions.item(item)
        query = {"min_offset": following.min_offset(place)}
        try:
            return self._transport.ask(replace(asked, query=query), self.timeout_s)
        except NotFoundError:
            return None

    def _shown(self, item: str, place: Place, *, removes: bool) -> Put:
        deadline: float | None = None
        while True:
            found = self._placed(item, place)
            if found is None:
                changes: Sequence[Change] = list(self.changes(item=item, limit=following.N_CHANGES))
            else:
                changes = found.changes
            now = time.monotonic()
            deadline = now + following.SETTLING_S if deadline is None else deadline
            if following.is_settled(place, found, changes, removes=removes) or now > deadline:
                return following.put_of(item, place, found, changes, removes=removes)
            time.sleep(following.PAUSE_S)
