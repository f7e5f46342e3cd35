"""docker-compose.yml and the Dockerfile, as far as they can be checked without docker."""

import dataclasses
import re
from pathlib import Path

import pytest
import yaml

from backend.errors import SettingsError
from backend.settings import Settings, variable

ROOT = Path(__file__).parents[1]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
VARIABLES = {variable(spec.name) for spec in dataclasses.fields(Settings)}

each_service = pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)


def substituted(value: str) -> str:
    """Fill in the defaults of ${NAME:-default}, and a word for what the user must set."""
    value = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value)
    return re.sub(r"\$\{\w+:\?[^}]*\}", "something", value)


@each_service
def test_a_service_comes_from_an_image_or_from_this_folder(service):
    assert ("image" in service) != ("build" in service)
    if "build" in service:
        assert (ROOT / service["build"]["context"] / "Dockerfile").is_file()


def test_the_base_image_is_the_user_s_to_pin_and_the_same_in_both_files():
    given = substituted(SERVICES["backend"]["build"]["args"]["PYTHON_IMAGE"])
    assert f"ARG PYTHON_IMAGE={given}\nFROM ${{PYTHON_IMAGE}}\n" in DOCKERFILE


@each_service
def test_an_image_has_a_version(service):
    if "image" in service:
        assert re.fullmatch(r"[\w/-]+:v?\d[\d.]*", service["image"])


@each_service
def test_what_a_service_waits_for_exists_and_can_become_healthy(service):
    for name, how in service.get("depends_on", {}).items():
        assert name in SERVICES
        if how["condition"] == "service_healthy":
            assert "healthcheck" in SERVICES[name]


@each_service
def test_ports_are_open_to_this_machine_only(service):
    for port in service.get("ports", []):
        assert port.startswith("127.0.0.1:")


@each_service
def test_volumes_are_declared(service):
    for volume in service.get("volumes", []):
        assert volume.split(":")[0] in COMPOSE["volumes"]


def test_the_versions_of_neighbours_are_those_that_the_launcher_installs():
    for name, requirements in (
        ("label-studio", "requirements-label-studio.txt"),
        ("vllm", "requirements-vllm.txt"),
    ):
        version = re.search(r"^[\w-]+==([\d.]+)$", (ROOT / requirements).read_text(), re.MULTILINE)
        assert SERVICES[name]["image"].split(":")[1].removeprefix("v") == version[1]


def test_the_backend_reads_every_variable_that_it_is_given():
    environment = SERVICES["backend"]["environment"]
    assert set(environment) <= VARIABLES
    settings = Settings.from_env({name: substituted(text) for name, text in environment.items()})
    assert settings.label_studio_url == "http://label-studio:8080"
    assert settings.llm_base_url == "http://vllm:8000/v1"
    assert settings.own_url == "http://backend:9090"


def test_addresses_between_services_name_services_and_their_ports():
    for text in SERVICES["backend"]["environment"].values():
        address = re.match(r"http://([\w-]+):(\d+)", text)
        if address:
            name, port = address.groups()
            assert any(p.endswith(f":{port}") for p in SERVICES[name]["ports"])


def test_label_studio_knows_the_token_that_the_backend_uses():
    label_studio = SERVICES["label-studio"]["environment"]
    token = SERVICES["backend"]["environment"]["LABEL_STUDIO_API_KEY"]
    assert label_studio["LABEL_STUDIO_USER_TOKEN"] == token
    assert label_studio["USE_DEFAULT_BANNED_SUBNETS"] == "false"


def test_the_database_is_postgres_only_on_request():
    assert SERVICES["postgres"]["profiles"] == ["postgres"]
    assert substituted(SERVICES["backend"]["environment"]["DATABASE_URL"]) == ""
    settings = Settings.from_env(
        {"DATABASE_URL": "postgresql://freeal:secret@postgres:5432/freeal"}
    )
    assert settings.state_url.startswith("postgresql+psycopg://freeal:secret@postgres:5432")


def test_the_image_sets_variables_that_the_backend_reads():
    (block,) = re.findall(r"^ENV (HOST=(?:.*\\\n)*.*)", DOCKERFILE, re.MULTILINE)
    names = re.findall(r"([A-Z_]+)=", block)
    assert names == ["HOST", "PORT", "FREEAL_HOME", "HF_HOME"]
    assert set(names) <= {*VARIABLES, "HF_HOME"}


def test_the_image_runs_the_backend_as_an_ordinary_user():
    assert DOCKERFILE.index("USER freeal") < DOCKERFILE.index("CMD ")
    assert 'CMD ["python", "-m", "backend", "serve"]' in DOCKERFILE
    assert "EXPOSE 9090" in DOCKERFILE


def test_what_the_image_copies_is_not_ignored():
    ignored = (ROOT / ".dockerignore").read_text()
    kept = re.findall(r"^!(.+)$", ignored, re.MULTILINE)
    assert all((ROOT / name).exists() for name in kept)
    for line in re.findall(r"^COPY (.+) \./$", DOCKERFILE, re.MULTILINE):
        assert set(line.split()) <= set(kept)


@each_service
def test_no_service_gains_rights_or_fills_the_disk_with_its_log(service):
    assert "no-new-privileges:true" in service["security_opt"]
    assert service["restart"] == "unless-stopped"
    options = service["logging"]["options"]
    assert options["max-size"]
    assert int(options["max-file"]) > 1


def test_the_backend_can_write_where_its_data_are_and_has_no_rights_or_limits_to_lose():
    backend = SERVICES["backend"]
    assert backend["read_only"] is True
    assert backend["cap_drop"] == ["ALL"]
    assert "privileged" not in backend
    assert backend["pids_limit"] > 0
    assert substituted(backend["mem_limit"]) == "12g"
    written = [volume.split(":")[1] for volume in backend["volumes"]]
    written += [folder.split(":")[0] for folder in backend["tmpfs"]]
    assert written == ["/data", "/tmp"]  # noqa: S108


def test_the_backend_starts_in_its_container_and_without_a_word_nowhere_else():
    environment = SERVICES["backend"]["environment"]
    given = {name: substituted(text) for name, text in environment.items()}
    Settings.from_env({**given, "HOST": "0.0.0.0"}).check_exposure()  # noqa: S104
    with pytest.raises(SettingsError, match="ALLOW_OPEN"):
        Settings.from_env({"HOST": "0.0.0.0"}).check_exposure()  # noqa: S104


def test_further_workers_are_the_backend_without_its_port():
    worker = SERVICES["worker"]
    assert worker["command"] == ["python", "-m", "backend", "worker"]
    assert worker["profiles"] == SERVICES["postgres"]["profiles"]
    assert "ports" not in worker
    for name in ("environment", "volumes", "read_only", "cap_drop"):
        assert worker[name] == SERVICES["backend"][name]
