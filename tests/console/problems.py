"""What screens show while requests are slow, or fail, and in each mode of an instance."""

import re
import uuid

from browser import ConsolePage, wait_until_true
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


PROBLEMS = [
    every_mode_has_words, only_a_key_that_is_gone_is_called_deleted, a_page_that_is_slow_is_added_once,
    a_search_keeps_what_is_chosen_meanwhile,
]
