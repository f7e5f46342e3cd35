"""One child process: its inputs, its exit code and messages, and the end of its whole group."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from backend.errors import ProcessError
from backend.launcher.child_process import ChildProcess, Command
from backend.launcher.processes import run_to_end

PROJECT_FOLDER = Path(__file__).parents[2]

# Starts a grandchild in its own group, writes both process ids, and waits.
FAMILY = """
import os, subprocess, sys, time
wait = [sys.executable, "-c", "import time; time.sleep(60)"]
print(os.getpid(), subprocess.Popen(wait).pid, flush=True)
time.sleep(60)
"""
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + FAMILY


def wait_until(condition, *, within_s=10.0):
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def is_running(pid):
    """Say whether a process is there and not merely waiting to be buried."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except ProcessLookupError:
        return False
    except FileNotFoundError:  # it has ended meanwhile, or this is no Linux
        return not Path("/proc").exists()


def family_of(log_file):
    """Return the process ids that FAMILY wrote."""
    wait_until(lambda: log_file.exists() and log_file.read_text().endswith("\n"))
    return [int(pid) for pid in log_file.read_text().split()]


@pytest.fixture
def start(home, python):
    """Start children that are stopped at the end of the test."""
    started = []

    def start_one(code, *arguments, **environment):
        command = python(code, *arguments, **environment)
        child = ChildProcess(command, log_file=home / "logs" / f"{len(started)}.log")
        started.append(child)
        return child

    yield start_one
    for child in started:
        child.stop(grace_s=0.0)


def test_standard_output_and_error_go_to_the_log(start):
    child = start("import sys; print('out'); print('err', file=sys.stderr)")
    wait_until(lambda: child.exit_code() is not None)
    assert set(child.log_file.read_text().split()) == {"out", "err"}


def test_without_a_log_file_the_output_goes_where_ours_goes(home, python, capfd):
    child = ChildProcess(python("import sys; print('out'); print('err', file=sys.stderr)"))
    wait_until(lambda: child.exit_code() is not None)
    assert capfd.readouterr() == ("out\n", "err\n")
    with pytest.raises(ProcessError, match="child ended with exit code 0. Its output says more"):
        child.raise_if_ended()


def test_the_log_of_the_run_before_is_kept(start, home):
    (home / "logs").mkdir()
    (home / "logs" / "0.log").write_text("before")
    child = start("print('now')")
    wait_until(lambda: child.exit_code() == 0)
    assert child.log_file.read_text() == "now\n"
    assert (home / "logs" / "0.log.1").read_text() == "before"


def test_variables_are_added_and_removed_and_the_others_are_inherited(start, monkeypatch):
    monkeypatch.setenv("KEPT", "kept")
    monkeypatch.setenv("REMOVED", "removed")
    code = "import os; print(*(os.environ.get(n) for n in ('KEPT', 'REMOVED', 'ADDED')))"
    child = start(code, REMOVED=None, ADDED="with space and ü")
    wait_until(lambda: child.exit_code() == 0)
    assert child.log_file.read_text() == "kept None with space and ü\n"


@pytest.mark.skipif(not Path("/proc").exists(), reason="reads the list of processes of Linux")
def test_variables_do_not_stand_in_the_list_of_processes(start):
    child = start(FAMILY, PASSWORD="hush")
    for pid in (child.pid, *family_of(child.log_file)):
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes()
        assert b"-c" in arguments
        assert b"hush" not in arguments


def test_standard_input_is_empty(start):
    child = start("print(repr(open(0).read()))")
    wait_until(lambda: child.exit_code() == 0)
    assert child.log_file.read_text() == "''\n"


@pytest.mark.parametrize(
    ("code", "exit_code", "message"),
    [
        ("raise SystemExit(7)", 7, "child ended with exit code 7."),
        ("import os; os.kill(os.getpid(), 9)", -signal.SIGKILL, "child ended with signal SIGKILL."),
        ("import os; os.kill(os.getpid(), 15)", -signal.SIGTERM, "ended with signal SIGTERM."),
        ("import os; os.kill(os.getpid(), 1)", -signal.SIGHUP, "ended with signal SIGHUP."),
    ],
)
def test_the_group_leader_exits_as_its_program_does(start, code, exit_code, message):
    child = start(code)
    wait_until(lambda: child.exit_code() is not None)
    assert child.exit_code() == exit_code
    with pytest.raises(ProcessError, match=message):
        child.raise_if_ended()


def test_a_child_that_runs_has_no_exit_code(start):
    child = start(FAMILY)
    family_of(child.log_file)
    assert child.exit_code() is None
    child.raise_if_ended()


def test_the_message_of_an_early_end_holds_the_last_twenty_lines(start):
    child = start("print(*range(100, 150), sep='\\n'); raise SystemExit(1)")
    wait_until(lambda: child.exit_code() is not None)
    with pytest.raises(ProcessError) as caught:
        child.raise_if_ended()
    assert str(caught.value).splitlines()[-20:] == [str(n) for n in range(130, 150)]
    assert "129" not in str(caught.value)
    assert str(child.log_file) in str(caught.value)


def test_a_program_that_is_not_there_is_named(home):
    child = ChildProcess(Command("child", ("no-such-program",), home), log_file=home / "log")
    wait_until(lambda: child.exit_code() is not None)
    with pytest.raises(ProcessError, match="cannot run no-such-program"):
        child.raise_if_ended()


def test_stop_ends_the_children_of_the_child(start):
    child = start(FAMILY)
    family = family_of(child.log_file)
    assert all(is_running(pid) for pid in family)
    child.stop()
    assert not any(is_running(pid) for pid in (child.pid, *family))


def test_stop_kills_what_ignores_the_signal_after_the_grace(start):
    child = start(STUBBORN)
    family = family_of(child.log_file)
    started = time.monotonic()
    child.stop(grace_s=0.5)
    assert time.monotonic() - started >= 0.5
    assert not any(is_running(pid) for pid in (child.pid, *family))


def test_stop_does_not_wait_for_the_grace_when_hurried(start):
    child = start(STUBBORN)
    family = family_of(child.log_file)
    child.stop(grace_s=3600.0, is_hurried=lambda: True)
    assert not any(is_running(pid) for pid in (child.pid, *family))


def test_stop_ends_no_process_of_others(start):
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as foreign:
        other = start(FAMILY)
        child = start(FAMILY)
        family_of(child.log_file)
        child.stop()
        assert foreign.poll() is None
        assert all(is_running(pid) for pid in family_of(other.log_file))
        foreign.kill()


def test_what_a_program_leaves_behind_is_killed_when_it_ends(start):
    child = start(FAMILY.rsplit("time.sleep", 1)[0])
    _, grandchild = family_of(child.log_file)
    wait_until(lambda: child.exit_code() == 0)
    wait_until(lambda: not is_running(grandchild))


def test_nothing_survives_a_killed_parent(tmp_path):
    parent_code = f"""
import sys, time
from pathlib import Path
from backend.launcher.child_process import ChildProcess, Command
command = Command("child", (sys.executable, "-c", {FAMILY!r}), Path({str(tmp_path)!r}))
child = ChildProcess(command, log_file=Path({str(tmp_path / "log")!r}))
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", parent_code], cwd=PROJECT_FOLDER) as parent:
        family = family_of(tmp_path / "log")
        os.kill(parent.pid, signal.SIGKILL)
    wait_until(lambda: not any(is_running(pid) for pid in family))


def test_an_exclusive_command_runs_once_at_a_time(home, python):
    command = replace(python(FAMILY), exclusive=home / "data" / "lock")
    first = ChildProcess(command, log_file=home / "first.log")
    family_of(first.log_file)
    with pytest.raises(ProcessError, match="child runs already on the same data.*FREEAL_HOME"):
        ChildProcess(command, log_file=home / "second.log")
    first.stop()
    ChildProcess(command, log_file=home / "third.log").stop()


def test_an_exclusive_command_is_refused_until_that_of_a_killed_parent_has_ended(home, python):
    command = replace(python(STUBBORN), exclusive=home / "lock")
    child = ChildProcess(command, log_file=home / "first.log")
    family = family_of(child.log_file)
    child._lifeline.close()  # as the end of this process would
    with pytest.raises(ProcessError, match="runs already"):
        ChildProcess(command, log_file=home / "second.log")
    os.killpg(child.pid, signal.SIGKILL)
    wait_until(lambda: child.exit_code() is not None)
    wait_until(lambda: not is_running(family[0]))


def test_run_to_end_returns_when_the_command_is_done(home, python, console):
    log_file = home / "logs" / "it.log"
    run_to_end(python("print('done')"), log_file=log_file, title="Doing it", console=console)
    assert log_file.read_text() == "done\n"
    assert "Doing it: done" in " ".join(console.file.getvalue().split())


def test_run_to_end_raises_with_the_last_lines_of_a_failure(home, python, console):
    command = python("print('the reason'); raise SystemExit(3)")
    with pytest.raises(ProcessError, match="(?s)exit code 3.*the reason"):
        run_to_end(command, log_file=home / "log", title="Doing it", console=console)
    assert "failed" in console.file.getvalue()
