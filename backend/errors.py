"""All errors that this project raises; adapters translate foreign exceptions once, at the edge."""


class BackendError(Exception):
    """Root of all errors that this project raises on purpose."""


class SettingsError(BackendError):
    """An environment variable holds a value that cannot be used."""


class InvalidRequest(BackendError):
    """The caller's request cannot be used (HTTP 400); the message says what was expected."""


class UnsupportedLabelConfig(InvalidRequest):
    """The label config is malformed, or none of its tags can be labelled by this backend."""


class UnknownModelVersion(InvalidRequest):
    """No release of that name answers what the project asks now."""


class ProjectInUse(InvalidRequest):
    """The data of a project cannot be deleted while Label Studio uses it."""


class UnsuitableDefinitions(UnsupportedLabelConfig):
    """The file of label definitions is malformed, or names what the label config does not have."""


class StoreUnavailable(BackendError):
    """The database cannot be read or written (HTTP 503)."""


class BackupUnusable(BackendError):
    """A backup cannot be written, or does not fit where it is to be restored."""


class StoreRefused(BackendError):
    """The database refused a statement; trying again gives the same answer."""


class ExportFailed(BackendError):
    """A file of labels cannot be written."""


class LanguageModelError(BackendError):
    """The LLM server gave no usable answer."""


class LanguageModelUnavailable(LanguageModelError):
    """The LLM server is down, slow, overloaded or answers nonsense; trying again may help."""


class LanguageModelRejected(LanguageModelError):
    """The LLM server refused the request itself; trying again gives the same answer."""


class PlatformError(BackendError):
    """Label Studio gave no usable answer."""


class PlatformUnavailable(PlatformError):
    """Label Studio is down, slow or failing; trying again may help."""


class PlatformUnauthorized(PlatformError):
    """Label Studio does not accept our token."""


class PlatformRejected(PlatformError):
    """Label Studio refused the request itself; trying again gives the same answer."""


class PlatformNotFound(PlatformRejected):
    """What was asked for is not there, or not for the token's user."""


class TrainingError(BackendError):
    """The student could not be trained."""


class TrainingCancelled(TrainingError):
    """The training was asked to stop and stopped between two batches."""


class NothingLearned(BackendError):
    """No question of a project could be learned in a round."""


class TrainingDiverged(TrainingError):
    """The loss is NaN or infinite; nothing of this training is kept."""


class LauncherError(BackendError):
    """Something that should run on this machine could not be set up or started."""


class EnvironmentSetupError(LauncherError):
    """A virtual environment could not be created or filled."""


class EmbeddedModelError(LauncherError):
    """An embedded model is not there, and could not be fetched, checked or converted."""


class ProcessError(LauncherError):
    """A child process did not start, or ended when it should not."""


class ServerNotReady(ProcessError):
    """A server runs, but does not answer as it should within its time."""
