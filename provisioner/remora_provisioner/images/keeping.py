"""The images of one machine, as its agent uses them: found at once when they are there, built by a process of its own when not.

Law: what is found costs the reading of a few small files; the agent itself never reads a tree, starts uv or waits for a disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

from remora.errors import ImageFailed, InternalError, from_dict
from remora.images import GUEST_NEEDS, Image
from remora.images.mirror import CARRIED
from remora.images.steps import MirrorBase
from remora.wire import Fields

from .built import Built, find
from .fitting import Fitting

Say = Callable[[str], None]
"""Gets a word on what a build is doing."""
_PATIENCE = 5.0
"""Seconds that a builder may take to clear up."""
_LINE = 1 << 20


class Images:
    """What this machine has of images."""

    def __init__(self, root: Path) -> None:
        """Keep store, records and logs below `root`."""
        self.root = root
        self.farms = root / "farms"
        # every sandbox sees the folder of all farms, since it may be given more while it lives
        self.farms.mkdir(mode=0o700, parents=True, exist_ok=True)
        root.chmod(0o700)

    async def fit(self, image: Fields, environment: Mapping[str, str], say: Say | None) -> Fitting:
        """Return how a sandbox with this image is fitted out; what is missing is built, unless there is nobody to `say` it to.

        `environment`: the asking process's, of which indexes and proxies count. Cancelling ends the build, which keeps its whole
        steps. Raises ImageFailed.
        """
        recipe = Image.from_dict(image)
        if isinstance(recipe.base, MirrorBase) and not recipe.steps:
            return Fitting.mirror(recipe.base).showing(self.farms)
        built = await self._built(recipe, environment, say)
        if isinstance(recipe.base, MirrorBase):
            fitting = Fitting.mirror(recipe.base)
        else:
            guest = await self._built(Image(recipe.base).pip_install(*GUEST_NEEDS), environment, say)
            bare = Fitting.own(built.inside, built.version) if built.inside else Fitting.python(built.python, built.version)
            fitting = bare.behind(self._farms_of(guest), built.site)
        layers = [self.farms / layer for layer in built.layers]
        return fitting.above(self._farms_of(built), built.site, built.env).over(layers, built.root).showing(self.farms)

    def _farms_of(self, built: Built) -> list[Path]:
        return [self.farms / tree for tree in built.trees]

    async def _built(self, image: Image, environment: Mapping[str, str], say: Say | None) -> Built:
        built = find(image, self.root)
        if built is not None:
            return built
        if say is None:
            raise ImageFailed("the image is not built yet, and is not built for code in a sandbox; use it in the notebook first")
        return await self._build(image, environment, say)

    async def _build(self, image: Image, environment: Mapping[str, str], say: Say) -> Built:
        asked = {name: value for name, value in environment.items() if CARRIED.fullmatch(name)}
        async with _builder(self.root, os.environ | asked) as process:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(json.dumps(image.to_dict()).encode())
            process.stdin.close()
            async for line in process.stdout:
                told = json.loads(line)
                if "built" in told:
                    return Built.from_dict(told["built"])
                if "error" in told:
                    raise from_dict(told["error"])
                say(_words(told))
            raise InternalError(
                f"the builder of images ended with status {await process.wait()} and said nothing; see backend.log"
            )


@contextlib.asynccontextmanager
async def _builder(root: Path, environment: Mapping[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
    """Start the process that builds; it is gone, with all that it started, when this is left."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "remora_provisioner.images.build", str(root)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=environment,
        cwd="/",
        limit=_LINE,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), _PATIENCE)
        except TimeoutError:
            process.kill()
            await process.wait()


def _words(told: Fields) -> str:
    """Return what a line of the builder's comes to."""
    of = f"step {told['step']} of {told['of']}: " if told["of"] > 1 else ""
    return f"{of}{told['text']}"
