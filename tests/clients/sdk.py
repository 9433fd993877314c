"""Calls every operation of a running Talos with Ory's published Python SDK.

    sdk.py ADMIN_URL PUBLIC_URL ISSUER

Only the base URL is set. Says nothing when all is as a user of the SDK expects, and fails with a traceback otherwise.
"""

import json
import sys
from datetime import datetime, timedelta, timezone

import ory_client
from ory_client import (
    AdminRevokeImportedApiKeyBody,
    AdminRevokeIssuedApiKeyBody,
    AdminRotateIssuedApiKeyBody,
    AdminUpdateImportedApiKeyRequest,
    AdminUpdateIssuedApiKeyRequest,
    BatchCreateImportedApiKeysErrorCode,
    BatchCreateImportedApiKeysRequest,
    BatchVerifyApiKeysRequest,
    DeriveTokenRequest,
    ImportApiKeyRequest,
    IPRestriction,
    IssueApiKeyRequest,
    KeyStatus,
    KeyVisibility,
    RateLimitPolicy,
    RevocationReason,
    SelfRevokeApiKeyRequest,
    TokenAlgorithm,
    VerificationErrorCode,
    VerifyApiKeyRequest,
)
from ory_client.exceptions import ApiException

NO_KEY = "00000000-0000-4000-8000-000000000000"
METADATA = {"team": "payments", "tags": ["a", "b"], "limits": {"depth": 2, "ratio": 0.5}, "on": True, "off": None}


class Api:
    """Wraps the SDK's operations and records which were called."""

    called = set()

    def __init__(self, url):
        self.sdk = ory_client.ApiKeysApi(ory_client.ApiClient(ory_client.Configuration(host=url)))

    def __getattr__(self, name):
        self.called.add(name)
        return getattr(self.sdk, name)

    @staticmethod
    def operations():
        names = [name for name in vars(ory_client.ApiKeysApi) if not name.startswith("_")]
        return {name for name in names if not name.endswith(("_with_http_info", "_without_preload_content"))}


def equal(got, wanted):
    assert got == wanted, f"wanted {wanted!r}, got {got!r}"


def refused(status, reason, call, *arguments, **options):
    """Asserts that a call fails as an API error; returns the message."""
    try:
        answer = call(*arguments, **options)
    except ApiException as error:
        body = json.loads(error.body or error.data or "null")
        equal((error.status, body["error"]["details"][0]["reason"]), (status, reason))
        equal(body["error"]["code"], status)
        return body["error"]["message"]
    raise AssertionError(f"wanted {status} {reason}, got {answer!r}")


def is_recent(time):
    assert time.tzinfo is not None, time
    assert abs(datetime.now(timezone.utc) - time) < timedelta(minutes=5), time


def issue(api, **fields):
    request = IssueApiKeyRequest(**{"name": "a key", "actor_id": "sdk", **fields})
    answer = api.admin_issue_api_key(request)
    return answer.issued_api_key, answer.secret


def import_key(api, raw_key, **fields):
    request = ImportApiKeyRequest(**{"name": "an old key", "actor_id": "sdk", "raw_key": raw_key, **fields})
    return api.admin_import_api_key(request)


def verify(api, credential, **fields):
    return api.admin_verify_api_key(VerifyApiKeyRequest(credential=credential, **fields))


def issue_and_get(api):
    """Issues a key with all fields, and reads it back."""
    key, secret = issue(
        api,
        name="ci pipeline",
        actor_id="build-server",
        scopes=["orders:read", "orders:write"],
        ttl="3600s",
        metadata=METADATA,
        visibility=KeyVisibility.KEY_VISIBILITY_SECRET,
        ip_restriction=IPRestriction(allowed_cidrs=["127.0.0.0/8", "2001:db8::/32"]),
        rate_limit_policy=RateLimitPolicy(quota="100", window="60s"),
    )
    assert secret.startswith("ory_ak_v1_"), "a secret of another form"
    equal((key.name, key.actor_id, key.scopes), ("ci pipeline", "build-server", ["orders:read", "orders:write"]))
    equal(key.status, KeyStatus.KEY_STATUS_ACTIVE)
    equal(key.visibility, KeyVisibility.KEY_VISIBILITY_SECRET)
    equal(key.metadata, METADATA)
    equal(key.ip_restriction.allowed_cidrs, ["127.0.0.0/8", "2001:db8::/32"])
    policy = key.rate_limit_policy
    equal((policy.quota, policy.window, policy.unit), ("100", "60s", "requests"))
    is_recent(key.create_time)
    equal(key.update_time, key.create_time)
    equal(key.expire_time - key.create_time, timedelta(hours=1))
    equal((key.last_used_time, key.revocation_description), (None, None))
    equal(key.revocation_reason, RevocationReason.REVOCATION_REASON_UNSPECIFIED)
    # A field that only Talos has: this server is told not to enforce limits.
    equal(set(key.additional_properties), {"warnings"})

    again = api.admin_get_issued_api_key(key.key_id)
    equal(again, key)
    assert secret not in again.to_str(), "the secret is shown again"

    bare, _ = issue(api)
    equal((bare.scopes, bare.metadata, bare.expire_time, bare.rate_limit_policy), ([], None, None, None))
    refused(404, "API_KEY_NOT_FOUND", api.admin_get_issued_api_key, NO_KEY)
    message = refused(400, "BAD_REQUEST", api.admin_issue_api_key, IssueApiKeyRequest(name="nobody's"))
    assert "actor_id" in message, message

    fields = dict(name="once", actor_id="sdk", request_id="6f1c2f0a-once")
    first = api.admin_issue_api_key(IssueApiKeyRequest(**fields))
    second = api.admin_issue_api_key(IssueApiKeyRequest(**fields))
    equal(second.issued_api_key.key_id, first.issued_api_key.key_id)
    assert first.secret and second.secret == first.secret, "a retry in time gets the same secret"
    refused(409, "CONFLICT", api.admin_issue_api_key, IssueApiKeyRequest(**{**fields, "name": "twice"}))


def verify_one(api, issuer):
    key, secret = issue(api, scopes=["a"], metadata={"k": "v"}, ttl="1h30m")
    answer = verify(api, secret)
    equal((answer.is_valid, answer.key_id, answer.actor_id), (True, key.key_id, "sdk"))
    equal((answer.scopes, answer.metadata, answer.issuer), (["a"], {"k": "v"}, issuer))
    equal(answer.status, KeyStatus.KEY_STATUS_ACTIVE)
    equal(answer.visibility, KeyVisibility.KEY_VISIBILITY_SECRET)
    equal(answer.expire_time, key.expire_time)
    equal(answer.error_code, VerificationErrorCode.VERIFICATION_ERROR_UNSPECIFIED)
    equal((answer.error_message, answer.audiences), (None, []))

    request = VerifyApiKeyRequest(credential=secret)
    for options, wanted in [
        ({}, "HIT"),
        ({"cache_control": "no-cache"}, "SKIP"),
        ({"pragma": "no-cache"}, "SKIP"),
        ({"cache_control": "no-store"}, "SKIP"),
    ]:
        reply = api.admin_verify_api_key_with_http_info(request, **options)
        assert reply.data.is_valid
        headers = {name.lower(): value for name, value in reply.headers.items()}
        equal((options, headers.get("ory-talos-cache")), (options, wanted))

    answer = verify(api, "never-imported")
    equal((answer.is_valid, answer.error_code), (False, VerificationErrorCode.VERIFICATION_ERROR_NOT_FOUND))
    assert answer.error_message and answer.key_id is None, answer
    refused(400, "CREDENTIAL_REQUIRED", api.admin_verify_api_key, VerifyApiKeyRequest(credential=""))


def verify_many(api):
    key, secret = issue(api)
    gone, gone_secret = issue(api)
    api.admin_revoke_issued_api_key(gone.key_id, AdminRevokeIssuedApiKeyBody())
    credentials = [secret, "never-imported", gone_secret, secret]
    requests = [VerifyApiKeyRequest(credential=credential) for credential in credentials]
    results = api.admin_batch_verify_api_keys(BatchVerifyApiKeysRequest(requests=requests)).results
    equal([result.is_valid for result in results], [True, False, False, True])
    equal([result.key_id for result in results], [key.key_id, None, gone.key_id, key.key_id])
    equal(
        [result.error_code for result in results[1:3]],
        [VerificationErrorCode.VERIFICATION_ERROR_NOT_FOUND, VerificationErrorCode.VERIFICATION_ERROR_REVOKED],
    )
    for count in (0, 101):
        request = BatchVerifyApiKeysRequest(requests=requests[:1] * count)
        message = refused(400, "BAD_REQUEST", api.admin_batch_verify_api_keys, request)
        assert "requests" in message, message


def lists(api, list_keys, keys_of, make):
    """Walks through all pages of a listing, whole and filtered."""
    made = [make(number).key_id for number in range(7)]
    for filters in ({}, {"filter": 'actor_id="lister"'}, {"filter": 'actor_id="lister" AND status=KEY_STATUS_ACTIVE'}):
        seen, token, pages = [], None, 0
        while token != "":
            options = {"page_token": token} if token else {}
            page = list_keys(page_size=3, **options, **filters)
            seen += [key.key_id for key in keys_of(page)]
            token, pages = page.next_page_token, pages + 1
            assert pages < 100, "the pages have no end"
        assert pages > 2, f"{pages} pages"
        equal(len(seen), len(set(seen)))
        assert set(made) <= set(seen), "keys are missing"
        if filters:
            equal(set(seen), set(made))
    equal(keys_of(list_keys(filter='actor_id="nobody"')), [])
    first = list_keys(page_size=3)
    tampered = ("A" if first.next_page_token[0] != "A" else "B") + first.next_page_token[1:]
    message = refused(400, "BAD_REQUEST", list_keys, page_size=3, page_token=tampered)
    assert "page_token" in message, message
    refused(400, "BAD_REQUEST", list_keys, filter="colour=blue")


def list_both(api):
    lists(
        api,
        api.admin_list_issued_api_keys,
        lambda page: page.issued_api_keys,
        lambda number: issue(api, name=f"issued {number}", actor_id="lister")[0],
    )
    lists(
        api,
        api.admin_list_imported_api_keys,
        lambda page: page.imported_api_keys,
        lambda number: import_key(api, f"listed-key-{number}", actor_id="lister"),
    )


def update_both(api):
    issued, secret = issue(api, scopes=["a"], metadata={"old": 1}, ttl="1h")
    imported = import_key(api, "to-be-updated-1", scopes=["a"], metadata={"old": 1}, ttl="1h")
    for key, get, update, request in [
        (issued, api.admin_get_issued_api_key, api.admin_update_issued_api_key, AdminUpdateIssuedApiKeyRequest),
        (imported, api.admin_get_imported_api_key, api.admin_update_imported_api_key, AdminUpdateImportedApiKeyRequest),
    ]:
        changed = update(key.key_id, request(name="renamed", scopes=["a", "b"]), update_mask="name,scopes")
        equal((changed.key_id, changed.name, changed.scopes), (key.key_id, "renamed", ["a", "b"]))
        equal((changed.metadata, changed.actor_id, changed.expire_time), ({"old": 1}, "sdk", key.expire_time))
        assert changed.update_time >= key.update_time
        equal(get(key.key_id), changed)
        # Without a mask, the set fields change.
        changed = update(key.key_id, request(metadata={"new": [2]}))
        equal((changed.name, changed.scopes, changed.metadata), ("renamed", ["a", "b"], {"new": [2]}))
        # With a mask, only its fields change, whatever else is sent.
        changed = update(key.key_id, request(name="ignored", metadata={}), update_mask="metadata")
        assert changed.name == "renamed" and not changed.metadata, changed
        message = refused(400, "BAD_REQUEST", update, key.key_id, request(name="x"), update_mask="colour")
        assert "update_mask" in message, message
        equal(get(key.key_id).name, "renamed")
    equal(verify(api, secret).scopes, ["a", "b"])
    request = AdminUpdateIssuedApiKeyRequest(name="x")
    refused(404, "API_KEY_NOT_FOUND", api.admin_update_issued_api_key, NO_KEY, request, update_mask="name")


def rotate(api):
    key, secret = issue(api, name="rotating", scopes=["a"], metadata={"kept": True})
    answer = api.admin_rotate_issued_api_key(key.key_id, AdminRotateIssuedApiKeyBody(scopes=["b"]))
    new, old = answer.issued_api_key, answer.old_issued_api_key
    assert new.key_id != key.key_id and answer.secret != secret
    equal((new.name, new.scopes, new.metadata), ("rotating", ["b"], {"kept": True}))
    equal((old.key_id, old.status), (key.key_id, KeyStatus.KEY_STATUS_REVOKED))
    equal(old.revocation_reason, RevocationReason.REVOCATION_REASON_SUPERSEDED)
    equal(verify(api, secret).error_code, VerificationErrorCode.VERIFICATION_ERROR_REVOKED)
    answer_new = verify(api, answer.secret)
    equal((answer_new.is_valid, answer_new.key_id, answer_new.scopes), (True, new.key_id, ["b"]))

    # An extension of Ory's API: the old key stays valid for a grace period.
    body = AdminRotateIssuedApiKeyBody()
    body.additional_properties = {"grace_period": "600s"}
    newer = api.admin_rotate_issued_api_key(new.key_id, body)
    assert verify(api, answer.secret).is_valid and verify(api, newer.secret).is_valid
    equal(newer.old_issued_api_key.status, KeyStatus.KEY_STATUS_ACTIVE)
    refused(404, "API_KEY_NOT_FOUND", api.admin_rotate_issued_api_key, NO_KEY, AdminRotateIssuedApiKeyBody())


def derive(api, issuer):
    key, secret = issue(api, scopes=["a", "b"], ttl="1h", metadata={"k": "v"})
    jwt = TokenAlgorithm.TOKEN_ALGORITHM_JWT
    request = DeriveTokenRequest(
        credential=secret, algorithm=jwt, ttl="120s", scopes=["a"], custom_claims={"tenant": "t1", "sub": "forged"}
    )
    token = api.admin_derive_token(request).token
    assert token.token.startswith("eyJ") and token.token.count(".") == 2, "not a JWT"
    claims = token.claims
    equal((claims["sub"], claims["iss"], claims["scp"], claims["tenant"]), (key.key_id, issuer, ["a"], "t1"))
    equal((claims["exp"] - claims["iat"], claims["act"], claims["vis"]), (120, "sdk", "secret"))
    equal((token.scopes, token.audiences), (["a"], []))
    equal(int(token.expire_time.timestamp()), claims["exp"])
    answer = verify(api, token.token)
    equal((answer.is_valid, answer.key_id, answer.scopes, answer.issuer), (True, key.key_id, ["a"], issuer))

    # The algorithm UNSPECIFIED, which the SDK always sends, means JWT; no scopes means all.
    bound = api.admin_derive_token(DeriveTokenRequest(credential=secret, audiences=["shop", "till"])).token
    equal((bound.audiences, bound.scopes), (["shop", "till"], ["a", "b"]))
    equal(verify(api, bound.token, expected_audiences=["till"]).is_valid, True)
    answer = verify(api, bound.token, expected_audiences=["bank"])
    equal(answer.error_code, VerificationErrorCode.VERIFICATION_ERROR_AUDIENCE_MISMATCH)

    macaroon = TokenAlgorithm.TOKEN_ALGORITHM_MACAROON
    token = api.admin_derive_token(DeriveTokenRequest(credential=secret, algorithm=macaroon, ttl="120s")).token
    assert token.token.startswith("mc_v1_"), "a macaroon of another form"
    equal(token.scopes, ["a", "b"])
    answer = verify(api, token.token)
    equal((answer.is_valid, answer.key_id, answer.scopes), (True, key.key_id, ["a", "b"]))

    message = refused(403, "FORBIDDEN", api.admin_derive_token, DeriveTokenRequest(credential=secret, scopes=["c"]))
    assert "scopes" in message, message
    refused(400, "BAD_REQUEST", api.admin_derive_token, DeriveTokenRequest(credential=secret, ttl="2h"))
    for derived in (bound.token, token.token):
        refused(400, "INVALID_TOKEN_TYPE", api.admin_derive_token, DeriveTokenRequest(credential=derived))
    refused(401, "PARENT_KEY_INVALID", api.admin_derive_token, DeriveTokenRequest(credential="never-imported"))


def import_one(api):
    key = import_key(
        api,
        "legacy-0123456789",
        name="from the old system",
        scopes=["a"],
        ttl="1d",
        metadata=METADATA,
        ip_restriction=IPRestriction(allowed_cidrs=["127.0.0.1/32"]),
        rate_limit_policy=RateLimitPolicy(quota="5", window="1s", unit="requests"),
    )
    equal((len(key.key_id), key.name, key.scopes), (64, "from the old system", ["a"]))
    equal((key.status, key.metadata), (KeyStatus.KEY_STATUS_ACTIVE, METADATA))
    equal(key.expire_time - key.create_time, timedelta(days=1))
    equal(key.ip_restriction.allowed_cidrs, ["127.0.0.1/32"])
    equal((key.rate_limit_policy.quota, key.rate_limit_policy.window), ("5", "1s"))
    equal(api.admin_get_imported_api_key(key.key_id), key)
    equal(verify(api, "legacy-0123456789").key_id, key.key_id)
    request = ImportApiKeyRequest(raw_key="legacy-0123456789", name="again", actor_id="sdk")
    refused(409, "API_KEY_EXISTS", api.admin_import_api_key, request)
    refused(404, "API_KEY_NOT_FOUND", api.admin_get_imported_api_key, "0" * 64)


def import_many(api):
    import_key(api, "batch-taken")
    requests = [
        ImportApiKeyRequest(raw_key="batch-0", name="zero", actor_id="sdk", scopes=["a"]),
        ImportApiKeyRequest(raw_key="batch-taken", name="taken", actor_id="sdk"),
        ImportApiKeyRequest(raw_key="batch-2", name="nobody's"),
        ImportApiKeyRequest(raw_key="batch-3", name="three", actor_id="sdk"),
    ]
    create = api.admin_batch_create_imported_api_keys
    answer = create(BatchCreateImportedApiKeysRequest(requests=requests))
    equal((answer.success_count, answer.failure_count), (2, 2))
    equal([result.index for result in answer.results], [0, 1, 2, 3])
    codes = BatchCreateImportedApiKeysErrorCode
    equal(
        [result.error_code for result in answer.results],
        [
            codes.BATCH_CREATE_IMPORTED_API_KEYS_ERROR_UNSPECIFIED,
            codes.BATCH_CREATE_IMPORTED_API_KEYS_ERROR_ALREADY_EXISTS,
            codes.BATCH_CREATE_IMPORTED_API_KEYS_ERROR_INVALID_ARGUMENT,
            codes.BATCH_CREATE_IMPORTED_API_KEYS_ERROR_UNSPECIFIED,
        ],
    )
    equal(answer.results[0].imported_api_key.name, "zero")
    equal(answer.results[1].imported_api_key, None)
    assert "actor_id" in answer.results[2].error_message, answer.results[2]
    equal(verify(api, "batch-3").key_id, answer.results[3].imported_api_key.key_id)
    # If no item succeeds, the request fails.
    refused(409, "API_KEY_EXISTS", create, BatchCreateImportedApiKeysRequest(requests=requests[1:2]))
    refused(400, "BAD_REQUEST", create, BatchCreateImportedApiKeysRequest(requests=[]))


def revoke_and_delete(api):
    key, secret = issue(api)
    reasons = RevocationReason
    body = AdminRevokeIssuedApiKeyBody(
        reason=reasons.REVOCATION_REASON_PRIVILEGE_WITHDRAWN, description="left the company"
    )
    equal(api.admin_revoke_issued_api_key(key.key_id, body), None)
    gone = api.admin_get_issued_api_key(key.key_id)
    equal((gone.status, gone.revocation_reason), (KeyStatus.KEY_STATUS_REVOKED, body.reason))
    equal(gone.revocation_description, "left the company")
    answer = verify(api, secret)
    equal((answer.is_valid, answer.error_code), (False, VerificationErrorCode.VERIFICATION_ERROR_REVOKED))
    # Revoking again changes nothing; the SDK's defaults send no reason.
    api.admin_revoke_issued_api_key(key.key_id, AdminRevokeIssuedApiKeyBody())
    equal(api.admin_get_issued_api_key(key.key_id), gone)
    body = AdminRevokeIssuedApiKeyBody(reason=reasons.REVOCATION_REASON_SUPERSEDED, description="why")
    message = refused(400, "BAD_REQUEST", api.admin_revoke_issued_api_key, key.key_id, body)
    assert "description" in message, message
    refused(404, "API_KEY_NOT_FOUND", api.admin_revoke_issued_api_key, NO_KEY, AdminRevokeIssuedApiKeyBody())

    imported = import_key(api, "to-be-revoked-1")
    body = AdminRevokeImportedApiKeyBody(reason=reasons.REVOCATION_REASON_AFFILIATION_CHANGED)
    equal(api.admin_revoke_imported_api_key(imported.key_id, body), None)
    gone = api.admin_get_imported_api_key(imported.key_id)
    equal((gone.status, gone.revocation_reason), (KeyStatus.KEY_STATUS_REVOKED, body.reason))

    imported = import_key(api, "to-be-deleted-1")
    assert verify(api, "to-be-deleted-1").is_valid
    equal(api.admin_delete_imported_api_key(imported.key_id), None)
    refused(404, "API_KEY_NOT_FOUND", api.admin_get_imported_api_key, imported.key_id)
    equal(verify(api, "to-be-deleted-1").error_code, VerificationErrorCode.VERIFICATION_ERROR_NOT_FOUND)
    refused(404, "API_KEY_NOT_FOUND", api.admin_delete_imported_api_key, "0" * 64)


def self_revoke(api, public):
    for holder in (api, public):
        key, secret = issue(api)
        request = SelfRevokeApiKeyRequest(
            credential=secret, reason=RevocationReason.REVOCATION_REASON_KEY_COMPROMISE
        )
        equal(holder.revoke_api_key(request), {})
        gone = api.admin_get_issued_api_key(key.key_id)
        equal((gone.status, gone.revocation_reason), (KeyStatus.KEY_STATUS_REVOKED, request.reason))
        import_key(api, f"held by {holder.sdk.api_client.configuration.host}")
        request = SelfRevokeApiKeyRequest(credential=f"held by {holder.sdk.api_client.configuration.host}")
        equal(holder.revoke_api_key(request), {})
    unknown = SelfRevokeApiKeyRequest(credential="never-imported")
    refused(400, "UNKNOWN_CREDENTIAL", public.revoke_api_key, unknown)
    withdrawn = RevocationReason.REVOCATION_REASON_PRIVILEGE_WITHDRAWN
    request = SelfRevokeApiKeyRequest(credential=secret, reason=withdrawn)
    refused(400, "BAD_REQUEST", public.revoke_api_key, request)
    _, secret = issue(api)
    token = api.admin_derive_token(DeriveTokenRequest(credential=secret)).token.token
    request = SelfRevokeApiKeyRequest(credential=token)
    refused(400, "DERIVED_TOKEN_NOT_REVOCABLE", public.revoke_api_key, request)
    assert verify(api, secret).is_valid


def jwks(api, public):
    for base in (api, public):
        # The response is the key set itself, which the SDK's type keeps beside its member `jwks`.
        keys = base.get_jwks().additional_properties["keys"]
        equal([(key["kty"], key["kid"], key["use"]) for key in keys], [("OKP", "it-1", "sig")])
        assert "d" not in keys[0], "the private half is published"


def main():
    admin_url, public_url, issuer = sys.argv[1:]
    api, public = Api(admin_url), Api(public_url)
    issue_and_get(api)
    verify_one(api, issuer)
    list_both(api)
    derive(api, issuer)
    import_one(api)
    revoke_and_delete(api)
    self_revoke(api, public)
    jwks(api, public)
    update_both(api)
    rotate(api)
    import_many(api)
    verify_many(api)
    missing = Api.operations() - Api.called
    assert len(Api.operations()) == 18 and not missing, f"never called: {sorted(missing)}"


if __name__ == "__main__":
    main()
