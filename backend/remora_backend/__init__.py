"""The service that remembers and decides: one process per user, started on first use, reached over a Unix socket."""
