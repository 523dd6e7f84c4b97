"""How a line of options falls into words: quotes, backslashes and `{expressions}`. Pure text; knows no option by name.

Law: this is the only place that decides what a quote, a backslash or a brace means, and it raises nothing but OptionError.
- 'a b' and "a b" hold spaces; a backslash keeps the next quote, brace, backslash or space, and stands for itself elsewhere.
- `{expr}` is an expression of the notebook, inside and outside of quotes. Braces that hold none stay, whole: env={"A": 1}.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ..errors import OptionError

Evaluate = Callable[[str], object]
"""Gives the value of an expression of the notebook."""

_KEY = re.compile(r"(?P<dashes>--?)?(?P<name>[A-Za-z][A-Za-z0-9_-]*)(?P<sign>=)?")
_KEPT = frozenset("\\'\"{} ")


@dataclass(frozen=True)
class Expression:
    """A `{expr}` within a word, without its braces."""

    text: str


@dataclass(frozen=True)
class Word:
    """One word of a line: `key=value`, `--key`, `-k` or `value`; `value` is None where a key stands alone."""

    key: str | None
    value: tuple[str | Expression, ...] | None
    dashes: int = 0


def words(line: str) -> Iterator[Word]:
    """Yield the words of a line; OptionError for a quote that is not closed."""
    scanner = _Scanner(line)
    while scanner.at_word():
        yield scanner.word()


def expand(pieces: tuple[str | Expression, ...], evaluate: Evaluate, what: str) -> object:
    """Return the value of a word: the object itself if it is one expression and nothing else, text otherwise."""
    values = [piece if isinstance(piece, str) else _evaluated(piece.text, evaluate, what) for piece in pieces]
    if len(pieces) == 1 and isinstance(pieces[0], Expression):
        return values[0]
    try:
        return "".join(map(str, values))
    except Exception as error:  # the notebook's own objects may raise anything in __str__
        raise OptionError(f"{what}: a value in braces cannot be written as text ({type(error).__name__})") from None


def _evaluated(text: str, evaluate: Evaluate, what: str) -> object:
    try:
        return evaluate(text)
    except Exception as error:  # an expression of the notebook may raise anything
        said = " ".join(str(error).split())
        raise OptionError(f"{what}: {{{text}}} raised {type(error).__name__}: {said}") from None


class _Scanner:
    """Walks over one line; `at` is the next character."""

    def __init__(self, line: str) -> None:
        self.line = line
        self.at = 0

    def at_word(self) -> bool:
        """Go to the next word and tell whether there is one."""
        while self.at < len(self.line) and self.line[self.at].isspace():
            self.at += 1
        return self.at < len(self.line)

    def word(self) -> Word:
        """Read the word that starts here."""
        key = _KEY.match(self.line, self.at)
        if key is None or not (key["sign"] or (key["dashes"] and self._ends(key.end()))):
            return Word(None, self._value())
        self.at = key.end()
        return Word(key["name"], self._value() if key["sign"] else None, len(key["dashes"] or ""))

    def _ends(self, at: int) -> bool:
        return at >= len(self.line) or self.line[at].isspace()

    def _value(self) -> tuple[str | Expression, ...]:
        """Read up to the next space outside of quotes and braces; () for nothing at all, ("",) for empty quotes."""
        pieces: list[str | Expression] = []
        while not self._ends(self.at):
            char = self.line[self.at]
            if char in "'\"":
                pieces += self._quoted(char)
            elif char == "{":
                pieces.append(self._braces())
            else:
                pieces.append(self._character())
        return joined(pieces)

    def _quoted(self, mark: str) -> list[str | Expression]:
        start = self.at
        pieces: list[str | Expression] = [""]
        self.at += 1
        while self.at < len(self.line):
            char = self.line[self.at]
            if char == mark:
                self.at += 1
                return pieces
            pieces.append((self._expression() or self._character()) if char == "{" else self._character())
        raise OptionError(
            f"a quote is not closed: {self.line[start : start + 30]}; close it, or write \\{mark} for the character itself"
        )

    def _character(self) -> str:
        """Read one character, a backslash together with what it keeps."""
        char = self.line[self.at]
        if char == "\\" and self.line[self.at + 1 : self.at + 2] in _KEPT:
            self.at += 1
            char = self.line[self.at]
        self.at += 1
        return char

    def _braces(self) -> str | Expression:
        """Read an expression, or braces as they are, or a brace that is nothing but a character."""
        found = self._expression()
        end = _closing(self.line, self.at)
        if found is not None:
            return found
        if end is None:
            return self._character()
        start, self.at = self.at, end
        return self.line[start:end]

    def _expression(self) -> Expression | None:
        """Read the expression in the braces that open here, if they hold one."""
        end = _closing(self.line, self.at)
        text = self.line[self.at + 1 : end - 1].strip() if end else ""
        if end is None or not _is_expression(text):
            return None
        self.at = end
        return Expression(text)


def _closing(line: str, start: int) -> int | None:
    """Return the place behind the brace that closes the one at `start`, passing over Python's quotes; None if there is none."""
    depth, at = 0, start
    while at < len(line):
        char = line[at]
        if char in "'\"":
            at = _behind_quote(line, at)
            continue
        depth += (char == "{") - (char == "}")
        at += 1
        if depth == 0:
            return at
    return None


def _behind_quote(line: str, start: int) -> int:
    at = start + 1
    while at < len(line) and line[at] != line[start]:
        at += 2 if line[at] == "\\" else 1
    return at + 1


def _is_expression(text: str) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def joined(pieces: list[str | Expression]) -> tuple[str | Expression, ...]:
    """Return the pieces with neighbouring texts as one, and empty texts left out beside expressions."""
    found: list[str | Expression] = []
    for piece in pieces:
        if isinstance(piece, str) and found and isinstance(found[-1], str):
            found[-1] += piece
        else:
            found.append(piece)
    return tuple(piece for piece in found if piece != "" or len(found) == 1)
