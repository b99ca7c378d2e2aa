"""Single changes of nested JSON content, for tests of files that somebody may have edited."""

import json


def single_changes(content, path=()):
    """Every value of nested content, by its path."""
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from single_changes(value, (*path, key))


def changed(content, path, value):
    """A copy of the content with another value at a path."""
    content = json.loads(json.dumps(content))
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return content
