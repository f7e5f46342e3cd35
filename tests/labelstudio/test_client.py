"""How Label Studio's failures come out, seen against a scripted server of the test's own."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
import pytest

from backend.domain.projects import Prediction
from backend.errors import (
    BackendError,
    PlatformRejected,
    PlatformUnauthorized,
    PlatformUnavailable,
)
from backend.labelstudio.admin import LabelStudioAdmin
from backend.labelstudio.client import LabelStudioPlatform

KEY = "made-up-key-0123456789"
PROJECT = {
    "id": 1,
    "created_at": "2026-11-20T22:59:54.073690Z",
    "label_config": "<View/>",
    "title": "t",
    "model_version": "rec",
    "task_number": 3,
    "total_annotations_number": 1,
    "skipped_annotations_number": 1,
}
PREDICTION = Prediction(5, "v1", ({"from_name": "a"},), 0.5)


class Script:
    """What the server answers: by "METHOD path", else the same to everything."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.asked: list[tuple[str, str, Any]] = []
        self.answers: dict[str, Callable[[], tuple[int, Any]]] = {}
        self.otherwise: Callable[[], tuple[int, Any]] = lambda: (200, PROJECT)

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        self.asked.append((method, path, body))
        return self.answers.get(f"{method} {path}", self.otherwise)()


class Handler(BaseHTTPRequestHandler):
    def respond(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length) or b"null")
        path = self.path.split("?")[0]
        status, answer = self.server.script.answer(self.command, path, body)  # type: ignore[attr-defined]
        is_page = isinstance(answer, str)
        content = answer.encode() if is_page else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html" if is_page else "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Set-Cookie", "sessionid=cookie-of-the-session")
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PATCH = do_DELETE = respond

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def script() -> Iterator[Script]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    script = Script(f"http://127.0.0.1:{server.server_address[1]}")
    server.script = script  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield script
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def platform(script: Script) -> Iterator[LabelStudioPlatform]:
    platform = LabelStudioPlatform(script.url, KEY, timeout_s=5)
    yield platform
    platform.close()


def refusal(kind: type[BackendError], call: Callable[[], object]) -> str:
    with pytest.raises(kind) as caught:
        call()
    told, cause = str(caught.value), str(caught.value.__cause__)
    assert "\n" not in told
    for secret in (KEY, "cookie-of-the-session", "the text of a task"):
        assert secret not in told
        assert secret not in cause
    return told


def label_studio_says(status: int, detail: str, **mistakes: list[str]) -> tuple[int, Any]:
    return status, {
        "status_code": status,
        "detail": detail,
        "validation_errors": mistakes,
        "version": "1.23.2",
    }


def test_a_project_is_read(platform: LabelStudioPlatform):
    info = platform.project(1)
    assert (info.id, info.model_version) == ("1.1795215594", "rec")
    assert (info.n_tasks, info.n_annotations) == (3, 2)


def test_a_refused_token_says_how_to_get_another(platform: LabelStudioPlatform, script: Script):
    detail = "legacy token authentication has been disabled for this organization"
    script.otherwise = lambda: label_studio_says(401, detail)
    told = refusal(PlatformUnauthorized, lambda: platform.project(1))
    assert detail in told
    assert "personal access token" in told
    assert "LABEL_STUDIO_API_KEY" in told


@pytest.mark.parametrize("key", ["", "  ", "a\nb", "kl\u00e9"])
def test_without_a_usable_token_nothing_is_asked(key: str, script: Script):
    platform = LabelStudioPlatform(script.url, key)
    assert "LABEL_STUDIO_API_KEY" in refusal(PlatformUnauthorized, lambda: platform.project(1))
    assert script.asked == []


def test_an_expired_personal_access_token_is_not_even_sent(script: Script):
    expired = jwt.encode({"token_type": "refresh", "exp": 5}, "k" * 40, algorithm="HS256")
    platform = LabelStudioPlatform(script.url, expired)
    assert "expired" in refusal(PlatformUnauthorized, lambda: platform.project(1))
    assert script.asked == []
    platform.close()


# label-studio-sdk 2.1.2 reads the answer in a way that pydantic has deprecated.
@pytest.mark.filterwarnings("ignore:The `parse_obj`:pydantic.warnings.PydanticDeprecatedSince20")
def test_a_personal_access_token_is_exchanged_once_for_all_threads(script: Script):
    ends = int(time.time()) + 300
    personal, access = (
        jwt.encode({"token_type": kind, "exp": ends}, "k" * 40, algorithm="HS256")
        for kind in ("refresh", "access")
    )
    script.answers["POST /api/token/refresh/"] = lambda: (200, {"access": access})
    platform = LabelStudioPlatform(script.url, personal)
    with ThreadPoolExecutor(8) as pool:
        infos = list(pool.map(lambda _: platform.project(1), range(16)))
    platform.close()
    assert len({info.id for info in infos}) == 1
    assert [path for _, path, _ in script.asked].count("/api/token/refresh/") == 1


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
def test_a_failing_server_is_unavailable_and_not_asked_again(
    status: int, platform: LabelStudioPlatform, script: Script
):
    script.otherwise = lambda: label_studio_says(status, "database is locked")
    told = refusal(PlatformUnavailable, lambda: platform.import_predictions(1, [PREDICTION]))
    assert f"HTTP {status}" in told
    assert "database is locked" in told
    assert len(script.asked) == 1


def test_a_listing_is_asked_for_again(platform: LabelStudioPlatform, script: Script):
    page = {"tasks": [{"id": 4, "data": {"text": "a"}}], "total": 1}
    answers = iter([(502, "bad gateway"), (200, page)])
    script.answers["GET /api/tasks/"] = lambda: next(answers)
    (task,) = platform.tasks(1)
    assert (task.id, task.data, task.annotations, task.prediction_ids) == (4, {"text": "a"}, (), {})


ROW = {"id": 4, "data": {"text": "a"}, "project": 1}


@pytest.mark.parametrize(
    "page",
    [{}, [], None, {"tasks": None, "total": 1}, {"tasks": {}, "total": 1}, {"tasks": []}]
    + [{"tasks": [], "total": 50}, {"tasks": [ROW], "total": 0}, {"tasks": [None], "total": 1}]
    + [{"tasks": [ROW | {"id": "4"}], "total": 1}, {"tasks": [ROW | {"project": 2}], "total": 1}]
    + [{"tasks": [ROW], "total": "1"}, {"detail": "ok"}, "<html>Welcome</html>"],
    ids=str,
)
def test_what_is_no_listing_of_the_project_is_refused(
    page: Any, platform: LabelStudioPlatform, script: Script
):
    script.answers["GET /api/tasks/"] = lambda: (200, page)
    refusal(PlatformRejected, lambda: list(platform.tasks(1)))
    refusal(PlatformRejected, lambda: platform.predicted_task_ids(1, [4], "v1"))


def test_a_listing_that_ends_before_its_end_is_refused(
    platform: LabelStudioPlatform, script: Script
):
    pages = iter([(200, {"tasks": [ROW], "total": 2}), (200, {"tasks": [], "total": 1})])
    script.answers["GET /api/tasks/"] = lambda: next(pages)
    refusal(PlatformRejected, lambda: list(platform.tasks(1)))


def test_an_answer_about_another_project_is_refused(platform: LabelStudioPlatform):
    refusal(PlatformRejected, lambda: platform.project(2))


@pytest.mark.parametrize("answer", [{}, {"created": None}, {"created": "one"}, []])
def test_an_import_that_does_not_say_how_much_it_stored_is_no_success(
    answer: Any, platform: LabelStudioPlatform, script: Script
):
    script.otherwise = lambda: (201, answer)
    refusal(PlatformRejected, lambda: platform.import_predictions(1, [PREDICTION]))


@pytest.mark.parametrize("depth", [150, 900])
def test_data_nested_deep_cost_their_task_and_no_other(
    depth: int, platform: LabelStudioPlatform, script: Script
):
    deep: Any = "deep"
    for _ in range(depth):
        deep = [deep]
    rows = [ROW, {"id": 5, "data": {"text": deep}}, {"id": 6, "data": {"text": "c"}}]
    script.answers["GET /api/tasks/"] = lambda: (200, {"tasks": rows, "total": 3})
    assert [(task.id, dict(task.data)) for task in platform.tasks(1)] == [
        (4, {"text": "a"}),
        (5, {}),
        (6, {"text": "c"}),
    ]


def test_an_annotation_that_cannot_be_read_costs_itself(
    platform: LabelStudioPlatform, script: Script
):
    good = {"id": 8, "task": 4, "result": [], "updated_at": "2026-11-20T12:00:00Z"}
    bad = [None, {}, good | {"id": -1}, good | {"updated_at": "0001-01-01T00:00:00+14:00"}]
    page = {"tasks": [ROW | {"annotations": [*bad, good]}], "total": 1}
    script.answers["GET /api/tasks/"] = lambda: (200, page)
    (task,) = platform.tasks(1)
    assert [annotation.annotation_id for annotation in task.annotations or ()] == [8]


def test_a_page_from_a_proxy_in_between_is_unavailable(
    platform: LabelStudioPlatform, script: Script
):
    script.otherwise = lambda: (502, "<html>Bad Gateway</html>")
    assert "HTTP 502" in refusal(PlatformUnavailable, lambda: platform.project(1))


@pytest.mark.parametrize(
    "answer",
    [(200, "<html>Welcome</html>"), (404, "<html>Nothing</html>"), (404, {"hello": "there"})]
    + [(200, {"hello": "there"}), (200, []), (200, None), (403, "forbidden")],
    ids=str,
)
def test_what_is_not_label_studio_is_told_apart(
    answer: tuple[int, Any], platform: LabelStudioPlatform, script: Script
):
    script.otherwise = lambda: answer
    assert "check LABEL_STUDIO_URL" in refusal(PlatformRejected, lambda: platform.project(1))


def test_a_refusal_is_told_in_label_studios_words(platform: LabelStudioPlatform, script: Script):
    why = "Model version doesn't exist <b>either</b> as live model or as static predictions."
    script.otherwise = lambda: label_studio_says(400, "Validation error", model_version=[why])
    told = refusal(PlatformRejected, lambda: platform.serve_model_version(1, "v1"))
    assert "doesn't exist either as live model" in told
    assert "'v1'" in told


def test_a_refusal_of_task_data_does_not_repeat_the_data(
    platform: LabelStudioPlatform, script: Script
):
    echo = "{'text': 'the text of a task'} is not what was expected"
    script.otherwise = lambda: label_studio_says(400, "Validation error", non_field_errors=[echo])
    told = refusal(PlatformRejected, lambda: platform.import_predictions(1, [PREDICTION]))
    assert "Validation error" in told
    admin = LabelStudioAdmin(script.url, KEY)
    refusal(PlatformRejected, lambda: admin.import_tasks(1, [{"text": "the text of a task"}]))
    admin.close()


NESTED = """<View><Text name="text" value="$text"/>
<Choices name="topic" toName="text" allowNested="true"><Choice value="a"><Choice value="b"/>
<Choice value="c"/></Choice></Choices></View>"""
OWN = """<View><Text name="text" value="$text"/><Choices name="topic" toName="text">
<Choice value="$first"/><Choice value="$second"/></Choices></View>"""


@pytest.mark.parametrize(
    ("label_config", "choices"),
    [
        (NESTED, [["a", "b"]]),
        (OWN, ["what the task brought"]),
        (NESTED.replace("Choices", "choices").replace("Choice", "choice"), [["a", "c"]]),
    ],
)
def test_what_the_bulk_drops_and_the_editor_shows_is_stored_one_by_one(
    platform: LabelStudioPlatform, script: Script, label_config: str, choices: list[Any]
):
    common = {"from_name": "topic", "to_name": "text", "type": "choices"}
    shown = Prediction(6, "v1", ({**common, "value": {"choices": choices}},), 0.5)
    wrong = replace(shown, task_id=8, result=({**common, "from_name": "nothing", "value": {}},))
    stored = replace(shown, task_id=5)
    gone = replace(shown, task_id=7)
    answers = iter([(201, {"id": 1}), label_studio_says(400, "Validation error")])
    listed = {"id": 5, "data": {}, "predictions": [{"id": 1, "model_version": "v1"}]}
    script.answers = {
        "POST /api/projects/1/import/predictions": lambda: (201, {"created": 1}),
        "POST /api/predictions/": lambda: next(answers),
        "GET /api/tasks/": lambda: (200, {"tasks": [listed], "total": 1}),
        "GET /api/projects/1/": lambda: (200, {**PROJECT, "label_config": label_config}),
    }
    assert platform.import_predictions(1, [stored, shown, wrong, gone]) == 2
    one_by_one = [body for method, path, body in script.asked if path == "/api/predictions/"]
    assert [body["task"] for body in one_by_one] == [6, 7]
    assert one_by_one[0]["result"] == list(shown.result)


def test_a_server_that_is_down_is_unavailable(script: Script):
    for url in ("http://127.0.0.1:9", "http://127.0.0.1:abc", "http://no.such.host.invalid"):
        platform = LabelStudioPlatform(url, KEY, timeout_s=2)
        assert "check that it runs" in refusal(PlatformUnavailable, lambda p=platform: p.project(1))
        platform.close()


def test_a_server_that_takes_too_long_is_unavailable(script: Script):
    def slowly() -> tuple[int, Any]:
        time.sleep(0.5)
        return 200, PROJECT

    script.otherwise = slowly
    platform = LabelStudioPlatform(script.url, KEY, timeout_s=0.1)
    assert "ReadTimeout" in refusal(PlatformUnavailable, lambda: platform.project(1))
    platform.close()


@pytest.mark.parametrize(("after", "n_patches"), [(None, 1), ("rec", 0)])
def test_deleting_a_version_sets_again_what_was_served_by_a_backends_name(
    after: str | None, n_patches: int, platform: LabelStudioPlatform, script: Script
):
    served = iter(["rec", after])
    script.answers["GET /api/projects/1/"] = lambda: (
        200,
        {**PROJECT, "model_version": next(served)},
    )
    script.answers["DELETE /api/projects/1/model-versions/"] = lambda: (
        200,
        {"deleted_predictions": 0},
    )
    platform.delete_model_version(1, "old")
    patches = [body for method, _, body in script.asked if method == "PATCH"]
    assert patches == [{"model_version": "rec"}] * n_patches


def test_a_closed_platform_connects_again(platform: LabelStudioPlatform):
    platform.close()
    assert platform.project(1).title == "t"


def test_a_backend_in_a_private_network_is_refused_with_what_to_do(script: Script):
    detail = "URL resolves to a reserved network address (block: 127.0.0.0/8)"
    script.otherwise = lambda: label_studio_says(403, detail)
    admin = LabelStudioAdmin(script.url, KEY)
    told = refusal(
        PlatformRejected, lambda: admin.connect_backend(1, "http://localhost:9090", "FreeAL")
    )
    assert "USE_DEFAULT_BANNED_SUBNETS=false" in told
    assert "start Label Studio again" in told
    admin.close()
