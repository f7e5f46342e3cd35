"""The faults: what is done to a round, and when."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from backend.domain.rounds import RoundState
from backend.supervise import web_command
from benchmarks.faults.case_run import Play, locked
from benchmarks.faults.testbed import (
    ANSWERED,
    BARE,
    WEB_PORT,
    descendants,
    result,
    serve_command,
    wait_for,
)
from benchmarks.faults.webhook_proxy import Manner

OUTAGE_S = 10.0
N_KILLS = 20
_DISK_BYTES = 1_000_000
_LATE_S = 60.0


@dataclass(frozen=True, slots=True)
class Case:
    """One fault. `act` plays it to its end and returns whether the round was completed.

    `is_comparable`: the round starts from the same labels with the same seeds as the undisturbed
    one, so that its results must be the same.
    """

    name: str
    done: str
    act: Callable[[Play], bool]
    snapshot: str = ANSWERED
    is_comparable: bool = True


def undisturbed(play: Play) -> bool:
    """Label everything and make a round, with no fault."""
    play.ask_for_round()
    play.start()
    return play.wait()


def all_cases(seconds: float, seed: int) -> list[Case]:
    """Return every case; moments are drawn over the seconds of an undisturbed run."""
    rng = np.random.default_rng(seed)
    moments = [round(float(at), 2) for at in np.sort(rng.uniform(0, seconds, N_KILLS))]
    others = [round(float(at), 2) for at in rng.uniform(0, seconds, 6)]
    kills = [
        Case(f"worker-{n}", f"worker killed after {at} s", partial(_killed, "worker", at))
        for n, at in enumerate(moments, start=1)
    ]
    web = [
        Case(f"web-{n}", f"web killed after {at} s", partial(_killed, "web", at))
        for n, at in enumerate(others[:3], start=1)
    ]
    spoken = f"web killed after {others[3]} s, and a person answers at that moment"
    return [
        *web,
        Case("web-answer", spoken, partial(_answered, others[3]), is_comparable=False),
        Case("llm-1", "LLM server gone for 10 s from its first label on", _llm_gone),
        Case("llm-2", "LLM server gone for 10 s when it is to be asked again", _llm_gone_again),
        Case("platform-1", "Label Studio killed while the first labels are published", _published),
        Case("platform-2", "Label Studio killed while the round is published", _released),
        *_webhook_cases(),
        Case("locked-1", f"freeal.db locked for 10 s after {others[4]} s", _lock(others[4])),
        Case(
            "locked-2",
            f"jobs.db locked for 10 s after {others[5]} s",
            _lock(others[5], name="jobs.db"),
        ),
        Case("disk", "disk full while the model is saved, then space is made", _disk_full),
        Case("cancel", "round cancelled, then another one asked for", _cancelled, ANSWERED, False),
        *kills,
    ]


def _webhook_cases() -> list[Case]:
    told: tuple[tuple[Manner, str], ...] = (
        ("double", "every webhook of people's work comes twice"),
        ("hold", "all webhooks of people's work come late, in reverse order"),
        ("lose", "all webhooks of people's work are lost"),
    )
    cases = [Case(f"webhooks-{m}", what, partial(_webhooks, m), BARE) for m, what in told]
    late = "the webhook of a changed answer is lost between two rounds"
    return [*cases, Case("webhooks-late", late, _changed_between, ANSWERED, False)]


def _at(play: Play, at_s: float) -> None:
    time.sleep(max(0.0, at_s - play.seconds))


def _killed(what: str, at_s: float, play: Play) -> bool:
    play.ask_for_round()
    play.start()
    _at(play, at_s)
    play.kill(what)
    return play.wait()


def _answered(at_s: float, play: Play) -> bool:
    play.ask_for_round()
    play.start()
    _at(play, at_s)
    play.kill("web")
    last = play.stage.tasks()[-1]
    path = f"/api/tasks/{last['id']}/annotations/"
    number = play.stage.call("POST", path, json={"result": result("Positive")})["id"]
    play.said = play.stage.said()
    is_done = play.wait()

    def is_known() -> bool:
        labels = play.services.stores.tasks.human_labels(play.project.id)
        return number in {label.annotation_id for label in labels}

    return wait_for(is_known, within_s=_LATE_S) and is_done


def _llm_gone(play: Play) -> bool:
    play.ask_for_round()
    play.start()
    play.until(lambda: play.stage.llm.n_asked > 0)
    return _outage(play)


def _llm_gone_again(play: Play) -> bool:
    play.ask_for_round()
    play.start()
    play.until(lambda: play.services.stores.rounds.running(play.project.id) is not None)
    return _outage(play)


def _outage(play: Play) -> bool:
    """Cut the LLM off; a vLLM of ours is really killed and started again."""
    stage = play.stage
    play.notes.append(f"at: {play.where()}")
    stage.llm.is_down = True
    stage.stop_vllm()
    time.sleep(OUTAGE_S)
    if stage.owns_vllm:
        stage.start_vllm()
        stage.llm.is_live = True
    stage.llm.is_down = False
    return play.wait()


def _published(play: Play) -> bool:
    play.ask_for_round()
    play.start()
    play.until(lambda: play.services.stores.labels.n_published(play.project) > 0)
    return _platform_gone(play)


def _released(play: Play) -> bool:
    play.ask_for_round()
    play.start()

    def is_released() -> bool:
        history = play.services.stores.rounds.history(play.project.id)
        is_over = bool(history) and history[-1].state is not RoundState.RUNNING
        return is_over and play.services.stores.releases.pending(play.project) is not None

    play.until(is_released)
    return _platform_gone(play)


def _platform_gone(play: Play) -> bool:
    play.notes.append(f"at: {play.where()}")
    play.stage.stop_label_studio()
    time.sleep(2.0)
    play.stage.start_label_studio()
    return play.wait()


def _webhooks(manner: Manner, play: Play) -> bool:
    """Let people work under a bad network while only web runs, then make the round."""
    stage = play.stage
    web = stage.processes.start(web_command(play.settings))
    stage.processes.wait_ready(web, url=f"http://127.0.0.1:{WEB_PORT}/health", deadline_s=120)
    stage.relay.begin(manner)
    stage.people_answer()
    play.said = stage.said()
    time.sleep(2.0)  # for the last webhooks
    stage.relay.release()
    play.notes.append(f"{stage.relay.n_touched} webhooks")
    stage.processes.stop(web)
    return undisturbed(play)


def _changed_between(play: Play) -> bool:
    is_done = undisturbed(play)
    stage = play.stage
    stage.relay.begin("lose", "ANNOTATION_UPDATED")
    stage.change(min(play.said))
    play.said = stage.said()
    play.ask_for_round()
    return play.wait(2) and is_done


def _lock(at_s: float, name: str = "freeal.db") -> Callable[[Play], bool]:
    def act(play: Play) -> bool:
        play.ask_for_round()
        play.start()
        _at(play, at_s)
        play.notes.append(f"at: {play.where()}")
        with locked(play.settings.home / name):
            time.sleep(OUTAGE_S)
        return play.wait()

    return act


def _disk_full(play: Play) -> bool:
    """Give the round's folder a small disk of its own, full until the round has complained."""
    folder = play.settings.home.absolute() / "models" / play.project.id
    folder.mkdir(parents=True)
    command = serve_command(play.settings)
    unshare = shutil.which("unshare") or "unshare"
    mount = 'mount -t tmpfs -o size=$1 none "$2" && shift 2 && exec "$@"'
    size = str(4 * _DISK_BYTES)
    argv = (unshare, "--mount", "sh", "-c", mount, "sh", size, str(folder), *command.argv)
    play.ask_for_round()
    play.start(command=replace(command, argv=argv))
    inside = _seen_by(play, folder)
    _fill(inside / "filler")
    play.until(lambda: any("round waits" in p for p in play.problems()))
    play.notes += play.problems()
    time.sleep(3.0)
    (inside / "filler").unlink()
    return play.wait()


def _seen_by(play: Play, folder: Path) -> Path:
    """Return a folder as the play's processes see it."""
    pids: Sequence[int] = descendants(play.serving.pid) if play.serving else ()
    return Path(f"/proc/{pids[-1]}/root{folder}")


def _fill(file: Path) -> None:
    with file.open("wb", buffering=0) as out, suppress(OSError):
        while True:
            out.write(b"\0" * 4096)


def _cancelled(play: Play) -> bool:
    play.ask_for_round()
    play.start()
    play.until(lambda: play.services.stores.rounds.running(play.project.id) is not None)
    version = play.project.model_version
    play.notes.append(f"at: {play.where()}")
    running = play.services.stores.rounds.running(
        play.project.id
    )  # what `round --cancel` does, at once
    if running is not None:
        play.services.stores.rounds.finish(running, RoundState.CANCELLED)
    is_over = play.wait()
    (first,) = play.services.stores.rounds.history(play.project.id)
    play.notes.append(f"first round {first.state}")
    is_kept = first.state is RoundState.CANCELLED and play.project.model_version == version
    play.ask_for_round()
    return play.wait(2) and is_over and is_kept
