"""The image store of one machine, and what builds into it."""
