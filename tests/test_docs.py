"""What the documents say is what the code does."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
import tomllib
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
import yaml
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

import pulmofuse
from pulmofuse.config import SourceConfig, StudyConfig
from pulmofuse.models.backbones import BACKBONES
from pulmofuse.schema import MANIFEST_COLUMNS, Label
from pulmofuse.sources import SOURCES

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
NEEDED = "needed"


def names(paths: list[Path]) -> list[str]:
    return [path.relative_to(ROOT).as_posix() for path in paths]


def documented_settings() -> Iterator[tuple[str, str]]:
    """Dotted key and default (as YAML) of every row of docs/configuration.md."""
    sections: list[str] = []
    for line in (ROOT / "docs" / "configuration.md").read_text("utf-8").splitlines():
        if line.startswith("## "):
            # "## `ct.model`, `cxr.model`" describes both; "## The study" the top of the tree.
            sections = re.findall(r"`([\w.]+)`", line.partition(":")[0]) or [""]
        elif row := re.match(r"\| `(\w+)` \| (.+?) \| ", line):
            defaults = re.findall(r"`([^`]+)`", row[2]) or [row[2]]
            for number, section in enumerate(sections):
                default = defaults[number] if len(defaults) > 1 else defaults[0]
                yield f"{section}.{row[1]}".removeprefix("."), default


def real_settings(model: BaseModel, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Dotted key and default of every leaf of the configuration tree."""
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from real_settings(value, f"{prefix}{name}.")
        elif name == "sources":
            for key, below in SourceConfig.model_fields.items():
                yield f"sources.{key}", NEEDED if below.is_required() else below.default
        else:
            needed = field.default is PydanticUndefined and field.default_factory is None
            plain = model.model_dump(mode="json")[name]
            yield f"{prefix}{name}", NEEDED if needed else plain


class TestConfiguration:
    config = StudyConfig(name="a", question="b", sources=(SourceConfig(name="folder"),))

    def test_every_key_is_documented_once_and_no_other(self) -> None:
        documented = [key for key, _ in documented_settings()]

        assert sorted(documented) == sorted(key for key, _ in real_settings(self.config))

    @pytest.mark.parametrize(("key", "default"), documented_settings())
    def test_default_is_the_documented_one(self, key: str, default: str) -> None:
        real = dict(real_settings(self.config))

        assert real[key] == yaml.safe_load(default)

    def test_every_choice_is_named(self) -> None:
        text = (ROOT / "docs" / "configuration.md").read_text("utf-8")
        spans = re.findall(r"`([^`\n]+)`", text)
        named = {word for span in spans for word in re.findall(r"\w+", span)}

        assert {*BACKBONES, *Label, *_literals(StudyConfig)} <= named


def _literals(annotation: object) -> Iterator[str]:
    """Every text that a `Literal` below this model or type allows."""
    if typing.get_origin(annotation) is typing.Literal:
        yield from (str(choice) for choice in typing.get_args(annotation))
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for field in annotation.model_fields.values():
            yield from _literals(field.annotation)
    else:
        for argument in typing.get_args(annotation):
            yield from _literals(argument)


class TestLinks:
    @pytest.mark.parametrize("path", DOCUMENTS, ids=names(DOCUMENTS))
    def test_lead_to_files_of_the_repository(self, path: Path) -> None:
        links = re.findall(r"\]\(([^)#\s]+)", path.read_text("utf-8"))
        inside = [link for link in links if "://" not in link]

        assert [link for link in inside if not (path.parent / link).exists()] == []


class TestCommands:
    def commands(self) -> Iterator[tuple[str, list[str]]]:
        """Every line of a document (or study) that calls the command line."""
        for path in [*DOCUMENTS, *ROOT.glob("studies/*.yaml")]:
            for line in path.read_text("utf-8").splitlines():
                call = re.match(r"^(?:    |#     )(?:\.venv/bin/)?pulmofuse (.*)$", line)
                if call:
                    yield f"{path.name}: {line.strip()}", shlex.split(call[1], comments=True)

    def test_exist_with_their_options(self) -> None:
        faults = []
        seen = set()
        for where, words in self.commands():
            command = typer.main.get_command(pulmofuse_app())
            while words and hasattr(command, "commands"):
                verb = words.pop(0)
                if verb.startswith("-"):
                    break
                command = command.commands.get(verb)
                seen.add(verb)
                if command is None:
                    break
            if command is None:
                faults.append(where)
                continue
            known = {option for parameter in command.params for option in parameter.opts}
            faults += [
                f"{where}: {word}"
                for word in words
                if word.startswith("--") and word not in known and word != "--help"
            ]
        assert faults == []
        assert {"study", "data", "scan", "check", "predict"} <= seen

    @pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
    def test_make_targets_exist(self, name: str) -> None:
        targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
        text = (ROOT / name).read_text("utf-8")
        called = set(re.findall(r"(?:`|^    )make ([a-z]+)", text, re.MULTILINE))

        assert called
        assert called <= targets

    def test_studies_that_are_called_exist(self) -> None:
        text = "".join(path.read_text("utf-8") for path in DOCUMENTS)
        called = set(re.findall(r"studies/\w+\.yaml", text)) - {"studies/mine.yaml"}

        assert [name for name in called if not (ROOT / name).is_file()] == []


def pulmofuse_app() -> typer.Typer:
    from pulmofuse.cli import app

    return app


class TestReadme:
    text = (ROOT / "README.md").read_text("utf-8")

    def test_is_read_in_one_go(self) -> None:
        assert len(self.text.splitlines()) < 170

    def test_says_that_it_is_no_medical_device(self) -> None:
        assert "Research use only" in self.text
        assert "not a medical device" in self.text

    def test_python_names_exist(self) -> None:
        (code,) = re.findall(r"```python\n(.*?)```", self.text, re.DOTALL)
        imports = [n for n in ast.walk(ast.parse(code)) if isinstance(n, ast.ImportFrom)]

        assert imports
        for node in imports:
            module = importlib.import_module(str(node.module))
            assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


class TestData:
    text = (ROOT / "docs" / "data.md").read_text("utf-8")

    @pytest.mark.parametrize("name", [name for name in SOURCES if name != "folder"])
    def test_every_source_has_its_row(self, name: str) -> None:
        (row,) = re.findall(rf"^\| `{name}` \|.*$", self.text, re.MULTILINE)

        assert SOURCES[name].url in row

    def test_every_column_of_the_manifest_has_its_row(self) -> None:
        section = self.text.partition("## The manifest")[2].partition("\n## ")[0]

        assert tuple(re.findall(r"^\| `(\w+)`", section, re.MULTILINE)) == MANIFEST_COLUMNS

    @pytest.mark.parametrize("label", Label)
    def test_every_label_is_named(self, label: str) -> None:
        assert f"`{label}`" in self.text


def test_one_version_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))

    assert project["version"] == citation["version"] == pulmofuse.__version__
    assert project["license"] == citation["license"]
