"""What the line magic `%remote …` is asked to do: a verb with its names or options. Pure; whoever reads a Command carries it out.

Law: one line of COMMANDS for one verb; a line that is no command is an OptionError that says what to write instead.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from keyword import iskeyword

from ..errors import OptionError
from .options import CellOptions, help_text, parse, read_words
from .words import Evaluate, Word, expand, words


@dataclass(frozen=True)
class Verb:
    """One command: how it is written, what it does, how many names it takes."""

    usage: str
    help: str
    least: int = 0
    most: int = 0


COMMANDS = {
    "default": Verb("default [OPTIONS | none]", "options for every remote cell of this notebook; alone it shows them"),
    "on": Verb("on", "every cell runs there, but those with a line %%local"),
    "off": Verb("off", "only cells with %%remote run there"),
    "stop": Verb("stop [SESSION]", "end the session's sandbox", 0, 1),
    "pull": Verb("pull NAME…", "bring variables home", 1, 1000),
    "runs": Verb("runs", "the runs of this notebook"),
    "attach": Verb("attach RUN", "replay what was missed of a run, then follow it", 1, 1),
    "cancel": Verb("cancel RUN", "end a run", 1, 1),
    "port": Verb("port PORT [SESSION]", "open a port of the sandbox here, such as 6006 for TensorBoard", 1, 2),
}


@dataclass(frozen=True)
class Command:
    """One command of the user. `%remote` alone is the verb "show"."""

    verb: str
    names: tuple[str, ...] = ()
    options: CellOptions | None = None
    """For "default": the options, none of them given to forget those there are; None to show them."""


def parse_command(line: str, evaluate: Evaluate) -> Command:
    """Return what `%remote LINE` asks for; OptionError for whatever is wrong."""
    verb, _, rest = line.strip().partition(" ")
    if not verb:
        return Command("show")
    if verb not in COMMANDS:
        raise OptionError(_unknown(verb))
    if verb == "default":
        return Command(verb, options=_default(rest.strip(), evaluate))
    names = [_name(word, evaluate) for word in words(rest)]
    return Command(verb, _checked(verb, names))


def command_help() -> str:
    """Return what `%remote?` and the documentation say: commands, then options."""
    rows = [("", "sessions, machines, and what is held where"), *((verb.usage, verb.help) for verb in COMMANDS.values())]
    width = max(len(usage) for usage, _ in rows)
    lines = [f"  %remote {usage:<{width}}  {text}" for usage, text in rows]
    return "\n".join(
        ["%%remote [OPTIONS] above a cell runs it there. `%remote` alone, or with a command:", *lines, "", help_text()]
    )


def _default(rest: str, evaluate: Evaluate) -> CellOptions | None:
    if not rest:
        return None
    return CellOptions() if rest == "none" else parse(rest, evaluate)


def _name(word: Word, evaluate: Evaluate) -> str:
    if word.key is not None:
        raise OptionError(f"%remote commands take names, not options such as {word.key}; `%remote?` shows how each is written")
    value = expand(word.value or (), evaluate, "a name")
    return str(getattr(value, "id", value))


def _checked(verb: str, names: Sequence[str]) -> tuple[str, ...]:
    """Return the names if there are as many as the verb takes, and variables where it takes variables."""
    if verb == "pull":
        names = [part for name in names for part in re.split(r"[\s,]+", name) if part]
    rule = COMMANDS[verb]
    if not rule.least <= len(names) <= rule.most:
        raise OptionError(f"write it like `%remote {rule.usage}`: {rule.help}")
    wrong = [name for name in names if verb == "pull" and (not name.isidentifier() or iskeyword(name))]
    if wrong:
        raise OptionError(f"{wrong[0]!r} is no variable's name; write it like `%remote pull model scores`")
    return tuple(dict.fromkeys(names))


def _unknown(verb: str) -> str:
    """Say what could have been meant."""
    if "=" in verb or verb.startswith("-"):
        read_words(words(verb), lambda text: text)  # a wrong option is to be said first
        return f"{verb[:40]!r} goes into a line above a cell, `%%remote {verb[:40]}`, or into `%remote default {verb[:40]}`"
    near = get_close_matches(verb.lower(), COMMANDS, 1)
    return f"there is no command {verb[:40]!r}{f'; did you mean `%remote {near[0]}`?' if near else ';'} `%remote?` lists them all"
