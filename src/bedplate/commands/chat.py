"""`bedplate chat`: one question to the model, through the gateway, with the official OpenAI client."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from bedplate import options
from bedplate.commands.token import given_or_minted
from bedplate.describe import describe, serving_host
from bedplate.errors import FAILED, UserError
from bedplate.sites import find_site

_TOKEN_LIFETIME = 300


def chat(
    prompt: Annotated[str, typer.Argument(help="What to ask.")],
    site: options.SiteName,
    inventories: options.Inventories = options.DEFAULT_INVENTORIES,
    host: Annotated[str, typer.Option("--host", help="Whose gateway to ask; default the first of gpu_hosts.")] = "",
    max_tokens: Annotated[int, typer.Option("--max-tokens", help="Longest answer.", min=1)] = 512,
    stream: Annotated[bool, typer.Option("--stream/--no-stream", help="Show the answer while it is made.")] = True,
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds to wait for the first words.", min=1)] = 120,
) -> None:
    """Ask the model, as any client would: TLS with the site's authority, a short-lived token, the OpenAI protocol."""
    where, service = serving_host(describe(find_site(site, inventories)), host)
    key = given_or_minted(where, service, _TOKEN_LIFETIME)
    from bedplate.ask import AskError, ask

    try:
        for piece in ask(service, key, prompt, max_tokens=max_tokens, stream=stream, timeout=timeout):
            sys.stdout.write(piece)
            sys.stdout.flush()
    except AskError as error:
        raise UserError(f"chat: {error}", FAILED) from error
    sys.stdout.write("\n")
