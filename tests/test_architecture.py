"""Which module may import which, read from the code's own imports."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.labelstudio.label_config.tags import control_tags

ROOT = Path(__file__).parent.parent
LABEL_CONFIG = ROOT / "backend" / "labelstudio" / "label_config"
MODULES = [
    *sorted((ROOT / "backend").rglob("*.py")),
    ROOT / "model.py",
    ROOT / "_wsgi.py",
]

# package -> where it may be imported, as prefixes of paths from the root
HOMES = {
    "torch": ("backend/self_training/", "backend/launcher/convert_gguf.py"),
    "transformers": ("backend/self_training/", "backend/launcher/convert_gguf.py"),
    "requests": ("backend/llm/client/", "backend/labelstudio/"),
    "httpx": ("backend/labelstudio/",),
    "sqlalchemy": ("backend/store/",),
    "alembic": ("backend/store/",),
    "dbos": ("backend/jobs.py",),
    "label_studio_sdk": ("backend/labelstudio/",),
    "label_studio_ml": ("model.py", "_wsgi.py"),
    "skactiveml": ("backend/active_learning/baselines.py",),
    "flask": ("backend/web/", "_wsgi.py"),
    "flask_wtf": ("backend/web/",),
    "werkzeug": ("backend/web/",),
    "typer": ("backend/cli.py", "backend/data_commands.py", "backend/__main__.py"),
}

# package -> packages of ours that it may import, besides itself, `domain`, `errors` and `files`
LAYERS = {
    "domain": set(),
    "evaluation": set(),
    "demonstrations": set(),
    "label_model": {"evaluation"},
    "llm": {"demonstrations", "evaluation", "label_model"},
    "active_learning": {"evaluation", "llm"},
    "self_training": {"label_model"},
    "labelstudio": set(),
    "store": set(),
    "pipeline": {"active_learning", "demonstrations", "evaluation", "label_model", "llm", "store"},
    "launcher": {
        *("evaluation", "labelstudio", "services", "setting_values", "settings", "supervise"),
    },
    "web": {"services"},
}
NUMERIC = ("evaluation", "demonstrations", "label_model", "active_learning")
NUMERIC_PACKAGES = {
    "numpy",
    "scipy",
    "sklearn",
    "threadpoolctl",
    "cleanlab",
    "skactiveml",
    "backend",
}
PACKAGES = sorted(p.parent for p in (ROOT / "backend").rglob("__init__.py"))


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_each_foreign_package_is_imported_in_its_place_only(path):
    name = relative(path)
    forbidden = [
        module
        for module in imports(path)
        for package, homes in HOMES.items()
        if module.split(".")[0] == package and not name.startswith(homes)
    ]
    assert forbidden == []


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_imports_between_layers_point_one_way(path):
    parts = relative(path).split("/")
    layer = parts[1] if parts[0] == "backend" and len(parts) > 2 else None
    if layer is None:
        return
    ours = {m.split(".")[1] for m in imports(path) if m.startswith("backend.")}
    assert ours <= {layer, "domain", "errors", "files"} | LAYERS[layer]


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_kinds_of_questions_are_told_apart_by_their_properties_alone(path):
    if relative(path).startswith(("backend/domain/", "backend/labelstudio/label_config/")):
        return
    named = [
        node.attr
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "QuestionKind"
    ]
    assert named == []


def test_a_control_tag_is_named_in_the_file_that_defines_it_alone():
    files = {path.name: path.read_text(encoding="utf-8") for path in LABEL_CONFIG.glob("*.py")}
    for tag in control_tags().values():
        modules = [name for name, text in files.items() if f"class {type(tag).__name__}(" in text]
        namers = [name for name, text in files.items() if f'"{tag.name}"' in text]
        assert namers == modules


def test_every_package_is_on_the_map():
    folders = {p.relative_to(ROOT / "backend").parts[0] for p in PACKAGES if p.name != "backend"}
    assert folders == set(LAYERS)


@pytest.mark.parametrize("path", PACKAGES, ids=relative)
def test_every_package_says_in_one_sentence_what_is_in_it(path):
    if "migrations" in path.parts:
        return
    said = ast.get_docstring(ast.parse((path / "__init__.py").read_text(encoding="utf-8")))
    assert said
    assert said.count("\n") <= 1


@pytest.mark.parametrize(
    "path",
    [p for name in NUMERIC for p in sorted((ROOT / "backend" / name).rglob("*.py"))],
    ids=relative,
)
def test_numeric_packages_need_numerics_only(path):
    packages = {module.split(".")[0] for module in imports(path)}
    assert packages - NUMERIC_PACKAGES - set(sys.stdlib_module_names) - {"__future__"} == set()


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_only_the_settings_read_the_environment(path):
    if relative(path) == "backend/settings.py":
        return
    text = path.read_text(encoding="utf-8")
    assert "os.environ" not in text
    assert "os.getenv" not in text


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_nothing_is_pickled(path):
    assert not {"pickle", "shelve", "marshal", "dill", "joblib"} & set(imports(path))


def test_each_migration_follows_another_one():
    """Two at once with one number leave a database that cannot be upgraded."""
    versions = (ROOT / "backend/store/migrations/versions").glob("0*.py")
    numbers = sorted(path.name[:4] for path in versions)
    assert numbers == [f"{at:04}" for at in range(1, len(numbers) + 1)]
