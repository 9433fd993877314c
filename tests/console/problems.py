"""What screens show while requests are slow, or fail, and in each mode of an instance."""

import json
import re
import uuid

from browser import ConsolePage, wait_until_seen, wait_until_true
from stack import call


def every_mode_has_words(stack, browser, seeded):
    modes = re.findall(r'^talos_mode\{mode="(\w+)"\}', call("GET", f"{stack.metrics}/metrics")[1], re.MULTILINE)
    with ConsolePage(browser, stack) as console:
        console.open()
        known = console.page.evaluate("import('/console/js/screens/overview.js').then(({ MODES }) => Object.keys(MODES))")
        assert len(modes) > 1 and sorted(known) == sorted(modes), (known, modes)


def only_a_key_that_is_gone_is_called_deleted(stack, browser, seeded):
    old, _ = stack.issue("replaced", "user:gone")
    path = f"/v2alpha1/admin/issuedApiKeys/{old['key_id']}"
    key = stack.api("POST", f"{path}:rotate", {})["issued_api_key"]
    with ConsolePage(browser, stack) as console:
        page, chain = console.page, console.page.get_by_label("Rotations")
        page.route(f"**{path}", lambda route: route.fulfill(status=503, content_type="application/json", body="{}"))
        console.open(f"keys/issued/{key['key_id']}")
        chain.get_by_role("alert").first.wait_for()
        assert "deleted" not in chain.inner_text(), chain.inner_text()
        page.unroute(f"**{path}")
        stack.api("DELETE", path)
        page.reload()
        chain.get_by_text("deleted").wait_for()


def a_page_that_is_slow_is_added_once(stack, browser, seeded):
    actor = f"user:{uuid.uuid4()}"
    for number in range(51):
        stack.issue(f"many {number}", actor)
    with ConsolePage(browser, stack) as console:
        page, rows, asked = console.page, console.page.locator("tbody tr"), []
        console.open(f"keys/issued?actor={actor}")
        assert rows.count() == 50

        def answer_late(route):
            asked.append(route)

        page.route(re.compile("page_token="), answer_late)
        more = page.get_by_role("button", name="Show more")
        more.dblclick(force=True)
        wait_until_true(page, "document.querySelector('footer button').disabled")
        assert len(asked) == 1, asked
        asked[0].continue_()
        wait_until_true(page, "document.querySelectorAll('tbody tr').length > 50")
        assert rows.count() == 51


def a_search_keeps_what_is_chosen_meanwhile(stack, browser, seeded):
    with ConsolePage(browser, stack) as console:
        page = console.page
        page.clock.install()
        console.open("keys/issued")
        # Both before the search begins, 200 ms after the last letter.
        page.evaluate(
            "(() => { const search = document.getElementById('search'); search.value = 'two words ';"
            " search.dispatchEvent(new Event('input', { bubbles: true }));"
            " [...document.querySelectorAll('.chip')].find((chip) => chip.innerText === 'Active').click(); })()"
        )
        wait_until_true(page, "location.hash.includes('q=') && location.hash.includes('state=active')")
        assert page.get_by_label("Search keys").input_value() == "two words "
        # A search that has not begun doesn't leave the next screen.
        page.evaluate(
            "(() => { const search = document.getElementById('search'); search.value = 'other';"
            " search.dispatchEvent(new Event('input', { bubbles: true })); location.hash = '#/issue'; })()"
        )
        page.clock.run_for(1_000)
        assert page.url.endswith("#/issue"), page.url


def an_answer_slower_than_its_timer_is_shown(stack, browser, seeded):
    with ConsolePage(browser, stack) as console:
        page, asked = console.page, []
        page.clock.install()
        console.open("keys/issued")
        page.route("**/v2alpha1/admin/status", lambda route: asked.append(route))
        page.evaluate("location.hash = '#/instances'")
        wait_until_seen(page, lambda: asked, "a request for the state")
        page.clock.run_for(10_000)
        assert len(asked) == 1, "a timer gave up the request in flight"
        asked[0].continue_()
        page.get_by_text("Revocations count within").wait_for()
        # The timer goes on once there is an answer.
        page.clock.run_for(3_000)
        wait_until_seen(page, lambda: len(asked) > 1, "the next request for the state")
        page.unroute_all(behavior="ignoreErrors")


def old_data_is_called_old(stack, browser, seeded):
    key, _ = stack.issue("still shown", "user:old")
    path = f"/v2alpha1/admin/issuedApiKeys/{key['key_id']}"
    with ConsolePage(browser, stack) as console:
        page = console.page
        page.clock.install()
        console.open(f"keys/issued/{key['key_id']}")
        assert page.get_by_text("was read earlier").count() == 0
        page.route(f"**{path}", lambda route: route.fulfill(status=401, content_type="application/json", body="{}"))
        page.clock.run_for(11_000)
        page.get_by_text("Reload the page to sign in").wait_for()
        assert page.get_by_text("What is shown below was read earlier").is_visible()
        assert page.get_by_role("heading", name="still shown").is_visible()
        page.unroute(f"**{path}")
        page.get_by_role("button", name="Try again").click()
        page.get_by_text("was read earlier").wait_for(state="detached")


def uses_that_can_not_be_read_are_not_none(stack, browser, seeded):
    """Whoever decides when the old key ends must not take a failed request for a key that nobody uses."""
    old, _ = stack.issue("in use", "user:uses")
    stack.api("POST", f"/v2alpha1/admin/issuedApiKeys/{old['key_id']}:rotate", {"grace_period": "1h"})
    uses = re.compile(r"/v2alpha1/admin/usage\?.*group_by=key(&|$)")
    with ConsolePage(browser, stack) as console:
        page = console.page
        page.route(uses, lambda route: route.fulfill(status=503, content_type="application/json", body="{}"))
        console.open(f"keys/issued/{old['key_id']}")
        page.get_by_role("alert").first.wait_for()
        assert "It ends" in page.locator("main").inner_text()
        assert page.get_by_text("Last used never").count() == 0
        page.unroute(uses)
        page.get_by_role("button", name="Try again").click()
        page.get_by_text("Last used never").wait_for()
        assert page.get_by_role("alert").count() == 0


def chips_that_exclude_each_other_are_not_both_on(stack, browser, seeded):
    with ConsolePage(browser, stack) as console:
        page = console.page
        console.open("keys/issued")
        revoked, forever = (page.get_by_role("button", name=name, exact=True) for name in ("Revoked", "Never expires"))
        revoked.click()
        page.wait_for_url(re.compile("state=revoked"))
        forever.click()
        page.wait_for_url(re.compile("concern=forever"))
        assert "state=" not in page.url and revoked.get_attribute("aria-pressed") == "false", page.url
        revoked.click()
        page.wait_for_url(re.compile("state=revoked"))
        assert "concern=" not in page.url and forever.get_attribute("aria-pressed") == "false", page.url
        page.get_by_role("button", name="Active", exact=True).click()
        forever.click()
        page.wait_for_url(re.compile("state=active.*concern=forever"))
        # An address that somebody wrote names both: no key is both.
        console.open("keys/issued?state=revoked&concern=forever")
        page.get_by_text("No key matches").wait_for()


def an_export_that_ends_early_says_so(stack, browser, seeded):
    full = json.dumps({"issued_api_keys": [{"key_id": str(uuid.uuid4())}] * 1000, "next_page_token": "more"})
    with ConsolePage(browser, stack) as console:
        page = console.page
        console.open("keys/issued")
        page.route(re.compile("issuedApiKeys.page_size=1000&"), lambda route: route.fulfill(status=200, content_type="application/json", body=full))
        with page.expect_download() as download:
            page.get_by_role("button", name="Export CSV").click()
        page.get_by_text("Only the first 100,000 keys exported").wait_for()
        assert download.value.path().read_text().count("\n") == 100_001


PROBLEMS = [
    every_mode_has_words, only_a_key_that_is_gone_is_called_deleted, a_page_that_is_slow_is_added_once,
    a_search_keeps_what_is_chosen_meanwhile, an_answer_slower_than_its_timer_is_shown, old_data_is_called_old,
    uses_that_can_not_be_read_are_not_none, chips_that_exclude_each_other_are_not_both_on,
    an_export_that_ends_early_says_so,
]
