"""`serve` restarts its processes, unless their exit code says that this is of no use."""

from __future__ import annotations

import os
import signal
import sys
import time

import pytest

from backend.errors import SettingsError
from backend.launcher.child_process import Command
from backend.setting_values import Secret
from backend.settings import Settings
from backend.supervise import SupervisedProcess, serve, web_command, worker_command

APPEND = "import os, sys, time; open(sys.argv[1], 'a').write(f'{os.getpid()}\\n'); "


def supervised(tmp_path, then: str) -> SupervisedProcess:
    argv = (sys.executable, "-c", APPEND + then, str(tmp_path / "starts"))
    return SupervisedProcess(Command("test", argv, tmp_path), first_pause_s=0.05)


def starts(tmp_path) -> list[int]:
    path = tmp_path / "starts"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def poll_until(child, is_so) -> bool:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if not child.poll():
            return False
        if is_so():
            return True
        time.sleep(0.02)
    raise AssertionError("it did not come to that in 20 s")


def test_a_process_that_is_killed_is_restarted(tmp_path):
    child = supervised(tmp_path, "time.sleep(60)")
    try:
        assert poll_until(child, lambda: len(starts(tmp_path)) == 1)
        os.kill(starts(tmp_path)[0], signal.SIGKILL)
        assert poll_until(child, lambda: len(starts(tmp_path)) == 2)
    finally:
        child.stop()


def test_exit_code_two_is_not_restarted(tmp_path):
    child = supervised(tmp_path, "sys.exit(2)")
    assert poll_until(child, lambda: False) is False
    assert len(starts(tmp_path)) == 1
    child.stop()


def test_no_secret_stands_in_a_command_line(tmp_path):
    settings = Settings(home=tmp_path, llm_api_key=Secret("hush"), port=9191)
    for command in (web_command(settings), worker_command(settings)):
        assert "hush" not in " ".join(command.argv)
        assert command.environment["LLM_API_KEY"] == "hush"
        assert command.environment["PORT"] == "9191"


def test_the_worker_has_a_lower_priority_than_the_web_process(tmp_path):
    settings = Settings(home=tmp_path)
    assert worker_command(settings).argv[:3] == ("nice", "-n", "10")
    assert web_command(settings).argv[0] == sys.executable


def test_nothing_starts_that_strangers_could_reach_without_a_password(tmp_path):
    with pytest.raises(SettingsError, match="ALLOW_OPEN"):
        serve(Settings(home=tmp_path, host="0.0.0.0"))  # noqa: S104
    assert list(tmp_path.iterdir()) == []
