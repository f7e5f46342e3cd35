"""Doctor: each finding names the trouble and its remedy."""

from __future__ import annotations

import base64
import shutil
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import jwt
import pytest

from backend.doctor import Servers, diagnose
from backend.domain.labels import WeakLabel
from backend.domain.projects import ProjectId
from backend.errors import LanguageModelUnavailable, PlatformUnauthorized
from backend.labelstudio.admin import MlBackend, Webhook
from backend.launcher.embedded_models import GB, MPNET
from backend.pipeline.origins import LLM_NAME
from backend.setting_values import Secret
from backend.settings import Settings
from backend.store import Database, JobStore, ProjectStore, Stores
from tests.conftest import SENTIMENT
from tests.fakes import FakeLanguageModel, FakePlatform

OWN = "http://127.0.0.1:9090"
LEGACY = "0123456789abcdef0123456789abcdef01234567"


def token(kind: str, **lives) -> str:
    claims = {"token_type": kind, "exp": datetime.now(UTC) + timedelta(**lives)}
    return jwt.encode(claims, "a key that is long enough to sign with", algorithm="HS256")


@dataclass
class FakeAdmin:
    """Label Studio's settings, as doctor reads them."""

    health: bool = True
    user_failure: Exception | None = None
    found_backends: list[MlBackend] = field(default_factory=list)
    found_webhooks: list[Webhook] = field(default_factory=list)
    headers: dict[int, dict[str, str]] = field(default_factory=dict)

    def is_healthy(self):
        return self.health

    def version(self):
        return "1.23.2"

    def user(self):
        if self.user_failure:
            raise self.user_failure
        return "ann@example.com"

    def backends(self, project):
        return self.found_backends

    def webhooks(self, project):
        return self.found_webhooks

    def set_webhook_headers(self, webhook_id, headers):
        self.headers[webhook_id] = dict(headers)


class Deployment:
    """A deployment in which all is well; each test breaks one part."""

    def __init__(self, home) -> None:
        self.settings = Settings(home=home, label_studio_api_key=Secret(token("refresh", days=90)))
        self.platform = FakePlatform()
        number = self.platform.create_project(SENTIMENT)
        self.platform.import_tasks(number, [{"text": "good"}])
        self.admin = FakeAdmin()
        self.admin.found_backends = [MlBackend(1, OWN, "FreeAL", "Connected")]
        self.admin.found_webhooks = [Webhook(7, f"{OWN}/webhook", True)]
        self.model = FakeLanguageModel()
        database = Database(self.settings.state_url)
        database.migrate()
        project_id = ProjectId(f"{number}.1795215594")
        projects = ProjectStore(database)
        project, _ = projects.save(project_id, label_config=SENTIMENT)
        projects.note_served(project_id, project.model_version)
        JobStore(database).record_heartbeat("worker-a")
        database.close()
        self.platform.change_project(
            number, model_version=project.model_version, sampling="Uncertainty sampling"
        )
        self.number = number

    def findings(self, *, fix=False):
        servers = Servers(self.admin, self.platform, self.model)
        return list(diagnose(self.settings, fix=fix, servers=servers))

    def with_state(self, state):
        return [finding for finding in self.findings() if finding.state == state]


@pytest.fixture
def deployment(tmp_path, migrated_file) -> Deployment:
    shutil.copy(migrated_file, tmp_path)
    return Deployment(tmp_path)


def only(findings):
    (finding,) = findings
    return finding


def test_all_findings_are_ok_when_all_is_well(deployment):
    assert {finding.state for finding in deployment.findings()} == {"ok"}


def test_who_labelled_a_project_is_told_and_what_to_do_after_another_llm(deployment):
    with closing(Database(deployment.settings.state_url)) as database:
        stores = Stores(database)
        project = stores.projects.find(deployment.number)
        said = [WeakLabel(at, "sentiment", "small", "1", probabilities=(0.9, 0.1)) for at in (1, 2)]
        stores.labels.save(project, said, [])
        stores.state.put(ProjectId(""), LLM_NAME, "small")
    messages = [finding.message for finding in deployment.with_state("ok")]
    assert "labelled: 2 tasks by small" in messages
    with closing(Database(deployment.settings.state_url)) as database:
        Stores(database).state.put(ProjectId(""), LLM_NAME, "large")
    changed = only(deployment.with_state("warning"))
    assert changed.message == "labelled: 2 tasks by small; large answers now"
    assert f"python -m backend relabel {deployment.number}" in changed.remedy


def test_with_label_studio_down_a_missing_token_is_a_finding_too(deployment):
    deployment.admin.health = False
    deployment.settings = replace(deployment.settings, label_studio_api_key=Secret(""))
    assert "token" in [finding.subject for finding in deployment.with_state("failure")]


def test_what_takes_the_space_is_told_largest_first(deployment, tmp_path):
    (tmp_path / "models" / "1.1795215594").mkdir(parents=True)
    (tmp_path / "models" / "1.1795215594" / "weights").write_bytes(bytes(20 * 2**20))
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "worker.log").write_bytes(bytes(2**20))
    space = only(finding for finding in deployment.findings() if finding.subject == "space")
    assert "models 20.0 MB, logs 1.0 MB" in space.message
    assert "the database has" in space.message


def test_findings_come_one_by_one(deployment):
    """Earlier findings are shown while a slow LLM server has not answered yet."""
    servers = Servers(deployment.admin, deployment.platform, deployment.model)
    findings = diagnose(deployment.settings, servers=servers)
    assert next(findings).subject == "disk"
    assert deployment.model.calls == []


def test_label_studio_being_down_is_one_failure_with_its_address(deployment):
    deployment.admin.health = False
    finding = only(deployment.with_state("failure"))
    assert deployment.settings.label_studio_url in finding.message
    assert "LABEL_STUDIO_URL" in finding.remedy


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("", "not set"),
        (token("access", minutes=5), "ended or ends"),
        (token("refresh", days=-1), "ended or ends"),
    ],
)
def test_a_token_that_cannot_work_is_named_by_kind(deployment, key, expected):
    deployment.settings = replace(deployment.settings, label_studio_api_key=Secret(key))
    finding = only(deployment.with_state("failure"))
    assert finding.subject == "token"
    assert expected in finding.message
    assert "personal access token" in finding.remedy


def test_a_refused_legacy_token_may_be_allowed_in_the_organization(deployment):
    deployment.settings = replace(deployment.settings, label_studio_api_key=Secret(LEGACY))
    deployment.admin.user_failure = PlatformUnauthorized("refused")
    assert "legacy" in only(deployment.with_state("failure")).remedy


def test_no_finding_shows_a_secret(deployment):
    deployment.settings = replace(deployment.settings, label_studio_api_key=Secret(LEGACY))
    assert LEGACY not in str(deployment.findings())


def test_an_llm_that_does_not_answer_is_a_failure(deployment):
    deployment.model.failure = LanguageModelUnavailable("no answer at http://127.0.0.1:8000/v1")
    assert "LLM_BASE_URL" in only(deployment.with_state("failure")).remedy


def test_an_llm_with_few_or_no_probabilities_is_a_warning(deployment):
    deployment.model.n_top_logprobs = 20
    assert "20 likeliest" in only(deployment.with_state("warning")).message
    deployment.model.n_top_logprobs = 0
    assert "80 % sure" in only(deployment.with_state("warning")).message
    assert deployment.with_state("failure") == []


def test_an_llm_that_thinks_first_or_hides_its_context_is_a_warning(deployment, monkeypatch):
    info = replace(deployment.model.describe(), thinks=True)
    monkeypatch.setattr(deployment.model, "describe", lambda **_: info)
    assert "thinks before it answers" in only(deployment.with_state("warning")).message
    info = replace(info, thinks=False, tells_context=False)
    monkeypatch.setattr(deployment.model, "describe", lambda **_: info)
    assert "LLM_CONTEXT_TOKENS" in only(deployment.with_state("warning")).remedy


@pytest.mark.parametrize("failure", [None, "no answer within 60 s"])
def test_a_slow_llm_is_a_warning(deployment, monkeypatch, failure):
    times = iter([0.0, 35.0])
    clock = SimpleNamespace(monotonic=lambda: next(times))
    monkeypatch.setattr("backend.doctor.time", clock)
    deployment.model.loses = lambda prompt: failure
    message = only(deployment.with_state("warning")).message
    assert (failure or "took 35 s over one token") in message


def test_a_project_without_our_backend_is_a_failure_that_names_the_address_block(deployment):
    deployment.admin.found_backends = []
    finding = next(f for f in deployment.with_state("failure") if "connected" in f.message)
    assert "USE_DEFAULT_BANNED_SUBNETS=false" in finding.remedy


def test_another_backend_before_ours_is_a_warning(deployment):
    deployment.admin.found_backends.insert(
        0, MlBackend(9, "http://other:9090", "Other", "Connected")
    )
    assert "only the first" in only(deployment.with_state("warning")).message


def test_a_missing_and_a_left_over_webhook_are_warnings(deployment):
    deployment.admin.found_webhooks = [Webhook(5, "http://gone:9090/webhook", True)]
    messages = [finding.message for finding in deployment.with_state("warning")]
    assert any("missing" in message for message in messages)
    assert any("left over" in message for message in messages)


def test_a_webhook_without_the_authorization_is_repaired_by_fix(deployment):
    deployment.settings = replace(
        deployment.settings, basic_auth_user="ann", basic_auth_pass=Secret("pass wörd")
    )
    assert "doctor --fix" in only(deployment.with_state("failure")).remedy
    deployment.findings(fix=True)
    expected = "Basic " + base64.b64encode("ann:pass wörd".encode()).decode()
    assert deployment.admin.headers == {7: {"Authorization": expected}}
    deployment.admin.found_webhooks = [
        Webhook(7, f"{OWN}/webhook", True, {"authorization": expected}),
    ]
    assert deployment.with_state("failure") == []


@pytest.mark.parametrize("change", [{"model_version": "FreeAL"}, {"sampling": "Sequential"}])
def test_a_queue_that_is_not_ours_is_a_warning_unless_it_is_left_to_the_user(deployment, change):
    deployment.platform.change_project(deployment.number, **change)
    assert "queue is not ordered" in only(deployment.with_state("warning")).message
    deployment.settings = replace(deployment.settings, manage_queue=False)
    assert deployment.with_state("warning") == []


def test_the_finding_names_what_managing_the_queue_would_change(deployment):
    deployment.settings = replace(deployment.settings, manage_queue=False)
    (message,) = [f.message for f in deployment.findings() if "MANAGE_QUEUE=false" in f.message]
    assert "sampling='Uncertainty sampling'" in message
    assert "would set these two to" in message


def test_tags_that_are_left_alone_are_named(deployment):
    config = SENTIMENT.replace("</View>", '<DateTime name="day" toName="text" only="year"/></View>')
    deployment.platform.change_project(deployment.number, label_config=config)
    assert 'DateTime "day"' in only(deployment.with_state("warning")).message


def test_label_definitions_that_do_not_fit_are_a_failure(deployment):
    folder = deployment.settings.definitions_folder
    folder.mkdir()
    file = folder / f"{deployment.number}.yaml"
    file.write_text("definitions: {sentiment: {Positive: content}}", "utf-8")
    assert deployment.with_state("failure") == []
    file.write_text("definitions: {sentiment: {Good: content}}", "utf-8")
    assert "'Good'" in only(deployment.with_state("failure")).message


def test_a_config_without_a_question_is_a_failure(deployment):
    deployment.platform.change_project(deployment.number, label_config="<View/>")
    assert "label-configs" in only(deployment.with_state("failure")).remedy


def test_a_database_that_cannot_be_opened_is_a_failure(deployment, tmp_path):
    (tmp_path / "file").write_text("")
    deployment.settings = replace(
        deployment.settings, database_url=Secret(f"sqlite:///{tmp_path}/file/x.db")
    )
    assert only(deployment.with_state("failure")).subject == "database"


def test_no_worker_and_no_project_are_warnings(tmp_path):
    settings = Settings(home=tmp_path / "new", label_studio_api_key=Secret(LEGACY))
    servers = Servers(FakeAdmin(), FakePlatform(), FakeLanguageModel())
    findings = list(diagnose(settings, servers=servers))
    subjects = {finding.subject for finding in findings if finding.state == "warning"}
    assert subjects == {"worker", "projects"}


def test_a_full_disk_is_a_failure(deployment, monkeypatch):
    usage = type("Usage", (), {"free": 10**8})
    monkeypatch.setattr("backend.launcher.machine.shutil.disk_usage", lambda folder: usage)
    assert only(deployment.with_state("failure")).subject == "disk"


def test_each_embedded_model_is_named_with_what_it_needs(deployment, monkeypatch):
    monkeypatch.setattr("backend.launcher.embedded_models.free_memory", lambda: 6 * GB)
    MPNET.folder(deployment.settings.home).mkdir(parents=True)
    found = [one.message for one in deployment.findings() if one.subject == "embedded model"]
    assert [message.split(":")[0] for message in found] == [
        "LLM_MODEL=qwen2.5-coder-1.5b does not fit this machine now",
        "LLM_MODEL=smollm2-135m-instruct fits this machine",
        "ENCODER_MODEL=all-mpnet-base-v2 is there and fits this machine",
    ]
    assert "6.0 GB of memory" in found[0]
