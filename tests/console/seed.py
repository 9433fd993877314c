"""Keys and usage for pictures and tests of the console: a shop with people, services and partners."""

import datetime
import random
import sqlite3

# Settings that the seed wants of Talos.
SETTINGS = {}

NIL = "00000000-0000-0000-0000-000000000000"

# Name, actor, scopes, other fields, requests an hour.
KEYS = [
    ("Checkout service", "svc:checkout", ["orders:read", "orders:write", "payments:charge"], {}, 420),
    ("Mobile app backend", "svc:mobile-api", ["orders:read", "catalog:read"], {"ttl": "2160h"}, 310),
    ("Storefront (publishable)", "svc:storefront", ["catalog:read"], {"visibility": "KEY_VISIBILITY_PUBLIC"}, 250),
    ("Nightly report", "svc:reports", ["reports:read"], {"ttl": "100h"}, 24),
    ("Warehouse scanner", "svc:warehouse", ["stock:read", "stock:write"],
     {"ip_restriction": {"allowed_cidrs": ["10.20.0.0/16", "127.0.0.0/8"]}}, 95),
    ("Partner: Nordwind GmbH", "partner:nordwind", ["orders:read"],
     {"ttl": "720h", "rate_limit_policy": {"quota": "600", "window": "60s", "unit": "requests"},
      "metadata": {"contract": "N-2041", "contact": "api@nordwind.example"}}, 140),
    ("Partner: Contoso", "partner:contoso", ["orders:read", "reports:read"], {"ttl": "60h"}, 60),
    ("Terraform", "ci:terraform", ["admin:read"], {"ttl": "720h"}, 6),
    ("GitHub Actions deploy", "ci:deploy", ["admin:read", "orders:read"], {"ttl": "720h"}, 11),
    ("Ada's laptop", "user:ada", ["orders:read"], {"ttl": "336h"}, 3),
    ("Grace's laptop", "user:grace", ["orders:read", "reports:read"], {"ttl": "336h"}, 2),
    ("Data warehouse sync", "svc:warehouse", ["orders:read", "stock:read"], {"ttl": "8760h"}, 40),
    ("Support tooling", "svc:support", ["orders:read", "customers:read"], {"ttl": "4320h"}, 33),
    ("Price feed", "partner:fabrikam", ["catalog:read"], {"ttl": "1440h"}, 75),
    ("Fraud scoring", "svc:fraud", ["payments:read", "orders:read"], {"ttl": "4320h"}, 180),
    ("Search indexer", "svc:search", ["catalog:read"], {}, 120),
    ("Old importer (2023)", "svc:legacy", ["orders:read", "orders:write"], {}, 0),
    ("Load test", "user:ada", ["catalog:read"], {"ttl": "168h"}, 0),
    ("Partner: Tailspin Toys", "partner:tailspin", ["orders:read"], {"ttl": "720h"}, 18),
    ("Invoice mailer", "svc:invoices", ["orders:read", "customers:read"], {"ttl": "2880h"}, 21),
]


def shape(hour, rng):
    """Returns the share of an hour's requests: less at night and on Sundays, never quite even."""
    moment = datetime.datetime.fromtimestamp(hour, datetime.timezone.utc)
    day = 0.35 + 0.65 * max(0.0, 1 - abs(moment.hour - 14) / 10)
    return day * (0.45 if moment.weekday() == 6 else 1.0) * rng.uniform(0.8, 1.2)


def write_usage(database, keys, days, now):
    """Writes hours of usage into the database, as a process would have."""
    rng = random.Random(7)
    first = int(now) // 3600 * 3600 - days * 86400
    rows, used = [], []
    for key, per_hour in keys:
        if per_hour == 0:
            continue
        for hour in range(first, int(now) // 3600 * 3600 + 1, 3600):
            share = shape(hour, rng) * per_hour
            reported = "reports" if "reports:read" in key["scopes"] else "default"
            rows.append((hour, key["key_id"], reported, "allow", int(share) or 1))
            if rng.random() < 0.25:
                reason = rng.choice(["scope_missing", "insufficient_scope", "rate_limited"])
                rows.append((hour, key["key_id"], reported, reason if reason != "scope_missing" else "insufficient_scope",
                             max(1, int(share * rng.uniform(0.01, 0.06)))))
        used.append((key["key_id"], first, int(now) // 60 * 60 - rng.randrange(0, 40) * 60,
                     f"10.20.{rng.randrange(1, 9)}.{rng.randrange(2, 250)}"))
    merged = {}
    for hour, key, route, outcome, n in rows:
        merged[hour, key, route, outcome] = merged.get((hour, key, route, outcome), 0) + n
    with sqlite3.connect(database, timeout=30) as connection:
        connection.executemany(
            "INSERT OR REPLACE INTO usage_hours (network_id, hour_at, key_id, route, outcome, process_id, n) VALUES (?,?,?,?,?,?,?)",
            [(NIL, hour * 1_000_000, key, route, outcome, "seed", n) for (hour, key, route, outcome), n in merged.items()],
        )
        connection.executemany(
            "INSERT OR REPLACE INTO usage_keys (network_id, key_id, first_used_at, last_used_at, last_address) VALUES (?,?,?,?,?)",
            [(NIL, key, first * 1_000_000, last * 1_000_000, address) for key, first, last, address in used],
        )
        # Keys look old: made before their first use, and used in the hours of the report.
        connection.executemany(
            "UPDATE api_keys SET created_at = ?, updated_at = ?, last_used_at = ? WHERE key_id = ?",
            [((first - 86_400 * rng.randrange(2, 60)) * 1_000_000,) * 2 + (last * 1_000_000, key) for key, first, last, _ in used],
        )
        idle = [key["key_id"] for key, per_hour in keys if per_hour == 0]
        old = (int(now) - 240 * 86_400) * 1_000_000
        connection.executemany("UPDATE api_keys SET created_at = ?, updated_at = ? WHERE key_id = ?", [(old, old, key) for key in idle])
    connection.close()


def seed(stack, days=14):
    """Fills a stack; returns what the pictures need to know."""
    keys, secrets = [], {}
    for name, actor, scopes, fields, per_hour in KEYS:
        key, secret = stack.issue(name, actor, scopes=scopes, **fields)
        keys.append((key, per_hour))
        secrets[name] = (key["key_id"], secret)
    now = datetime.datetime.now(datetime.timezone.utc).timestamp()
    write_usage(stack.database, keys, days, now)
    path = "/v2alpha1/admin/issuedApiKeys"
    stack.api("POST", f"{path}/{secrets['Ada' + chr(39) + 's laptop'][0]}:suspend", {"reason": "laptop reported lost; Ada is looking"})
    stack.api("POST", f"{path}/{secrets['Load test'][0]}:revoke", {"reason": "REVOCATION_REASON_SUPERSEDED"})
    rotated = stack.api("POST", f"{path}/{secrets['GitHub Actions deploy'][0]}:rotate", {"until_unused": "24h"})
    stack.api("POST", f"{path}/{secrets['Partner: Tailspin Toys'][0]}:revoke", {"reason": "REVOCATION_REASON_KEY_COMPROMISE"})
    for name in ["Checkout service", "Nightly report", "Support tooling"]:
        for path_of in ["/hello", "/reports"]:
            stack.use(secrets[name][1], path_of)
    return {"keys": {name: key_id for name, (key_id, _) in secrets.items()},
            "secrets": {name: secret for name, (_, secret) in secrets.items()},
            "rotated": rotated["issued_api_key"]["key_id"]}
