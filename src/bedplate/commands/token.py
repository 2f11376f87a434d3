"""`bedplate token`: a short-lived token of the site's own issuer."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from bedplate import options
from bedplate.describe import Host, Service, describe, serving_host
from bedplate.errors import UserError
from bedplate.sites import find_site

ENVIRONMENT = "BEDPLATE_TOKEN"


def token(
    site: options.SiteName,
    inventories: options.Inventories = options.DEFAULT_INVENTORIES,
    subject: Annotated[str, typer.Option("--subject", help="Who it is for; named in the access log.")] = "operator",
    lifetime: Annotated[int, typer.Option("--lifetime", help="Seconds until it expires.", min=1)] = 900,
    scope: Annotated[list[str] | None, typer.Option("--scope", help="A scope to grant; may be repeated.")] = None,
    header: Annotated[bool, typer.Option("--header", help="As a whole header line, for curl --header @-.")] = False,
) -> None:
    """Print a short-lived token, signed with the key in the site's secrets folder."""
    host, service = serving_host(describe(find_site(site, inventories)))
    value = mint(host, service, subject, scope or [], lifetime)
    typer.echo(f"Authorization: Bearer {value}" if header else value)


def mint(host: Host, service: Service, subject: str, scopes: list[str], lifetime: int) -> str:
    if not service.local_issuer:
        raise UserError(
            f"The tokens of this site come from {service.issuer}, not from this project; "
            f"get one there and pass it in the environment variable {ENVIRONMENT}."
        )
    from bedplate import tokens

    try:
        return tokens.mint(host.secrets_dir, service.issuer, service.audiences[0], subject, scopes, lifetime)
    except tokens.TokenError as error:
        raise UserError(str(error)) from error


def given_or_minted(host: Host, service: Service, lifetime: int) -> str:
    """The token of the environment, for sites with an issuer of their own; otherwise one that we sign."""
    return os.environ.get(ENVIRONMENT, "").strip() or mint(host, service, "operator", [], lifetime)
