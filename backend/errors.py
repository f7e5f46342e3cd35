"""The exception tree; adapters translate foreign exceptions into it once, at the edge.

BackendError
├── SettingsError              an environment variable cannot be used as it is
├── InvalidRequest             a caller sent something that we refuse (HTTP 400)
│   └── UnsupportedLabelConfig the label config is malformed or asks nothing that we can label
├── StoreUnavailable           the database cannot be read or written (HTTP 503)
├── LanguageModelError
│   ├── LanguageModelUnavailable   down, slow, overloaded or answering nonsense: worth a retry
│   └── LanguageModelRejected      the server understood and refused: a retry gives the same
├── PlatformError              Label Studio
│   ├── PlatformUnavailable    down, slow or failing: worth a retry
│   ├── PlatformUnauthorized   the token is missing, expired or disabled
│   └── PlatformRejected       Label Studio understood and refused
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


class StoreUnavailable(BackendError):
    """The database cannot be read or written."""


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
