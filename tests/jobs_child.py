"""A worker in miniature for test_jobs.py: runs one workflow, and may kill itself in the middle.

python jobs_child.py FOLDER KILL_IN_STEP|never [DATABASE_URL EXECUTOR RESUMES_FROM|nobody]
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from backend.domain.ports import StepRunner
from backend.domain.projects import ProjectId
from backend.jobs import DurableJobs

FOLDER, KILL_IN = Path(sys.argv[1]), sys.argv[2]
URL, EXECUTOR, DEAD = sys.argv[3:] or (f"sqlite:///{FOLDER / 'jobs.db'}", "worker-test", "nobody")
STEPS = ("sync", "annotate", "publish")


def note(line: str) -> None:
    with (FOLDER / "trace").open("a") as file:
        file.write(line + "\n")


def workflow(project_id: ProjectId, steps: StepRunner) -> None:
    for name in STEPS:

        def step(project_id: ProjectId, name: str = name) -> dict[str, int]:
            note(f"{name} {project_id}")
            if name == KILL_IN:
                os.kill(os.getpid(), signal.SIGKILL)
            return {"n": 1}

        steps.run(name, step, project_id)
    note("finished")


jobs = DurableJobs(URL, executor_id=EXECUTOR, workflows={"work": workflow})
jobs.launch()
if DEAD != "nobody":
    note(f"resumed {jobs.resume(DEAD)}")
if not (FOLDER / "trace").exists():
    first = jobs.submit(ProjectId("1.1"), "work")
    second = jobs.submit(ProjectId("1.1"), "work")
    note(f"submitted {first} {second}")
deadline = time.monotonic() + 30
while "finished" not in (FOLDER / "trace").read_text() and time.monotonic() < deadline:
    time.sleep(0.05)
jobs.close()
