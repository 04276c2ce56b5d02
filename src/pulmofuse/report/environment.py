"""The templates, and how they write numbers and names."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from pulmofuse.report import names


def environment() -> Environment:
    """A Jinja environment that escapes HTML and refuses names that it does not know."""
    found = Environment(
        loader=PackageLoader("pulmofuse.report"),
        autoescape=select_autoescape(enabled_extensions=("html.j2",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {
        "number": names.number,
        "with_interval": names.with_interval,
        "seconds": names.seconds_text,
        "class_title": names.class_title,
        "subset_title": names.subset_title,
        "method_title": names.method_title,
        "md": markdown_text,
    }
    return found


def markdown_text(text: object) -> str:
    """Text that Markdown shows as it is: no markup, no HTML, no table break, one line."""
    line = " ".join(str(text).split())
    for sign in "\\`*_[]|#":
        line = line.replace(sign, f"\\{sign}")
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
