"""Remote cells in kernels that are not ours, after `%load_ext remora`: ipykernel as it is installed here, and ipykernel 6.

Law: the tests are those of test_cell_behaviour.py, held against other kernels; only what loading means is tested anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from journeys import test_cell_behaviour as behaviour
from journeys.driving import Notebook, Place

EVERYWHERE: list[Callable[..., None]] = [
    behaviour.test_last_expression_is_displayed,
    behaviour.test_streams_keep_their_order_and_come_as_they_are_written,
    behaviour.test_update_display_changes_what_is_shown,
    behaviour.test_clear_output_is_passed_on,
    behaviour.test_progress_bar_is_live,
    behaviour.test_button_callback_runs_in_the_sandbox,
    behaviour.test_button_is_live_while_a_cell_awaits,
    behaviour.test_cancel_button_ends_the_cell,
    behaviour.test_widget_of_the_sandbox_is_listed,
    behaviour.test_threads_show_under_the_cell_that_started_them,
    behaviour.test_input_is_asked_and_answered,
    behaviour.test_top_level_await,
    behaviour.test_debug_after_an_error,
    behaviour.test_headers_above_remote,
    behaviour.test_remote_for_all_cells,
    behaviour.test_syntax_error_shows_the_cells_line,
    behaviour.test_traceback_of_nested_functions,
    behaviour.test_own_exception_is_caught_here_by_its_type,
    behaviour.test_error_aborts_what_is_queued,
    behaviour.test_quick_failure_is_one_output,
    behaviour.test_twenty_queued_cells_run_in_order,
    behaviour.test_completion_and_inspection_know_remote_names,
    behaviour.test_status_line_says_how_it_goes_and_ended,
    behaviour.test_overview_and_runs,
    behaviour.test_pull_brings_names_home,
    behaviour.test_attach_replays_and_follows_a_detached_run,
]
WITH_LIBRARIES: list[Callable[..., None]] = [
    behaviour.test_matplotlib_figure_is_a_png,
    behaviour.test_rich_representations,
    behaviour.test_libraries_see_a_notebook,
    behaviour.test_tqdm_notebook_is_live,
    behaviour.test_magics_and_the_shell_run_there,
]


def _loaded(place: Place, kernel: str) -> Notebook:
    notebook = place.start(kernel)
    assert notebook.run("%load_ext remora").order == []
    assert notebook.remote("pass").ok
    return notebook


class _Loading:
    """What `%load_ext remora` does to a kernel."""

    @staticmethod
    def test_loading_again_changes_nothing(notebook: Notebook):
        """The extension may be loaded again, and reloaded; the session stays."""
        notebook.remote("survivor = open('/dev/null')")
        assert notebook.run("%load_ext remora").ok
        assert notebook.remote("survivor.closed").result == "False"

    @staticmethod
    def test_loading_leaves_local_cells_alone(notebook: Notebook):
        """Local cells, their errors and syntax errors are as they were."""
        assert notebook.run("1 + 1").result == "2"
        assert "Cell In[" in notebook.run("print(1 2)").error
        assert "remora" not in notebook.run("1 / 0").error

    @staticmethod
    def test_unloading_takes_all_away(place: Place, shared: Notebook):
        """Unloaded, the magics are gone and everything else is as before."""
        other = _loaded(place, shared.manager.kernel_name)
        try:
            assert other.run("%remote stop").ok
            assert other.run("%unload_ext remora").ok
            assert not other.remote("1").ok
            assert other.ask("inspect", "print", 3)["found"]
            assert "Cell In[" in other.run("print(1 2)").error
        finally:
            place.end(other)

    @staticmethod
    def test_sandbox_ends_with_the_kernel(place: Place, shared: Notebook):
        """When the kernel is shut down for good, its sandbox ends: the leak check of this test sees to it."""
        place.end(_loaded(place, shared.manager.kernel_name))


class TestPresent(_Loading):
    """The ipykernel of this environment."""

    @pytest.fixture(scope="class")
    @classmethod
    def shared(cls, place: Place) -> Iterator[Notebook]:
        """Give the tests a plain kernel with the extension."""
        notebook = _loaded(place, "plain")
        yield notebook
        place.end(notebook)


class TestSix(_Loading):
    """ipykernel 6, in an environment of its own."""

    @pytest.fixture(scope="class")
    @classmethod
    def shared(cls, place: Place, python_with_ipykernel_6: str) -> Iterator[Notebook]:
        """Give the tests a kernel of ipykernel 6 with the extension."""
        place.add_kernel("six", python_with_ipykernel_6)
        notebook = _loaded(place, "six")
        assert notebook.run("import ipykernel\nipykernel.version_info[0]").result == "6"
        yield notebook
        place.end(notebook)


for _test in EVERYWHERE:
    setattr(TestPresent, _test.__name__, staticmethod(_test))
    setattr(TestSix, _test.__name__, staticmethod(_test))
for _test in WITH_LIBRARIES:
    setattr(TestPresent, _test.__name__, staticmethod(_test))
del _test
