"""What stands above a cell's code: whether it is for `%%remote` or `%%local`, its options, and magics around it. Pure text.

Law: nothing here runs code, knows options or imports IPython. Whatever becomes of a header, the code's lines keep their numbers:
a header line turns into a comment, or into an empty line where IPython wants a `%%magic` to come first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from textwrap import dedent

OUTER_MAGICS = frozenset({"time", "timeit", "capture", "prun"})
"""Cell magics that run the rest of the cell through the shell, so that they may stand above `%%remote` and `%%local`."""

_MAGIC = re.compile(r"\s*%%(?P<name>[A-Za-z_]\w*)(?:[ \t]+(?P<line>.*?))?\s*$", re.DOTALL)
_STAYS = re.compile(r"\s*(%remote(\s.*)?|%(re|un)?load_ext\s.*|%{1,2}(remote|local)\s*\?\??|\?\??\s*%{1,2}(remote|local))\s*$")
_OWN_CALL = re.compile(rf"\s*(await )?get_ipython\(\)\.run_cell_magic\('({'|'.join(sorted(OUTER_MAGICS))}|remote)', [^\n]*\s*$")
_SCRIPT = re.compile(r"^# /// script[ \t\r]*\n(?P<block>(?:#(?: [^\n]*)?\r?\n)*)# ///[ \t\r]*$", re.MULTILINE)


@dataclass(frozen=True)
class Header:
    """A cell that says where it runs."""

    marker: str
    """Either "remote" or "local"."""
    line: str
    """The options behind the marker, continued lines joined."""
    outer: tuple[tuple[str, str], ...]
    """Magics around the marker, the outermost first: name and line."""
    body: str
    """The cell's code; header lines are comments in it, so that line numbers are those of the cell."""
    script: str | None = None
    """The TOML text of the cell's PEP 723 block; `script_block` finds it in the body too."""


@dataclass(frozen=True)
class _Magic:
    """A `%%magic` among the first lines: its name, its line, and where it lies, `end` being the line behind it."""

    name: str
    line: str
    end: int


def split(cell: str) -> Header | None:
    """Return the cell's header and body, or None for a cell that is neither `%%remote` nor `%%local`."""
    if "%%remote" not in cell and "%%local" not in cell:
        return None
    lines = cell.split("\n")
    magics = list(_leading_magics(lines))
    at = next((i for i, magic in enumerate(magics) if magic.name not in OUTER_MAGICS), len(magics))
    if at == len(magics) or magics[at].name not in ("remote", "local"):
        return None
    marker = magics[at]
    # Below %%remote such a magic is the code's own business and runs there; a local cell passes them on to IPython either way.
    below = list(takewhile(lambda m: m.name in OUTER_MAGICS, magics[at + 1 :])) if marker.name == "local" else []
    end = (below or [marker])[-1].end
    body = _first_magic_on_top([_comment(line) for line in lines[:end]] + lines[end:])
    outer = tuple((magic.name, magic.line) for magic in (*magics[:at], *below))
    return Header(marker.name, marker.line, outer, "\n".join(body), script_block(cell))


def script_block(text: str) -> str | None:
    """Return the TOML text of the PEP 723 block `# /// script`, or None."""
    block = _SCRIPT.search(text)
    return None if block is None else "".join(line[2:] + "\n" for line in block["block"].splitlines())


def _leading_magics(lines: list[str]) -> Iterator[_Magic]:
    """Yield the cell magics above the first line of code."""
    at = 0
    while at < len(lines):
        match = _MAGIC.match(lines[at])
        if match is not None:
            text, at = _joined(match["line"] or "", lines, at + 1)
            yield _Magic(match["name"], text, at)
        elif _is_blank(lines[at]):
            at += 1
        else:
            return


def _joined(text: str, lines: list[str], at: int) -> tuple[str, int]:
    """Return a magic's line with the lines that its trailing backslashes add, and the line behind them."""
    while text.endswith("\\"):
        more = lines[at].strip() if at < len(lines) else ""
        text, at = f"{text[:-1].rstrip()} {more}".strip(), min(at + 1, len(lines))
    return text, at


def _is_blank(line: str) -> bool:
    return not line.strip() or line.lstrip().startswith("#")


def _comment(line: str) -> str:
    """Return the line as a comment at its own indentation, so that a cell indented as a whole can still be dedented."""
    if _is_blank(line):
        return line
    text = line.lstrip()
    return f"{line[: len(line) - len(text)]}# {text.rstrip()}".removesuffix("\\").rstrip()


def _first_magic_on_top(body: list[str]) -> list[str]:
    """Empty the comments above a leading `%%magic`: IPython passes over empty lines before one, but not over comments."""
    first = next((i for i, line in enumerate(body) if not _is_blank(line)), None)
    if first is None or not body[first].lstrip().startswith("%%"):
        return body
    return ["" for _ in body[:first]] + body[first:]


def stays_here(cell: str) -> bool:
    """Tell whether a cell has nothing for another place: empty, only `%remote`, `%load_ext` and help lines, or our own call."""
    code = [line for line in cell.replace("\\\n", " ").split("\n") if not _is_blank(line)]
    return all(_STAYS.match(line) for line in code) or bool(_OWN_CALL.match(cell))


def entry(line: str, body: str, *, awaits: bool = False) -> str:
    """Return the one Python line that a remote cell becomes."""
    return f"{'await ' if awaits else ''}get_ipython().run_cell_magic('remote', {line!r}, {body!r})\n"


def transform(lines: list[str], *, everywhere: bool = False, awaits: bool = False) -> list[str]:
    """Return the cell as IPython shall see it; a remote one is a single call of the magic `remote`.

    `everywhere`: cells without a header are remote too. `awaits`: the magic's result is to be awaited (never below `%%time`).
    """
    cell = "".join(lines)
    header = split(cell)
    if header is None:
        if not everywhere or stays_here(cell):
            return lines
        return [entry("", "\n".join(_first_magic_on_top(cell.split("\n"))), awaits=awaits)]
    if header.marker == "remote":
        return [_wrapped(header.outer, entry(header.line, header.body, awaits=awaits and not header.outer))]
    if header.outer:  # what these run comes by here once more, hence keeps its mark
        return [_wrapped(header.outer, _marked(header.body))]
    return header.body.splitlines(keepends=True)


def _marked(body: str) -> str:
    """Return the body of a local cell with its mark in the first line, which is always one of the former header."""
    return "%%local\n" + dedent(body).partition("\n")[2]


def _wrapped(outer: Sequence[tuple[str, str]], inner: str) -> str:
    """Return the call of the outermost of these magics around the inner cell."""
    for name, line in reversed(outer):
        inner = f"get_ipython().run_cell_magic({name!r}, {line!r}, {inner!r})\n"
    return inner


class CellTransformer:
    """The entry for `ip.input_transformers_cleanup`, to be put first there, since others take lines away."""

    has_side_effects = True
    """Keeps IPython from asking it whether a half-typed cell is complete: that is for IPython's own rule about `%%` cells."""

    def __init__(self, *, awaits: bool = False) -> None:
        """Start with `%remote off`."""
        self.everywhere = False
        self.awaits = awaits

    def __call__(self, lines: list[str]) -> list[str]:
        """Transform one cell."""
        return transform(lines, everywhere=self.everywhere, awaits=self.awaits)
