//! Tests of how admin callers authenticate: certificates, forwarded ones, the socket, and tokens.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::xfcc::tests::Forged;
use super::*;
use crate::caller::{Certificate, UnusableNames};
use crate::config::{AuthJwt, AuthXfcc};
use crate::credential::jwk::KeySet;
use crate::credential::jwt;
use crate::credential::new_jwk::{NewKey, generate};
use crate::rng::Rng;

fn now() -> Timestamp {
    Timestamp::from_rfc3339("2026-01-01T00:00:00Z").unwrap()
}

fn roles() -> AuthRoles {
    let list = |name: &str| vec![name.to_owned()];
    AuthRoles {
        viewer: list("spiffe://a/viewer"),
        issuer: list("Issuer.Example"),
        admin: list("spiffe://a/admin"),
    }
}

fn admin_auth(auth: Auth) -> AdminAuth {
    AdminAuth::new(&auth, 1000, Clock::manual(now()))
}

fn showing(uris: &[&str], dns: &[&str]) -> Peer {
    let names = Names::new(uris.iter().copied(), dns.iter().copied());
    let certificate = Certificate { names, expires: now().plus(Duration::from_secs(1)) };
    Peer { address: Some([192, 0, 2, 1].into()), certificate: Some(Arc::new(certificate)), uid: None }
}

#[test]
fn a_certificate_has_the_role_of_its_exact_name() {
    let admin_auth = admin_auth(Auth { mode: AuthMode::Mtls, ..Auth::default() });
    let admit = |peer: &Peer| admin_auth.authenticate(peer, &PresentedCredentials::default(), &roles());
    let role =
        |uris: &[&str], dns: &[&str]| admit(&showing(uris, dns)).map(|caller| (caller.name, caller.role));
    assert_eq!(role(&["spiffe://a/admin"], &[]), Ok(("spiffe://a/admin".to_owned(), Role::Admin)));
    assert_eq!(role(&["spiffe://a/viewer"], &["x"]), Ok(("spiffe://a/viewer".to_owned(), Role::Viewer)));
    assert_eq!(role(&[], &["x", "issuer.example"]), Ok(("issuer.example".to_owned(), Role::Issuer)));
    for uri in ["spiffe://a/admin/", "spiffe://A/admin", "spiffe://a/admins", "spiffe://a", "spiffe://a/*"] {
        assert_eq!(role(&[uri], &[]), Err(AuthError::NoRole(uri.to_owned())));
    }
    // A URI doesn't match a host name, nor the reverse.
    assert_eq!(role(&["issuer.example"], &[]), Err(AuthError::NoRole("issuer.example".to_owned())));
    assert_eq!(role(&[], &["spiffe://a/admin"]), Err(AuthError::NoRole("spiffe://a/admin".to_owned())));
    let refused = |peer: &Peer| match admit(peer) {
        Err(AuthError::Unidentified(why)) => why,
        other => panic!("{other:?}"),
    };
    assert!(refused(&showing(&["spiffe://a/admin", "spiffe://b"], &[])).contains("more than one URI"));
    assert!(refused(&showing(&["spiffe://a/admin\0"], &[])).contains("character"));
    assert!(refused(&showing(&["uid:0"], &[])).contains("uid:"));
    assert!(refused(&Peer { certificate: None, ..showing(&[], &[]) }).contains("no certificate"));
    let mut old = showing(&["spiffe://a/admin"], &[]);
    let names = Names::new(["spiffe://a/admin"], []);
    old.certificate = Some(Arc::new(Certificate { names, expires: now() }));
    assert!(refused(&old).contains("expired"));
    let unusable =
        Certificate { names: Err(UnusableNames::Malformed), expires: now().plus(Duration::from_secs(9)) };
    assert!(refused(&Peer { certificate: Some(Arc::new(unusable)), ..old }).contains("malformed"));
}

#[test]
fn a_forwarded_certificate_counts_from_listed_peers_alone() {
    let peers = ["spiffe://a/gateway", "10.0.0.0/8", "127.0.0.6"].map(str::to_owned).to_vec();
    let admin_auth = admin_auth(Auth { mode: AuthMode::Xfcc, xfcc: AuthXfcc { peers }, ..Auth::default() });
    let header = Forged::new(&["spiffe://a/admin"], &[]).element();
    let shown =
        PresentedCredentials { forwarded: vec![header.as_bytes()], ..PresentedCredentials::default() };
    // Even trusted peers must forward the certificate.
    let names = PresentedCredentials {
        forwarded: vec![b"By=spiffe://a/gateway;Hash=00;URI=spiffe://a/admin"],
        ..PresentedCredentials::default()
    };
    let at = |address: [u8; 4]| Peer { address: Some(address.into()), ..Peer::default() };
    for peer in [showing(&["spiffe://a/gateway"], &[]), at([10, 1, 2, 3]), at([127, 0, 0, 6])] {
        let caller = admin_auth.authenticate(&peer, &shown, &roles()).unwrap();
        assert_eq!((caller.role, caller.proof), (Role::Admin, Proof::ForwardedCertificate));
        assert!(
            admin_auth.authenticate(&peer, &PresentedCredentials::default(), &roles()).is_err(),
            "no header"
        );
        let Err(AuthError::Unidentified(why)) = admin_auth.authenticate(&peer, &names, &roles()) else {
            panic!("names alone")
        };
        assert!(why.contains("cert: true"), "{why}");
    }
    // A peer that isn't listed doesn't even get its own role.
    for peer in [showing(&["spiffe://a/admin"], &[]), at([127, 0, 0, 1]), Peer::default()] {
        let refused = admin_auth.authenticate(&peer, &shown, &roles());
        assert!(matches!(refused, Err(AuthError::Unidentified(_))), "{refused:?}");
    }
}

#[test]
fn over_the_socket_the_user_counts_in_every_mode() {
    for mode in [AuthMode::None, AuthMode::Mtls, AuthMode::Xfcc, AuthMode::Jwt] {
        for (uids, uid, admitted) in
            [(vec![], 1000, true), (vec![], 0, false), (vec![0, 7], 7, true), (vec![7], 1000, false)]
        {
            let admin_auth = admin_auth(Auth { mode, unix_uids: uids, ..Auth::default() });
            let peer = Peer { uid: Some(uid), ..Peer::default() };
            let caller = admin_auth.authenticate(&peer, &PresentedCredentials::default(), &roles());
            assert_eq!(caller.is_ok(), admitted, "{mode:?} {uid}: {caller:?}");
        }
    }
}

#[test]
fn a_token_must_be_good_in_every_respect() {
    let new_set = || {
        let jwk = generate(NewKey::Ed25519, Some("one"), &Rng::system()).unwrap();
        let mut keys = KeySet::default();
        keys.read(&json!({ "keys": [jwk] }).to_string()).unwrap();
        keys
    };
    let (ours, theirs) = (new_set(), new_set());
    let jwt_settings = AuthJwt {
        issuer: Some("https://issuer".to_owned()),
        audience: Some("talos".to_owned()),
        claim: "groups".to_owned(),
        ..AuthJwt::default()
    };
    let admin_auth = admin_auth(Auth { mode: AuthMode::Jwt, jwt: jwt_settings, ..Auth::default() });
    let bearer = admin_auth.token_verifier().unwrap();
    let at = now().as_secs();
    let claims = json!({ "iss": "https://issuer", "aud": ["x", "talos"], "sub": "alice", "exp": at, "nbf": at,
        "groups": ["x", "spiffe://a/admin"] });
    let sign =
        |keys: &KeySet, claims: &Value| jwt::sign(keys.signing(None).unwrap(), &claims.to_string()).unwrap();
    let good = sign(&ours, &claims);
    assert_eq!(bearer.verify(&good, now()), Err(TokenError::UnknownKey));
    assert!(bearer.take_unknown_key_seen() && !bearer.take_unknown_key_seen());
    assert!(
        bearer.replace_keys("{}").is_err()
            && bearer.replace_keys(r#"{"keys":[{"kty":"oct","k":"AA"}]}"#).is_err()
    );
    let weak = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"one","x":"AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}]}"#;
    assert_eq!(bearer.replace_keys(weak), Err("has a key that anybody can sign with"));
    assert_eq!(bearer.replace_keys(&ours.public_json()), Ok(1));

    let authorization = format!("Bearer {good}");
    let shown = PresentedCredentials {
        authorization: vec![authorization.as_bytes()],
        ..PresentedCredentials::default()
    };
    let caller = admin_auth.authenticate(&Peer::default(), &shown, &roles()).unwrap();
    assert_eq!(caller, Caller { name: "alice".to_owned(), proof: Proof::Token, role: Role::Admin });
    let twice = PresentedCredentials {
        authorization: vec![authorization.as_bytes(); 2],
        ..PresentedCredentials::default()
    };
    assert!(admin_auth.authenticate(&Peer::default(), &twice, &roles()).is_err());
    assert_eq!(
        admin_auth.authenticate(&Peer::default(), &shown, &AuthRoles::default()),
        Err(AuthError::NoRole("alice".to_owned()))
    );

    assert_eq!(bearer.verify(&sign(&theirs, &claims), now()), Err(TokenError::Signature));
    let with = |name: &str, value: Value| {
        let mut claims = claims.clone();
        claims[name] = value;
        bearer.verify(&sign(&ours, &claims), now())
    };
    for (name, value, error) in [
        ("iss", json!("https://issuer/"), TokenError::Issuer),
        ("iss", json!(["https://issuer"]), TokenError::Issuer),
        ("aud", json!("talos2"), TokenError::Audience),
        ("aud", json!([]), TokenError::Audience),
        ("exp", json!(at - 30), TokenError::Time),
        ("exp", json!("never"), TokenError::Time),
        ("exp", Value::Null, TokenError::Time),
        ("nbf", json!(at + 31), TokenError::Time),
        ("nbf", json!("now"), TokenError::Time),
        ("sub", json!(""), TokenError::Subject),
        ("sub", json!(7), TokenError::Subject),
        ("sub", json!("alice\u{0}"), TokenError::Subject),
        ("sub", json!("a".repeat(256)), TokenError::Subject),
        ("sub", json!("uid:0"), TokenError::Subject),
    ] {
        assert_eq!(with(name, value.clone()), Err(error), "{name}: {value}");
    }
    assert!(with("exp", json!(at - 29)).is_ok() && with("nbf", json!(at + 30)).is_ok());
    assert!(with("aud", json!("talos")).is_ok());
    for token in ["", "a.b.c", &good[1..], &"x".repeat(20_000)] {
        assert!(bearer.verify(token, now()).is_err(), "{token:.20}");
    }
}
