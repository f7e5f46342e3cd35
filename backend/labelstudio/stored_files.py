"""Where Label Studio serves the texts that it stores itself, and the token that reads them."""

from __future__ import annotations

import base64
import re
import threading
import time
from urllib.parse import unquote, urlsplit

import requests

_CLOUD_SCHEMES = ("s3://", "gs://", "azure-blob://", "azure://")
_RESOLVED = re.compile(r"/tasks/(\d+)/(?:resolve|presign)/?\?fileuri=[\w=%-]+")
_STORED_PATH = re.compile(
    r"/(?:data/upload/\d+/[^?#]+|data/local-files/?\?d=[^#]+|"
    r"storage-data/uploaded/?\?filepath=upload/[^#&]+)"
)
_TOKEN_LIFE_S = 240.0
"""Label Studio's access tokens live for 300 seconds."""


class StoredFiles:
    """The files of one Label Studio: uploads, local files and objects of cloud storages.

    Args:
        url: where Label Studio answers.
        api_key: a personal access token, which is exchanged for short-lived ones, or a legacy one.
    """

    def __init__(self, url: str, api_key: str, *, timeout_s: float = 10.0) -> None:
        self.url = url.rstrip("/")
        self.has_key = bool(api_key.strip())
        self._api_key = api_key.strip()
        self._timeout_s = timeout_s
        self._access = ("", 0.0)
        self._lock = threading.Lock()

    def address(self, link: str, task_id: int | None) -> str | None:
        """Return where a link of a task's data is served; None where it is none of these files.

        A path of Label Studio's other than those under which it serves files is none, and so is a
        cloud link that it has resolved for another task: task data is written by strangers, and the
        token reads more than they may.
        """
        if link.lower().startswith(_CLOUD_SCHEMES):
            encoded = base64.urlsafe_b64encode(link.encode()).decode()
            return f"{self.url}/tasks/{task_id}/resolve/?fileuri={encoded}" if task_id else None
        path = link.removeprefix(self.url).removeprefix(urlsplit(self.url).path)
        is_safe = "\\" not in path and ".." not in re.split(r"[/=]", unquote(unquote(path)))
        resolved = _RESOLVED.fullmatch(path)
        is_stored = _STORED_PATH.fullmatch(path) or (resolved and resolved[1] == str(task_id))
        return self.url + path if is_safe and is_stored else None

    def is_own(self, url: str) -> bool:
        """Return whether a URL leads to this Label Studio."""
        return urlsplit(url)[:2] == urlsplit(self.url)[:2]

    def authorization(self) -> str:
        """Return the header's value; raises requests.HTTPError when the token is refused."""
        if self._api_key.count(".") != 2:
            return f"Token {self._api_key}"
        with self._lock:
            access, until = self._access
            if time.monotonic() >= until:
                response = requests.post(
                    f"{self.url}/api/token/refresh/",
                    json={"refresh": self._api_key},
                    timeout=self._timeout_s,
                    allow_redirects=False,
                )
                response.raise_for_status()
                access = str(response.json()["access"])
                self._access = (access, time.monotonic() + _TOKEN_LIFE_S)
        return f"Bearer {access}"
