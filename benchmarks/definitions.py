"""The workflows that are measured. Agents import this module as their application: `--app benchmarks.definitions`."""

from __future__ import annotations

import asyncio
import os
import time

from outlast import gather, step, wait_signal, workflow


@step
def nothing(number: int) -> int:
    return number


@step
async def nothing_async(number: int) -> int:
    return number


@step
def echo(text: str) -> str:
    return text


@step
def pause(seconds: float) -> None:
    time.sleep(seconds)


@workflow
def noop() -> int:
    """Which process ran it, so that shares can be counted."""
    return os.getpid()


@workflow
def instant() -> int:
    """When its first line ran, by the clock that all processes of this machine share."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)


@workflow
def steps(count: int) -> None:
    for number in range(count):
        nothing(number)


@workflow
async def steps_async(count: int) -> None:
    for number in range(count):
        await nothing_async(number)


@workflow
def steps_then_wait(count: int) -> None:
    for number in range(count):
        nothing(number)
    wait_signal("go")


@workflow
def slow_steps(count: int, seconds: float) -> None:
    for _ in range(count):
        pause(seconds)


@step
async def pause_async(seconds: float) -> None:
    await asyncio.sleep(seconds)


@workflow
async def slow_steps_async(count: int, seconds: float) -> None:
    for _ in range(count):
        await pause_async(seconds)


@workflow
def payload(text: str, count: int) -> None:
    for _ in range(count):
        echo(text)


@workflow
def fan_out(count: int) -> None:
    gather(*[nothing.submit(number) for number in range(count)])


@workflow
def waits() -> None:
    wait_signal("go")


@workflow
async def waits_async() -> None:
    from outlast import aio

    await aio.wait_signal("go")
