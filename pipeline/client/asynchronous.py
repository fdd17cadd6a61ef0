"""`AsyncEddyClient`: what :mod:`pipeline.client.sync` does, for an event loop."""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Self, TypeVar

from numpy.typing import ArrayLike

from pipeline.client import following, jobs, questions, results
from pipeline.client.jobs import AsyncJob
from pipeline.client.live import CHANNELS, AsyncLive, Channel, query_of
from pipeline.client.opening import open_topics
from pipeline.client.pages import AsyncPages, async_pages
from pipeline.client.problems import NoModelError, NotFoundError
from pipeline.client.questions import By, Order, Sort, State, When, Window
from pipeline.client.results import Change, Item, JobState, Put, Scalar
from pipeline.client.topics import AsyncSubscription, Start, Wanted
from pipeline.client.transport import AsyncTransport, Question
from pipeline.streams.contract import Broker, Place

T = TypeVar("T")


class AsyncEddyClient:
    """Eddy from Python, awaited; parameters, methods and errors as `EddyClient` has them."""

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
        self._transport = AsyncTransport(url, token=token, ca_file=ca_file)
        self._topics = open_topics(kafka, broker, input_topic, topics_prefix)
        self._at_least: Mapping[str, str] = {}

    def after(self, put: Put) -> AsyncEddyClient:
        """See `EddyClient.after`."""
        other = copy.copy(self)
        other._at_least = {"min_offset": following.min_offset(Place(put.partition, put.offset))}
        return other

    async def close(self) -> None:
        """See `EddyClient.close`."""
        await self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    # --- clusters -----------------------------------------------------------------------------

    def clusters(
        self,
        *,
        state: State | None = None,
        sort: Sort = "size",
        q: str | None = None,
        limit: int | None = None,
    ) -> AsyncPages[results.Cluster]:
        """See `EddyClient.clusters`."""
        return self._pages(results.Cluster, "/clusters", limit, state=state, sort=sort, q=q)

    async def cluster(self, cluster: str) -> results.ClusterDetail:
        """See `EddyClient.cluster`."""
        return await self._ask(questions.cluster(cluster))

    def members(
        self, cluster: str, *, order: Order = "distance", limit: int | None = None
    ) -> AsyncPages[results.Member]:
        """See `EddyClient.members`."""
        path = f"{questions.cluster_path(cluster)}/members"
        return self._pages(results.Member, path, limit, order=order)

    async def near_clusters(
        self, cluster: str, *, limit: int = 10
    ) -> Sequence[results.NearCluster]:
        """See `EddyClient.near_clusters`."""
        return await self._ask(questions.near_clusters(cluster, limit))

    async def timeline(
        self, cluster: str, *, since: When = None, until: When = None
    ) -> results.Timeline:
        """See `EddyClient.timeline`."""
        return await self._ask(questions.timeline(cluster, since, until))

    # --- items ----------------------------------------------------------------------------------

    async def item(self, item: str) -> Item:
        """See `EddyClient.item`."""
        return await self._ask(questions.item(item))

    def items(self) -> AsyncPages[results.Placed]:
        """See `EddyClient.items`."""

        async def begin() -> AsyncIterator[results.Placed]:
            async for found in self.clusters(state="live"):
                async for member in self.members(found.cluster, order="item_id"):
                    yield results.Placed(member.item, found.cluster, found.label, member.distance)

        return AsyncPages(begin)

    async def related(
        self, item: str, *, limit: int = 10, min_similarity: float | None = None
    ) -> Sequence[results.NearItem]:
        """See `EddyClient.related`."""
        return await self._ask(questions.related(item, limit, min_similarity))

    async def similar(
        self, given: str | ArrayLike, *, limit: int = 10, min_similarity: float | None = None
    ) -> Sequence[results.NearItem]:
        """See `EddyClient.similar`."""
        return await self._ask(questions.similar(given, limit, min_similarity))

    async def assign(self, vector: ArrayLike) -> results.Assigned:
        """See `EddyClient.assign`."""
        return await self._ask(questions.assign(vector))

    # --- what happens ---------------------------------------------------------------------------

    async def trending(
        self, *, window: Window = "1h", by: By = "rate", limit: int = 20
    ) -> Sequence[results.Trend]:
        """See `EddyClient.trending`."""
        return await self._ask(questions.trending(window, by, limit))

    async def flows(self, *, window: Window = "1h") -> Sequence[results.Flow]:
        """See `EddyClient.flows`."""
        return await self._ask(questions.flows(window))

    async def frames(
        self, *, since: When = None, until: When = None, step_s: int = 10
    ) -> Sequence[results.Frame]:
        """See `EddyClient.frames`."""
        return await self._ask(questions.frames(since, until, step_s))

    def changes(
        self,
        *,
        item: str | None = None,
        cluster: str | None = None,
        since: When = None,
        limit: int | None = None,
    ) -> AsyncPages[Change]:
        """See `EddyClient.changes`."""
        since = questions.moment(since)
        return self._pages(Change, "/changes", limit, item=item, cluster=cluster, since=since)

    def lifecycle(
        self,
        *,
        type: str | None = None,
        cluster: str | None = None,
        since: When = None,
        limit: int | None = None,
    ) -> AsyncPages[results.LifecycleEvent]:
        """See `EddyClient.lifecycle`."""
        return self._pages(
            results.LifecycleEvent, "/lifecycle", limit,
            type=type, cluster=cluster, since=questions.moment(since),
        )  # fmt: skip

    async def drift(self) -> results.DriftBoard:
        """See `EddyClient.drift`."""
        return await self._ask(questions.drift())

    def alarms(
        self, *, state: str | None = None, cluster: str | None = None, limit: int | None = None
    ) -> AsyncPages[results.Signal]:
        """See `EddyClient.alarms`."""
        path = "/drift/alarms"
        return self._pages(results.Signal, path, limit, state=state, cluster=cluster)

    async def stats(self) -> results.Stats:
        """See `EddyClient.stats`."""
        return await self._ask(questions.stats())

    async def model(self) -> results.Model:
        """See `EddyClient.model`."""
        return await self._ask(questions.model())

    async def models(self) -> Sequence[results.ModelSummary]:
        """See `EddyClient.models`."""
        return await self._ask(questions.models())

    # --- commands -------------------------------------------------------------------------------

    async def recluster(
        self,
        *,
        cold: bool = False,
        force: bool = False,
        reason: str | None = None,
        key: str | None = None,
    ) -> AsyncJob:
        """See `EddyClient.recluster`."""
        return await self._command("/recluster", key, cold=cold, force=force, reason=reason)

    async def rollback(
        self, epoch: int, *, reason: str | None = None, key: str | None = None
    ) -> AsyncJob:
        """See `EddyClient.rollback`."""
        return await self._command("/model/rollback", key, epoch=epoch, reason=reason)

    async def split(
        self, cluster: str, *, reason: str | None = None, key: str | None = None
    ) -> AsyncJob:
        """See `EddyClient.split`."""
        return await self._command(f"{questions.cluster_path(cluster)}/split", key, reason=reason)

    async def merge(
        self, clusters: Sequence[str], *, reason: str | None = None, key: str | None = None
    ) -> AsyncJob:
        """See `EddyClient.merge`."""
        return await self._command("/clusters/merge", key, clusters=list(clusters), reason=reason)

    async def label(
        self, cluster: str, label: str, *, reason: str | None = None, key: str | None = None
    ) -> AsyncJob:
        """See `EddyClient.label`."""
        path = f"{questions.cluster_path(cluster)}/label"
        return await self._command(path, key, method="PUT", label=label, reason=reason)

    async def job(self, job_id: str, *, wait_s: float = 0.0) -> AsyncJob:
        """See `EddyClient.job`."""
        state = await self._look(job_id, jobs.wait_s(wait_s) if wait_s > 0.0 else 0)
        return AsyncJob(state, self._look, self.timeout_s)

    def jobs(self, *, limit: int | None = None) -> AsyncPages[JobState]:
        """See `EddyClient.jobs`."""
        return self._pages(JobState, "/jobs", limit)

    # --- through Kafka --------------------------------------------------------------------------

    async def put(
        self,
        item: str,
        vector: ArrayLike,
        metadata: Mapping[str, Scalar] | None = None,
        *,
        sequence: int = 0,
        wait: bool = True,
    ) -> Put:
        """See `EddyClient.put`."""
        record = self._topics.upsert(
            item, vector, model=await self._known_model(), metadata=metadata, sequence=sequence,
            embedding_model=self._embedding_model,
        )  # fmt: skip
        place = await asyncio.to_thread(self._topics.write, record, self.timeout_s)
        if not wait:
            return Put(item, *place)
        return await self._shown(item, place, removes=False)

    async def delete(self, item: str, *, wait: bool = True) -> Put:
        """See `EddyClient.delete`."""
        record = self._topics.tombstone(item)
        place = await asyncio.to_thread(self._topics.write, record, self.timeout_s)
        if not wait:
            return Put(item, *place)
        return await self._shown(item, place, removes=True)

    async def subscribe(
        self,
        *,
        start: Start = "latest",
        items: Collection[str] | None = None,
        clusters: Collection[str] | None = None,
        types: Collection[str] | None = None,
        idle_s: float | None = None,
    ) -> AsyncSubscription:
        """See `EddyClient.subscribe`."""
        wanted = Wanted.of(items, clusters, types)
        found = await asyncio.to_thread(self._topics.subscribe, start, wanted, idle_s)
        return AsyncSubscription(found)

    async def live(
        self,
        *,
        channels: Sequence[Channel] = CHANNELS,
        items: Collection[str] | None = None,
        clusters: Collection[str] | None = None,
        types: Collection[str] | None = None,
        resume: str | None = None,
        idle_s: float | None = None,
    ) -> AsyncLive:
        """See `EddyClient.live`."""
        query = query_of(channels, items=items, clusters=clusters, types=types)
        return await AsyncLive(self._transport, query, resume, idle_s).begin()

    # --- how ------------------------------------------------------------------------------------

    async def _ask(self, question: Question[T]) -> T:
        return await self._transport.ask(self._knowing(question), self.timeout_s)

    def _knowing(self, question: Question[T]) -> Question[T]:
        if not self._at_least:
            return question
        return replace(question, query={**question.query, **self._at_least})

    def _pages(
        self, shape: type[T], path: str, limit: int | None, **query: object
    ) -> AsyncPages[T]:
        def ask(cursor: str | None, size: int) -> Question[questions.Page[T]]:
            return questions.page_of(shape, path, cursor, size, **query)

        return async_pages(self._ask, ask, limit)

    async def _command(
        self, path: str, key: str | None, *, method: str = "POST", **body: Any
    ) -> AsyncJob:
        state = await self._ask(questions.command(path, body, key, method=method))
        return AsyncJob(state, self._look, self.timeout_s)

    async def _look(self, job_id: str, wait_s: int) -> JobState:
        return await self._transport.ask(questions.job(job_id, wait_s), self.timeout_s + wait_s)

    async def _known_model(self) -> results.Model | None:
        try:
            return await self._transport.ask(
                replace(questions.model(), again=False), self.timeout_s
            )
        except NoModelError:
            return None

    async def _placed(self, item: str, place: Place) -> Item | None:
        asked = questions.item(item)
        query = {"min_offset": following.min_offset(place)}
        try:
            return await self._transport.ask(replace(asked, query=query), self.timeout_s)
        except NotFoundError:
            return None

    async def _shown(self, item: str, place: Place, *, removes: bool) -> Put:
        deadline: float | None = None
        while True:
            found = await self._placed(item, place)
            if found is None:
                changes: Sequence[Change] = await self.changes(
                    item=item, limit=following.N_CHANGES
                ).to_list()
            else:
                changes = found.changes
            now = time.monotonic()
            deadline = now + following.SETTLING_S if deadline is None else deadline
            if following.is_settled(place, found, changes, removes=removes) or now > deadline:
                return following.put_of(item, place, found, changes, removes=removes)
            await asyncio.sleep(following.PAUSE_S)
