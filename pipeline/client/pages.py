"""Lists that come in pages: the next one is asked for when the last one is used up.

A page goes on where the one before ended, whatever came and went in between. A new epoch of the
model ends that: `InvalidCursorError`, and the list has to be begun anew.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, Generic, TypeVar

from pipeline.client.questions import MAX_PAGE, Page
from pipeline.client.tables import to_arrow, to_pandas
from pipeline.client.transport import Question
from pipeline.errors import UsageError

T = TypeVar("T")
Ask = Callable[[str | None, int], Question[Page[T]]]
"""Cursor and size of a page -> the question for it."""


class Pages(Generic[T]):
    """An iterable of results; each iteration asks anew."""

    def __init__(self, begin: Callable[[], Iterator[T]]) -> None:
        self._begin = begin

    def __iter__(self) -> Iterator[T]:
        return self._begin()

    def to_arrow(self) -> Any:
        """All of them as a ``pyarrow.Table``."""
        return to_arrow(self)

    def to_pandas(self) -> Any:
        """All of them as a ``pandas.DataFrame``."""
        return to_pandas(self)


class AsyncPages(Generic[T]):
    """The same for ``async for``."""

    def __init__(self, begin: Callable[[], AsyncIterator[T]]) -> None:
        self._begin = begin

    def __aiter__(self) -> AsyncIterator[T]:
        return self._begin()

    async def to_list(self) -> list[T]:
        """All of them."""
        return [one async for one in self]

    async def to_arrow(self) -> Any:
        """All of them as a ``pyarrow.Table``."""
        return to_arrow(await self.to_list())

    async def to_pandas(self) -> Any:
        """All of them as a ``pandas.DataFrame``."""
        return to_pandas(await self.to_list())


def pages(
    answer: Callable[[Question[Page[T]]], Page[T]], ask: Ask[T], limit: int | None
) -> Pages[T]:
    """All results of a question, or the first ``limit``."""
    _check(limit)

    def begin() -> Iterator[T]:
        left, cursor = limit, None
        while left is None or left > 0:
            page = answer(ask(cursor, _size(left)))
            yield from page.items
            left, cursor = None if left is None else left - len(page.items), page.next_cursor
            if cursor is None:
                return

    return Pages(begin)


def async_pages(
    answer: Callable[[Question[Page[T]]], Awaitable[Page[T]]], ask: Ask[T], limit: int | None
) -> AsyncPages[T]:
    """See `pages`."""
    _check(limit)

    async def begin() -> AsyncIterator[T]:
        left, cursor = limit, None
        while left is None or left > 0:
            page = await answer(ask(cursor, _size(left)))
            for one in page.items:
                yield one
            left, cursor = None if left is None else left - len(page.items), page.next_cursor
            if cursor is None:
                return

    return AsyncPages(begin)


def _check(limit: int | None) -> None:
    if limit is not None and limit < 0:
        raise UsageError(f"limit is {limit}, but must not be negative")


def _size(left: int | None) -> int:
    return MAX_PAGE if left is None else min(left, MAX_PAGE)
