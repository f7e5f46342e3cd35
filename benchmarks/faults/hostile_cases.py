"""Define the fault cases in which others misbehave: wrong answers, slow clients, disks, clocks."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import get_args

import requests

from backend.launcher.child_process import Command
from benchmarks.faults.case_run import Case, CaseRun
from benchmarks.faults.testbed import (
    WEB_URL,
    fill,
    half_requests,
    serve_command,
    wait_for,
)
from benchmarks.faults.wrong_answers import WrongAnswer

_WRONG_S = 10.0
_FULL_S = 10.0
_N_SLOW = 200
_MAX_HEALTH_S = 1.0
_LATE_S = 60.0
_CLOCKS = {"forward": "+3d", "back": "-3d"}
_WORDS: dict[WrongAnswer, str] = {
    "empty": "{}",
    "truncated": "half of the answer",
    "html": "a page",
    "foreign": "what belongs to others",
}


def hostile_cases() -> list[Case]:
    """Return the cases; those that need root or Debian's faketime say so where it is missing."""
    kinds: tuple[WrongAnswer, ...] = get_args(WrongAnswer)
    return [
        *(
            Case(
                f"llm-{kind}",
                f"the LLM answers 200 with {_WORDS[kind]} for 10 s",
                partial(_wrong_llm, kind),
            )
            for kind in kinds
        ),
        *(
            Case(
                f"platform-{kind}",
                f"Label Studio answers 200 with {_WORDS[kind]} for 10 s",
                partial(_wrong_platform, kind),
            )
            for kind in kinds
        ),
        Case(
            "slow-clients",
            f"{_N_SLOW} half requests, and a person answers",
            _slow,
            is_comparable=False,
        ),
        Case(
            "disk-worker",
            "disk full for 10 s while the worker labels",
            _disk_worker,
            has_own_disk=True,
        ),
        Case(
            "disk-web",
            "disk full for 10 s while the web process hears of an answer",
            _disk_web,
            is_comparable=False,
            has_own_disk=True,
        ),
        *(
            Case(
                f"clock-{way}",
                f"the backend's clock jumps by {shift} in the round",
                partial(_clock, shift),
            )
            for way, shift in _CLOCKS.items()
        ),
    ]


def _begin(run: CaseRun, *, command: Command | None = None) -> None:
    """Start, and wait until the first texts are labeled."""
    run.request_round()
    run.start(command=command)
    run.until(lambda: run.testbed.llm.n_prompts > 0)
    run.notes.append(f"at: {run.where()}")


def _wrong_llm(kind: WrongAnswer, run: CaseRun) -> bool:
    _begin(run)
    llm = run.testbed.llm
    llm.wrong = kind
    time.sleep(_WRONG_S)
    llm.wrong = None
    run.notes.append(f"{llm.n_spoiled} wrong answers")
    return run.wait()


def _wrong_platform(kind: WrongAnswer, run: CaseRun) -> bool:
    _begin(run)
    platform = run.testbed.platform
    platform.inject(kind)
    time.sleep(_WRONG_S)
    n_spoiled = platform.n_spoiled
    platform.inject()
    run.notes.append(f"{n_spoiled} wrong answers")
    return run.wait()


def _slow(run: CaseRun) -> bool:
    """Hold half requests open during the round; a person's answer is heard of all the same."""
    _begin(run)
    with half_requests(WEB_URL, _N_SLOW):
        number = answer_last_task(run)
        slowest = max(_health_seconds() for _ in range(20))
        run.notes.append(f"slowest /health {slowest:.2f} s")
        is_done = run.wait()
    return is_done and slowest < _MAX_HEALTH_S and is_known(run, number)


def _health_seconds() -> float:
    started = time.monotonic()
    requests.get(f"{WEB_URL}/health", timeout=30).raise_for_status()
    return time.monotonic() - started


def _disk_worker(run: CaseRun) -> bool:
    _begin(run)
    _full_disk(run)
    run.notes += run.problems()
    return run.wait()


def _disk_web(run: CaseRun) -> bool:
    _begin(run)
    numbers = []
    _full_disk(run, meanwhile=lambda: numbers.append(answer_last_task(run)))
    return run.wait() and is_known(run, numbers[0])


def _full_disk(run: CaseRun, meanwhile: Callable[[], object] = lambda: None) -> None:
    filler = run.settings.home / "filler"
    fill(filler)
    meanwhile()
    time.sleep(_FULL_S)
    filler.unlink()


def _clock(shift: str, run: CaseRun) -> bool:
    """Let the backend's clock jump in the middle of the round, Label Studio's does not."""
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    if library is None or shutil.which("faketime") is None:
        raise RuntimeError("the clocks need Debian's faketime: apt-get install faketime")
    clock = run.settings.home.absolute() / "clock"
    clock.write_text("+0d\n", encoding="utf-8")
    command = serve_command(run.settings)
    environment = {
        **command.environment,
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    _begin(run, command=replace(command, environment=environment))
    clock.write_text(f"{shift}\n", encoding="utf-8")
    return run.wait()


def answer_last_task(run: CaseRun) -> int:
    """Label the last task as a person does; return the annotation's number."""
    number = run.testbed.submit(run.testbed.tasks()[-1])
    run.submitted = run.testbed.human_labels()
    return number


def is_known(run: CaseRun, number: int) -> bool:
    """Wait until the backend has an annotation; return whether it came in a minute."""

    def knows() -> bool:
        labels = run.services.stores.tasks.human_labels(run.project.id)
        return number in {label.annotation_id for label in labels}

    return wait_for(knows, within_s=_LATE_S)
