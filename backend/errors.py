"""The exception tree; adapters translate foreign exceptions into it once, at the edge.

BackendError
├── SettingsError              an environment variable cannot be used as it is
├── InvalidRequest             a caller sent something that we refuse (HTTP 400)
│   ├── UnsupportedLabelConfig the label config is malformed or has no question that we can label
│   │   └── UnsuitableDefinitions  the label definitions do not fit the label config
│   └── UnknownModelVersion    no release of that name answers what the project asks now
├── StoreUnavailable           the database cannot be read or written (HTTP 503)
├── ExportFailed               a file of labels cannot be written
├── LanguageModelError
│   ├── LanguageModelUnavailable   down, slow, overloaded or answering nonsense: worth a retry
│   └── LanguageModelRejected      the server understood and refused: a retry gives the same
├── PlatformError              Label Studio
│   ├── PlatformUnavailable    down, slow or failing: worth a retry
│   ├── PlatformUnauthorized   the token is missing, expired or disabled
│   └── PlatformRejected       Label Studio understood and refused
├── TrainingError              the student could not be trained
│   ├── TrainingCancelled      it was asked to stop: nothing is wrong
│   └── TrainingDiverged       the loss is NaN or infinite: try another learning rate
└── LauncherError              something on this machine could not be set up or started
    ├── EnvironmentSetupError  a virtual environment could not be created or filled
    ├── ModelConversionError   the embedded language model could not be converted
    ├── DemoError              the demo's data cannot be used, or its labels do not come
    └── ProcessError           a child process did not start, or ended when it should not
        └── ServerNotReady     a server runs, but does not answer within its time
"""


class BackendError(Exception):
    """Root of all errors that this project raises on purpose."""


class SettingsError(BackendError):
    """An environment variable holds a value that cannot be used."""


class InvalidRequest(BackendError):
    """The caller's request cannot be used; the message says what was expected."""


class UnsupportedLabelConfig(InvalidRequest):
    """The label config is malformed, or none of its tags can be labelled by this backend."""


class UnknownModelVersion(InvalidRequest):
    """No release of that name answers what the project asks now."""


class UnsuitableDefinitions(UnsupportedLabelConfig):
    """The file of label definitions is malformed, or names what the label config does not have."""


class StoreUnavailable(BackendError):
    """The database cannot be read or written."""


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


class TrainingError(BackendError):
    """The student could not be trained."""


class TrainingCancelled(TrainingError):
    """The training was asked to stop and stopped between two batches."""


class TrainingDiverged(TrainingError):
    """The loss is NaN or infinite; nothing of this training is kept."""


class LauncherError(BackendError):
    """Something that should run on this machine could not be set up or started."""


class EnvironmentSetupError(LauncherError):
    """A virtual environment could not be created or filled."""


class ModelConversionError(LauncherError):
    """The embedded language model could not be converted."""


class DemoError(LauncherError):
    """The demo's data or label config cannot be used, or its labels do not come."""


class ProcessError(LauncherError):
    """A child process did not start, or ended when it should not."""


class ServerNotReady(ProcessError):
    """A server runs, but does not answer as it should within its time."""
