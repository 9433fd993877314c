"""Screens of operations that were added later, with answers as their descriptions say."""

import json

from browser import ConsolePage

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
        assert page.locator(".timeline li").count() == 2


def a_route_is_explained(stack, browser, seeded):
    with ConsolePage(browser, stack) as console:
        page = console.page
        answer(page, "**/v2alpha1/admin/routes:explain", EXPLAINED)
        console.open("routes")
        page.get_by_label("Path").fill("/reports")
        page.get_by_label("Key", exact=True).fill("some key")
        page.get_by_role("button", name="Explain").click()
        page.get_by_text("It would be refused").wait_for()
        text = page.inner_text("main")
        assert all(word in text for word in ["reports", "prefix /reports", "Counts as", "5 requests", "active keys with reports:read"]), text
        assert "some key" not in page.url


NEWER = [changes_are_listed, a_route_is_explained]
