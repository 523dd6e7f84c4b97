"""What cannot be the same on another machine as on this one, and why: tests that `--elsewhere` leaves out.

Law: each line names a file, or one test of a file, and says for what good reason. Whatever else fails elsewhere is a bug.
"""

from __future__ import annotations

from collections.abc import Iterable

_DURING = "files go before a cell and come home after it, not while it runs: a file cannot be its sign to go on"
_INSIDE = "code there can ask nothing of Remora: whoever has that machine could speak in its name"
_NAMED = "its cells name machines that it makes itself"
DIFFERENT = {
    "test_bad_input.py::test_full_disk": "what goes there is packed here: a disk of 1 MiB has no room for it, full or not",
    "test_bad_input.py::test_disk_that_fills_up_under_a_session": "a run's log is on its machine: here is room",
    "test_cell_behaviour.py::test_two_kernels_have_sessions_of_their_own": _DURING,
    "test_cell_behaviour.py::test_attach_replays_and_follows_a_detached_run": _DURING,
    "test_commands.py::test_a_port_of_a_sandbox_here": "it is about a sandbox here; test_elsewhere.py opens ports of one there",
    "test_deaths.py": "it kills the processes of this machine; test_elsewhere_deaths.py kills those there",
    "test_elsewhere.py": _NAMED,
    "test_elsewhere_deaths.py": _NAMED,
    "test_elsewhere_left.py": _NAMED,
    "test_faults.py": _NAMED,
    "test_functions.py::test_function_in_a_remote_cell": _INSIDE,
    "test_gpus.py::test_devices_of_sessions": "the devices are nodes of this machine; test_elsewhere.py has some there",
    "test_headless.py::test_a_remote_cell_in_it_opens_its_own_sandbox_which_ends_with_it": _INSIDE,
    "test_headless.py::test_the_inner_sandbox_does_not_outlive_an_outer_one_that_is_killed": _INSIDE,
    "test_hostile_hosts.py": _NAMED,
    "test_inside.py": _INSIDE,
    "test_lid.py": _NAMED,
    "test_sandbox_view.py::test_home_and_other_users": "the home there is that machine's user's, and has another name",
    "test_sandbox_view.py::test_no_process_of_a_sandbox_is_root_outside": "nothing there is of root, who has not signed in",
    "test_security.py": _NAMED,
    "test_weak_jails.py": "the jail is that machine's; test_hostile_hosts.py has one that forbids namespaces",
}


def why(files: Iterable[str], test: str) -> str | None:
    """Return why a test that is in these files is left out elsewhere; None for one that is the same."""
    named = [name for file in files for name in (f"{file}::{test.partition('[')[0]}", file)]
    return next((DIFFERENT[name] for name in named if name in DIFFERENT), None)
