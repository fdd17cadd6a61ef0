"""Keep vector embeddings clustered while they change.

Two wings meet in :mod:`pipeline.engine`::

    arithmetic   kernels -> clustering -> state
    transport    messages -> batching, streams

:mod:`pipeline.services` turns the engine into processes; nothing below it
reads a clock, opens a socket or writes a log line, but for :mod:`pipeline.streams`,
which is the edge to the broker.
"""
