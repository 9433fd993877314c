"""Each role sees what it may do, and nothing that would be refused."""

import json
import re
import subprocess
import tempfile
import time
from pathlib import Path

import jwt
from browser import ConsolePage
from stack import Stack, call

ISSUER, AUDIENCE = "https://issuer.test", "talos-admin"


class Tokens:
    """An identity provider: its key set, and tokens for callers."""

    def __init__(self, talos, folder):
        self.file = Path(folder) / "issuer.jwks.json"
        subprocess.run([talos, "jwk", "generate", "eddsa", "--kid", "issuer-1", "--jwks", "-o", self.file], check=True, stdout=subprocess.DEVNULL)
        self.key = json.loads(self.file.read_text())["keys"][0]

    def auth(self):
        return {
            "mode": "jwt",
            "jwt": {"issuer": ISSUER, "audience": AUDIENCE, "jwks": f"file://{self.file}"},
            "roles": {role: [role] for role in ("viewer", "issuer", "admin")},
        }

    def token(self, caller):
        now = int(time.time())
        claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": caller, "iat": now, "exp": now + 600}
        return jwt.encode(claims, jwt.PyJWK(self.key).key, "EdDSA", {"kid": "issuer-1"})

    def headers(self, caller):
        """Returns the headers that a proxy which knows the caller adds to each request."""
        return {"authorization": f"Bearer {self.token(caller)}"}


def prepare(console, stack, tokens, role):
    """Answers `whoami` where the server doesn't have it yet."""
    if call("GET", stack.admin + "/v2alpha1/admin/whoami", headers=tokens.headers(role))[0] == 200:
        return
    body = json.dumps({"caller": role, "is_verified": True, "proof": "jwt", "auth_mode": "jwt", "role": role,
                       "network_id": "00000000-0000-0000-0000-000000000000"})
    console.page.route("**/v2alpha1/admin/whoami", lambda route: route.fulfill(status=200, content_type="application/json", body=body))


def roles(talos, browser):
    with tempfile.TemporaryDirectory() as folder:
        tokens = Tokens(talos, folder)
        with Stack(talos, auth=tokens.auth()) as stack:
            issued = json.loads(call("POST", stack.admin + "/v2alpha1/admin/issuedApiKeys", {"name": "Shared", "actor_id": "user:a"}, tokens.headers("issuer"))[1])
            address = f"keys/issued/{issued['issued_api_key']['key_id']}"
            viewer(stack, browser, tokens, address)
            issuer(stack, browser, tokens, address)
            stranger(stack, browser, tokens)


def viewer(stack, browser, tokens, address):
    """No button is there that would be refused."""
    with ConsolePage(browser, stack, headers=tokens.headers("viewer")) as console:
        prepare(console, stack, tokens, "viewer")
        for screen in ["", "keys/issued", address, f"{address}/rotate", "actors/user%3Aa", "leak", "routes", "activity", "instances", "issue", "import"]:
            console.open(screen)
            offered = console.page.locator("main a, main button").all_inner_texts()
            for word in ["Revoke", "Rotate", "Suspend", "Edit", "Issue a key", "Issue the key", "Import", "End it now", "Resume"]:
                assert not any(re.match(rf"\s*{word}\b", text) for text in offered), f"{screen}: a viewer is offered {word}"
            assert console.page.locator("input[type=checkbox]").count() == 0, screen
            assert console.page.locator(".topbar a.button").count() == 0, f"{screen}: a viewer is offered to issue a key"
        assert "viewer" in console.page.locator(".whoami").inner_text()


def issuer(stack, browser, tokens, address):
    """All is there but what only admins may do."""
    with ConsolePage(browser, stack, headers=tokens.headers("issuer")) as console:
        prepare(console, stack, tokens, "issuer")
        console.open(address)
        offered = " ".join(console.page.locator("main button, main a").all_inner_texts())
        assert all(word in offered for word in ["Edit", "Rotate", "Suspend", "Revoke"]) and "Delete" not in offered, offered
        assert console.page.locator(".topbar a.button").count() == 1


def stranger(stack, browser, tokens):
    """A caller who isn't known gets advice; a token is accepted, and kept nowhere."""
    with ConsolePage(browser, stack) as console:
        page = console.page
        page.goto(f"{stack.admin}/console/#/keys/issued")
        if page.get_by_role("heading", name="Who are you?").count() == 0:
            page.locator("#app h1").wait_for()
        # One that could be in no header is refused like any other, without a request.
        page.get_by_label("Or give a token").fill("t\u00f6ken\u2026")
        page.get_by_role("button", name="Go on").click()
        page.get_by_text("The server doesn't take this token").wait_for()
        page.get_by_label("Or give a token").fill("not.a.token")
        with page.expect_response("**/v2alpha1/admin/whoami") as answer:
            page.get_by_role("button", name="Go on").click()
        assert answer.value.status == 401
        page.get_by_text("The server doesn't take this token").wait_for()
        page.get_by_label("Or give a token").fill(tokens.token("admin"))
        page.get_by_role("button", name="Go on").click()
        page.get_by_role("link", name="Shared").wait_for()
        page.get_by_text("Do the same on the command line").click()
        page.get_by_role("button", name="curl").click()
        assert "$TALOS_TOKEN" in page.locator("pre").inner_text(), "the command has no place for the token"
        page.reload()
        page.get_by_role("heading", name="Who are you?").wait_for()
