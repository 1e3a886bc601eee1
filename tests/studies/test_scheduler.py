"""Studies on a Dask cluster of two workers, and what keeps a cell from being run twice."""

import os
import random
import re
import signal
import sys

import pytest
from distributed import Client, LocalCluster

from granet_train.errors import Interrupted, UsageError
from granet_train.stopping import Stop
from granet_train.studies import jobs, session, worker
from granet_train.studies.compare import flags
from granet_train.studies.grid import Grid
from tests.support.jobs_to_run import JOURNAL, STUDY, Task, open_run


@pytest.fixture(scope="module")
def cluster():
    with LocalCluster(
        n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None, memory_limit=0
    ) as cluster:
        cluster.scheduler.allowed_failures = 1
        yield cluster


def pids(cluster):
    with Client(cluster, set_as_default=False) as client:
        return set(client.run(os.getpid).values())


def journal(grid, task):
    """[(what, in which process, of which worker)]."""
    lines = (grid.directory / JOURNAL.format(task.name)).read_text().splitlines()
    return [(what, *map(int, pids)) for what, *pids in map(str.split, lines)]


def run(tasks, grid, cluster):
    return jobs.run(tasks, grid, open_run, None, scheduler=cluster.scheduler_address)


def test_the_cell_of_a_worker_that_is_killed_runs_again_elsewhere(tmp_path, cluster):
    grid, workers = Grid(tmp_path), pids(cluster)
    lost = Task("lost", "lose worker")
    others = [Task(str(number), "journal") for number in range(6)]
    needing = [Task("needing", "journal", needs=lost), Task("more", "journal", needs=others[0])]
    assert run([lost, *others, *needing], grid, cluster) == {}
    [(begun, _, killed), (again, pid, other), (done, last, _)] = journal(grid, lost)
    assert (begun, again, done) == ("begun", "begun", "done")
    assert killed in workers and other != killed
    assert pid == last == grid.result(lost)["pid"]
    for task in (*others, *needing):
        [(begun, pid, _), (done, last, _)] = journal(grid, task)
        assert (begun, done) == ("begun", "done") and pid == last == grid.result(task)["pid"]
    assert [grid.result(task)["needed"] for task in needing] == [
        grid.result(lost)["pid"],
        grid.result(others[0])["pid"],
    ]
    assert "--- task lost" in "".join(log.read_text() for log in tmp_path.glob("worker_*.log"))
    # What is done is not done again.
    assert run([lost, *others, *needing], grid, cluster) == {}
    assert len(journal(grid, lost)) == 3


def test_a_cell_that_fails_is_reported_with_those_that_need_it(tmp_path, cluster):
    dies = Task("dies", "die")
    tasks = [dies, Task("fails", "diverge"), Task("needs", needs=dies), Task("last")]
    tasks += [Task("kills", "kill workers")]
    failed = run(tasks, Grid(tmp_path), cluster)
    assert {task.name: re.split("[,;]", why)[0] for task, why in failed.items()} == {
        "dies": "its process ended with code -9",
        "kills": "each worker that ran it ended",
        "fails": "The loss became nan.",
        "needs": "it needs task dies",
    }
    with pytest.raises(UsageError, match="There is no such data set"):
        run([Task("bad", "refuse")], Grid(tmp_path), cluster)


def test_random_numbers_are_those_of_the_cell_alone(tmp_path, cluster):
    """Dask's own threads draw some, too, and Keras's seeds come from Python's."""
    grid, task = Grid(tmp_path), Task("draws", "draw")
    assert run([task], grid, cluster) == {}
    assert grid.result(task)["drawn"] == random.Random(0).random()


def test_a_signal_saves_what_was_begun(tmp_path, cluster):
    grid, task = Grid(tmp_path), Task("waits", "wait")
    (tmp_path / STUDY).write_text(str(os.getpid()))
    with pytest.raises(Interrupted, match=r"Stopped with 0 of 2 cells done") as error:
        run([task, Task("never", needs=task)], grid, cluster)
    assert error.value.exit_code == 128 + signal.SIGTERM
    assert (grid.folder(task) / "saved").exists()
    assert grid.result(task) is None


def test_a_scheduler_that_is_not_there(tmp_path, monkeypatch):
    for address in ("tcp://127.0.0.1:9", "nonsense", "foo://host:8786"):
        with pytest.raises(
            UsageError, match=rf"^--scheduler must be .*Received: --scheduler={address}$"
        ):
            jobs.run([Task("any")], Grid(tmp_path), open_run, None, scheduler=address)
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UsageError, match=r"pip install 'granet_tf\[dask\]'\. Received: --sch"):
        jobs.run([Task("any")], Grid(tmp_path), open_run, None, scheduler="tcp://host:8786")


@pytest.mark.parametrize("flag", ["--jobs=2", "--devices=0,1"])
def test_a_scheduler_has_workers_of_its_own(flag):
    with pytest.raises(UsageError, match="--scheduler has no use for --jobs and --devices"):
        flags.read(["--scheduler=tcp://host:8786", flag])


def test_a_cell_is_claimed_by_one(tmp_path):
    asked = Stop()
    asked.signal = signal.SIGTERM
    with session.begun(tmp_path) as mine:
        assert mine.share("cell") is None
        with mine.claimed("cell", Stop()) as tell:
            tell(0.25)
            assert mine.share("cell") == 0.25
            with pytest.raises(Interrupted), mine.claimed("cell", asked):
                raise AssertionError("claimed twice")
            with mine.claimed("another", asked):
                pass
        with mine.claimed("cell", asked):
            mine.release("cell")
        assert mine.share("cell") is None


def test_a_study_is_run_by_one_command(tmp_path):
    with (
        session.begun(tmp_path),
        pytest.raises(UsageError, match=r"Another command is at work on this study.*Received: "),
        session.begun(tmp_path),
    ):
        raise AssertionError("begun twice")


def test_workers_end_with_their_study_or_where_they_do_not_see_it(tmp_path):
    with session.begun(tmp_path) as first:
        assert first.asked() is None and not session.Asked(first, Stop())
    assert first.asked() == signal.SIGTERM
    assert worker.answer(first, b"", b"")[0] == worker.REFUSED
    with session.begun(tmp_path) as second:
        assert second.asked() is None
        assert session.Asked(first, Stop())
    elsewhere = session.Session(tmp_path / "elsewhere", second.name)
    kind, reason = worker.answer(elsewhere, b"", b"")
    assert kind == worker.REFUSED
    assert reason.startswith("All workers must see the directory of the study")
    assert f"Received: {tmp_path / 'elsewhere'}" in reason
