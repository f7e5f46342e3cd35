"""Commands find the demo's backend while there is none of the user's own."""

from __future__ import annotations

import stat
from dataclasses import replace

import pytest

from backend.errors import LauncherError
from backend.launcher.demo_settings import DEMO, remember, remembered
from backend.services import build_services
from backend.setting_values import Secret
from backend.settings import Settings
from tests.conftest import SENTIMENT


@pytest.fixture
def own(tmp_path) -> Settings:
    """The settings of somebody who has set nothing but the folder."""
    return Settings(home=tmp_path)


@pytest.fixture
def demo(own) -> Settings:
    """The demo's settings, remembered."""
    settings = replace(
        own, home=own.home / DEMO, port=9191, label_studio_api_key=Secret("the demo's token")
    )
    remember(settings)
    return settings


def test_the_demo_is_found_with_its_token_from_both_folders(own, demo):
    assert remembered(own) == demo
    assert remembered(replace(own, home=demo.home)) == demo


def test_the_file_with_the_token_is_its_owners_alone(demo):
    (file,) = demo.home.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize("given", ["label_studio_api_key", "database_url"])
def test_a_backend_of_ones_own_is_preferred(own, demo, given):
    assert remembered(replace(own, **{given: Secret("mine")})) is None


def test_projects_of_ones_own_are_preferred_to_the_demo(own, demo):
    services = build_services(own)
    assert remembered(own) == demo  # a database without a project is nobody's
    services.events.connect("7.1795215594", SENTIMENT)
    services.close()
    assert remembered(own) is None


def test_without_a_demo_nothing_is_found(own):
    assert remembered(own) is None


def test_a_file_that_cannot_be_read_says_what_to_do(own, demo):
    (demo.home / "settings.json").write_text("[]")
    with pytest.raises(LauncherError, match="make demo"):
        remembered(own)
