"""pointsman completion: what a shell needs to complete the commands."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

_SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(_SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print what makes SHELL complete commands and options.

    \b
    For bash, once:   pointsman completion bash > ~/.pointsman-complete.bash
    and in ~/.bashrc: . ~/.pointsman-complete.bash
    """
    root = context.find_root()
    found = get_completion_class(shell)
    if found is None:
        raise click.UsageError(f"there is no completion for {shell}")
    click.echo(found(root.command, {}, "pointsman", "_POINTSMAN_COMPLETE").source())
