"""The life of a key, by mouse, by keyboard alone, and by its holder."""

import re

from browser import ConsolePage, tab_to, wait_until_true
from stack import wait_until


def secret_of(page):
    return page.locator("[data-secret]").inner_text()


def leaves_with_a_question(page):
    """The screen with the secret asks before it is left."""
    asked = []
    page.once("dialog", lambda dialog: (asked.append(dialog.message), dialog.dismiss()))
    page.locator(".nav >> text=Activity").click()
    wait_until_true(page, "location.hash !== '#/activity'")
    assert asked and "secret" in asked[0], asked
    assert page.locator("[data-secret]").is_visible()


def refused(stack, secret):
    wait_until("the key to be refused", lambda: stack.use(secret) in (401, 403), 15)


def allowed(stack, secret):
    wait_until("the key to be allowed", lambda: stack.use(secret) == 200, 15)


def life_by_mouse(stack, browser):
    """A key's life by mouse: issued, used, changed, suspended, rotated and revoked."""
    with ConsolePage(browser, stack, clipboard=True) as console:
        page = console.page
        console.open("issue")
        page.get_by_label("Name").fill("Mouse")
        page.get_by_label("Actor").fill("user:mouse")
        page.locator("#scopes").fill("reports:read ")
        page.locator("#cidrs").fill("300.1.1.1 ")
        assert "neither an IPv4" in page.locator("#cidrs-wrong").inner_text()
        page.get_by_label("Remove 300.1.1.1").click()
        page.get_by_label("1 day", exact=True).check()
        assert "keys issue Mouse --actor user:mouse --scopes reports:read --ttl 24h" in page.locator("pre").first.inner_text()
        page.get_by_role("button", name="Issue the key").click()
        first = secret_of(page)
        assert first not in page.url
        leaves_with_a_question(page)
        page.get_by_role("button", name="Copy secret").click()
        assert page.evaluate("navigator.clipboard.readText()") == first
        page.get_by_label("I stored the secret").check()
        page.get_by_role("button", name="Done").click()
        page.wait_for_url(re.compile("#/keys/issued/"))
        old_url = page.url

        allowed(stack, first)
        page.locator(".legend b", has_text=re.compile("^[1-9]")).first.wait_for()

        page.get_by_role("button", name="Edit").click()
        page.locator("#edit-cidrs").fill("203.0.113.0/24 ")
        page.get_by_role("button", name="Save").click()
        page.get_by_text("Works from 203.0.113.0/24").wait_for()
        refused(stack, first)
        page.get_by_role("button", name="Edit").click()
        page.get_by_label("Remove 203.0.113.0/24").click()
        page.get_by_role("button", name="Save").click()
        page.get_by_text("Works from any address").wait_for()
        allowed(stack, first)

        page.get_by_role("link", name="Rotate").click()
        page.get_by_role("button", name="Rotate").click()
        second = secret_of(page)
        allowed(stack, second)
        allowed(stack, first)
        page.get_by_text("Last used").first.wait_for()
        page.get_by_role("button", name="End it now").click()
        page.locator("dialog").get_by_role("button", name="End it now").click()
        page.get_by_text("The old key has ended").wait_for()
        refused(stack, first)
        page.get_by_label("I stored the secret").check()
        page.get_by_role("button", name="Done").click()

        page.get_by_role("button", name="Suspend").click()
        page.get_by_label("Reason, for people").fill("invoice 7 is open")
        page.locator("dialog").get_by_role("button", name="Suspend").click()
        page.get_by_text("Refused at present: suspended (invoice 7 is open)").wait_for()
        refused(stack, second)
        page.get_by_role("button", name="Resume").click()
        page.locator("dialog").get_by_role("button", name="Resume").click()
        page.get_by_text("Works from any address").wait_for()
        allowed(stack, second)

        page.get_by_role("button", name="Revoke").click()
        page.get_by_role("button", name="Revoke for good").click()
        page.get_by_text("Refused for good").wait_for()
        refused(stack, second)
        page.goto(old_url)
        page.get_by_text("Rotations").wait_for()
        wait_until_true(page, "document.querySelectorAll('.lineage li').length === 2")


def life_by_keyboard(stack, browser):
    """The same by keyboard alone."""
    with ConsolePage(browser, stack) as console:
        page, keys = console.page, console.page.keyboard
        console.open()
        keys.press("?")
        page.get_by_text("Keys of the keyboard").wait_for()
        keys.press("Escape")
        keys.press("n")
        page.wait_for_url(re.compile("#/issue"))
        wait_until_true(page, "document.activeElement.id === 'name'")
        keys.type("Keyboard")
        tab_to(page, "Actor")
        keys.type("user:keyboard")
        tab_to(page, "Scopes")
        keys.type("orders:read")
        keys.press("Enter")
        tab_to(page, "Issue the key")
        keys.press("Enter")
        page.locator("[data-secret]").wait_for()
        first = secret_of(page)
        tab_to(page, "I stored the secret of Keyboard where it belongs")
        keys.press("Space")
        tab_to(page, "Done")
        keys.press("Enter")
        page.wait_for_url(re.compile("#/keys/issued/"))
        allowed(stack, first)

        tab_to(page, "Rotate")
        keys.press("Enter")
        page.wait_for_url(re.compile("/rotate$"))
        console.settle()
        tab_to(page, "Rotate")
        keys.press("Enter")
        page.locator("[data-secret]").wait_for()
        second = secret_of(page)
        tab_to(page, "I stored the secret of Keyboard where it belongs")
        keys.press("Space")
        tab_to(page, "Done")
        keys.press("Enter")
        console.settle()
        allowed(stack, first)
        allowed(stack, second)

        for verb, confirm, after, state in [
            ("Suspend", "Suspend", "Refused at present", refused),
            ("Resume", "Resume", "Works from", allowed),
            ("Revoke", "Revoke for good", "Refused for good", refused),
        ]:
            tab_to(page, verb)
            keys.press("Enter")
            page.locator("dialog").wait_for()
            tab_to(page, confirm)
            keys.press("Enter")
            page.get_by_text(after).first.wait_for()
            state(stack, second)

        keys.press("/")
        wait_until_true(page, "document.activeElement.id === 'search'")
        keys.type("keyboard")
        page.wait_for_url(re.compile("q=keyboard"))
        wait_until_true(page, "document.querySelectorAll('a.row-link').length === 2")
        keys.press("Escape")
        keys.press("j")
        keys.press("j")
        keys.press("x")
        page.get_by_text("1 key selected").wait_for()
        keys.press("Enter")
        page.wait_for_url(re.compile("#/keys/issued/"))


def life_by_its_holder(stack, browser):
    """The public page shows a key to whoever has it, revokes it, and says the same of all others."""
    key, secret = stack.issue("Mine", "user:holder", scopes=["orders:read"], ttl="24h")
    allowed(stack, secret)
    with ConsolePage(browser, stack) as console:
        page = console.page
        page.goto(stack.public + "/keys")
        page.get_by_label("Key", exact=True).fill(secret)
        page.get_by_role("button", name="Show my key").click()
        page.get_by_text(key["key_id"]).wait_for()
        assert secret not in page.inner_text("body") and secret not in page.url
        page.get_by_role("button", name="Revoke it").click()
        page.get_by_role("button", name="Revoke for good").click()
        page.get_by_text("The key is revoked").wait_for()
        refused(stack, secret)
        page.get_by_role("button", name="Look at another key").click()
        said = set()
        # The last two could be in no header, so they are refused without a request.
        for other in [secret, "nonsense", secret[:-1] + ("a" if secret[-1] != "a" else "b"), f"{secret}\u2026", "schl\u00fcssel \U0001f511"]:
            page.get_by_label("Key", exact=True).fill(other)
            page.get_by_role("button", name="Show my key").click()
            said.add(page.locator(".notice.bad").inner_text())
        assert len(said) == 1, said


def many_are_revoked(stack, browser):
    """Several keys are selected, exported and revoked, each by an operation of its own."""
    keys = [stack.issue(f"Bulk {number}", "user:bulk")[0] for number in range(3)]
    with ConsolePage(browser, stack) as console:
        page = console.page
        console.open("keys/issued?actor=user%3Abulk")
        wait_until_true(page, "document.querySelectorAll('a.row-link').length === 3")
        with page.expect_download() as download:
            page.get_by_role("button", name="Export CSV").click()
        text = download.value.path().read_text()
        assert all(key["key_id"] in text for key in keys), text
        page.get_by_label("Select all shown").check()
        page.locator(".bulk").get_by_role("button", name="Revoke").click()
        page.get_by_role("button", name="Revoke for good").click()
        page.locator("dialog").wait_for(state="detached")
        wait_until_true(page, "document.querySelectorAll('.pill.bad').length === 3")
        page.get_by_role("button", name="Active", exact=True).click()
        page.wait_for_url(re.compile("state=active"))
        page.get_by_text("No key matches").wait_for()


def a_leak_is_stopped(stack, browser):
    key, secret = stack.issue("Leaked", "user:leak")
    with ConsolePage(browser, stack) as console:
        page = console.page
        console.open("leak")
        page.get_by_label("Key or token").fill("nothing of ours")
        page.get_by_role("button", name="Look it up").click()
        page.get_by_text("Nothing has to be stopped here").wait_for()
        page.get_by_label("Key or token").fill(secret)
        page.get_by_role("button", name="Look it up").click()
        page.get_by_role("link", name="Leaked").first.wait_for()
        page.get_by_role("button", name="Revoke").click()
        page.get_by_role("button", name="Revoke for good").click()
        page.get_by_text("Refused for good").first.wait_for()
    assert stack.api("GET", f"/v2alpha1/admin/issuedApiKeys/{key['key_id']}")["revocation_reason"] == "REVOCATION_REASON_KEY_COMPROMISE"
    assert secret not in stack.log("talos")


FLOWS = [life_by_mouse, life_by_keyboard, life_by_its_holder, many_are_revoked, a_leak_is_stopped]
