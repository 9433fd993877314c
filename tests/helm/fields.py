"""Validates objects without a schema: fields are taken one by one, and remaining fields are unknown."""

import copy
import re

MISSING = object()


class Fields:
    """The fields of an object, which isn't changed."""

    def __init__(self, name, value):
        self.name = name
        self.rest = copy.deepcopy(value)
        self.found = []

    def take(self, path, kind, default=MISSING):
        """Takes a field by its dotted path and returns its value. `kind` is a type, a pattern, a range, or a list of values."""
        *parents, last = path.split(".")
        place = self.rest
        for parent in parents:
            place = place.get(parent, {}) if isinstance(place, dict) else {}
        value = place.pop(last, MISSING) if isinstance(place, dict) else MISSING
        if value is MISSING:
            if default is MISSING:
                self.found.append(f"{self.name}: {path} is missing")
                return kind() if isinstance(kind, type) else "0s"
            return default
        if not is_a(value, kind):
            self.found.append(f"{self.name}: {path} is {value!r}")
        return value

    def problems(self):
        """Returns the problems, including fields that weren't taken."""
        return self.found + [f"{self.name}: {path} is unknown" for path in leaves(self.rest)]


def is_a(value, kind):
    if isinstance(kind, type):
        return type(value) is kind  # not isinstance: True is not a number
    if isinstance(kind, str):
        return isinstance(value, str) and re.fullmatch(kind, value) is not None
    return type(value) is type(kind[0]) and value in kind


def leaves(tree, path=""):
    """Returns the paths of all values in a tree of objects; empty objects don't count."""
    if isinstance(tree, dict):
        return [leaf for key, value in tree.items() for leaf in leaves(value, f"{path}.{key}" if path else key)]
    return [path]
