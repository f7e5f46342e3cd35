"""Errors of the launcher.

LauncherError
├── EnvironmentSetupError    a virtual environment could not be created or filled
├── ModelConversionError     the embedded model could not be made ready
└── ProcessError             a child process did not start, or ended when it should not
    └── ServerNotReady       it runs, but does not answer as it should
"""

from backend.errors import BackendError


class LauncherError(BackendError):
    """Something that should run on this machine could not be set up or started."""


class EnvironmentSetupError(LauncherError):
    """A virtual environment could not be created or filled."""


class ModelConversionError(LauncherError):
    """The embedded language model could not be made ready."""


class ProcessError(LauncherError):
    """A child process did not start, or ended when it should not."""


class ServerNotReady(ProcessError):
    """A server runs, but does not answer as it should within its time."""
