"""Machines elsewhere: how one is reached, given what it lacks, and spoken with."""
