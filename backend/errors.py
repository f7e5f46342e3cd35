"""The exception tree; adapters translate foreign exceptions into it once, at the edge.

BackendError
├── SettingsError              an environment variable cannot be used as it is
├── InvalidRequest             a caller sent something that we refuse (HTTP 400)
│   ├── UnsupportedLabelConfig the label config is malformed or asks nothing that we can label
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
├── SmallModelError
│   ├── TrainingCancelled      somebody asked for it to stop: nothing is wrong
│   └── TrainingDiverged       the loss is no number any more: try another learning rate
└── LauncherError              something that `make demo` starts did not start (backend.launcher)
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
    """The file of label definitions is malformed, or speaks of what the label config has not."""


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
    """The small model could not be trained."""


class TrainingCancelled(TrainingError):
    """The training was asked to stop and did, between two batches."""


class TrainingDiverged(TrainingError):
    """The loss is no number any more; nothing of this training is kept."""
