"""Keys that are sold, governed and brought along: credits, policies, named scopes, imports, several networks."""

import hashlib

from browser import ConsolePage, wait_until_true
from looks import violations
from stack import Stack, call

NETWORKS = [
    {"hostname": "127.0.0.1", "id": "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa"},
    {"hostname": "other.example", "id": "bbbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb"},
]
SETTINGS = {
    "roles": {"reader": ["orders:read", "invoices:read"]},
    "issuance_policies": [
        {"name": "services", "match": {"actor_prefix": "svc:"}, "max_ttl": "720h", "require_ttl": True, "name_pattern": "^svc-"},
        {"name": "web", "match": {"visibility": "public"}, "require_ip_restriction": True},
    ],
    "multitenancy": {"enabled": True, "networks": NETWORKS},
}


def governed(talos, browser):
    with Stack(talos, settings=SETTINGS) as stack:
        a_governed_key_with_credits(stack, browser)
        keys_are_imported(stack, browser)
        networks_and_limits_are_listed(stack, browser)
        an_actor_is_edited(stack, browser)


def a_governed_key_with_credits(stack, browser):
    """The form shows what policies demand before the server refuses, and all that it refuses at once."""
    with ConsolePage(browser, stack) as console:
        page = console.page
        console.open("issue")
        page.get_by_label("Name", exact=True).fill("reports")
        page.get_by_label("Actor").fill("svc:reports")
        demands = page.get_by_label("Issuance policies")
        demands.get_by_text("a name like ^svc-").wait_for()
        assert "web" not in demands.inner_text(), "a policy for other keys"
        page.get_by_label("1 year", exact=True).check()
        page.get_by_role("button", name="Issue the key").click()
        page.get_by_text("2 things have to change").wait_for()
        page.get_by_label("Name", exact=True).fill("svc-reports")
        page.get_by_label("7 days", exact=True).check()
        page.get_by_label("Named set of scopes").select_option("reader")
        page.get_by_label("Credits", exact=True).fill("many")
        assert "whole number" in page.locator("#credits-wrong").inner_text()
        page.get_by_label("Credits", exact=True).fill("500")
        page.get_by_label("Refill of the credits").select_option("month")
        command = page.locator("pre").first.inner_text()
        assert "--role reader" in command and "--credits 500 --credits-refill 500/month" in command, command
        page.get_by_role("button", name="Issue the key").click()
        page.locator("[data-secret]").wait_for()
        page.get_by_label("I stored the secret").check()
        page.get_by_role("button", name="Done").click()
        page.get_by_text("500 left, filled up to 500 every month").wait_for()
        assert "invoices:read" in page.inner_text("main")


def keys_are_imported(stack, browser):
    """A key and a digest come in by the form; the key itself stays nowhere."""
    with ConsolePage(browser, stack) as console:
        page = console.page
        console.open("keys/imported")
        page.get_by_role("link", name="Import a key").click()
        page.get_by_label("Name", exact=True).fill("legacy")
        page.get_by_label("Actor").fill("user:42")
        page.get_by_label("Key", exact=True).fill("legacy-key-8d1f3a")
        page.locator("#scopes").fill("orders:read ")
        shown = page.locator("pre").first.inner_text()
        assert 'printf %s "$LEGACY_KEY" | talos keys imported import legacy --raw-key -' in shown, shown
        page.get_by_role("button", name="Import the key").click()
        page.get_by_text("legacy is imported").wait_for()
        assert page.get_by_label("Key", exact=True).input_value() == ""
        page.get_by_label("SHA-256 digest").check()
        page.get_by_label("Name", exact=True).fill("by digest")
        page.get_by_label("Actor").fill("user:42")
        page.get_by_label("Digest", exact=True).fill("$2b$12$abcdefghijklmnopqrstuv")
        page.get_by_role("button", name="Import the key").click()
        page.locator("#text-wrong", has_text="slow, salted hash").wait_for()
        page.get_by_label("Digest", exact=True).fill(hashlib.sha256(b"legacy-key-77").hexdigest())
        page.get_by_role("button", name="Import the key").click()
        page.get_by_text("by digest is imported").wait_for()
        page.get_by_role("link", name="Look at it").click()
        page.get_by_text("Works from any address").wait_for()
        console.open("keys/imported")
        wait_until_true(page, "document.querySelectorAll('a.row-link').length === 2")
    for credential in ["legacy-key-8d1f3a", "legacy-key-77"]:
        answer = stack.api("POST", "/v2alpha1/admin/apiKeys:verify", {"credential": credential})
        assert answer["is_valid"], answer
    assert "legacy-key" not in stack.log("talos")


def networks_and_limits_are_listed(stack, browser):
    limits = {"rate_limit_policies": [{"name": "day", "quota": "10000", "window": "86400s"}]}
    status, text = call("PATCH", stack.admin + "/v2alpha1/admin/actors/user%3A42", limits)
    assert status == 200, text
    with ConsolePage(browser, stack) as console:
        page = console.page
        console.open("instances")
        networks = page.get_by_label("Networks")
        assert "127.0.0.1, this one" in networks.inner_text(), networks.inner_text()
        port = stack.admin.rsplit(":", 1)[1]
        assert networks.get_by_role("link", name="other.example").get_attribute("href") == f"http://other.example:{port}/console/"
        console.open("actors/user%3A42")
        page.get_by_text("day: 10000 per day").wait_for()
        page.get_by_text("rate_limit.enabled is false").wait_for()


def an_actor_is_edited(stack, browser):
    """Name, metadata and limits of an actor, and the command that would do the same."""
    with ConsolePage(browser, stack) as console:
        page = console.page
        console.open("actors/team%3Ablue")
        page.get_by_role("button", name="Edit").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_label("Name, for people").fill("Team Blue")
        for number, (name, quota, window) in enumerate([("day", "10000", "86400s"), ("Burst", "50", "1s")], 1):
            dialog.get_by_role("button", name="Add a limit").click()
            dialog.get_by_label(f"Name of limit {number}").fill(name)
            dialog.get_by_label(f"Requests of limit {number}").fill(quota)
            dialog.get_by_label(f"Window of limit {number}").select_option(window)
        dialog.get_by_text("Burst needs a name of small letters").wait_for()
        assert dialog.get_by_role("button", name="Save").is_disabled()
        assert not violations(page), violations(page)
        dialog.get_by_label("Name of limit 2").fill("burst")
        command = dialog.locator("pre").first.text_content()
        assert "actors update team:blue --display-name 'Team Blue' --rate-limit day=10000/86400s --rate-limit burst=50/1s" in command, command
        dialog.get_by_role("button", name="Save").click()
        page.get_by_text("day: 10000 per day; burst: 50 per second").wait_for()
        actor = stack.api("GET", "/v2alpha1/admin/actors/team%3Ablue")
        assert actor["display_name"] == "Team Blue" and "metadata" not in actor, actor
        # All of them are taken away.
        page.get_by_role("button", name="Edit").click()
        for _ in range(2):
            dialog.get_by_label("Remove limit 1").click()
        assert "--rate-limit ''" in dialog.locator("pre").first.text_content()
        dialog.get_by_role("button", name="Save").click()
        page.get_by_text("day: 10000").wait_for(state="detached")
    assert "rate_limit_policies" not in stack.api("GET", "/v2alpha1/admin/actors/team%3Ablue")
