//! The headers that the upstream believes: only ours, however a client spells its own.

use serde_json::json;

use super::Edge;
use crate::rig::http::{BOTH, Call};
use crate::rig::talos::{Key, NETWORK, Setup};

/// Spellings that some server somewhere reads as `x-talos-actor-id`, and names that may become ours
/// one day.
const FORGED: [&str; 7] = [
    "x-talos-actor-id",
    "x-talos-key-id",
    "x-talos-scopes",
    "x-talos-network-id",
    "x-talos-foo",
    // Servers with CGI's variables take each of these characters for an underscore.
    "x.talos.actor.id",
    "x~talos!actor'id",
];
const FORGED_WITH_UNDERSCORES: [&str; 5] =
    ["x_talos_actor_id", "x-talos_actor-id", "x_talos-key_id", "x-talos-actor_id", "x_talos_foo"];

const ALLOW_UNDERSCORES: [(&str, &str); 1] =
    [("headers_with_underscores_action: REJECT_REQUEST", "headers_with_underscores_action: ALLOW")];

fn forged(mut call: Call, names: &[&str]) -> Call {
    for name in names {
        call = call.header(name, "mallory");
    }
    call
}

fn identity_of(key: &Key) -> [(&str, &str); 4] {
    [
        ("x-talos-actor-id", "alice"),
        ("x-talos-key-id", &key.id),
        ("x-talos-network-id", NETWORK),
        ("x-talos-scopes", "a"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_a_client_forged_never_reach_the_upstream() {
    needs!(Envoy);
    let edge = Edge::start().await;
    let key = edge.talos.issue(json!({ "scopes": ["a"] })).await;
    for version in BOTH {
        // All at once, each alone, and one twice.
        let mut sets: Vec<Vec<&str>> = FORGED.iter().map(|name| vec![*name]).collect();
        sets.extend([FORGED.to_vec(), vec![FORGED[0], FORGED[0]]]);
        for names in sets {
            let seen = edge.passes(version, forged(Call::get("/").bearer(&key.secret), &names)).await;
            assert_eq!(seen.identity(), identity_of(&key), "{names:?}");
            let seen = edge.passes(version, forged(Call::get("/anonymous"), &names)).await;
            assert_eq!(seen.identity(), [], "{names:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_case_of_a_forged_name_does_not_matter() {
    needs!(Envoy);
    let edge = Edge::start().await;
    let key = edge.talos.issue(json!({ "scopes": ["a"] })).await;
    // HTTP/2 has lower case only.
    for name in ["X-Talos-Actor-Id", "X-TALOS-ACTOR-ID", "x-tAlOs-aCtOr-iD", "X-Talos-Foo"] {
        for (path, credential) in [("/", key.secret.as_str()), ("/anonymous", "")] {
            let authorization = if credential.is_empty() {
                String::new()
            } else {
                format!("authorization: Bearer {credential}\r\n")
            };
            let request = format!(
                "GET {path} HTTP/1.1\r\nhost: edge\r\n{authorization}{name}: mallory\r\nconnection: close\r\n\r\n"
            );
            let answer = edge.envoy.edge.raw(request.as_bytes()).await;
            assert_eq!(answer.status(), 200, "{name}: {}", answer.head);
            let seen = edge.seen();
            match credential {
                "" => assert_eq!(seen.identity(), [], "{name}"),
                _ => assert_eq!(seen.identity(), identity_of(&key), "{name}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_names_with_underscores_are_removed_where_envoy_lets_them_in() {
    needs!(Envoy);
    let edge = Edge::with(Setup::new(), &ALLOW_UNDERSCORES).await;
    let key = edge.talos.issue(json!({ "scopes": ["a"] })).await;
    for version in BOTH {
        for names in
            FORGED_WITH_UNDERSCORES.iter().map(std::slice::from_ref).chain([&FORGED_WITH_UNDERSCORES[..]])
        {
            let seen = edge.passes(version, forged(Call::get("/").bearer(&key.secret), names)).await;
            assert_eq!(seen.identity(), identity_of(&key), "{names:?}");
            let seen = edge.passes(version, forged(Call::get("/anonymous"), names)).await;
            assert_eq!(seen.identity(), [], "{names:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn envoy_as_we_ship_it_lets_no_underscores_in() {
    needs!(Envoy);
    let edge = Edge::start().await;
    for version in BOTH {
        for name in FORGED_WITH_UNDERSCORES {
            // Over HTTP/2 Envoy may reset the stream instead of answering.
            let answer =
                edge.envoy.edge.try_send(version, Call::get("/anonymous").header(name, "mallory")).await;
            assert!(answer.as_ref().map_or(true, |reply| reply.status == 400), "{name}: {answer:?}");
            assert_eq!(edge.upstream.take().len(), 0, "{name} reached the upstream");
        }
    }
}

/// The header is percent-encoded so that no two actors are one, and none is lost on the way.
#[tokio::test(flavor = "multi_thread")]
async fn different_actors_are_different_headers() {
    needs!(Envoy);
    let edge = Edge::start().await;
    let actors = [
        ("zoë@例", "zo%C3%AB@%E4%BE%8B"),
        ("jürgen", "j%C3%BCrgen"),
        ("j%C3%BCrgen", "j%25C3%25BCrgen"),
        ("100%", "100%25"),
        ("a b", "a b"),
    ];
    for (actor, header) in actors {
        let key = edge.talos.issue(json!({ "actor_id": actor })).await;
        for version in BOTH {
            let seen = edge.passes(version, Call::get("/").bearer(&key.secret)).await;
            assert_eq!(seen.header("x-talos-actor-id"), Some(header), "{actor}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_without_scopes_sends_no_empty_header() {
    needs!(Envoy);
    let edge = Edge::start().await;
    let key = edge.talos.issue(json!({})).await;
    for version in BOTH {
        let seen =
            edge.passes(version, Call::get("/").bearer(&key.secret).header("x-talos-scopes", "admin")).await;
        assert_eq!(seen.header("x-talos-scopes"), None);
    }
}
