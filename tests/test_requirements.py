"""The locks of requirements.txt, and the question for known holes in them."""

import json
import re
from pathlib import Path

import audit
import lock
import pytest

ROOT = Path(__file__).parents[1]
PIN = re.compile(r"^([\w.-]+)(?:\[\w+\])?==([\w.+]+)", re.MULTILINE)
EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
LOCKS = {name: lock.read_lock((ROOT / name).read_text()) for name in audit.LOCKS}


def pins(text):
    return {(name.lower().replace("_", "-"), version) for name, version in PIN.findall(text)}


def test_whatever_is_required_is_locked_at_this_version():
    locked = pins("\n".join(LOCKS["requirements.lock"]))
    for name in ("requirements.txt", "requirements-label-studio-ml.txt"):
        assert pins((ROOT / name).read_text()) <= locked


@pytest.mark.parametrize("name", LOCKS)
def test_every_line_of_a_lock_has_hashes_and_none_names_a_server(name):
    assert LOCKS[name]
    assert all(LOCKS[name].values())
    assert "://" not in (ROOT / name).read_text()


def test_what_only_gpus_need_is_in_a_lock_of_its_own():
    assert not [line for line in LOCKS["requirements.lock"] if line.startswith("nvidia-")]
    assert any(line.startswith("nvidia-") for line in LOCKS["requirements-cuda.lock"])


def test_a_lock_is_read_as_it_is_written():
    entries = {"a==1 ; sys_platform == 'linux'": {"0" * 64, "1" * 64}, "b==2": {"2" * 64}}
    assert lock.read_lock(lock._text(entries)) == entries


def test_another_build_of_torch_is_allowed_by_its_hash_and_another_package_is_not(tmp_path):
    (torch,) = [line for line in LOCKS["requirements.lock"] if line.startswith("torch==")]
    wheel = tmp_path / f"{torch.replace('==', '-')}+cpu-cp311-cp311-linux_x86_64.whl"
    wheel.write_bytes(b"")
    entries = {torch: {"0" * 64}}
    lock._allow_builds_of_torch(entries, (str(wheel),))
    assert entries[torch] == {"0" * 64, EMPTY} | LOCKS["requirements.lock"][torch]
    with pytest.raises(SystemExit, match="is not a build of torch"):
        lock._allow_builds_of_torch(entries, (str(tmp_path / "numpy-1.whl"),))


def test_a_file_with_another_hash_is_refused_with_the_remedy(tmp_path):
    wheel = tmp_path / "torch-1-py3-none-any.whl"
    wheel.write_bytes(b"")
    lock.check(wheel, {EMPTY})
    with pytest.raises(SystemExit, match="make lock TORCH_WHEELS=FILE"):
        lock.check(wheel, {"0" * 64})


def answer(*packages):
    return audit.read_answer(json.dumps({"dependencies": packages, "fixes": []}), "")


SOUND = {"name": "good", "version": "1", "vulns": []}
HOLED = {
    "name": "bad",
    "version": "1",
    "vulns": [{"id": "CVE-1", "fix_versions": ["2"], "aliases": [], "description": ""}],
}
UNKNOWN = {"name": "odd", "skip_reason": "not found"}


@pytest.mark.parametrize(
    ("answers", "status", "text"),
    [
        ([answer(SOUND)], 0, "No known holes in any package."),
        ([answer(SOUND), answer(HOLED)], 1, "KNOWN HOLE: bad 1: CVE-1, fixed in 2"),
        ([answer(SOUND, UNKNOWN)], 2, "NOT CHECKED for known holes: odd: not found"),
        ([audit.read_answer("", "Traceback\nno network\n")], 2, "NOT CHECKED .* no network"),
        ([answer(HOLED), audit.read_answer("[]", "")], 1, "NOT CHECKED for known holes: no answer"),
    ],
)
def test_a_hole_fails_and_what_was_not_asked_is_never_clean(answers, status, text):
    said, found = audit.report(answers)
    assert found == status
    assert re.search(text, said)


def test_where_the_data_is_not_to_be_had_one_question_is_asked(tmp_path, monkeypatch, capsys):
    asked = tmp_path / "asked"
    program = tmp_path / "pip-audit"
    reply = json.dumps({"dependencies": [UNKNOWN], "fixes": []})
    program.write_text(f"#!/bin/sh\necho one >> {asked}\necho '{reply}'\n")
    program.chmod(0o755)
    monkeypatch.delenv("AUDIT_REQUIRED", raising=False)
    assert audit.main(str(program)) == 0
    assert "NOT CHECKED" in capsys.readouterr().out
    monkeypatch.setenv("AUDIT_REQUIRED", "1")
    assert audit.main(str(program)) == 2
    assert asked.read_text().split() == ["one", "one"]
