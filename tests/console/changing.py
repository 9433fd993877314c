"""Changes that meet others: two people edit a key, a bulk is stopped, an answer gets lost."""

import os
import re
import shlex
import subprocess
import uuid

from browser import ConsolePage, wait_until_seen, wait_until_true
from flows import secret_of

KEYS = "/v2alpha1/admin/issuedApiKeys"


def an_open_dialog_undoes_no_change_of_others(stack, browser, seeded):
    key, _ = stack.issue("edited by two", "user:two", scopes=["orders:read"])
    path = f"{KEYS}/{key['key_id']}"
    with ConsolePage(browser, stack) as console:
        page, dialog = console.page, console.page.get_by_role("dialog")
        page.clock.install()
        console.open(f"keys/issued/{key['key_id']}")
        page.get_by_role("button", name="Edit").click()
        dialog.wait_for()
        stack.api("PATCH", path, {"scopes": ["orders:read", "orders:write"]})
        page.clock.run_for(11_000)
        dialog.get_by_text("The key was changed meanwhile").wait_for()
        assert dialog.get_by_role("button", name="Save").is_disabled(), "what others changed counts as changed here"
        dialog.get_by_label("Name", exact=True).fill("edited by one")
        command = dialog.locator("pre").first.text_content()
        assert "--name" in command and "--scopes" not in command, command
        dialog.get_by_role("button", name="Save").click()
        dialog.wait_for(state="detached")
    after = stack.api("GET", path)
    assert (after["name"], after["scopes"]) == ("edited by one", ["orders:read", "orders:write"]), after


def an_edit_keeps_the_unit_and_the_end(stack, browser, seeded):
    """A limit in another unit stays one; an end can't be taken away, which the dialog says."""
    limit = {"quota": "1000", "window": "10s", "unit": "content-bytes"}
    key, _ = stack.issue("metered", "user:bytes", ttl="24h", rate_limit_policy=limit)
    with ConsolePage(browser, stack) as console:
        page, dialog = console.page, console.page.get_by_role("dialog")
        console.open(f"keys/issued/{key['key_id']}")
        page.get_by_role("button", name="Edit").click()
        dialog.get_by_label("Limit of content-bytes").fill("2000")
        dialog.locator("pre", has_text="2000").wait_for(state="attached")
        command = dialog.locator("pre").text_content()
        assert command.startswith("curl") and "content-bytes" in command, f"the command line knows no units: {command}"
        end = dialog.get_by_label("Last day (UTC)")
        day = end.input_value()
        end.fill("")
        dialog.get_by_text("An end can be moved, but not taken away").wait_for()
        assert dialog.get_by_role("button", name="Save").is_disabled()
        end.fill(day)
        dialog.get_by_role("button", name="Save").click()
        dialog.wait_for(state="detached")
    after = stack.api("GET", f"{KEYS}/{key['key_id']}")
    assert after["rate_limit_policy"] == limit | {"quota": "2000"}, after
    assert after["expire_time"] == key["expire_time"], after


def a_command_takes_away_what_its_dialog_takes_away(stack, browser, seeded):
    """The command that a dialog shows is run, instead of pressing Save."""
    fields = {
        "scopes": ["orders:read"], "metadata": {"team": "blue"}, "ip_restriction": {"allowed_cidrs": ["203.0.113.0/24"]},
        "rate_limit_policy": {"quota": "10", "window": "60s"},
    }
    key, _ = stack.issue("emptied", "user:command", **fields)
    path = f"{KEYS}/{key['key_id']}"
    with ConsolePage(browser, stack) as console:
        page, dialog = console.page, console.page.get_by_role("dialog")
        console.open(f"keys/issued/{key['key_id']}")
        page.get_by_role("button", name="Edit").click()
        dialog.get_by_label("Remove orders:read").click()
        dialog.get_by_label("Remove 203.0.113.0/24").click()
        dialog.get_by_label("Limit of requests").fill("")
        dialog.get_by_label("Metadata").fill("")
        dialog.locator("pre", has_text="--metadata").wait_for(state="attached")
        words = shlex.split(dialog.locator("pre").text_content())
    assert words[0] == "talos", words
    env = {name: value for name, value in os.environ.items() if not name.startswith("TALOS_")}
    env["XDG_CONFIG_HOME"] = str(stack.path)
    subprocess.run([stack.talos, *words[1:]], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=env)
    after = stack.api("GET", path)
    cidrs = after.get("ip_restriction", {}).get("allowed_cidrs")
    left = [cidrs, *(after.get(name) for name in ("scopes", "rate_limit_policy", "metadata"))]
    assert after["name"] == "emptied" and not any(left), after


def a_bulk_revocation_can_be_stopped(stack, browser, seeded):
    """Escape stops it after the key that is being sent; the list shows what was done."""
    actor = f"user:{uuid.uuid4()}"
    keys = [stack.issue(f"stopped {number}", actor)[0]["key_id"] for number in range(3)]
    with ConsolePage(browser, stack) as console:
        page, sent = console.page, []
        console.open(f"keys/issued?actor={actor}")
        page.route(re.compile(":revoke$"), lambda route: sent.append(route))
        page.get_by_label("Select all shown").check()
        page.locator(".bulk").get_by_role("button", name="Revoke").click()
        page.get_by_role("button", name="Revoke for good").click()
        wait_until_seen(page, lambda: sent, "a revocation")
        page.get_by_role("button", name="Stop").wait_for()
        page.keyboard.press("Escape")
        page.get_by_text("1 of 3, then it stops").wait_for()
        sent[0].continue_()
        page.get_by_text("Stopped: 1 of 3 keys revoked").wait_for()
        page.locator("dialog").wait_for(state="detached")
        wait_until_true(page, "document.querySelectorAll('.pill.bad').length === 1")
        assert len(sent) == 1, sent
    states = [stack.api("GET", f"{KEYS}/{key}")["status"] for key in keys]
    assert sorted(states) == ["KEY_STATUS_ACTIVE"] * 2 + ["KEY_STATUS_REVOKED"], states


class LostAnswers:
    """Requests that are carried out, and whose answers get lost on the way."""

    def __init__(self, page, pattern):
        self.page, self.pattern, self.ids, self.secrets = page, pattern, [], []
        page.route(pattern, self.lose)

    def lose(self, route):
        self.ids.append(route.request.post_data_json.get("request_id"))
        self.secrets.append(route.fetch().json().get("secret"))
        route.fulfill(status=504, content_type="application/json", body="{}")

    def press(self, name, times):
        """Presses a button, and waits until the answer is lost."""
        self.page.get_by_role("button", name=name).click()
        wait_until_seen(self.page, lambda: len(self.ids) == times, f"request {times}")
        self.page.locator(".notice.bad", has_text="504").wait_for()

    def end(self):
        self.page.unroute(self.pattern)


def a_lost_answer_makes_no_second_key(stack, browser, seeded):
    """Pressing the button again gives the same secret; a form that says something else is another request."""
    actor = f"user:{uuid.uuid4()}"
    with ConsolePage(browser, stack) as console:
        page = console.page
        console.open("issue")
        lost = LostAnswers(page, f"**{KEYS}")
        page.get_by_label("Name", exact=True).fill("first")
        page.get_by_label("Actor").fill(actor)
        lost.press("Issue the key", 1)
        lost.press("Issue the key", 2)
        page.get_by_label("Name", exact=True).fill("second")
        lost.press("Issue the key", 3)
        assert lost.ids[0] == lost.ids[1] != lost.ids[2] and re.fullmatch("[0-9a-f]{32}", lost.ids[0]), lost.ids
        assert lost.secrets[0] == lost.secrets[1] != lost.secrets[2], "a repeated request made another key"
        lost.end()
        page.get_by_role("button", name="Issue the key").click()
        assert secret_of(page) == lost.secrets[2]
        page.get_by_label("I stored the secret").check()
        page.get_by_role("button", name="Done").click()
        page.wait_for_url(re.compile("#/keys/issued/"))

        page.get_by_role("link", name="Rotate").click()
        lost = LostAnswers(page, f"**{KEYS}/*:rotate")
        lost.press("Rotate", 1)
        lost.end()
        page.get_by_role("button", name="Rotate").click()
        assert secret_of(page) == lost.secrets[0]
        page.get_by_label("I stored the secret").check()
        page.get_by_role("button", name="Done").click()

        console.open("import")
        lost = LostAnswers(page, "**/v2alpha1/admin/importedApiKeys")
        page.get_by_label("Name", exact=True).fill("brought along")
        page.get_by_label("Actor").fill(actor)
        page.get_by_label("Key", exact=True).fill(f"legacy-{uuid.uuid4()}")
        lost.press("Import the key", 1)
        lost.end()
        page.get_by_role("button", name="Import the key").click()
        page.get_by_text("brought along is imported").wait_for()
    made = stack.api("GET", f"{KEYS}?filter=actor_id%20%3D%20%22{actor}%22")["issued_api_keys"]
    assert sorted(key["name"] for key in made) == ["first", "second", "second"], made


def an_answer_on_its_way_is_not_left(stack, browser, seeded):
    with ConsolePage(browser, stack) as console:
        page, held, asked = console.page, [], []
        console.open("issue")
        page.get_by_label("Name", exact=True).fill("waited for")
        page.get_by_label("Actor").fill("user:patient")
        page.route(f"**{KEYS}", lambda route: held.append(route))
        page.get_by_role("button", name="Issue the key").click()
        wait_until_seen(page, lambda: held, "the request")
        page.once("dialog", lambda dialog: (asked.append(dialog.message), dialog.dismiss()))
        page.locator(".nav >> text=Activity").click()
        wait_until_seen(page, lambda: asked, "a question")
        assert "only the answer has its secret" in asked[0], asked
        held[0].continue_()
        page.locator("[data-secret]").wait_for()


def a_hidden_secret_is_on_no_part_of_the_page(stack, browser, seeded):
    with ConsolePage(browser, stack, clipboard=True) as console:
        page, commands = console.page, console.page.locator(".commands")
        console.open("issue")
        page.get_by_label("Name", exact=True).fill("hidden")
        page.get_by_label("Actor").fill("user:hidden")
        page.get_by_role("button", name="Issue the key").click()
        secret = secret_of(page)
        assert secret in commands.inner_text()
        page.get_by_role("button", name="Hide", exact=True).click()
        page.get_by_role("button", name="Show", exact=True).wait_for()
        for name in ["Use it", "Environment", "Revoke it (holder)", "Kubernetes"]:
            commands.get_by_role("button", name=name, exact=True).click()
            commands.get_by_label(f"Copy {name} command").wait_for()
            assert secret not in page.content(), f"{name} shows the secret"
        commands.get_by_label("Copy Kubernetes command").click()
        commands.get_by_text("Copied").wait_for()
        assert f"--from-literal=api-key='{secret}'" in page.evaluate("navigator.clipboard.readText()")
        page.get_by_label("I stored the secret").check()


def only_active_keys_are_rotated(stack, browser, seeded):
    with ConsolePage(browser, stack) as console:
        console.open(f"keys/issued/{seeded['keys']['Load test']}/rotate")
        console.page.get_by_text("Only active keys can be rotated").wait_for()
        assert console.page.get_by_role("button", name="Rotate").count() == 0


CHANGING = [
    an_open_dialog_undoes_no_change_of_others, an_edit_keeps_the_unit_and_the_end,
    a_command_takes_away_what_its_dialog_takes_away, a_bulk_revocation_can_be_stopped,
    a_lost_answer_makes_no_second_key, an_answer_on_its_way_is_not_left, a_hidden_secret_is_on_no_part_of_the_page,
    only_active_keys_are_rotated,
]
