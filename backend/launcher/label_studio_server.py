"""Start a Label Studio on this machine, with a login and a token made for it alone."""

import http.client
import json
import os
import secrets
from dataclasses import asdict, dataclass, field
from pathlib import Path

from backend.errors import LauncherError, ServerNotReady
from backend.files import locked, replacing_file
from backend.launcher.child_process import ChildProcess, Command
from backend.launcher.environments import ensure_environment
from backend.launcher.processes import LOOPBACK, Processes, free_port, http_status

DEFAULT_PORT = 8080
USERNAME = "admin@example.com"

_NAME = "label-studio"
_DEADLINE_S = 600.0  # its first start makes the database: 30 s on two idle cores
_CREDENTIALS_FILE = "freeal-credentials.json"


@dataclass(frozen=True, slots=True)
class Credentials:
    """The demo's login, and the token for Label Studio's API."""

    username: str
    password: str = field(repr=False)
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class LabelStudioServer:
    """A Label Studio that was started here."""

    url: str
    credentials: Credentials
    child: ChildProcess
    folder: Path

    def wait(self, processes: Processes) -> None:
        """Wait until it answers and knows our token. Raises ProcessError."""
        processes.wait_ready(self.child, url=f"{self.url}/health", deadline_s=_DEADLINE_S)
        status = http_status(
            f"{self.url}/api/projects?page_size=1",
            headers={"Authorization": f"Token {self.credentials.token}"},
            timeout_s=60,
        )
        if status != http.client.OK:
            raise ServerNotReady(
                f"Label Studio runs at {self.url} but answers {status} to the token in "
                f"{self.folder / _CREDENTIALS_FILE}: its database was made by another program, "
                f"or another server took the port. Move {self.folder} away to begin afresh. "
                f"{self.child.log_tail()}"
            )


def start_label_studio(processes: Processes, *, port: int = DEFAULT_PORT) -> LabelStudioServer:
    """Set up and start Label Studio without waiting until it answers.

    Its data stay in home/label-studio. The port is the next free one if it is taken. Raises
    LauncherError.
    """
    python = ensure_environment(_NAME, home=processes.home, console=processes.console)
    folder = processes.home / _NAME
    credentials = ensure_credentials(folder)
    port = free_port(port, name="Label Studio", console=processes.console)
    child = processes.start(
        server_command(python=python, folder=folder, credentials=credentials, port=port)
    )
    return LabelStudioServer(f"http://{LOOPBACK}:{port}", credentials, child, folder)


def ensure_credentials(folder: Path) -> Credentials:
    """Return the folder's login and token, from a file for its owner only; created at first."""
    file = folder / _CREDENTIALS_FILE
    with locked(folder.with_name(f"{folder.name}.lock")):
        if not file.exists():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            fresh = Credentials(USERNAME, secrets.token_urlsafe(18), secrets.token_hex(20))
            with replacing_file(file) as part:
                descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with os.fdopen(descriptor, "w") as out:
                    json.dump(asdict(fresh), out, indent=2)
    try:
        return Credentials(**json.loads(file.read_text()))
    except (ValueError, TypeError) as exc:
        raise LauncherError(
            f"{file} does not hold the fields username, password and token. Put them back, or move "
            f"{folder} away to begin with a fresh Label Studio."
        ) from exc


def server_command(*, python: Path, folder: Path, credentials: Credentials, port: int) -> Command:
    """Return the command that starts Label Studio; the environment hides the login from `ps`."""
    settings = {
        "BASE_DATA_DIR": str(folder),
        "HOST": "",  # else a shell's own HOST is taken for the address that browsers use
        "USERNAME": credentials.username,
        "PASSWORD": credentials.password,
        "USER_TOKEN": credentials.token,
        "USE_DEFAULT_BANNED_SUBNETS": "false",  # else it refuses a backend on this machine
        "COLLECT_ANALYTICS": "false",
        "LATEST_VERSION_CHECK": "false",
        "SENTRY_DSN": "",
        "FRONTEND_SENTRY_DSN": "",
    }
    start = ("-m", "label_studio.server", "start", "--no-browser", "--log-level", "INFO")
    address = ("--internal-host", LOOPBACK, "--port", str(port))
    # Without this the token is refused. Read only when the database is made, ignored later.
    token = ("--enable-legacy-api-token",)
    return Command(
        _NAME,
        (str(python), *start, *address, *token),
        folder=folder,
        environment={f"LABEL_STUDIO_{name}": value for name, value in settings.items()},
        exclusive=folder / "freeal-running.lock",
    )
