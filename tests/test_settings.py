"""Settings: read once, checked, and never giving a secret away."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from backend.errors import SettingsError
from backend.setting_values import Secret
from backend.settings import REMOVED, RENAMED, Settings, variable
from backend.settings_table import settings_table

ROOT = Path(__file__).parent.parent


def test_an_empty_environment_gives_the_defaults():
    assert Settings.from_env({}) == Settings()


def test_each_kind_of_value_is_read():
    settings = Settings.from_env(
        {
            "PORT": "9999",
            "PREDICT_DEADLINE_S": "2.5",
            "MANAGE_QUEUE": "False",
            "FREEAL_HOME": "/tmp/elsewhere",  # noqa: S108
            "ALLOWED_DATA_HOSTS": "a.example, B.example:8080 ,",
            "LLM_MODEL": "  Qwen/Qwen3-4B  ",
            "LLM_API_KEY": "k",
        }
    )
    assert settings.port == 9999
    assert settings.predict_deadline_s == 2.5
    assert settings.manage_queue is False
    assert settings.home == Path("/tmp/elsewhere")  # noqa: S108
    assert settings.allowed_data_hosts == ("a.example", "b.example:8080")
    assert settings.llm_model == "Qwen/Qwen3-4B"
    assert settings.llm_api_key.reveal() == "k"


@pytest.mark.parametrize(
    ("env", "value"),
    [
        ("PORT", "many"),
        ("PORT", "0"),
        ("MANAGE_QUEUE", "perhaps"),
        ("LABEL_STUDIO_URL", "localhost:8080"),
        ("LLM_BASE_URL", "ftp://x"),
        ("LOG_LEVEL", "LOUD"),
        ("BASIC_AUTH_USER", "only"),
        ("PREDICT_DEADLINE_S", "-1"),
    ],
)
def test_a_value_that_cannot_be_used_is_named(env, value):
    with pytest.raises(SettingsError, match=env):
        Settings.from_env({env: value})


def test_settings_pass_to_a_child_through_its_environment():
    settings = Settings.from_env(
        {"LLM_API_KEY": "k", "MANAGE_QUEUE": "no", "ALLOWED_DATA_HOSTS": "a,b", "PORT": "9191"}
    )
    assert Settings.from_env(settings.to_env()) == settings


def test_no_secret_shows_in_a_repr_a_message_or_the_table():
    environment = {
        "LABEL_STUDIO_API_KEY": "hush-1",
        "LLM_API_KEY": "hush-2",
        "BASIC_AUTH_USER": "u",
        "BASIC_AUTH_PASS": "hush-3",
        "DATABASE_URL": "postgresql://u:hush-4@db/x",
    }
    settings = Settings.from_env(environment)
    assert "hush" not in repr(settings) + str(settings) + settings_table()
    assert str(Secret("hush")) == repr(Secret("hush")) == "Secret('***')"


def test_postgresql_urls_name_our_driver():
    settings = Settings.from_env({"DATABASE_URL": "postgres://u:p@db/freeal"})
    assert settings.state_url == settings.jobs_url == "postgresql+psycopg://u:p@db/freeal"


def test_sqlite_keeps_state_and_jobs_in_files_of_their_own(tmp_path):
    settings = Settings(home=tmp_path)
    assert settings.state_url != settings.jobs_url
    assert str(tmp_path) in settings.state_url


def test_every_setting_has_its_own_variable_a_unit_and_a_reason():
    names = [variable(spec.name) for spec in fields(Settings)]
    assert len(set(names)) == len(names)
    assert all(spec.metadata["unit"] and spec.metadata["reason"] for spec in fields(Settings))


def test_the_documented_table_is_the_generated_one():
    assert settings_table() in (ROOT / "docs/operations.md").read_text(encoding="utf-8")


def test_several_llm_servers_are_refused_with_what_to_use_instead():
    for several in ("http://a:1/v1, http://b:2/v1", "http://a:1/v1,b:2"):
        with pytest.raises(SettingsError, match="LLM_BASE_URL.*one URL.*load balancer"):
            Settings.from_env({"LLM_BASE_URL": several})


def test_a_price_may_be_nothing_but_not_less():
    assert Settings.from_env({"LLM_PRICE_IN": "0"}).llm_price_in == 0.0
    with pytest.raises(SettingsError, match="LLM_PRICE_OUT"):
        Settings.from_env({"LLM_PRICE_OUT": "-1"})


def test_a_former_name_still_counts_with_a_warning(caplog):
    settings = Settings.from_env({"SLM_RECIPE": "probe", "SLM_VIEWS": "gist"})
    assert (settings.student_recipe, settings.student_views) == ("probe", "gist")
    assert "SLM_RECIPE is called STUDENT_RECIPE now" in caplog.text


def test_today_s_name_counts_before_the_former_one(caplog):
    settings = Settings.from_env({"SLM_RECIPE": "probe", "STUDENT_RECIPE": "plain"})
    assert settings.student_recipe == "plain"
    assert caplog.text == ""


def test_former_names_stand_for_settings_and_for_none_of_their_own():
    today = {variable(spec.name) for spec in fields(Settings)}
    assert set(RENAMED.values()) <= today
    assert not today & RENAMED.keys()


def test_a_removed_setting_warns_with_the_reason(caplog, monkeypatch):
    monkeypatch.setitem(REMOVED, "OLD_SETTING", "nothing reads it")
    assert Settings.from_env({"OLD_SETTING": "1"}) == Settings()
    assert "OLD_SETTING is ignored: nothing reads it" in caplog.text


@pytest.mark.parametrize(("name", "value"), [("LLM_PROMPTS_PER_TEXT", "0.9"), ("LLM_SHARE", "1.1")])
def test_shares_and_averages_out_of_range_are_refused(name, value):
    with pytest.raises(SettingsError, match=f"{name}={value}: expected at"):
        Settings.from_env({name: value})


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "labels.example.org"])  # noqa: S104
def test_a_host_beyond_this_machine_needs_a_password_or_a_word(host):
    with pytest.raises(SettingsError, match="HOST=.*BASIC_AUTH_USER.*ALLOW_OPEN"):
        Settings.from_env({"HOST": host}).check_exposure()
    Settings.from_env({"HOST": host, "ALLOW_OPEN": "true"}).check_exposure()
    password = {"BASIC_AUTH_USER": "me", "BASIC_AUTH_PASS": "secret"}
    Settings.from_env({"HOST": host, **password}).check_exposure()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "localhost", "::1"])
def test_a_host_of_this_machine_needs_none(host):
    Settings.from_env({"HOST": host}).check_exposure()


@pytest.mark.parametrize("numbers", ["seven", "7,-1", "\u00b2"])
def test_allowed_projects_are_numbers(numbers):
    with pytest.raises(SettingsError, match="ALLOWED_PROJECTS"):
        Settings.from_env({"ALLOWED_PROJECTS": numbers})


def test_settings_are_shown_without_secrets():
    given = {
        "LLM_API_KEY": "hush",
        "LLM_BASE_URL": "http://anna:p@hush@llm:8000/v1",
        "DATABASE_URL": "postgresql://u:hush@db/x",
        "ALLOWED_HOSTS": "one,two",
    }
    shown = {one["variable"]: one for one in Settings.from_env(given).shown()}
    assert "hush" not in str(shown)
    assert shown["LLM_API_KEY"]["value"] == "set"
    assert shown["LABEL_STUDIO_API_KEY"]["value"] == "not set"
    assert shown["LLM_BASE_URL"]["value"] == "http://llm:8000/v1"
    assert shown["ALLOWED_HOSTS"]["value"] == "one,two"
    assert [shown[name]["is_default"] for name in ("PORT", "ALLOWED_HOSTS")] == [True, False]
