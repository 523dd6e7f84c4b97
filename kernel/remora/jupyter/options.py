"""The line of options of `%%remote`: how it becomes options, and `%remote?`.

Law: pure; the options themselves, and how values are read, are in remora/options.py, shared with functions and commands.
How a line falls into words is in words.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..errors import OptionError
from ..options import LATER, OPTIONS, SPELLED, CellOptions, Option, add, assemble, build, find, help_text
from .words import Evaluate, Expression, Word, expand, joined, words

__all__ = ["LATER", "OPTIONS", "CellOptions", "Option", "build", "find", "help_text", "parse", "read_words", "value"]


def parse(line: str, evaluate: Evaluate) -> CellOptions:
    """Return what a line of options says; `evaluate` gives the value of each `{expr}`. OptionError for whatever is wrong."""
    return read_words(words(line), evaluate)


def value(line: str, name: str, evaluate: Evaluate) -> object:
    """Return the value of one option of a line, None if it is not there; OptionError for a line that is none."""
    found = [pieces for option, pieces in _pairs(words(line)) if option.name == name and pieces is not None]
    return expand(found[0], evaluate, name) if found else None


def read_words(line: Iterable[Word], evaluate: Evaluate) -> CellOptions:
    """Return what these words say as options."""
    values: dict[str, object] = {}
    for option, pieces in _pairs(iter(line)):
        value = True if pieces is None else expand(pieces, evaluate, option.name)
        add(values, option, value)
    return assemble(values)


def _pairs(line: Iterator[Word]) -> Iterator[tuple[Option, tuple[str | Expression, ...] | None]]:
    """Yield each option with its value's pieces, or None for a flag without one."""
    for word in line:
        if word.key is None:
            raise OptionError(_stray(word))
        option, pieces = find(("-" * word.dashes) + word.key), word.value
        if pieces is None and option.takes_value:
            pieces = _value_of(option, next(line, None))
        if pieces == ():
            raise OptionError(
                f"{option.name} has no value: {option.name}= wants {option.help or 'one'}; `%remote?` lists all options"
            )
        yield option, pieces


def _value_of(option: Option, word: Word | None) -> tuple[str | Expression, ...]:
    """Return the value that a following word is; () if it is another option. `--env A=1` has a value that looks like one."""
    if word is None or word.dashes or word.value is None:
        return ()
    if word.key is None:
        return word.value
    return joined([f"{word.key}=", *word.value]) if option.name == "env" or word.key not in SPELLED else ()


def _stray(word: Word) -> str:
    text = "".join(p if isinstance(p, str) else f"{{{p.text}}}" for p in word.value or ())[:40]
    flag = SPELLED.get(text)
    if flag is not None:
        return f"write {f'{text}=VALUE' if flag.takes_value else f'--{text}'} instead of {text!r} alone"
    return f"{text!r} is no option; write key=value or --key value, quoted where it holds spaces; `%remote?` lists them all"
