"""The command `remora`. Other packages add subcommands by the entry point group `remora.commands`.

Law: a command reads its options and prints; what it does is elsewhere. Nothing but click is loaded before a command runs, so that
`remora --help` is quick. Errors become one line and an exit code in one place: here.
"""

from __future__ import annotations

import os
import sys
import traceback
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import click

from ..errors import RemoraError
from . import attaching, doctor, image, listing, machine, port, run, secret, shell, stopping

PLUGINS = "remora.commands"
USAGE, OURS, INTERRUPTED = 2, 3, 130


class Door(click.Group):
    """The group of all commands, and the one place where errors become exit codes."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command of ours, else one of another package."""
        found = super().get_command(ctx, cmd_name)
        plugin = None if found else next((p for p in _plugins() if p.name == cmd_name), None)
        return plugin.load() if plugin else found

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted({*self.commands, *(plugin.name for plugin in _plugins())})

    def __call__(self, *args: Any, **extra: Any) -> Any:
        """Run the command line and leave with its exit code."""
        try:
            code = self.main(*args, **(extra | {"standalone_mode": False}))
        except click.ClickException as error:
            code = _complain(_usage(error), USAGE)
        except RemoraError as error:
            code = _complain(f"{error}", error.exit_code)
        except (click.Abort, KeyboardInterrupt):
            code = INTERRUPTED
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # whoever read has gone, and the interpreter writes once more
            code = 0
        except Exception:  # a fault of ours: everything about it is worth showing, and it is not the user's code that failed
            traceback.print_exc()
            code = OURS
        sys.exit(code if isinstance(code, int) else 0)


def _plugins() -> list[EntryPoint]:
    return sorted(entry_points(group=PLUGINS), key=lambda plugin: plugin.name)


def _complain(text: str, code: int) -> int:
    """Print an error; it may quote another machine, and a terminal is to obey nothing of that."""
    plain = "".join(letter if letter.isprintable() or letter in "\n\t" else " " for letter in text)
    click.echo(f"remora: {plain}", err=True)
    return code


def _usage(error: click.ClickException) -> str:
    text = " ".join(error.format_message().split())
    context = getattr(error, "ctx", None)
    return f"{text} See `{context.command_path} --help`" if context else text


def _version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"remora {version('remora')}")
        context.exit()


@click.group(cls=Door, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Print the version.")
def main() -> None:
    """Run notebooks and functions in sandboxes, here and on bigger machines."""


for command in (
    run.run,
    listing.ps,
    listing.runs,
    attaching.logs,
    attaching.attach,
    stopping.cancel,
    stopping.stop,
    shell.shell,
    port.port,
    image.image,
    machine.machine,
    secret.secret,
    doctor.doctor,
):
    main.add_command(command)
