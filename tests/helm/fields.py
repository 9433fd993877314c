"""A strict look at objects for which there is no schema: fields are taken one by one, and what is left over is unknown."""

import copy
import re

MISSING = object()


class Fields:
    """The fields of an object. It is not changed."""

    def __init__(self, name, value):
        self.name = name
        self.rest = copy.deepcopy(value)
        self.found = []

    def take(self, path, kind, default=MISSING):
        """Returns a field, by names with dots between them. `kind` is a type, a pattern, a range, or the values there are."""
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
        """What is wrong, the fields that nobody has taken included."""
        return self.found + [f"{self.name}: {path} is unknown" for path in leaves(self.rest)]


def is_a(value, kind):
    if isinstance(kind, type):
        return type(value) is kind  # True is no number
    if isinstance(kind, str):
        return isinstance(value, str) and re.fullmatch(kind, value) is not None
    return type(value) is type(kind[0]) and value in kind


def leaves(tree, path=""):
    """What stands in a tree of objects. Objects that have become empty don't count."""
    if isinstance(tree, dict):
        return [leaf for key, value in tree.items() for leaf in leaves(value, f"{path}.{key}" if path else key)]
    return [path]
