"""Reads a report as a browser would: tags, attributes, texts and tables."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

_VOID = {"meta", "img", "br", "link", "hr", "input"}


@dataclass
class Page:
    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    tables: dict[str, list[list[str]]] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)  # section id -> its text
    unbalanced: list[str] = field(default_factory=list)

    def ids(self) -> list[str]:
        return [str(attributes["id"]) for _, attributes in self.tags if attributes.get("id")]

    def images(self) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == "img"]


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.page = Page()
        self.open: list[str] = []
        self.section = ""
        self.region = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.page.tags.append((tag, attributes))
        if tag not in _VOID:
            self.open.append(tag)
        if tag in {"section", "header"}:
            self.section = attributes.get("id") or ""
        if attributes.get("role") == "region":
            self.region = attributes.get("aria-label") or ""
            self.page.tables[self.region] = []
        if tag == "tr":
            self.page.tables[self.region].append([])
        if tag in {"td", "th"}:
            self.page.tables[self.region][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.page.unbalanced.append(tag)

    def handle_data(self, data: str) -> None:
        if self.section:
            texts = self.page.texts
            texts[self.section] = f"{texts.get(self.section, '')} {data.strip()}".strip()
        if self.open and {"td", "th"} & set(self.open):
            row = self.page.tables[self.region][-1]
            row[-1] = " ".join(f"{row[-1]} {data}".split())


def read_page(path: Path) -> Page:
    reader = _Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    reader.page.unbalanced += reader.open
    return reader.page
