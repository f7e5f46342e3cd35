"""Files and folders appear whole or not at all."""

from __future__ import annotations

import pytest

from backend.files import replacing_file, replacing_folder


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
