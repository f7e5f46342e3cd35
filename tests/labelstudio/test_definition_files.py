"""Definition files: read anew each time; what is not understood is refused by name."""

from __future__ import annotations

import pytest

from backend.domain.definitions import Definitions
from backend.errors import UnsuitableDefinitions
from backend.labelstudio.definition_files import DefinitionFiles

GOOD = """
instruction: Judge the product, not the seller.
definitions:
  sentiment:
    yes: they are content
    1: one star
  topic:
"""


def test_every_name_is_a_text_even_if_yaml_knows_better(tmp_path):
    (tmp_path / "3.yaml").write_text(GOOD, "utf-8")
    assert DefinitionFiles(tmp_path).read(3) == Definitions(
        {"sentiment": {"yes": "they are content", "1": "one star"}, "topic": {}},
        "Judge the product, not the seller.",
    )


def test_a_project_without_a_file_has_none_and_an_edit_counts_at_once(tmp_path):
    files = DefinitionFiles(tmp_path / "not there yet")
    assert files.read(3) == Definitions()
    (tmp_path / "not there yet").mkdir()
    (tmp_path / "not there yet" / "3.yaml").write_text("instruction: Read.", "utf-8")
    assert files.read(3) == Definitions(instruction="Read.")
    assert files.read(4) == Definitions()


@pytest.mark.parametrize("content", ["", "# nothing yet", "definitions:"])
def test_an_empty_file_defines_nothing(tmp_path, content):
    (tmp_path / "3.yaml").write_text(content, "utf-8")
    assert DefinitionFiles(tmp_path).read(3) == Definitions()


@pytest.mark.parametrize(
    "content",
    [
        b"definitions: [",
        b"- sentiment",
        b"labels: {sentiment: {a: b}}",
        b"definitions: text",
        b"definitions: {sentiment: text}",
        b"definitions: {sentiment: {a: [b]}}",
        b"instruction: [a]",
        b"? [a]\n: b",
        b"\xff\xfe",
        b"a: &x [*x]",
        b"!!python/object/apply:os.system [ls]",
    ],
)
def test_what_is_not_understood_is_refused_with_the_files_name(tmp_path, content):
    (tmp_path / "3.yaml").write_bytes(content)
    with pytest.raises(UnsuitableDefinitions, match=r"3\.yaml.*expected `instruction: text`"):
        DefinitionFiles(tmp_path).read(3)
