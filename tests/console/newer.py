"""Screens of operations that were added later, with answers as their descriptions say."""

import json
import re
import uuid
from urllib.parse import parse_qs, urlsplit

from browser import ConsolePage, wait_until_seen, wait_until_true

EVENTS = {
    "events": [
        {"specversion": "1.0", "id": "7-00000000000000aa", "source": "urn:talos:network:0", "type": "talos.key.issued", "subject": "11111111-1111-4111-8111-111111111111",
         "time": "2026-11-29T10:00:00Z", "datacontenttype": "application/json",
         "data": {"epoch": 7, "operation": "issue", "key_id": "11111111-1111-4111-8111-111111111111", "key_type": "issued", "actor_id": "user:42", "caller": "spiffe://example.com/ada",
                  "changes": [{"field": "name", "after": "Invoice <b>export</b>"}, {"field": "scopes", "after": ["invoices:read"]}]}},
        {"specversion": "1.0", "id": "8-00000000000000ab", "source": "urn:talos:network:0", "type": "talos.key.updated", "subject": "11111111-1111-4111-8111-111111111111",
         "time": "2026-11-29T11:00:00Z", "datacontenttype": "application/json",
         "data": {"epoch": 8, "operation": "update", "key_id": "11111111-1111-4111-8111-111111111111", "key_type": "issued", "actor_id": "user:42", "caller": "spiffe://example.com/grace",
                  "changes": [{"field": "scopes", "before": ["invoices:read"], "after": ["invoices:read", "invoices:write"]}, {"field": "expire_time", "after": "2027-01-01T00:00:00Z"}]}},
        {"specversion": "1.0", "id": "9-00000000000000ac", "source": "urn:talos:network:0", "type": "talos.actor.suspended", "subject": "user:42", "time": "2026-11-29T12:00:00Z",
         "datacontenttype": "application/json", "data": {"epoch": 9, "operation": "suspend_actor", "actor_id": "user:42", "changes": []}},
    ],
    "next": "9-00000000000000ac", "epoch": 9, "has_more": False,
}
NO_EVENTS = {"events": [], "next": "9-00000000000000ac", "epoch": 9, "has_more": False}
EXPLAINED = {
    "decision": "deny", "reason": "insufficient_scope", "message": "the credential lacks a scope that this route needs",
    "rule": {"index": 2, "name": "reports", "host": "api.example.com", "methods": ["GET"], "path": "prefix /reports"},
    "demand": {"mode": "required", "scopes": ["reports:read"], "any_scope": [], "visibility": "secret", "cost": 5},
    "key_id": "11111111-1111-4111-8111-111111111111", "actor_id": "user:42", "missing_scopes": ["reports:read"],
}


def answer(page, pattern, body):
    page.route(pattern, lambda route: route.fulfill(status=200, content_type="application/json", body=json.dumps(body)))


def changes_are_listed(stack, browser, seeded):
    with ConsolePage(browser, stack) as console:
        page = console.page
        answer(page, "**/v2alpha1/admin/events?after=*", NO_EVENTS)
        page.route("**/v2alpha1/admin/events?page_size=*", lambda route: route.fulfill(status=200, content_type="application/json", body=json.dumps(EVENTS)))
        console.open("activity")
        page.get_by_role("link", name="Invoice <b>export</b>").first.wait_for()
        items = page.locator(".timeline li").all_inner_texts()
        assert len(items) == 3 and items[0].startswith("Suspended") and "by spiffe://example.com/grace" in items[1], items
        page.locator("summary", has_text="fields changed").first.click()
        assert page.locator("del").inner_text() == '["invoices:read"]'
        console.open("activity?key=11111111-1111-4111-8111-111111111111")
        wait_until_true(page, "document.querySelectorAll('.timeline li').length === 2")


def changes_are_followed_through_failures(stack, browser, seeded):
    """Pages are read at once, failures that pass are tried again, and "Try again" begins anew after the others."""
    first, second, third = EVENTS["events"]
    answers = [
        (200, {"events": [first], "next": "7-aa", "has_more": True}),
        (200, {"events": [second], "next": "8-ab", "has_more": False}),
        (504, {}),
        (200, {"events": [third], "next": "9-ac", "has_more": False}),
        (410, {"error": {"message": "after: the changes that follow are no longer kept"}}),
        (200, EVENTS),
    ]
    asked = []

    def respond(route):
        asked.append({name: value for name, [value] in parse_qs(urlsplit(route.request.url).query).items()})
        status, body = answers[len(asked) - 1] if len(asked) <= len(answers) else (200, NO_EVENTS)
        route.fulfill(status=status, content_type="application/json", body=json.dumps(body))

    with ConsolePage(browser, stack) as console:
        page = console.page
        page.route(re.compile(r"/v2alpha1/admin/events\?"), respond)
        console.open("activity")
        page.get_by_text("It is tried again every few seconds").wait_for()
        wait_until_true(page, "document.querySelectorAll('.timeline li').length === 3")
        page.get_by_text("Start again with what the log still has").wait_for()
        page.get_by_role("button", name="Try again").click()
        wait_until_seen(page, lambda: len(asked) > len(answers), "a request after the log's end")
        assert page.locator(".timeline li").count() == 3 and page.get_by_role("alert").count() == 0
        waiting = {"wait": "10s", "page_size": "1000"}
        assert asked[:7] == [
            {"page_size": "1000"}, {"page_size": "1000", "after": "7-aa"}, waiting | {"after": "8-ab"}, waiting | {"after": "8-ab"},
            waiting | {"after": "9-ac"}, {"page_size": "1000"}, waiting | {"after": EVENTS["next"]},
        ], asked


def the_log_says_how_far_it_reaches(stack, browser, seeded):
    """A key without a change in the log isn't said to have none; the server looks for the key's."""
    key, asked = str(uuid.uuid4()), []
    with ConsolePage(browser, stack) as console:
        page = console.page
        page.on("request", lambda request: "/admin/events?" in request.url and asked.append(request.url))
        console.open(f"activity?key={key}")
        page.get_by_text("No change as far as the log reaches").wait_for()
        assert "audit.file" in page.get_by_label("Changes", exact=True).inner_text()
        assert f"key_id={key}" in asked[0], asked


def a_route_is_explained(stack, browser, seeded):
    with ConsolePage(browser, stack) as console:
        page = console.page
        answer(page, "**/v2alpha1/admin/routes:explain", EXPLAINED)
        console.open("routes")
        page.get_by_label("Path").fill("/reports")
        page.get_by_label("Key", exact=True).fill("some key")
        page.get_by_label("Client address").fill("192.0.2.7")
        with page.expect_request("**/v2alpha1/admin/routes:explain") as asked:
            page.get_by_role("button", name="Explain").click()
        assert asked.value.post_data_json["client_address"] == "192.0.2.7", asked.value.post_data
        page.get_by_text("It would be refused").wait_for()
        text = page.inner_text("main")
        assert all(word in text for word in ["reports", "prefix /reports", "Counts as", "5 requests", "active keys with reports:read"]), text
        assert "some key" not in page.url


NEWER = [changes_are_listed, changes_are_followed_through_failures, the_log_says_how_far_it_reaches, a_route_is_explained]
