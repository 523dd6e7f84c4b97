"""A process of the user's that follows runs: their ids come on standard input, and what was seen of each goes to standard output.

Law: it asks as any client does, and is not told of faults. What nobody knows yet, or cannot be reached now, is asked for again.
"""

from __future__ import annotations

import asyncio
import json
import sys
from concurrent.futures import Future

from remora import client as clients
from remora.errors import RemoraError
from remora.wire import Record, RunId

_LATER = ("no-such-run", "unreachable")
_AGAIN = 1.0
"""Seconds until a run is asked for again; for how long is said on the command line."""


class Seen:
    """What was seen of one run."""

    def __init__(self, run: str) -> None:
        """Nothing yet."""
        self.run, self.state, self.reason, self.text, self.message = run, "", "", "", ""
        self.in_memory = False
        """Whether its log found no room on the disk."""

    def take(self, item: Record | RemoraError) -> None:
        """Take what comes of the run."""
        if isinstance(item, RemoraError):
            self.state, self.reason, self.message = "lost", item.reason, str(item)
        elif item.type == "output" and item.content["msg_type"] == "stream":
            self.text += item.content["content"]["text"] if item.content["content"]["name"] == "stdout" else ""
        elif item.type == "state":
            self.state, self.reason = item.content["state"], str(item.content.get("reason") or "")
        elif item.type == "result":
            about = item.content.get("ended") or item.content.get("error") or {}
            self.message = str(about.get("message") or f"{about.get('ename')}: {about.get('evalue')}")
        elif item.type == "notice":
            self.in_memory = self.in_memory or "kept only in memory" in item.content["text"]


async def follow(run: str, patience: float) -> None:
    """Follow a run to its end, and say what was seen."""
    waited = 0.0
    while True:
        seen = Seen(run)
        try:
            await clients.client().follow(RunId(run), seen.take)
        except RemoraError as error:
            seen.take(error)
        if seen.state != "lost" or seen.reason not in _LATER or waited >= patience:
            break
        await asyncio.sleep(_AGAIN)
        waited += _AGAIN
    print(json.dumps(vars(seen)), flush=True)


def main() -> None:
    """Follow whatever is named until there are no more names."""
    patience = float(sys.argv[1])
    following: list[Future[None]] = [clients.client().start(follow(line.strip(), patience)) for line in sys.stdin]
    for one in following:
        one.result()


if __name__ == "__main__":
    main()
