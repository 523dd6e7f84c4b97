"""Images on this machine, asked of the backend: built, published, listed. And `remora.Image`, which can be built because of it.

Law: values of images come from `images`, what is done with them from here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from . import giving, images
from .client import client
from .images import Image
from .images.recipe import register
from .terminal import AtTerminal
from .wire import Ask, Fields

__all__ = ["Image", "ask"]
Words = Callable[[str], None]


def ask(op: str, args: Fields, words: Words = lambda _: None, about: str = "images") -> Fields:
    """Ask the backend about images, or something else; what takes its time says what it does to `words`.

    Ctrl-C ends a build, which keeps its whole steps.
    """
    there = client()
    return there.run(there.staged(Ask(about, op, args), AtTerminal(words)))


class _Builder:
    """Builds through the backend, and says on standard error what is going on."""

    def build(self, image: Image) -> None:
        """Build an image."""
        recipe = image.as_of_now().to_dict()
        ask("build", {"image": recipe, "environment": images.carried_environment(), "secrets": giving.for_image(recipe)}, _say)

    def publish(self, image: Image, name: str) -> None:
        """Build an image and let a name stand for it."""
        self.build(image)
        ask("publish", {"image": image.as_of_now().to_dict(), "name": name})


def _say(text: str) -> None:
    print(f"remora: {text}", file=sys.stderr)


register(_Builder())
