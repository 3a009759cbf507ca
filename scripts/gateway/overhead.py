"""The command line of the benchmark of the gateway beside LiteLLM's proxy."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import click
import numpy as np
from rich.console import Console
from rich.progress import Progress

from scripts.gateway.load import Sample, turn
from scripts.gateway.rivals import GATEWAY, PROXY, rivals

_WORDS = ("how", "far", "is", "it", "to", "the", "next", "town", "with", "a", "station", "by", "train", "tonight")
_PROMPT_WORDS = 60
_LEVELS = (0.5, 0.99)
_FIRST = 20
_KINDS = {False: "whole", True: "streams"}
Setting = tuple[bool, int]
"""Whether answers are streams, and how many connections there are."""


@click.command()
@click.option("--proxy", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="LiteLLM's command.")
@click.option("--requests", type=click.IntRange(1, 5000), default=200, show_default=True, help="A turn.")
@click.option("--turns", type=click.IntRange(1, 50), default=4, show_default=True)
@click.option("--connections", type=click.IntRange(1, 200), multiple=True, default=(1, 8, 32), show_default=True)
@click.option("--seed", default=1, show_default=True, help="Of the prompts, and of whose turn it is.")
@click.option(
    "--json", "path", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures here too."
)
def main(
    proxy: Path | None, requests: int, turns: int, connections: tuple[int, ...], seed: int, path: Path | None
) -> None:
    """Load LiteLLM's proxy, `pointsman gateway` with `pointsman serve`, and what is behind both, by turns.

    Behind both is a provider on loopback that says the same to everyone at once. The proxy shuffles between two
    models of it; Pointsman routes between the same two, durably in SQLite, and is reported to. All of them, and
    the callers, share this machine. Prints Markdown tables.
    """
    settings: list[Setting] = list(itertools.product((False, True), connections))
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        loading = progress.add_task("loading", total=len(settings) * turns)
        found = asyncio.run(_measured(proxy, requests, turns, settings, seed, lambda: progress.advance(loading)))
    click.echo("\n".join(_table(found)))
    if proxy is not None:
        click.echo("\n".join(("", *_ratios(found))))
    if path is not None:
        path.write_text(json.dumps(_figures(found), indent=1) + "\n")


Found = dict[Setting, dict[str, Sample]]


async def _measured(
    proxy: Path | None,
    requests: int,
    turns: int,
    settings: Sequence[Setting],
    seed: int,
    on_turn: Callable[[], object],
) -> Found:
    """By turns, each with one setting and all rivals one after the other, in an order that is drawn anew."""
    source = np.random.default_rng(seed)
    found: Found = {}
    async with rivals(proxy) as every:
        for stream in (False, True):
            for rival in every:
                # LiteLLM loads much of itself at its first calls.
                await turn(rival, _prompts(source, _FIRST), 1, stream=stream, sample=Sample())
        for _, (stream, connections) in itertools.product(range(turns), settings):
            samples = found.setdefault((stream, connections), {each.name: Sample() for each in every})
            for rival in (every[index] for index in source.permutation(len(every))):
                prompts = _prompts(source, requests)
                await turn(rival, prompts, connections, stream=stream, sample=samples[rival.name])
            on_turn()
    return found


def _prompts(source: np.random.Generator, count: int) -> list[str]:
    return [" ".join(source.choice(_WORDS, _PROMPT_WORDS)) for _ in range(count)]


def _table(found: Found) -> list[str]:
    lines = [
        "| answers | connections | | p50, ms | p99, ms | requests/s | processor, ms a request |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for (stream, connections), samples in found.items():
        for name, each in samples.items():
            p50, p99 = (each.quantile_ms(level) for level in _LEVELS)
            # What the provider uses is not counted, whoever asks it.
            processor = f"{each.processor_ms:.2f}" if each.processor_seconds else ""
            cells = (_KINDS[stream], connections, name, f"{p50:.2f}", f"{p99:.2f}", f"{each.rate:.0f}", processor)
            lines.append(f"| {' | '.join(str(cell) for cell in cells)} |")
    return lines


def _ratios(found: Found) -> list[str]:
    lines = [
        f"| {GATEWAY} of {PROXY} | connections | p50 | p99 | requests/s | processor |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for (stream, connections), samples in found.items():
        ours, theirs = samples[GATEWAY], samples[PROXY]
        p50, p99 = (ours.quantile_ms(level) / theirs.quantile_ms(level) for level in _LEVELS)
        used = ours.processor_seconds / theirs.processor_seconds if theirs.processor_seconds else float("nan")
        cells = (
            _KINDS[stream],
            connections,
            *(f"{each:.2f}" for each in (p50, p99, ours.rate / theirs.rate, used)),
        )
        lines.append(f"| {' | '.join(str(cell) for cell in cells)} |")
    return lines


def _figures(found: Found) -> list[dict[str, object]]:
    return [
        {
            "stream": stream,
            "connections": connections,
            "rival": name,
            "requests": len(each.latencies_seconds),
            "p50_ms": each.quantile_ms(_LEVELS[0]),
            "p99_ms": each.quantile_ms(_LEVELS[1]),
            "requests_per_second": each.rate,
            "processor_ms": each.processor_ms,
        }
        for (stream, connections), samples in found.items()
        for name, each in samples.items()
    ]


if __name__ == "__main__":
    main()
