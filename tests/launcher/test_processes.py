"""Several children: waiting until they answer, early ends, and who is stopped by what."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from backend.errors import ProcessError, ServerNotReady
from backend.launcher.processes import Processes, answers, free_port

PROJECT_FOLDER = Path(__file__).parents[2]

WEB = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response({"/health": 200, "/busy": 503}.get(self.path, 404))
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
SLEEP = "import time; time.sleep(60)"


def unused_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def web(home, console, python):
    """Yield running processes with a small web server among them, and its address."""
    port = unused_port()
    with Processes(home=home, console=console, grace_s=1.0) as processes:
        server = processes.start(python(WEB, str(port), name="web"))
        yield processes, server, f"http://127.0.0.1:{port}"


def test_waits_until_the_address_answers(web, console):
    processes, server, url = web
    processes.wait_ready(server, url=f"{url}/health", deadline_s=20)
    assert answers(f"{url}/health")
    assert "Waiting for web: done" in " ".join(console.file.getvalue().split())


def test_an_error_status_is_no_answer(web):
    processes, server, url = web
    processes.wait_ready(server, url=f"{url}/health", deadline_s=20)
    assert not answers(f"{url}/busy")
    assert not answers(f"{url}/nowhere")


def test_proxies_of_the_user_are_not_asked(web, monkeypatch):
    processes, server, url = web
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    processes.wait_ready(server, url=f"{url}/health", deadline_s=20)


def test_a_server_that_never_gets_ready_is_an_error_after_the_deadline(web):
    processes, server, url = web
    with pytest.raises(ServerNotReady, match=r"web runs, but did not answer at .*/busy within 1 s"):
        processes.wait_ready(server, url=f"{url}/busy", deadline_s=0.6)


def test_an_early_exit_is_an_error_at_once_with_the_log(home, console, python):
    code = "print('no such model'); raise SystemExit(4)"
    with Processes(home=home, console=console) as processes:
        child = processes.start(python(code, name="llm"))
        with pytest.raises(ProcessError, match="(?s)llm ended with exit code 4.*no such model"):
            processes.wait_ready(child, url="http://127.0.0.1:1/health", deadline_s=60)
    assert (home / "logs" / "llm.log").read_text() == "no such model\n"


def test_the_exit_of_another_child_is_an_error_as_well(home, console, python):
    with Processes(home=home, console=console, grace_s=1.0) as processes:
        waited_for = processes.start(python(SLEEP, name="waited-for"))
        processes.start(python("raise SystemExit(5)", name="other"))
        with pytest.raises(ProcessError, match="other ended with exit code 5"):
            processes.wait_ready(waited_for, url="http://127.0.0.1:1/", deadline_s=60)


def test_another_server_at_the_address_does_not_hide_that_the_child_has_ended(web, python):
    processes, server, url = web
    processes.wait_ready(server, url=f"{url}/health", deadline_s=20)
    late = processes.start(python("raise SystemExit(6)", name="late"))
    while late.exit_code() is None:
        time.sleep(0.02)
    with pytest.raises(ProcessError, match="late ended with exit code 6"):
        processes.wait_ready(late, url=f"{url}/health", deadline_s=20)


def test_watch_ends_when_a_child_does(home, console, python):
    with Processes(home=home, console=console) as processes:
        processes.start(python("raise SystemExit(2)"))
        with pytest.raises(ProcessError, match="exit code 2"):
            processes.watch()


def test_children_are_stopped_in_reverse_order(home, console, python):
    code = f"""
import signal, sys, time
def leave(*_):
    with open({str(home / "order")!r}, "a") as file:
        print(sys.argv[1], file=file)
    sys.exit()
signal.signal(signal.SIGTERM, leave)
print("ready", flush=True)
time.sleep(60)
"""
    with Processes(home=home, console=console) as processes:
        for name in ("first", "second", "third"):
            child = processes.start(python(code, name, name=name))
            while child.log_file.read_text() != "ready\n":
                time.sleep(0.02)
    assert (home / "order").read_text().split() == ["third", "second", "first"]


def test_a_stopped_child_is_no_early_exit(home, console, python):
    with Processes(home=home, console=console) as processes:
        child = processes.start(python(SLEEP))
        processes.stop(child)
        assert child.exit_code() is not None
        processes.check()


def test_an_exception_in_the_block_stops_the_children(home, console, python):
    with pytest.raises(LookupError), Processes(home=home, console=console) as processes:
        child = processes.start(python(SLEEP))
        raise LookupError
    assert child.exit_code() == -signal.SIGTERM


def test_the_block_leaves_the_signal_handlers_as_they_were(home, console):
    before = [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)]
    with Processes(home=home, console=console):
        assert signal.getsignal(signal.SIGTERM) != before[0]
    after = [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)]
    assert after == before


def test_an_ignored_signal_stays_ignored(home, console):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Processes(home=home, console=console):
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


PARENT = f"""
import io, signal, sys
from pathlib import Path
from rich.console import Console
from backend.launcher.child_process import Command
from backend.launcher.processes import Processes
home = Path(sys.argv[1])
# As in a terminal, also where the tests themselves run in the background.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
with Processes(home=home, console=Console(file=io.StringIO())) as processes:
    child = processes.start(Command("child", (sys.executable, "-c", {SLEEP!r}), home))
    print(child.pid, flush=True)
    processes.watch()
"""


@pytest.mark.parametrize(
    ("signum", "exit_code"),
    [(signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
)
def test_a_signal_to_the_parent_stops_the_children(home, signum, exit_code):
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(home)],
        cwd=PROJECT_FOLDER,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as parent:
        group = int(parent.stdout.readline())
        os.killpg(group, 0)
        parent.send_signal(signum)
        assert parent.wait(timeout=20) == exit_code
        with pytest.raises(ProcessLookupError):
            os.killpg(group, 0)


def test_the_preferred_port_is_taken_if_free(console):
    port = unused_port()
    assert free_port(port, name="vLLM", console=console) == port
    assert console.file.getvalue() == ""


def test_the_next_free_port_is_taken_otherwise_and_shown(console):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        preferred = taken.getsockname()[1]
        port = free_port(preferred, name="vLLM", console=console)
    assert preferred < port < preferred + 50
    assert console.file.getvalue() == f"Port {preferred} is taken: vLLM uses {port}\n"


def test_a_port_that_was_just_left_is_free(console):
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            server.accept()[0].close()
    assert free_port(port, name="vLLM", console=console) == port
