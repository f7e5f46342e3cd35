"""A worker in miniature for test_jobs.py: runs one workflow, and may kill itself in the middle.

python jobs_child.py FOLDER KILL_IN_STEP|never [DATABASE_URL EXECUTOR RESUMES_FROM|nobody]

With KILL_IN_STEP a number it kills itself in the chunk after that task, at its first time.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

from backend.domain.chunks import Chunk, ChunkKind
from backend.domain.ports import StepRunner
from backend.domain.projects import ProjectId
from backend.jobs import DurableJobs

FOLDER, KILL_IN = Path(sys.argv[1]), sys.argv[2]
URL, EXECUTOR, DEAD = sys.argv[3:] or (f"sqlite:///{FOLDER / 'jobs.db'}", "worker-test", "nobody")
STEPS = ("sync", "annotate", "publish")
N_CHUNKS = 12


def note(line: str) -> None:
    with (FOLDER / "trace").open("a") as file:
        file.write(line + "\n")


def do(name: str, project_id: ProjectId) -> dict[str, int]:
    note(f"{name} {project_id}")
    if name == KILL_IN:
        os.kill(os.getpid(), signal.SIGKILL)
    return {"n": 1}


def workflow(project_id: ProjectId, steps: StepRunner) -> None:
    for name in STEPS:
        steps.run(name, partial(do, name), project_id)
    note("finished")


def chunked(project_id: ProjectId, steps: StepRunner) -> None:
    waiting = [
        steps.start(ChunkKind.LABEL, project_id, Chunk(at, at + 1)) for at in range(N_CHUNKS)
    ]
    note(f"counted {sum(wait().get('n', 0) for wait in waiting)}")
    note("finished")


def chunk(project_id: ProjectId, chunk: Chunk, steps: StepRunner) -> dict[str, int]:
    if chunk.after == N_CHUNKS - 1:
        raise ValueError("this chunk cannot be done")
    if str(chunk.after) == KILL_IN:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.1)
    return steps.run("label", partial(do, f"chunk {chunk.after} by {EXECUTOR}"), project_id)


if __name__ == "__main__":
    kind = "chunked" if KILL_IN.isdigit() or KILL_IN == "share" else "work"
    jobs = DurableJobs(
        URL,
        executor_id=EXECUTOR,
        workflows={"work": workflow, "chunked": chunked},
        chunks={ChunkKind.LABEL: chunk},
    )
    jobs.launch()
    if DEAD != "nobody":
        note(f"resumed {jobs.resume(DEAD)}")
    if not (FOLDER / "trace").exists():
        first = jobs.submit(ProjectId("1.1"), kind)
        second = jobs.submit(ProjectId("1.1"), kind)
        note(f"submitted {first} {second}")
    deadline = time.monotonic() + 60
    while "finished" not in (FOLDER / "trace").read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    jobs.close()
