"""Annotators with logins of their own: they sign up by the invitation link, as people do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

import httpx

from tests.end_to_end.stack import Stack
from tests.label_studio_user import LabelStudioUser


@contextmanager
def signed_up(stack: Stack, name: str) -> Iterator[LabelStudioUser]:
    """Yield a new member of the organization, who acts by a token of their own."""
    with closing(LabelStudioUser(stack.label_studio.url, new_token(stack, name))) as person:
        assert person.user() == f"{name}@example.com"
        yield person


def new_token(stack: Stack, name: str) -> str:
    """Sign up a new member of the organization; return their token."""
    invitation = stack.call("GET", "/api/invite")["invite_url"]
    with httpx.Client(
        base_url=stack.label_studio.url, follow_redirects=True, timeout=60, trust_env=False
    ) as client:
        client.get(invitation).raise_for_status()
        form = {
            "email": f"{name}@example.com",
            "password": f"a password of {name}",
            "csrfmiddlewaretoken": client.cookies["csrftoken"],
        }
        client.post(invitation, data=form).raise_for_status()
        answer = client.get("/api/current-user/token")
        answer.raise_for_status()
        return str(answer.json()["token"])


def replace_token(stack: Stack, token: str) -> str:
    """Have a member's token replaced, which ends it; return the new one."""
    headers = {"Authorization": f"Token {token}"}
    return str(stack.call("POST", "/api/current-user/reset-token/", headers=headers)["token"])
