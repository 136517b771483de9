"""A page as its reader meets it: words, links, pictures; and whether it is whole."""

from __future__ import annotations

import re
from html.parser import HTMLParser

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """What a page holds: its text by words, its images, links and ids; its tags must be closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.words: list[str] = []
        self.attributes: dict[str, list[str]] = {"src": [], "href": [], "id": [], "alt": []}
        self.tags: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.text = " ".join(" ".join(self.words).split())
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            self.attributes.setdefault(name, []).append(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)


def assert_stands_alone(page: Page) -> None:
    """Check that a page loads nothing, runs nothing, and that its links lead somewhere in it."""
    assert all(source.startswith(("data:image/jpeg;", "data:image/svg+xml;")) for source in page.attributes["src"])
    assert all(link.startswith("#") for link in page.attributes["href"])
    assert {link[1:] for link in page.attributes["href"]} <= set(page.attributes["id"])
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert not re.search(r"url\(|@import|https?://", page.html)
    assert len(page.attributes["alt"]) == len(page.attributes["src"])
    assert all(page.attributes["alt"])
