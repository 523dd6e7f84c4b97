"""What one call of IPython's machinery inside a cell touches: `%magic`, `%%magic`, `!shell` and `x = !shell`.

Law: knows the standard magics by table and nothing about the rest of a cell; takes text, returns an `Effect`. A magic that is
not in the tables may do anything, so it is `dynamic`. Standard library only; nothing here runs what it reads.
"""

from __future__ import annotations

import ast
import re
import string
from dataclasses import dataclass


@dataclass(frozen=True)
class Effect:
    """What one magic touches: code to be analysed like a cell (`isolated` code binds nothing), and plain names."""

    code: tuple[str, ...] = ()
    isolated: tuple[str, ...] = ()
    reads: frozenset[str] = frozenset()
    writes: frozenset[str] = frozenset()
    deletes: frozenset[str] = frozenset()
    dynamic: bool = False


# Options, in getopt's notation, that stand before the code of a magic.
RUNS_CODE = {"time": "", "prun": "D:l:rs:T:q", "debug": "b:", "memit": "r:t:i:c", "mprun": "f:T:r"}
TIMES_CODE = {"timeit": "n:r:tcp:qov:"}
CAPTURES = {"capture"}
SHELLS = {"bash", "sh", "script", "!", "sx", "system", "perl", "ruby", "pypy", "python", "python3", "python2", "js"}
TEXT = {"writefile", "file", "html", "HTML", "javascript", "latex", "markdown", "svg", "SVG"}
LOOKS_AT = {"pinfo", "pinfo2", "pdef", "pdoc", "psource", "pfile", "page"}
ANYTHING = {"run", "reset", "reset_selective", "pylab", "rerun", "recall", "macro", "edit", "store", "load", "rep", "xmode"}
HARMLESS = {
    "alias", "autoawait", "autocall", "automagic", "autoreload", "aimport", "cd", "colors", "conda", "config", "connect_info",
    "dhist", "dirs", "env", "gui", "history", "hist", "load_ext", "lsmagic", "magic", "matplotlib", "mamba", "micromamba",
    "notebook", "pastebin", "pdb", "pip", "popd", "pprint", "precision", "pushd", "pwd", "quickref", "reload_ext", "save",
    "set_env", "tb", "unalias", "unload_ext", "uv", "who", "who_ls", "whos", "ls", "ll", "cat", "mkdir", "rm", "cp", "mv", "man",
    "less", "more", "remote", "local", "sx", "system", "psearch", "logstart", "logstop", "logon", "logoff", "logstate",
}  # fmt: skip
SHELL_METHODS = {"system", "getoutput"}
OUTPUT_OPTIONS = re.compile(r"--(?:out|err|proc)[ =](\w+)")
DOLLAR = re.compile(r"(?<!\$)\$(?:\{(\w+)|([A-Za-z_]\w*))")


def interpolated(text: str) -> frozenset[str]:
    """Return the names that `$name` and `{expression}` in the text read."""
    found = {first or second for first, second in DOLLAR.findall(text)}
    try:
        fields = [field for _, field, _, _ in string.Formatter().parse(text) if field]
    except ValueError:
        fields = []  # one bad brace turns off all of IPython's expansion, and what is left is $name
    for field in fields:
        found |= _loaded(field)
    return frozenset(found)


def _loaded(expression: str) -> set[str]:
    try:
        tree = ast.parse(expression.strip(), mode="eval")
    except (SyntaxError, ValueError):
        return set()
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def without_options(line: str, options: str) -> str:
    """Return the line without the leading options that getopt's notation names."""
    takes_value = {options[i] for i in range(len(options) - 1) if options[i + 1] == ":"}
    words = line.lstrip()
    while match := re.match(r"--[\w-]+\s*|-([A-Za-z])(\S*)\s*", words):
        letter, attached = match.group(1), match.group(2)
        words = words[match.end() :]
        if letter in takes_value and not attached:
            words = re.sub(r"^\S+\s*", "", words)
    return words


def effect_of(method: str, arguments: tuple[str, ...]) -> Effect:
    """Return what `get_ipython().method(*arguments)` touches."""
    if method in SHELL_METHODS and arguments:
        return Effect(reads=interpolated(arguments[0]))
    if method == "run_line_magic" and len(arguments) >= 2:
        return _line(arguments[0], arguments[1])
    if method == "run_cell_magic" and len(arguments) >= 3:
        return _cell(arguments[0], arguments[1], arguments[2])
    return Effect(dynamic=True)


def _line(name: str, line: str) -> Effect:
    if name in RUNS_CODE:
        return Effect(code=(without_options(line, RUNS_CODE[name]),))
    if name in TIMES_CODE:
        return Effect(isolated=(without_options(line, TIMES_CODE[name]),))
    if name == "xdel":
        return Effect(deletes=frozenset(_loaded(without_options(line, ""))))
    if name in LOOKS_AT:
        return Effect(reads=frozenset(_loaded(line)))
    return Effect(reads=interpolated(line), dynamic=name not in HARMLESS or name in ANYTHING)


def _cell(name: str, line: str, body: str) -> Effect:
    if name in RUNS_CODE:
        return Effect(code=(without_options(line, RUNS_CODE[name]), body))
    if name in TIMES_CODE:
        return Effect(isolated=(without_options(line, TIMES_CODE[name]) + "\n" + body,))
    if name in CAPTURES:
        return Effect(code=(body,), writes=frozenset(without_options(line, "").split()[:1]))
    if name in SHELLS or name in TEXT:
        return Effect(reads=interpolated(line), writes=frozenset(OUTPUT_OPTIONS.findall(line)))
    return Effect(code=(body,), reads=interpolated(line), dynamic=True)
