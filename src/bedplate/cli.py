"""The command line: the commands, put together, and the one place where an error becomes a sentence and an exit code.

What is heavy to import (Ansible's runner, the OpenAI client, paramiko) is imported by the command that needs it.
"""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from bedplate.bundles.cli import app as bundle_app
from bedplate.collection import collection_folder
from bedplate.commands import chat, init, lab, plan, provision, rollout, ssh_trust, status, token, verify, volume
from bedplate.errors import UserError


class SentenceGroup(TyperGroup):
    """Turns a UserError of any command into its sentence on stderr and its exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            typer.echo(f"bedplate: {error}", err=True)
            raise typer.Exit(error.exit_code) from error


app = typer.Typer(
    name="bedplate",
    cls=SentenceGroup,
    no_args_is_help=True,
    help="From a bare GPU machine to a private LLM service on vLLM, with proof.",
    # A trace with local variables could show a token.
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("init")(init.init)
app.add_typer(lab.app, name="lab")
app.add_typer(bundle_app, name="bundle")
app.command("ssh-trust")(ssh_trust.ssh_trust)
app.command("plan")(plan.plan)
app.command("provision")(provision.provision)
app.command("rollout")(rollout.rollout)
app.command("verify")(verify.verify)
app.command("status")(status.status)
app.add_typer(volume.app, name="volume")
app.command("chat")(chat.chat)
app.command("token")(token.token)


@app.command()
def version() -> None:
    """Print the version of the command and of the collection, which are one."""
    import yaml

    galaxy = yaml.safe_load((collection_folder() / "galaxy.yml").read_text(encoding="utf-8"))
    typer.echo(f"bedplate {galaxy['version']} ({collection_folder()})")


def main() -> None:
    app()
