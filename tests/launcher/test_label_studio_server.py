"""Label Studio's start: a login of its own that nobody else can read, and the right variables."""

import stat

import pytest

from backend.errors import LauncherError
from backend.launcher.label_studio_server import ensure_credentials, server_command


def test_credentials_are_made_once_and_differ_between_folders(tmp_path):
    first = ensure_credentials(tmp_path / "one")
    assert ensure_credentials(tmp_path / "one") == first
    other = ensure_credentials(tmp_path / "two")
    assert first.username == other.username == "admin@example.com"
    assert first.password != other.password
    assert first.token != other.token
    assert len(first.token) == 40


def test_only_their_owner_can_read_the_credentials(tmp_path):
    folder = tmp_path / "label-studio"
    ensure_credentials(folder)
    (file,) = folder.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_secrets_do_not_show_in_a_log(tmp_path):
    credentials = ensure_credentials(tmp_path)
    assert credentials.password not in repr(credentials)
    assert credentials.token not in repr(credentials)


@pytest.mark.parametrize("text", ["", "{}", '{"username": "a"}', "[]", "not json"])
def test_an_unusable_file_is_named(tmp_path, text):
    (tmp_path / "freeal-credentials.json").write_text(text)
    with pytest.raises(LauncherError, match="freeal-credentials.json does not hold"):
        ensure_credentials(tmp_path)


def test_the_command_holds_no_secret_and_stays_on_this_machine(tmp_path):
    credentials = ensure_credentials(tmp_path)
    command = server_command(
        python=tmp_path / "python", folder=tmp_path, credentials=credentials, port=8765
    )
    argv = " ".join(command.argv)
    assert argv == (
        f"{tmp_path}/python -m label_studio.server start --no-browser --log-level INFO "
        "--internal-host 127.0.0.1 --port 8765 --enable-legacy-api-token"
    )
    assert credentials.password not in argv
    assert credentials.token not in argv
    assert command.environment == {
        "LABEL_STUDIO_BASE_DATA_DIR": str(tmp_path),
        "LABEL_STUDIO_HOST": "",
        "LABEL_STUDIO_USERNAME": "admin@example.com",
        "LABEL_STUDIO_PASSWORD": credentials.password,
        "LABEL_STUDIO_USER_TOKEN": credentials.token,
        "LABEL_STUDIO_USE_DEFAULT_BANNED_SUBNETS": "false",
        "LABEL_STUDIO_COLLECT_ANALYTICS": "false",
        "LABEL_STUDIO_LATEST_VERSION_CHECK": "false",
        "LABEL_STUDIO_SENTRY_DSN": "",
        "LABEL_STUDIO_FRONTEND_SENTRY_DSN": "",
    }
