"""The images of one machine, as its agent uses them: found at once when they are there, built by a process of its own when not.

Law: what is found costs the reading of a few small files; the agent itself never reads a tree, starts uv or waits for a disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

from remora.errors import InternalError, RemoraError
from remora.errors import from_dict as error_from
from remora.images import GUEST_NEEDS, Image
from remora.images.mirror import CARRIED
from remora.images.steps import MirrorBase, from_dict
from remora.resources import format_seconds, parse_memory
from remora.settings import IMAGES_MOST
from remora.wire import Fields

from . import asking, within
from .built import Built, find, resolve
from .fitting import Fitting
from .records import Records, write_whole
from .store import Store

_LOG = logging.getLogger(__name__)
Say = Callable[[str], None]
"""Gets a word on what a build is doing."""
Secret = Mapping[str, str]
"""Variables of a secret; what holds one is written nowhere."""
_NONE: Secret = {}
_PATIENCE = 5.0
"""Seconds that a builder may take to clear up."""
_LINE = 1 << 20
_WORTH_SAYING = 2.0
"""Seconds that a step must usually take for it to be said."""


class Images:
    """What this machine has of images."""

    def __init__(self, root: Path) -> None:
        """Keep store, records and logs below `root`."""
        self.root = root
        self._tidying: asyncio.Task[None] | None = None
        self.farms = root / "farms"
        # every sandbox sees the folder of all farms, since it may be given more while it lives
        self.farms.mkdir(mode=0o700, parents=True, exist_ok=True)
        root.chmod(0o700)

    async def fit(self, image: Fields, environment: Mapping[str, str], say: Say, registry: Secret = _NONE) -> Fitting:
        """Return how a sandbox with this image is fitted out; what is missing is built, and `say` hears of it.

        `environment`: the asking process's, of which indexes and proxies count. Cancelling ends the build, which keeps its whole
        steps. `registry`: who asks the registry that it begins with. Raises ImageFailed.
        """
        if within.BUILT_ON in image:
            environment = within.ENVIRONMENT
        recipe, seen = resolve(within.to_build(image), Records(self.root)), from_dict(image["base"])
        if isinstance(recipe.base, MirrorBase) and not recipe.steps:
            return Fitting.mirror(recipe.base).showing(self.farms)
        built = await self._built(recipe, environment, say, registry)
        if isinstance(recipe.base, MirrorBase):
            fitting = Fitting.mirror(seen if isinstance(seen, MirrorBase) else recipe.base)
        else:
            guest = await self._built(Image(recipe.base).pip_install(*GUEST_NEEDS), environment, say, registry)
            roots = tuple(image.get("roots", ()))
            if built.inside:
                fitting = Fitting.own(built.inside, built.version, roots)
            else:
                fitting = Fitting.python(built.python, built.version, roots)
            fitting = fitting.behind(self._farms_of(guest), built.site)
        layers = [self.farms / layer for layer in built.layers]
        return fitting.above(self._farms_of(built), built.site, built.env).over(layers, built.root).showing(self.farms)

    async def hold(self, sandbox: str, fitting: Fitting) -> None:
        """Keep what a sandbox uses until `release`."""
        kept = (*fitting.trees, *(os.path.basename(layer) for layer in fitting.layers))
        if kept:
            await asyncio.to_thread(Store(self.root).lease, sandbox, kept)

    def release(self, sandbox: str) -> None:
        """Take note that a sandbox has ended."""
        (self.root / "leases" / sandbox).unlink(missing_ok=True)

    def release_others(self, living: set[str]) -> None:
        """Take note that no other sandboxes live than these."""
        for sandbox in set(os.listdir(self.root / "leases")) - living if (self.root / "leases").is_dir() else ():
            self.release(sandbox)

    def asks(self, fitting: Fitting) -> dict[str, str]:
        """Return the environment in which a guest tells what it opens, if that is not known of a tree; see `note_opened`."""
        first = any(not (self.root / "opened" / tree).exists() for tree in fitting.trees)
        return {"REMORA_OPENED": str(self.farms)} if first else {}

    def note_opened(self, paths: list[str]) -> None:
        """Keep for each tree which of its files were opened at its first use, given as paths below the folder of all farms.

        Where there is no room it is found out another time.
        """
        folder = self.root / "opened"
        found: dict[str, list[str]] = {}
        for path in paths:
            tree, _, file = path.partition("/")
            found.setdefault(tree, []).append(file)
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            for tree, files in found.items():
                if (self.farms / tree).is_dir() and not (folder / tree).exists():
                    write_whole(folder / tree, json.dumps(files).encode())
        except OSError as error:
            _LOG.warning("what a sandbox opened at first is not kept: %s", error)

    async def ask(self, op: str, args: Fields, say: Say) -> Fields:
        """Answer a question about images, or build one; see asking.py."""
        if op == "build":
            registry = (args.get("secrets") or {}).get("registry") or {}
            image, environment = Image.from_dict(args["image"]), dict(args.get("environment", {}))
            return (await self._built(image, environment, say, registry)).to_dict()
        return await asyncio.to_thread(asking.answer, self.root, op, args)

    def _tidy(self) -> None:
        """Keep the store within its size, now that it has grown; nobody waits for it."""
        if self._tidying is None or self._tidying.done():
            self._tidying = asyncio.get_running_loop().create_task(self._keep_small())

    async def _keep_small(self) -> None:
        try:
            await asyncio.to_thread(asking.tidy, self.root, parse_memory(IMAGES_MOST.text, IMAGES_MOST.name))
        except (RemoraError, OSError) as error:
            _LOG.warning("the store of images was not made smaller: %s", error)

    def _farms_of(self, built: Built) -> list[Path]:
        return [self.farms / tree for tree in built.trees]

    async def _built(self, image: Image, environment: Mapping[str, str], say: Say, registry: Secret) -> Built:
        return find(image, self.root) or await self._build(image, environment, say, registry)

    async def _build(self, image: Image, environment: Mapping[str, str], say: Say, registry: Secret) -> Built:
        asked = {name: value for name, value in environment.items() if CARRIED.fullmatch(name)}
        inside = environment is within.ENVIRONMENT  # else what whoever started the backend had set for itself does not count
        own = {name: value for name, value in os.environ.items() if inside or not CARRIED.fullmatch(name)}
        async with _builder(self.root, own | asked) as process:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(json.dumps(image.to_dict() | {"registry": registry}).encode())
            process.stdin.close()
            async for line in process.stdout:
                told = json.loads(line)
                if "built" in told:
                    self._tidy()
                    return Built.from_dict(told["built"])
                if "error" in told:
                    raise error_from(told["error"])
                say(_words(told))
            raise InternalError(
                f"the builder of images ended with status {await process.wait()} and said nothing; see backend.log"
            )


@contextlib.asynccontextmanager
async def _builder(root: Path, environment: Mapping[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
    """Start the process that builds; it is gone, with all that it started, when this is left."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "remora_provisioner.images.build", str(root), str(os.getpid())),
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
    usual = f" (usually {format_seconds(told['expected'])})" if told["expected"] >= _WORTH_SAYING else ""
    return f"{of}{told['text']}{usual}"
