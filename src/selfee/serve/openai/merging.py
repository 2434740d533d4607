"""Several streams of one answer as one, in the order in which their pieces come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

from selfee.chain.types import TextDelta
from selfee.serve.engine.jobs import Outcome

T = TypeVar("T")


async def merged(streams: Sequence[AsyncGenerator[T, None]]) -> AsyncGenerator[T, None]:
    """What all of them yield; the first error ends them all, and closing closes them all."""
    if len(streams) == 1:
        async with aclosing(streams[0]) as stream:
            async for item in stream:
                yield item
        return
    came = asyncio.Queue[tuple[T] | BaseException | None]()

    async def follow(stream: AsyncGenerator[T, None]) -> None:
        try:
            async with aclosing(stream):
                async for item in stream:
                    came.put_nowait((item,))
            came.put_nowait(None)
        except Exception as error:
            came.put_nowait(error)

    tasks = [asyncio.create_task(follow(stream)) for stream in streams]
    try:
        left = len(tasks)
        while left:
            told = await came.get()
            if told is None:
                left -= 1
            elif isinstance(told, BaseException):
                raise told
            else:
                yield told[0]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def together(works: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of all of them, done at the same time; the first error ends the others, and is raised."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def once_written(stream: AsyncGenerator[Outcome, None]) -> AsyncGenerator[Outcome, None]:
    """The same, but nothing before the first text: what fails until then is a failure before anything came."""
    held: list[Outcome] = []
    is_written = False
    async for outcome in stream:
        if not is_written:
            held.append(outcome)
            if not isinstance(outcome, TextDelta):
                continue
            is_written = True
            for each in held:
                yield each
            continue
        yield outcome
    if not is_written:
        for each in held:
            yield each
