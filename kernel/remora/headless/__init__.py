"""Notebooks without a front end: read, given their parameters, run in one sandbox, written down as they go.

Law: what a run leaves in the output notebook comes from its run log alone, so whoever follows the log writes the same notebook:
the command that started the run, the follower of a detached one, or `remora attach` after both are gone.
"""
