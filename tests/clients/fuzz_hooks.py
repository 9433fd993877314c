"""Hooks of schemathesis: use existing keys in requests, and ignore a few false findings.

Loaded by schemathesis itself (SCHEMATHESIS_HOOKS). TALOS_FUZZ_POOL names a file of keys and credentials that are there.
"""

import json
import os
import re
import zlib
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import schemathesis

POOL = json.loads(Path(os.environ["TALOS_FUZZ_POOL"]).read_text())
# Operations that change a key use separate keys, so that keys remain for the others.
ENDS_KEYS = (":revoke", ":rotate", ":selfRevoke", "DELETE ")
NOT_READ = (
    "create_time", "update_time", "expire_time", "ttl", "last_used_time", "status", "revocation_", "suspension",
    "created_by", "updated_by", "revoked_by", "replaces", "replaced_by", "_count", "has_more",
)
UPDATED = ("issued_api_key.key_id", "imported_api_key.key_id")


@schemathesis.hook
def before_load_schema(context, raw_schema):
    """Rewrites parts of the description that schemathesis misreads."""
    paths = raw_schema["paths"]
    # schemathesis takes a dot in the name of a path parameter for an attribute. The name isn't sent, so the requests
    # stay the same.
    for path, name in [(path, name) for path in paths for name in UPDATED if name in path]:
        item = paths.pop(path)
        for parameter in item["patch"]["parameters"]:
            parameter["name"] = "key_id" if parameter["name"] == name else parameter["name"]
        paths.setdefault(path.replace(name, "key_id"), {}).update(item)
    # Ory's description has a media type for responses without content.
    for item in paths.values():
        for operation in item.values():
            operation["responses"].get("204", {}).pop("content", None)


@schemathesis.hook
def before_call(context, case, kwargs):
    """Uses an existing key in most requests, as nearly all would end with 404 otherwise.

    Which one is told by what it replaces, so that the same request is made again when schemathesis repeats it. The
    stateful phase follows the ids of its own answers. What becomes valid by this is then taken for valid.
    """
    case.body = in_its_words(case.body)
    if re.fullmatch(r"(\d+(ms|s|m|h))+", str((case.query or {}).get("wait", ""))):
        case.query["wait"] = "10ms"  # nothing changes meanwhile
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
    """Returns an existing value, or in one of four cases the generated one."""
    number = zlib.crc32(repr(generated).encode(errors="replace"))
    return generated if number % 4 == 0 else there[number // 4 % len(there)]


def in_its_words(body):
    """Rewrites a request with words of the description, so that it isn't taken for an invalid one.

    64-bit integers may be numbers beside strings; and null means absent, of which only our own description knows.
    """
    if isinstance(body, list):
        return [in_its_words(item) for item in body]
    if not isinstance(body, dict):
        return body
    told = {}
    for name, value in body.items():
        if name in ("metadata", "custom_claims"):  # custom values, which are kept unchanged
            told[name] = value
        elif name == "quota" and isinstance(value, int) and not isinstance(value, bool):
            told[name] = str(value)
        elif value is not None or POOL["null_is_known"]:
            told[name] = in_its_words(value)
    return told


@schemathesis.hook
def filter_failure(context, failure, case, response):
    """Drops false findings, where the descriptions are stricter than the service."""
    if failure.code == "ST201" and response.status_code < 300:
        # A missing body counts as an empty object.
        if "Missing request body" in failure.message:
            return False
        # An update ignores fields that only the service sets, and those that its mask doesn't name.
        if case.method == "PATCH":
            return not ((case.query or {}).get("update_mask") or any(name in failure.message for name in NOT_READ))
        # A batch has a result per item.
        if ":batch" in case.path and any("error_code" in result for result in response.json()["results"]):
            return False
        # An empty page size counts as unset; a value beyond int32 is reduced to the largest page, like any large one.
        query = dict(parse_qsl(urlsplit(response.request.url).query, keep_blank_values=True))
        page_size = query.get("page_size", "none")
        return not (page_size == "" or page_size.isdigit() and int(page_size) > 0x7FFF_FFFF)
    # Before a colon, only a POST has the verb of a custom method: the id of an actor may have colons.
    if failure.code == "ST205" and "/actors/" in case.path and case.method == "OPTIONS":
        return False
    # An actor that was erased is recorded anew by whoever changes it.
    if failure.code == "ST301" and "/actors/" in case.path and case.method != "GET":
        return False
    # Ory's description doesn't know that issued keys can be deleted; ours does.
    return not (failure.code in ("ST204", "ST205") and "/issuedApiKeys/" in case.path and "DELETE" in failure.message)
