//! Our message types, which have few fields, against Envoy's full ones.

use std::collections::HashMap;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::service::auth::v3 as full;
use envoy_types::pb::envoy::service::auth::v3::attribute_context as context;
use proptest::prelude::{Just, Strategy, any, prop, prop_assert_eq, prop_oneof, proptest};
use prost::Message;

use super::attributes::Attributes;
use super::denied_response::encode_denied;
use super::deny_reason::DenyReason;
use super::identity_headers::IDENTITY_HEADERS;
use super::request::{Headers, Malformed};
use super::response::{Extras, encode_anonymous, encode_with_extras};
use super::sources::PresentedCredential;
use super::template::Templates;
use crate::config::{Authz, CredentialSource, HeaderForm};

fn settings() -> Authz {
    Authz {
        sources: vec![CredentialSource::Header { name: "x-api-key".into(), form: HeaderForm::Bare }],
        ..Authz::default()
    }
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![Just("x-api-key".to_owned()), Just("authorization".to_owned()), "[a-zX_-]{1,12}"]
}

fn request(lines: &[(String, String)], raw: bool, peer: &str) -> full::CheckRequest {
    let header = |(key, value): &(String, String)| core::HeaderValue {
        key: key.clone(),
        raw_value: value.clone().into_bytes(),
        ..Default::default()
    };
    let address = core::SocketAddress { address: peer.into(), ..Default::default() };
    full::CheckRequest {
        attributes: Some(full::AttributeContext {
            source: Some(context::Peer {
                address: Some(core::Address {
                    address: Some(core::address::Address::SocketAddress(address)),
                }),
                principal: "spiffe://a".into(),
                ..Default::default()
            }),
            request: Some(context::Request {
                time: Some(Default::default()),
                http: Some(context::HttpRequest {
                    id: "1".into(),
                    method: "GET".into(),
                    path: "/a?b".into(),
                    headers: if raw { HashMap::new() } else { lines.iter().cloned().collect() },
                    header_map: raw.then(|| core::HeaderMap { headers: lines.iter().map(header).collect() }),
                    body: "ignored".into(),
                    ..Default::default()
                }),
            }),
            context_extensions: HashMap::from([("talos.mode".into(), "off".into())]),
            ..Default::default()
        }),
    }
}

proptest! {
    #[test]
    fn check_requests_of_envoy_are_read(
        lines in prop::collection::vec((name(), "\\PC{0,20}"), 0..8), raw: bool, peer: std::net::IpAddr,
    ) {
        let lines: Vec<_> = if raw {
            lines
        } else {
            lines.into_iter().collect::<HashMap<_, _>>().into_iter().collect()
        };
        let bytes = request(&lines, raw, &peer.to_string()).encode_to_vec();
        let ours = Attributes::decode(&bytes).unwrap();
        let headers = Headers::of(&ours);
        let mut read: Vec<(String, String)> = headers
            .lines()
            .map(|(key, value)| (String::from_utf8_lossy(key).into(), String::from_utf8_lossy(value).into()))
            .collect();
        let mut expected = lines;
        read.sort();
        expected.sort();
        prop_assert_eq!(read, expected);
        prop_assert_eq!(headers.client_address(&settings()), Some(peer));
        prop_assert_eq!(headers.path(), b"/a?b");
        prop_assert_eq!(&ours.context_extensions, &[(&b"talos.mode"[..], &b"off"[..])]);
    }

    #[test]
    fn envoy_reads_our_responses(
        remove in prop::collection::vec("[a-z_-]{1,300}", 0..5), cookie in "\\PC{0,300}",
    ) {
        let mut extras = Extras::default();
        for name in &remove {
            extras.remove_header(name.as_bytes());
        }
        extras.set_header("cookie", &cookie);
        extras.add_response_header("sec-websocket-protocol", "bearer");
        let bytes = encode_with_extras(encode_anonymous(&settings(), "anonymous"), &extras);
        let answer = full::CheckResponse::decode(bytes).unwrap();
        prop_assert_eq!(answer.status.unwrap().code, 0);
        let Some(full::check_response::HttpResponse::OkResponse(answer)) = answer.http_response else {
            panic!("not an OK");
        };
        let known = IDENTITY_HEADERS.iter().map(|name| (*name).to_owned());
        prop_assert_eq!(answer.headers_to_remove, known.chain(remove).collect::<Vec<_>>());
        prop_assert_eq!(&answer.response_headers_to_add[0].header.as_ref().unwrap().value, "bearer");
        prop_assert_eq!(&answer.headers[0].header.as_ref().unwrap().value, &cookie);
        prop_assert_eq!(answer.headers[0].append_action, 2);
    }

    #[test]
    fn any_bytes_are_a_request_or_an_error(bytes in any::<Vec<u8>>()) {
        if let Ok(attributes) = Attributes::decode(&bytes) {
            let _ = PresentedCredential::find(&Headers::of(&attributes), &settings().sources);
        }
    }
}

#[test]
fn refusals_carry_their_http_status() {
    for (reason, status) in [
        (DenyReason::Missing, 401),
        (DenyReason::Malformed(Malformed::Ambiguous), 400),
        (DenyReason::Publishable, 403),
        (DenyReason::Misconfigured, 500),
        (DenyReason::Unavailable, 503),
    ] {
        let nothing = Attributes::default();
        let answer =
            encode_denied(reason.into(), &settings(), &Templates::default(), &Headers::of(&nothing), "id-1");
        let answer = full::CheckResponse::decode(answer).unwrap();
        assert_ne!(answer.status.unwrap().code, 0);
        let Some(full::check_response::HttpResponse::DeniedResponse(answer)) = answer.http_response else {
            panic!("not a refusal");
        };
        assert_eq!(answer.status.unwrap().code, status);
    }
}
