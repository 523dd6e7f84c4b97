"""The images of one machine, as its agent uses them: found at once when they are there, built by a process of its own when not.

Law: what is found costs the reading of a few small files; the agent itself never reads a tree, starts uv or waits for a disk.
"""

from __future__ import annotations

from pathlib import Path

from remora.errors import ImageFailed
from remora.images import Image
from remora.images.steps import MirrorBase
from remora.wire import Fields

from .fitting import Fitting


class Images:
    """What this machine has of images."""

    def __init__(self, root: Path) -> None:
        """Keep store, records and logs below `root`, made when first needed."""
        self.root = root

    async def fit(self, image: Fields) -> Fitting:
        """Return how a sandbox with this image is fitted out. Raises ImageFailed."""
        recipe = Image.from_dict(image)
        if isinstance(recipe.base, MirrorBase) and not recipe.steps:
            return Fitting.mirror(recipe.base)
        raise ImageFailed("this version of Remora runs sandboxes in the kernel's own environment alone; leave the image out")
