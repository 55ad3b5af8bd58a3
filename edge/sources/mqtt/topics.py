"""Topics: where the levels of a machine's path stand in them, and which filter takes them."""

import re

from paho.mqtt.client import topic_matches_sub

LEVELS = ("site", "area", "line", "machine", "signal")
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")


class TopicTemplate:
    """A topic with `{site}`, `{area}`, `{line}`, `{machine}` and `{signal}` in it, each at most once.

    A placeholder may share its level with text, as in `printer-{machine}`; `+` stands for any one level and a last `#`
    for any number of them.

    Attributes:
        levels: the placeholders in it.
        filter: the narrowest MQTT filter that takes all its topics.

    Raises:
        ValueError: if it cannot be read.
    """

    def __init__(self, template: str) -> None:
        names = [str(name) for name in _PLACEHOLDER.findall(template)]
        unknown = [name for name in names if name not in LEVELS]
        if unknown:
            raise ValueError(f"{{{unknown[0]}}} is unknown; known: {', '.join(f'{{{level}}}' for level in LEVELS)}")
        if len(set(names)) != len(names):
            raise ValueError(f"{template!r} names a level twice")
        if re.search(r"[{}]", _PLACEHOLDER.sub("", template)):
            raise ValueError(f"{template!r} has a brace without its partner")
        if re.search(r"\}\{", template):
            raise ValueError(f"{template!r} has two placeholders without text between them")
        self.levels = frozenset(names)
        self.filter = "/".join("+" if "{" in part else part for part in template.split("/"))
        check_filter(self.filter)
        self._regex = re.compile("/".join(_level(part) for part in template.split("/")).replace("/.*?#", "(?:/.*)?"))

    def match(self, topic: str) -> dict[str, str] | None:
        """The levels in `topic`, or None if it does not fit."""
        found = self._regex.fullmatch(topic)
        return None if found is None else found.groupdict()


def _level(part: str) -> str:
    """The regular expression of one level."""
    if part == "+":
        return "[^/]*"
    if part == "#":
        return ".*?#"  # replaced together with the slash before it
    pieces = _PLACEHOLDER.split(part)
    return "".join(f"(?P<{piece}>[^/]+)" if i % 2 else re.escape(piece) for i, piece in enumerate(pieces))


def check_filter(text: str) -> None:
    """Refuse what is not an MQTT filter (MQTT 5, section 4.7).

    Raises:
        ValueError: saying what is wrong.
    """
    if text.startswith("$share/") and (
        text.count("/") < 2 or not text.split("/")[1] or set("+#") & set(text.split("/")[1])
    ):
        raise ValueError(f"{text!r} must be $share/GROUP/FILTER")
    plain = plain_filter(text)
    if not plain or "\x00" in plain or len(plain.encode(errors="surrogatepass")) > 65535:
        raise ValueError(f"{text[:80]!r} is not an MQTT filter")
    parts = plain.split("/")
    for i, part in enumerate(parts):
        if ("#" in part and (part != "#" or i != len(parts) - 1)) or ("+" in part and part != "+"):
            raise ValueError(f"{text!r}: + must be a whole level, and # the whole last level")


def is_shared(text: str) -> bool:
    """Whether a filter is a shared subscription."""
    return text.startswith("$share/")


def plain_filter(text: str) -> str:
    """A filter without its `$share/GROUP/`."""
    return text.split("/", 2)[2] if is_shared(text) and text.count("/") >= 2 else text


def matches(text: str, topic: str) -> bool:
    """Whether the filter `text` takes `topic`."""
    return bool(topic_matches_sub(plain_filter(text), topic))
