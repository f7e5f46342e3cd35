"""Which modules the web process and the commands that people wait for load, in child processes."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from backend.domain.projects import Task
from backend.factories import EMBEDDINGS
from backend.self_training.embedding_cache import CachedEncoder
from backend.self_training.encoder_files import encoder_name
from backend.services import build_services
from backend.settings import Settings
from benchmarks.startup import PROJECT, ROOT, environment, fill

HEAVY = (
    "torch",
    "transformers",
    "scipy.stats",
    "pandas",
    "sklearn",
    "skactiveml",
    "cleanlab",
    "dbos",
    "matplotlib",
    "plotly",
)
LOADED = f"print('loaded:', *(name for name in {HEAVY!r} if name in sys.modules))"
WEB = f"import sys, _wsgi; _wsgi.app.url_map; {LOADED}"
COMMAND = f"""
import runpy, sys
try:
    runpy.run_module("backend", run_name="__main__", alter_sys=True)
except SystemExit:
    pass
{LOADED}
"""


def run_child(home, code: str, *arguments: str) -> str:
    """Run code in a child process; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        env=environment(home),
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def loaded(home, code: str, *arguments: str) -> str:
    """Run code in a child process; return its last line, which names the heavy modules."""
    return run_child(home, code, *arguments).splitlines()[-1]


PROMPTS = f"""
import sys
from backend.services import Adapters, build_services
from backend.settings import Settings
from tests.fakes import FakeLanguageModel
model = FakeLanguageModel(n_context_tokens=4096)
services = build_services(Settings.from_env(), Adapters(language_model=model))
(project,) = services.stores.projects.all()
for task_id in (1, 2):
    shown = services.prompt_preview.prompts(project, task_id, has_text=True)
    names_it = {{one.question for one in shown if "class 149" in str(one.messages)}}
    print(sorted(names_it), {{"first ones stand here" in one.note for one in shown}})
{LOADED}
"""


class KeptVectors:
    """Vectors that lay the text of task 1 near the last class alone."""

    name = encoder_name("")

    def embed(self, texts):
        return np.array([[1.0, 0.0] if t in ("one", "class 149") else [0.0, 1.0] for t in texts])


def test_prompts_about_150_classes_are_written_without_heavy_modules(tmp_path):
    classes = [f"class {n}" for n in range(150)]
    choices = "".join(f'<Choice value="{name}"/>' for name in classes)
    config = (
        '<View><Text name="text" value="$text"/>'
        f'<Choices name="one" toName="text">{choices}</Choices>'
        f'<Choices name="all" toName="text" choice="multiple">{choices}</Choices></View>'
    )
    services = build_services(replace(Settings(), home=tmp_path))
    services.events.connect(PROJECT, config)
    services.stores.tasks.save(PROJECT, [Task(1, {"text": "one"}), Task(2, {"text": "two"})])
    services.close()
    CachedEncoder(KeptVectors(), tmp_path / EMBEDDINGS).embed([*classes, "one"])
    lines = run_child(tmp_path, PROMPTS).splitlines()
    # the worker has embedded the first text, not yet the second one
    assert lines[-3:] == ["['all', 'one'] {False}", "[] {True}", "loaded:"]


def test_the_web_process_starts_without_heavy_modules(tmp_path):
    assert loaded(tmp_path, WEB) == "loaded:"


@pytest.mark.parametrize("command", ["status", "queue 1", "issues 1", "doctor", "settings"])
def test_a_command_answers_without_heavy_modules(tmp_path, command):
    fill(tmp_path)
    assert loaded(tmp_path, COMMAND, *command.split()) == "loaded:"
