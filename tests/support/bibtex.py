"""A strict reader of BibTeX."""

import re


def parsed(text: str) -> dict[str, dict[str, str]]:
    """A strict reading: `@misc{key, name = {balanced}, ...}` and blank lines, nothing else."""
    found: dict[str, dict[str, str]] = {}
    rest = text.strip()
    while rest:
        head = re.match(r"@misc\{([a-z0-9_\-]+),\s*", rest)
        assert head, rest[:60]
        assert head[1] not in found, "a key stands twice"
        fields, rest = {}, rest[head.end() :]
        while not rest.startswith("}"):
            name = re.match(r"([a-zA-Z]+) = \{", rest)
            assert name and name[1] not in fields, rest[:60]
            depth, at = 1, name.end()
            while depth:
                depth += {"{": 1, "}": -1}.get(rest[at], 0)
                at += 1
            fields[name[1]] = " ".join(rest[name.end() : at - 1].split())
            after = re.match(r",\s*", rest[at:])
            assert after, rest[at : at + 20]
            rest = rest[at + after.end() :]
        found[head[1]], rest = fields, rest[1:].strip()
    return found
