"""What the fuzzing runs add to schemathesis: real keys to meet, and the few findings that are none.

Loaded by schemathesis itself (SCHEMATHESIS_HOOKS). TALOS_FUZZ_POOL names a file of keys and credentials that are there.
"""

import json
import os
import zlib
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import schemathesis

POOL = json.loads(Path(os.environ["TALOS_FUZZ_POOL"]).read_text())
# Operations after which a key isn't what it was get keys of their own, or soon there would be no others.
ENDS_KEYS = (":revoke", ":rotate", ":selfRevoke", "DELETE ")
NOT_READ = ("create_time", "update_time", "expire_time", "last_used_time", "status", "revocation_")
UPDATED = ("issued_api_key.key_id", "imported_api_key.key_id")


@schemathesis.hook
def before_load_schema(context, raw_schema):
    """Says in another way what schemathesis would misread."""
    paths = raw_schema["paths"]
    # A path parameter with a dot in its name looks to it like an attribute. On the wire the parameter has no name, so
    # the requests stay the same.
    for path, name in [(path, name) for path in paths for name in UPDATED if name in path]:
        item = paths.pop(path)
        for parameter in item["patch"]["parameters"]:
            parameter["name"] = "key_id" if parameter["name"] == name else parameter["name"]
        paths.setdefault(path.replace(name, "key_id"), {}).update(item)
    # Ory's description gives a media type to answers that have no content at all.
    for item in paths.values():
        for operation in item.values():
            operation["responses"].get("204", {}).pop("content", None)


@schemathesis.hook
def before_call(context, case, kwargs):
    """Puts a key that is there into most requests: else nearly all would end with 404.

    Which one is told by what it replaces, so that the same request is made again when schemathesis repeats it. The
    stateful phase follows the ids of its own answers. What becomes valid by this is then taken for valid.
    """
    case.body = in_its_words(case.body)
    if case.meta is not None and case.meta.phase.name == "stateful":
        return
    label = f"{case.method} {case.path}"
    pool = POOL["ending" if any(end in label for end in ENDS_KEYS) else "staying"]
    if "key_id" in (case.path_parameters or {}):
        kinds = [kind for kind in ("issued", "imported") if f"/{kind}ApiKeys" in case.path] or ["issued", "imported"]
        ids = [key_id for kind in kinds for key_id in pool[kind]]
        case.path_parameters["key_id"] = chosen(case.path_parameters["key_id"], ids)
    if isinstance(case.body, dict):
        items = case.body.get("requests")
        for item in [case.body, *(items if isinstance(items, list) else [])]:
            if isinstance(item, dict) and isinstance(item.get("credential"), str):
                item["credential"] = chosen(item["credential"], pool["credentials"])


def chosen(generated, there):
    """One of what is there, or in one case of four what was generated."""
    number = zlib.crc32(repr(generated).encode(errors="replace"))
    return generated if number % 4 == 0 else there[number // 4 % len(there)]


def in_its_words(body):
    """The same request, in words that the description knows, too: then it isn't taken for a wrong one.

    64-bit integers may be numbers beside strings; and null means absent, of which only our own description knows.
    """
    if isinstance(body, list):
        return [in_its_words(item) for item in body]
    if not isinstance(body, dict):
        return body
    told = {}
    for name, value in body.items():
        if name in ("metadata", "custom_claims"):  # the caller's own, where every value stands for itself
            told[name] = value
        elif name == "quota" and isinstance(value, int) and not isinstance(value, bool):
            told[name] = str(value)
        elif value is not None or POOL["null_is_known"]:
            told[name] = in_its_words(value)
    return told


@schemathesis.hook
def filter_failure(context, failure, case, response):
    """Drops the findings that are no faults: both descriptions are stricter here than the service means to be."""
    if failure.code == "ST201" and response.status_code < 300:
        # No body at all is an empty object.
        if "Missing request body" in failure.message:
            return False
        # An update leaves alone, unread, what only the service sets and what its mask doesn't name.
        if case.method == "PATCH":
            return not ((case.query or {}).get("update_mask") or any(name in failure.message for name in NOT_READ))
        # A batch answers for each item by itself.
        if ":batch" in case.path and any("error_code" in result for result in response.json()["results"]):
            return False
        # An empty page size is none, and one beyond int32 is cut to the largest page, like every large one.
        query = dict(parse_qsl(urlsplit(response.request.url).query, keep_blank_values=True))
        page_size = query.get("page_size", "none")
        return not (page_size == "" or page_size.isdigit() and int(page_size) > 0x7FFF_FFFF)
    return True
