"""Files and folders appear whole or not at all."""

from __future__ import annotations

import os

import pytest

from backend.files import folder_sizes, keep_private, replacing_file, replacing_folder


@pytest.mark.parametrize("fsync", [False, True])
def test_a_file_takes_the_place_of_the_old_one(tmp_path, fsync):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with replacing_file(path, fsync=fsync) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), replacing_file(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert [file.read_text() for file in tmp_path.iterdir()] == ["old"]


def test_a_folder_takes_the_place_of_the_old_one_as_a_whole(tmp_path):
    folder = tmp_path / "models" / "a"
    for name in ("first", "second"):
        with replacing_folder(folder) as fresh:
            fresh.mkdir()
            (fresh / name).write_text(name)
    assert [file.name for file in folder.iterdir()] == ["second"]
    assert list(folder.parent.iterdir()) == [folder]


def test_a_failed_folder_leaves_the_old_one_alone(tmp_path):
    folder = tmp_path / "a"
    folder.mkdir()
    with pytest.raises(ZeroDivisionError), replacing_folder(folder) as fresh:
        fresh.mkdir()
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == [folder]


def test_what_a_killed_process_left_half_made_is_removed(tmp_path):
    (tmp_path / ".a.part").mkdir()
    (tmp_path / ".a.part" / "left").write_text("")
    with replacing_folder(tmp_path / "a") as fresh:
        fresh.mkdir()
    assert [path.name for path in tmp_path.rglob("*")] == ["a"]


@pytest.fixture
def umask():
    """Give the tests' own umask back."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def modes(*paths):
    return [oct(path.stat().st_mode & 0o777) for path in paths]


def test_a_folder_and_what_is_made_in_it_is_closed_to_others(tmp_path, umask):
    home = tmp_path / "above" / "home"
    keep_private(home)
    (home / "models").mkdir()
    (home / "models" / "file").write_text("text")
    assert modes(home, home / "models", home / "models" / "file") == ["0o700", "0o700", "0o600"]


def test_a_folder_that_was_open_is_closed_with_its_files(tmp_path, umask):
    file, script = tmp_path / "freeal.db", tmp_path / "script"
    for path, mode in ((file, 0o644), (script, 0o755)):
        path.touch()
        path.chmod(mode)
    tmp_path.chmod(0o755)
    keep_private(tmp_path)
    assert modes(tmp_path, file, script) == ["0o700", "0o600", "0o700"]


def test_a_folder_that_cannot_be_closed_is_a_warning_only(tmp_path, umask, caplog):
    (tmp_path / "file").touch()
    keep_private(tmp_path / "file" / "home")
    assert "cannot be closed" in caplog.text


def test_sizes_are_told_by_name_with_all_that_is_inside(tmp_path):
    (tmp_path / "file").write_bytes(b"x" * 7)
    (tmp_path / "folder" / "deep").mkdir(parents=True)
    (tmp_path / "folder" / "deep" / "file").write_bytes(b"x" * 100)
    (tmp_path / "folder" / "loop").symlink_to(tmp_path, target_is_directory=True)
    sizes = folder_sizes(tmp_path)
    assert sizes["file"] == 7
    assert 100 <= sizes["folder"] < 300
    assert folder_sizes(tmp_path / "absent") == {}
