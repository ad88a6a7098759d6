"""A page read as a browser's parser would: its elements, and what a checker of accessibility asks of them."""

from __future__ import annotations

from html.parser import HTMLParser

VOID = {"meta", "link", "br"}


class Reader(HTMLParser):
    """`elements` are (name, attributes), `headings` their levels, `text` what is shown."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.headings: list[int] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        # A drawing's titles are its own.
        self.elements.append((f"svg-{tag}" if tag == "title" and "svg" in self._open else tag, dict(attrs)))
        if len(tag) == 2 and tag[0] == "h" and tag[1].isdigit():
            self.headings.append(int(tag[1]))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> without a beginning"
        assert self._open.pop() == tag, f"</{tag}> closes something else, line {self.getpos()[0]}"

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] not in ("style", "title"):
            self.text += data

    def named(self, name: str) -> list[dict[str, str | None]]:
        """The attributes of every element of that name."""
        return [attributes for tag, attributes in self.elements if tag == name]


def complaints(page: str) -> list[str]:
    """What is wrong with the page for somebody who cannot see it, or cannot use a mouse."""
    read = Reader(page)
    wrong = [] if read.named("html")[0].get("lang") == "en" else ["no language"]
    wrong += [f"{len(read.named(name))} of <{name}>" for name in ("main", "h1", "title") if len(read.named(name)) != 1]
    steps = zip(read.headings, read.headings[1:], strict=False)
    wrong += [f"h{before} is followed by h{after}" for before, after in steps if after > before + 1]
    ids = [attributes["id"] for _, attributes in read.elements if "id" in attributes]
    wrong += [f"two elements have the id {name}" for name in sorted(set(ids)) if ids.count(name) > 1]
    for tag, attributes in read.elements:
        for pointer in ("aria-labelledby", "href"):
            target = (attributes.get(pointer) or "").removeprefix("#")
            if (pointer != "href" or (attributes.get("href") or "").startswith("#")) and target and target not in ids:
                wrong.append(f"{pointer} leads nowhere: {target}")
        if tag == "th" and "scope" not in attributes:
            wrong.append("a table header without a scope")
        if tag == "svg" and not (attributes.get("aria-label") or attributes.get("aria-hidden")):
            wrong.append("a drawing without words")
        if attributes.get("tabindex") == "0" and not (attributes.get("aria-label") and attributes.get("role")):
            wrong.append(f"<{tag}> takes the focus and has no name")
    return wrong
