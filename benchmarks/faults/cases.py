"""Define the fault cases: what is done to a round, and when."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from backend.domain.rounds import RoundState
from backend.supervise import web_command
from benchmarks.faults.case_run import Case, CaseRun, locked
from benchmarks.faults.hostile_cases import answer_last_task, hostile_cases, is_known
from benchmarks.faults.testbed import (
    LABELED,
    UNLABELED,
    WEB_URL,
    descendants,
    fill,
    serve_command,
)
from benchmarks.faults.webhook_proxy import WebhookFault

OUTAGE_S = 10.0
N_KILLS = 20


def undisturbed(run: CaseRun) -> bool:
    """Label everything and run a round, without a fault."""
    run.request_round()
    run.start()
    return run.wait()


def all_cases(seconds: float, seed: int) -> list[Case]:
    """Return every case; moments are drawn over the seconds of an undisturbed run."""
    rng = np.random.default_rng(seed)
    moments = [round(float(at), 2) for at in np.sort(rng.uniform(0, seconds, N_KILLS))]
    others = [round(float(at), 2) for at in rng.uniform(0, seconds, 6)]
    kills = [
        Case("training-killed", "worker killed while the student is trained", _killed_in_training),
        Case("release-killed", "worker killed while the round is published", _killed_in_release),
        *(
            Case(f"worker-{n}", f"worker killed after {at} s", partial(_killed, "worker", at))
            for n, at in enumerate(moments, start=1)
        ),
    ]
    web = [
        Case(f"web-{n}", f"web killed after {at} s", partial(_killed, "web", at))
        for n, at in enumerate(others[:3], start=1)
    ]
    web_answer = f"web killed after {others[3]} s, and a person answers at that moment"
    return [
        *web,
        Case("web-answer", web_answer, partial(_answered, others[3]), is_comparable=False),
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
        *hostile_cases(),
        Case("cancel", "round cancelled, then another one asked for", _cancelled, LABELED, False),
        *kills,
    ]


def _webhook_cases() -> list[Case]:
    faults: tuple[tuple[WebhookFault, str], ...] = (
        ("double", "every webhook of people's work comes twice"),
        ("hold", "all webhooks of people's work come late, in reverse order"),
        ("lose", "all webhooks of people's work are lost"),
    )
    cases = [Case(f"webhooks-{m}", what, partial(_webhooks, m), UNLABELED) for m, what in faults]
    late = "the webhook of a changed answer is lost between two rounds"
    return [*cases, Case("webhooks-late", late, _changed_between, LABELED, False)]


def _at(run: CaseRun, at_s: float) -> None:
    time.sleep(max(0.0, at_s - run.seconds))


def _killed(what: str, at_s: float, run: CaseRun) -> bool:
    run.request_round()
    run.start()
    _at(run, at_s)
    run.kill(what)
    return run.wait()


def _killed_in_training(run: CaseRun) -> bool:
    return _killed_when(run, lambda: run.is_in_step("train"))


def _killed_in_release(run: CaseRun) -> bool:
    return _killed_when(run, run.is_releasing)


def _killed_when(run: CaseRun, is_due: Callable[[], bool]) -> bool:
    run.request_round()
    run.start()
    run.until(is_due)
    run.kill("worker")
    return run.wait()


def _answered(at_s: float, run: CaseRun) -> bool:
    run.request_round()
    run.start()
    _at(run, at_s)
    run.kill("web")
    number = answer_last_task(run)
    is_done = run.wait()
    return is_known(run, number) and is_done


def _llm_gone(run: CaseRun) -> bool:
    run.request_round()
    run.start()
    run.until(lambda: run.testbed.llm.n_prompts > 0)
    return _outage(run)


def _llm_gone_again(run: CaseRun) -> bool:
    run.request_round()
    run.start()
    run.until(lambda: run.services.stores.rounds.running(run.project.id) is not None)
    return _outage(run)


def _outage(run: CaseRun) -> bool:
    """Cut the connections to the LLM; a vLLM of the testbed is killed and started again."""
    testbed = run.testbed
    run.notes.append(f"at: {run.where()}")
    testbed.llm.is_down = True
    testbed.stop_vllm()
    time.sleep(OUTAGE_S)
    if testbed.owns_vllm:
        testbed.start_vllm()
        testbed.llm.is_live = True
    testbed.llm.is_down = False
    return run.wait()


def _published(run: CaseRun) -> bool:
    run.request_round()
    run.start()
    run.until(lambda: run.services.stores.publication.n_published(run.project) > 0)
    return _platform_gone(run)


def _released(run: CaseRun) -> bool:
    run.request_round()
    run.start()
    run.until(run.is_releasing)
    return _platform_gone(run)


def _platform_gone(run: CaseRun) -> bool:
    run.notes.append(f"at: {run.where()}")
    run.testbed.stop_label_studio()
    time.sleep(2.0)
    run.testbed.start_label_studio()
    return run.wait()


def _webhooks(fault: WebhookFault, run: CaseRun) -> bool:
    """Submit human labels with faulty webhooks while only web runs, then run the round."""
    testbed = run.testbed
    web = testbed.processes.start(web_command(run.settings))
    testbed.processes.wait_ready(web, url=f"{WEB_URL}/health", deadline_s=120)
    testbed.webhooks.inject(fault)
    testbed.submit_human_labels()
    run.submitted = testbed.human_labels()
    time.sleep(2.0)  # for the last webhooks
    testbed.webhooks.release()
    run.notes.append(f"{testbed.webhooks.n_affected} webhooks")
    testbed.processes.stop(web)
    return undisturbed(run)


def _changed_between(run: CaseRun) -> bool:
    is_done = undisturbed(run)
    testbed = run.testbed
    testbed.webhooks.inject("lose", "ANNOTATION_UPDATED")
    testbed.change(min(run.submitted))
    run.submitted = testbed.human_labels()
    run.request_round()
    return run.wait(2) and is_done


def _lock(at_s: float, name: str = "freeal.db") -> Callable[[CaseRun], bool]:
    def act(run: CaseRun) -> bool:
        run.request_round()
        run.start()
        _at(run, at_s)
        run.notes.append(f"at: {run.where()}")
        with locked(run.settings.home / name):
            time.sleep(OUTAGE_S)
        return run.wait()

    return act


def _disk_full(run: CaseRun) -> bool:
    """Mount a small full disk for the round's folder until the round reports a problem."""
    folder = run.settings.home.absolute() / "models" / run.project.id
    folder.mkdir(parents=True)
    command = serve_command(run.settings)
    unshare = shutil.which("unshare") or "unshare"
    mount = 'mount -t tmpfs -o size=$1 none "$2" && shift 2 && exec "$@"'
    size = f"{run.testbed.kind.round_mb}m"
    argv = (unshare, "--mount", "sh", "-c", mount, "sh", size, str(folder), *command.argv)
    run.request_round()
    run.start(command=replace(command, argv=argv))
    inside = _seen_by_backend(run, folder)
    fill(inside / "filler")
    run.until(lambda: any("round waits" in p for p in run.problems()))
    run.notes += run.problems()
    time.sleep(3.0)
    (inside / "filler").unlink()
    return run.wait()


def _seen_by_backend(run: CaseRun, folder: Path) -> Path:
    """Return a folder as the backend's processes see it."""
    pids: Sequence[int] = descendants(run.serving.pid) if run.serving else ()
    return Path(f"/proc/{pids[-1]}/root{folder}")


def _cancelled(run: CaseRun) -> bool:
    run.request_round()
    run.start()
    run.until(lambda: run.services.stores.rounds.running(run.project.id) is not None)
    version = run.project.model_version
    run.notes.append(f"at: {run.where()}")
    running = run.services.stores.rounds.running(run.project.id)
    if running is not None:  # what `round --cancel` does
        run.services.stores.rounds.finish(running, RoundState.CANCELLED)
    is_over = run.wait()
    (first,) = run.services.stores.rounds.history(run.project.id)
    run.notes.append(f"first round {first.state}")
    has_kept_version = first.state is RoundState.CANCELLED and run.project.model_version == version
    run.request_round()
    return run.wait(2) and is_over and has_kept_version
