"""What the documents say is what the project is."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from backend.labelstudio.label_config import LabelConfigReader
from benchmarks.pages import FOLDER, write_pages

ROOT = Path(__file__).parent.parent
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_links_lead_to_files_that_are_there(path):
    for target in re.findall(r"\]\(([^)#]+)", path.read_text("utf-8")):
        if "://" not in target:
            assert (path.parent / target).exists(), target


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_modules_that_are_named_are_there(path):
    for module in re.findall(r"`((?:backend|tests|benchmarks)/[\w/.-]+)`", path.read_text("utf-8")):
        assert (ROOT / module).exists(), module


def test_every_page_is_in_the_index():
    index = (ROOT / "docs" / "index.md").read_text("utf-8")
    for page in (ROOT / "docs").rglob("*.md"):
        if page.name != "index.md":
            assert f"]({page.relative_to(ROOT / 'docs').as_posix()})" in index, page.name


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_label_configs_to_paste_can_be_labelled(path):
    for config in re.findall(r"```xml\n(.*?)```", path.read_text("utf-8"), re.DOTALL):
        assert LabelConfigReader(lambda url, _: url).read_schema(config).questions


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_make_targets_that_are_named_are_there(path):
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for target in re.findall(r"`make ([a-z0-9-]+)", path.read_text("utf-8")):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_benchmark_pages_are_those_that_the_command_writes(tmp_path, monkeypatch):
    assert list(FOLDER.glob("*.json"))
    for source in FOLDER.glob("*.json"):
        (tmp_path / source.name).write_text(source.read_text("utf-8"), "utf-8")
    monkeypatch.setattr("benchmarks.pages.FOLDER", tmp_path)
    for page in write_pages():
        assert page.read_text("utf-8") == (FOLDER / page.name).read_text("utf-8")


def test_benchmark_reports_name_the_commit_and_the_machine():
    for source in FOLDER.glob("*.json"):
        report = json.loads(source.read_text("utf-8"))
        assert report["commit"] != "unknown"
        assert report["machine"]["cores"] >= 1
        assert report["results"]
