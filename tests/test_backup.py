"""A backup restores a deployment into an empty one, and nothing less than that is accepted."""

from __future__ import annotations

import io
import json
import tarfile
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from backend.backup import back_up, restore
from backend.data_commands import app
from backend.domain.labels import HumanLabel
from backend.domain.projects import Event, Prediction, ProjectId, QueuePlace, Task
from backend.errors import BackupUnusable, StoreUnavailable
from backend.setting_values import Secret
from backend.settings import Settings
from backend.store import Database, Stores
from tests.conftest import SENTIMENT

ONE = ProjectId("1.1795215594")
SECRETS = ("api-key-1", "api-key-2", "password-3", "user:password-4@")


@dataclass
class Deployment:
    """A home with a database and one project's model."""

    settings: Settings

    @property
    def database(self) -> Database:
        return Database(self.settings.state_url)

    def fill(self) -> None:
        database = self.database
        database.migrate()
        stores = Stores(database)
        project, _ = stores.projects.save(ONE, label_config=SENTIMENT, title="Größe 😀")
        stores.tasks.save(ONE, [Task(n, {"text": f"text {n}"}) for n in (1, 2, 3)])
        label = HumanLabel(7, 1, 1, ({"id": "r"},), False, False, project_moment())
        stores.tasks.apply(ONE, Event("ANNOTATION_CREATED", annotations=(label,)), None)
        predictions = [Prediction(n, "", ({"id": "r"},), n / 10) for n in (1, 2, 3)]
        places = [QueuePlace(n, n, f"reason {n}") for n in (1, 2, 3)]
        stores.releases.promote(stores.releases.draft(project, predictions, places, {"round": 1}))
        database.close()
        model = self.settings.home / "models" / ONE / "1" / "model-1"
        model.mkdir(parents=True)
        (model / "model.safetensors").write_bytes(bytes(range(256)) * 100)
        (self.settings.home / "models" / "smollm2-135m").mkdir()
        (self.settings.home / "models" / "smollm2-135m" / "weights").write_text("downloaded")
        (self.settings.home / "definitions").mkdir()
        (self.settings.home / "definitions" / "1.yaml").write_text("labels: {}")

    def content(self) -> dict[str, list[tuple]]:
        """Every row of every table, but for those that the restoring itself writes."""
        database, found = self.database, {}
        with database.read() as connection:
            tables = sa.MetaData()
            tables.reflect(connection)
            for table in tables.sorted_tables:
                rows = connection.execute(sa.select(table))
                found[table.name] = sorted(map(str, rows))
        database.close()
        return found


def project_moment():
    from datetime import UTC, datetime

    return datetime(2026, 11, 20, tzinfo=UTC)


@pytest.fixture
def make(tmp_path, empty_databases):
    def make_deployment(name: str, **changes) -> Deployment:
        home = tmp_path / name
        home.mkdir()
        return Deployment(
            Settings(home=home, database_url=Secret(empty_databases(home)), **changes)
        )

    return make_deployment


@pytest.fixture
def source(make):
    deployment = make(
        "source",
        label_studio_api_key=Secret(SECRETS[0]),
        llm_api_key=Secret(SECRETS[1]),
        basic_auth_user="ann",
        basic_auth_pass=Secret(SECRETS[2]),
        llm_base_url=f"http://{SECRETS[3]}llm:8000/v1",
        round_every=7,
    )
    deployment.fill()
    return deployment


@pytest.fixture
def saved(source, tmp_path) -> Path:
    file = tmp_path / "deployment.backup"
    assert back_up(source.settings, file).n_projects == 1
    return file


def members(file):
    with tarfile.open(file) as archive:
        return {m.name: archive.extractfile(m).read() for m in archive if m.isfile()}


def rewritten(file, **changed):
    """Write the backup anew with other members."""
    content = members(file) | changed
    with tarfile.open(file, "w:gz") as archive:
        for name, data in content.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def test_an_empty_home_becomes_what_was_saved(source, saved, make):
    target = make("target")
    restored = restore(target.settings, saved)
    assert restored.n_projects == 1
    assert target.content() == source.content()
    home = target.settings.home
    model = home / "models" / ONE / "1" / "model-1" / "model.safetensors"
    assert model.read_bytes() == bytes(range(256)) * 100
    assert (home / "definitions" / "1.yaml").read_text() == "labels: {}"
    assert sorted(p.name for p in (home / "models").iterdir()) == [ONE]
    with closing(target.database) as database:
        stores = Stores(database)
        assert len(stores.releases.places(stores.projects.get(ONE))) == 3


def test_it_is_made_while_others_write(source, tmp_path):
    database = source.database
    with database.write() as connection:
        connection.execute(sa.text("UPDATE projects SET title = 'not committed'"))
        back_up(source.settings, tmp_path / "file")
    database.close()
    assert b"not committed" not in members(tmp_path / "file")["database"]


def test_no_secret_is_in_it_and_only_its_owner_may_read_it(saved):
    content = members(saved)
    manifest = json.loads(content["manifest.json"])
    assert manifest["settings"]["ROUND_EVERY"] == "7"
    assert manifest["settings"]["LLM_BASE_URL"] == "http://llm:8000/v1"
    assert not [word for word in SECRETS if word in json.dumps(manifest)]
    assert saved.stat().st_mode & 0o077 == 0
    assert not [name for name in content if "smollm2" in name]


def test_settings_that_were_others_are_named(source, saved, make):
    target = make("target", round_every=9, llm_base_url="http://llm:8000/v1")
    others = restore(target.settings, saved).other_settings
    assert others == {"ROUND_EVERY": "7", "BASIC_AUTH_USER": "ann"}


def test_a_deployment_with_projects_is_left_alone(source, saved, make):
    before = source.content()
    with pytest.raises(BackupUnusable, match="empty"):
        restore(source.settings, saved)
    assert source.content() == before


@pytest.mark.parametrize("n_bytes", [0, 20, 1_000, -1, -200])
def test_a_file_that_was_cut_is_refused_and_changes_nothing(saved, make, n_bytes):
    saved.write_bytes(saved.read_bytes()[:n_bytes])
    target = make("target")
    with pytest.raises(BackupUnusable):
        restore(target.settings, saved)
    assert [path.name for path in target.settings.home.rglob("*") if "model" in path.name] == []
    assert target.content() == {}


def test_a_flipped_byte_is_found(saved, make):
    data = bytearray(saved.read_bytes())
    data[len(data) // 2] ^= 0xFF
    saved.write_bytes(data)
    with pytest.raises(BackupUnusable):
        restore(make("target").settings, saved)


def test_what_is_no_backup_is_refused_in_words(tmp_path, make):
    target = make("target")
    with pytest.raises(BackupUnusable, match="there is no"):
        restore(target.settings, tmp_path / "absent")
    (tmp_path / "text").write_text("no archive")
    with pytest.raises(BackupUnusable, match="no whole backup"):
        restore(target.settings, tmp_path / "text")


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"revision": "9999"}, StoreUnavailable, "newer"),
        ({"format": 2}, BackupUnusable, "upgrade"),
        ({"database": "oracle"}, BackupUnusable, "its own kind"),
    ],
)
def test_a_backup_of_a_newer_version_or_another_database_is_refused(
    saved, make, change, error, said
):
    manifest = json.loads(members(saved)["manifest.json"]) | change
    rewritten(saved, **{"manifest.json": json.dumps(manifest).encode()})
    target = make("target")
    with pytest.raises(error, match=said):
        restore(target.settings, saved)
    assert target.content() == {}


def test_a_member_that_points_outside_is_refused(saved, make, tmp_path):
    rewritten(saved, **{"../outside": b"text"})
    with pytest.raises(BackupUnusable):
        restore(make("target").settings, saved)
    assert not (tmp_path / "outside").exists()


def test_an_older_database_is_saved_as_it_is_and_upgraded_when_it_is_restored(make, tmp_path):
    old, file = make("old"), tmp_path / "file"
    with closing(old.database) as database:
        database.migrate(revision="0006")
    assert back_up(old.settings, file).revision == "0006"
    with closing(old.database) as database:
        assert database.revision() == "0006"
    target = make("target")
    restore(target.settings, file)
    with closing(target.database) as database:
        assert database.revision() > "0006"


def test_without_a_database_there_is_nothing_to_save(make, tmp_path):
    with pytest.raises(BackupUnusable, match="no database"):
        back_up(make("empty").settings, tmp_path / "file")
    assert not (tmp_path / "file").exists()


def test_a_file_that_cannot_be_written_is_an_error_in_words(source, tmp_path):
    with pytest.raises(BackupUnusable, match="cannot be written"):
        back_up(source.settings, tmp_path / "absent" / "file")


def test_the_commands_say_what_they_did(source, make, tmp_path, monkeypatch):
    def run(deployment, *words):
        for name, value in (
            replace(deployment.settings, llm_base_url="http://a/v1").to_env().items()
        ):
            monkeypatch.setenv(name, value)
        return CliRunner().invoke(app, words, env={"COLUMNS": "200"})

    file = str(tmp_path / "file")
    assert "1 projects are saved" in run(source, "backup", file).stdout
    result = run(make("target"), "restore", file)
    assert "1 projects of 20" in result.stdout
    assert "ROUND_EVERY=7" in result.stdout
    again = run(source, "restore", file)
    assert again.exit_code == 2
    assert "empty" in again.stderr
