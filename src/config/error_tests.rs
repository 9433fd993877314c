//! Errors of wrong configurations: each table's row is a setting and the start of its error.

use std::fmt::Write as _;

use super::tests::{config, load_with, variables};
use super::*;
use crate::plane::{Plane, Planes};

fn error(yaml: &str, env: &[(&str, &str)]) -> String {
    load_with(yaml, env).expect_err(yaml).to_string()
}

#[test]
fn file_errors_name_the_key_and_the_file() {
    let table = [
        ("nope: 1", "nope: unknown key ("),
        ("serve: {http: {prot: 1}}", "serve.http.prot: unknown key ("),
        ("serve.http: {port: 1}", "serve.http: unknown key ("),
        ("1: 2", "top level: has a key that is not a text"),
        ("serve: 5", "serve: must be a mapping"),
        (
            "serve: {http: {port: 70000}}",
            "serve.http.port: invalid value: integer `70000`, expected a whole number from 0 to 65535 (",
        ),
        (
            "serve: {http: {port: x}}",
            "serve.http.port: invalid type: string \"x\", expected a whole number from 0 to 65535 (",
        ),
        ("serve: {http: {port: -1}}", "serve.http.port: "),
        (
            "log: {level: loud}",
            "log.level: unknown variant `loud`, expected one of `trace`, `debug`, `info`, `warn`, `error` (",
        ),
        ("log: {format: xml}", "log.format: unknown variant `xml`, expected `json` or `text` ("),
        ("cache: {ttl: 5}", "cache.ttl: a duration needs a unit"),
        ("cache: {ttl: -5m}", "cache.ttl: a duration has no sign"),
        ("cache: {enabled: maybe}", "cache.enabled: "),
        (
            "authz: {sources: [{header: a}, {header: b, query: c}]}",
            "authz.sources[1]: exactly one of header, query, cookie, path and websocket_protocol is needed (",
        ),
        (
            "authz: {sources: [{query: c, scheme: Bearer}]}",
            "authz.sources[0]: scheme goes with header only (",
        ),
        ("authz: {sources: [{header: 'a b'}]}", "authz.sources[0]: header must be a header name ("),
        ("authz: {sources: [{heder: a}]}", "authz.sources[0]"),
        (
            "authz: {sources: [{header: a, scheme: Bearer, key_in: user}]}",
            "authz.sources[0]: key_in goes with scheme Basic only (",
        ),
        (
            "authz: {sources: [{header: a, key_in: user}]}",
            "authz.sources[0]: scheme_optional and key_in go with a",
        ),
        (
            "authz: {sources: [{query: a, key_in: user}]}",
            "authz.sources[0]: scheme_optional and key_in go with header",
        ),
        (
            "authz: {sources: [{header: a, scheme: Basic, key_in: both}]}",
            "authz.sources[0].key_in: unknown variant",
        ),
        (
            "authz: {sources: [{header: a, scheme: basic, scheme_optional: true}]}",
            "authz.sources[0]: scheme_optional can't be true with scheme Basic (",
        ),
        (
            "authz: {sources: [{header: a, scheme: A, scheme_optional: x}]}",
            "authz.sources[0].scheme_optional: must be true or false",
        ),
        ("authz: {sources: [{path: /v2}]}", "authz.sources[0]: path must have the segment {key} once"),
        ("authz: {sources: [{path: v2}]}", "authz.sources[0]: path must start with /"),
        ("authz: {sources: [{websocket_protocol: 'a b'}]}", "authz.sources[0]: websocket_protocol must be"),
        ("authz: {token_header: 'a:b'}", "authz.token_header: must be a header name ("),
        (
            "authz: {routes: [{mode: maybe}]}",
            "authz.routes[0].mode: must be one of required, optional, off (",
        ),
        ("authz: {routes: [{token: maybe}]}", "authz.routes[0].token: must be one of jwt, none ("),
        ("authz: {routes: [{visibility: public}]}", "authz.routes[0].visibility: must be secret ("),
        ("authz: {routes: [{scopes: ''}]}", "authz.routes[0].scopes: must name 1 to 100 scopes ("),
        ("authz: {routes: [{scopes: 'a a'}]}", "authz.routes[0].scopes: [1] stands there twice ("),
        ("authz: {routes: [{path: {exact: x}}]}", "authz.routes[0].path: a path starts with / ("),
        ("authz: {routes: [{path: {prefix: //x}}]}", "authz.routes[0].path: a path has no //"),
        ("authz: {routes: [{path: {prefix: /x/../y}}]}", "authz.routes[0].path: a path has no //"),
        ("authz: {routes: [{path: {template: '/a{b}'}}]}", "authz.routes[0].path: a template has braces"),
        ("authz: {routes: [{path: {exact: /a, prefix: /b}}]}", "authz.routes[0].path: exactly one of"),
        ("authz: {routes: [{host: 'a.example:80'}]}", "authz.routes[0].host: must be a host name"),
        ("authz: {routes: [{methods: ['G T']}]}", "authz.routes[0].methods: must be methods"),
        ("authz: {routes: [{methods: ['*']}]}", "authz.routes[0].methods: must be methods"),
        (
            "authz: {routes: [{path: {exact: '/a%20b'}}]}",
            "authz.routes[0].path: a path is compared after decoding",
        ),
        ("authz: {routes: [{path: {template: '/%7Bid%7D'}}]}", "authz.routes[0].path: a path is compared"),
        ("authz: {sources: [{header: X-Talos-Key-Id}]}", "authz.sources[0]: must not begin with x-talos-"),
        ("authz: {sources: [{header: Cookie}]}", "authz.sources[0]: must not be a header that requests need"),
        ("credentials: {issuer_retired: [{value: a, expires_at: soon}]}", "credentials.issuer_retired[0]"),
        (
            "serve: {http: {auth: {mode: xfcc, xfcc: {peers: ['::1', 10.0.0.0/33]}, roles: {admin: [a]}}}}",
            "serve.http.auth.xfcc.peers[1]: must be a block of addresses",
        ),
    ];
    for (yaml, expected) in table {
        let text = error(yaml, &[]);
        assert!(text.starts_with(expected), "{yaml}: {text}");
        assert!(text.contains("talos.yaml)"), "{yaml}: {text}");
    }
}

#[test]
fn environment_errors_name_the_variable() {
    let table: &[(&[(&str, &str)], &str)] = &[
        (
            &[("TALOS_SERVE_HTTP_PORT", "x")],
            "serve.http.port: must be a whole number from 0 (TALOS_SERVE_HTTP_PORT)",
        ),
        (
            &[("TALOS_SERVE_HTTP_PORT", "70000")],
            "serve.http.port: invalid value: integer `70000`, expected a whole number from 0 to 65535 (TALOS_SERVE_HTTP_PORT)",
        ),
        (&[("TALOS_CACHE_ENABLED", "yes")], "cache.enabled: must be true or false (TALOS_CACHE_ENABLED)"),
        (
            &[("TALOS_TRACING_SAMPLE_RATE", "NaN")],
            "tracing.sample_rate: must be a number (TALOS_TRACING_SAMPLE_RATE)",
        ),
        (
            &[("TALOS_CACHE_TTL", "5")],
            "cache.ttl: a duration needs a unit after its number: ns, us, ms, s, m, h, d, w, mo or y (TALOS_CACHE_TTL)",
        ),
        (
            &[("TALOS_AUTHZ_ROUTES", "{")],
            "authz.routes: must be a list, as JSON or YAML (TALOS_AUTHZ_ROUTES)",
        ),
        (
            &[("TALOS_AUTHZ_ROUTES_0", "x")],
            "authz.routes[0]: must be a mapping, as JSON or YAML (TALOS_AUTHZ_ROUTES_0)",
        ),
        (
            &[("TALOS_CREDENTIALS_ISSUER_RETIRED", "a,,b")],
            "credentials.issuer_retired: has an empty item (TALOS_CREDENTIALS_ISSUER_RETIRED)",
        ),
        (
            &[("TALOS_CREDENTIALS_ISSUER_RETIRED_1", "a")],
            "credentials.issuer_retired: has a gap: TALOS_CREDENTIALS_ISSUER_RETIRED_0 is not set (TALOS_CREDENTIALS_ISSUER_RETIRED)",
        ),
        (
            &[("TALOS_CREDENTIALS_ISSUER_RETIRED", "a"), ("TALOS_CREDENTIALS_ISSUER_RETIRED_0", "a")],
            "credentials.issuer_retired: is set both as a whole and by index; use one form (TALOS_CREDENTIALS_ISSUER_RETIRED)",
        ),
        (
            &[("TALOS_AUTHZ_SOURCES_0_HEADER", "a"), ("TALOS_AUTHZ_SOURCES_0_QUERY", "b")],
            "authz.sources[0]: exactly one of header, query, cookie, path and websocket_protocol is needed (TALOS_AUTHZ_SOURCES_0)",
        ),
        (
            &[("TALOS_CREDENTIALS_API_KEYS_PREFIX_RETIRED", "ak,a-b")],
            "credentials.api_keys.prefix.retired[1]: must be 1 to 16 letters, digits and underscores; it is piece 2 \
             of the variable, which is split at commas: if a comma belongs to the value, set \
             TALOS_CREDENTIALS_API_KEYS_PREFIX_RETIRED_0 instead (TALOS_CREDENTIALS_API_KEYS_PREFIX_RETIRED)",
        ),
        (
            &[("TALOS_AUTHZ_ROUTES_0_HOST", "a.example")],
            "authz.routes[0]: has no field that this variable sets (TALOS_AUTHZ_ROUTES_0_HOST); set \
             TALOS_AUTHZ_ROUTES_0 to a mapping, or TALOS_AUTHZ_ROUTES to the whole list, as JSON or YAML",
        ),
        (
            &[("TALOS_ISSUANCE_POLICIES_12_NAME", "a")],
            "issuance_policies[12]: has no field that this variable sets (TALOS_ISSUANCE_POLICIES_12_NAME); set \
             TALOS_ISSUANCE_POLICIES_12 to a mapping, or TALOS_ISSUANCE_POLICIES to the whole list, as JSON or YAML",
        ),
        (
            &[("TALOS_SECRETS_HMAC_RETIRED_0_VALU", "hunter2")],
            "secrets.hmac.retired[0]: has no field that this variable sets (TALOS_SECRETS_HMAC_RETIRED_0_VALU); after \
             TALOS_SECRETS_HMAC_RETIRED_0_ comes one of VALUE, EXPIRES_AT",
        ),
        (
            &[("TALOS_SERVE_HTTP_ALLOWED_HOSTS_0_NAME", "a")],
            "serve.http.allowed_hosts[0]: has no field that this variable sets (TALOS_SERVE_HTTP_ALLOWED_HOSTS_0_NAME); \
             set TALOS_SERVE_HTTP_ALLOWED_HOSTS_0 to the text",
        ),
        (
            &[("TALOS_ROLES_0_A", "a")],
            "roles[0]: has no field that this variable sets (TALOS_ROLES_0_A); set TALOS_ROLES to the whole mapping, as \
             JSON or YAML",
        ),
        (
            &[("TALOS_SECRETS_HMAC_CURRENT", "short")],
            "secrets.hmac.current: must have at least 32 characters (TALOS_SECRETS_HMAC_CURRENT)",
        ),
    ];
    for (env, expected) in table {
        assert_eq!(error("", env), *expected);
    }
}

#[test]
fn rules_beyond_types() {
    let table = [
        ("secrets: {hmac: {current: short}}", "secrets.hmac.current: must have at least 32 characters"),
        ("secrets: {hmac: {retired: ['']}}", "secrets.hmac.retired[0]: must have at least 32 characters ("),
        (
            "audit: {key_retired: [{value: short}]}",
            "audit.key_retired[0]: must have at least 32 characters (",
        ),
        ("credentials: {issuer: ''}", "credentials.issuer: must not be empty"),
        (
            "credentials: {api_keys: {prefix: {current: 'a-b'}}}",
            "credentials.api_keys.prefix.current: must be 1 to 16",
        ),
        (
            "credentials: {api_keys: {prefix: {retired: [{value: '12345678901234567'}]}}}",
            "credentials.api_keys.prefix.retired[0]: must be 1 to 16",
        ),
        (
            "credentials: {api_keys: {prefix: {public_current: ory_ak}}}",
            "credentials.api_keys.prefix.public_current: is a secret key's",
        ),
        (
            "credentials: {api_keys: {prefix: {retired: [p], public_retired: [p]}}}",
            "credentials.api_keys.prefix.public_retired[0]: is a secret key's",
        ),
        (
            "credentials: {api_keys: {prefix: {current: mc}}}",
            "credentials.derived_tokens.macaroon.prefix.current: is an API key's",
        ),
        (
            "credentials: {api_keys: {prefix: {retired: [mc_v1_x]}}}",
            "credentials.derived_tokens.macaroon.prefix.current: is an API key's",
        ),
        (
            "serve: {public: {host: 127.0.0.1, port: 4420}}",
            "serve.public.port: is serve.http's address already",
        ),
        ("serve: {public: {port: 4423}}", "serve.authz.port: is serve.public's address already"),
        (
            "serve: {authz: {host: LOCALHOST, port: 1}, metrics: {host: localhost, port: 1}}",
            "serve.authz.port: is serve.metrics's",
        ),
        ("serve: {http: {tls: {cert_file: a}}}", "serve.http.tls.key_file: is needed beside cert_file"),
        ("cache: {ttl: 0}", "cache.ttl: must be above 0"),
        ("consistency: {poll: 0}", "consistency.poll: must be above 0"),
        ("consistency: {poll: 5s}", "consistency.poll: must be below consistency.lease"),
        ("authz: {token_ttl: 25h}", "authz.token_ttl: must be at most credentials.derived_tokens.max_ttl"),
        ("authz: {token_ttl: 1ms}", "authz.token_ttl: must be at least 1s"),
        (
            "credentials: {derived_tokens: {default_ttl: 2d}}",
            "credentials.derived_tokens.default_ttl: must be at most",
        ),
        (
            "credentials: {api_keys: {default_ttl: 2y}}",
            "credentials.api_keys.default_ttl: must be at most credentials.api_keys.max_ttl",
        ),
        (
            "credentials: {derived_tokens: {jwt: {signing_keys: {urls: [http://x]}}}}",
            "credentials.derived_tokens.jwt.signing_keys.urls[0]: must begin with",
        ),
        (
            "serve: {http: {auth: {jwt: {jwks: 'https:///'}}}}",
            "serve.http.auth.jwt.jwks: must be a URL such as https://keys.example/jwks.json",
        ),
        ("authz: {sources: []}", "authz.sources: must name at least one source"),
        (
            "authz: {sources: [{header: A, scheme: Bearer}, {header: a, scheme: BEARER}]}",
            "authz.sources[1]: reads what an earlier",
        ),
        (
            "authz: {sources: [{header: A}, {header: a, scheme: Bearer}]}",
            "authz.sources[1]: reads what an earlier",
        ),
        ("authz: {sources: [{query: a}, {query: a}]}", "authz.sources[1]: reads what an earlier"),
        (
            "authz: {sources: [{path: '/v2/{key}'}, {path: '/{a}/{key}/x'}]}",
            "authz.sources[1]: reads what an earlier",
        ),
        (
            "authz: {sources: [{header: a, scheme: A, scheme_optional: true}, {header: a}]}",
            "authz.sources[1]: reads what an earlier",
        ),
        (
            "authz: {sources: [{header: Sec-WebSocket-Protocol}, {websocket_protocol: bearer}]}",
            "authz.sources[1]: reads what an earlier",
        ),
        ("authz: {token_header: X-Talos-Token}", "authz.token_header: must not begin with x-talos-"),
        ("authz: {token_header: x_talos_token}", "authz.token_header: must not begin with x-talos-"),
        ("authz: {client_address: xff, trusted_hops: 0}", "authz.trusted_hops: must be at least 1"),
        ("authz: {realm: 'a\"b'}", "authz.realm: must be printable ASCII"),
        ("tracing: {sample_rate: 1.5}", "tracing.sample_rate: must be from 0 to 1"),
        ("tracing: {sample_rate: .nan}", "tracing.sample_rate: must be from 0 to 1"),
        ("last_used: {queue_size: 0}", "last_used.queue_size: must be 1 to 10000000"),
        ("last_used: {queue_size: 18446744073709551615}", "last_used.queue_size: must be 1 to 10000000"),
        ("last_used: {flush_size: 9223372036854775807}", "last_used.flush_size: must be 1 to 10000000"),
    ];
    for (yaml, expected) in table {
        let text = error(yaml, &[]);
        assert!(text.starts_with(expected), "{yaml}: {text}");
    }
    for yaml in [
        "serve: {http: {port: 0}, metrics: {port: 0}, authz: {port: 0}}",
        "serve: {authz: {host: 127.0.0.1, port: 4420, socket: /run/x}}",
        "authz: {sources: [{header: a, scheme: Bearer}, {header: a, scheme: ApiKey}]}",
        "authz: {sources: [{header: a, scheme: Bearer, scheme_optional: true}, {header: a, scheme: basic, key_in: user}]}",
        "authz: {sources: [{header: a, scheme: Basic}, {path: '/v2/{key}'}, {path: '/v3/{key}'}, {websocket_protocol: a}]}",
        "authz: {trusted_hops: 0}",
        "last_used: {queue_size: 10000000, flush_size: 10000000}",
    ] {
        config(yaml, &[]);
    }
}

#[test]
fn a_url_of_a_key_set_has_a_host_and_a_port_that_can_be() {
    for (url, is_good) in [
        ("https://", false),
        ("https:///", false),
        ("https://?a", false),
        ("https://:443/x", false),
        ("https://user@/x", false),
        ("https://exa mple/x", false),
        ("https://h:99999/x", false),
        ("https://h:65536", false),
        ("https://h:x/", false),
        ("https://h:1:2/", false),
        ("https://[::1/x", false),
        ("https://[::x]/", false),
        ("https://[::1]443/", false),
        ("https://h:65535/x", true),
        ("https://h:/x y", true),
        ("https://user:p:w@h.example/x", true),
        ("https://[::1]:443/x", true),
        ("https://k\u{e4}se.example?a=b:c", true),
        ("file:///a b", true),
        ("base64://e30=", true),
    ] {
        for (key, yaml) in [
            (
                "credentials.derived_tokens.jwt.signing_keys.urls[0]",
                format!("credentials: {{derived_tokens: {{jwt: {{signing_keys: {{urls: ['{url}']}}}}}}}}"),
            ),
            ("serve.http.auth.jwt.jwks", format!("serve: {{http: {{auth: {{jwt: {{jwks: '{url}'}}}}}}}}")),
        ] {
            match load_with(&yaml, &[]) {
                Ok(_) => assert!(is_good, "{yaml}"),
                Err(error) => {
                    let text = error.to_string();
                    assert!(!is_good && text.starts_with(&format!("{key}: must be a URL such as")), "{text}");
                }
            }
        }
    }
}

#[test]
fn an_open_admin_plane_is_refused() {
    for host in ["0.0.0.0", "", "10.0.0.1", "::", "talos.internal"] {
        let yaml = format!("serve: {{http: {{host: '{host}'}}}}");
        let text = error(&yaml, &[]);
        assert!(text.starts_with("serve.http.host: ") || text.contains("\nserve.http.host: "), "{text}");
        assert!(text.contains("serve.http.trusted_network: true"), "{text}");
        config(&format!("serve: {{http: {{host: '{host}', trusted_network: true}}}}"), &[]);
        let auth =
            "auth: {mode: mtls, roles: {admin: [a]}}, tls: {cert_file: a, key_file: b, client_ca_file: c}";
        config(&format!("serve: {{http: {{host: '{host}', {auth}}}}}"), &[]);
    }
    for host in ["localhost", "127.0.0.2", "::1", "[::1]"] {
        config(&format!("serve: {{http: {{host: '{host}'}}}}"), &[]);
    }
    let env = variables(&[("TALOS_SERVE_HTTP_HOST", "0.0.0.0")]);
    let loaded = load_without_admin(None, env).unwrap();
    let alone = Planes::Only(Plane::Public);
    assert_eq!(loaded.config.serve.address(alone, Plane::Public).1, 4420);
    assert_eq!(loaded.config.serve.address(Planes::All, Plane::Public).1, 4421);
    assert_eq!(Config::default().serve.address(alone, Plane::Public).1, 4421);
}

#[test]
fn all_problems_at_once() {
    let text = error("nope: 1\nserve: {http: {port: x}}\ncache: {ttl: 0}\n", &[("TALOS_LOG_LEVEL", "loud")]);
    let keys: Vec<&str> = text.lines().map(|line| line.split(':').next().unwrap()).collect();
    assert_eq!(keys, ["nope", "log.level", "serve.http.port", "cache.ttl"], "{text}");
}

/// Sets every key to values of every type. Messages are for people who write YAML, and a text may
/// be the URL of a database with its password.
#[test]
fn messages_have_no_rust_types_and_no_passwords() {
    let types = ["i64", "u16", "u32", "u64", "usize", "f64", "struct ", "enum", "variant of", "singleton"];
    let url = "'postgres://u:hunter2@h/d'";
    let mut refused = 0;
    for key in keys::KEYS.iter() {
        for value in
            ["-7", "1.5", "{a: b}", "[a]", "[{a: b}]", "[[a]]", "[-7, 1.5]", url, &format!("[{url}]")]
        {
            let mut yaml = String::new();
            for (depth, name) in key.path.split('.').enumerate() {
                write!(yaml, "\n{}{name}:", "  ".repeat(depth)).unwrap();
            }
            writeln!(yaml, " {value}").unwrap();
            let Err(error) = load_with(&yaml, &[]) else { continue };
            let text = error.to_string();
            assert!(!types.iter().any(|name| text.contains(name)), "{yaml}: {text}");
            assert!(!text.contains("hunter2"), "{yaml}: {text}");
            refused += 1;
        }
    }
    assert!(refused > 500, "{refused}");
    for (yaml, expected) in [
        (
            "authz: {routes: [{cost: 1.5}]}",
            "authz.routes[0].cost: invalid type: floating point `1.5`, expected a whole number (",
        ),
        (
            "serve: {http: {auth: {unix_uids: [-1]}}}",
            "serve.http.auth.unix_uids[0]: must be numbers of users, from 0 to 4294967295 (",
        ),
        (
            &format!("multitenancy: {{networks: [{url}]}}"),
            "multitenancy.networks[0]: invalid type: string \"***\", expected a mapping (",
        ),
        (
            &format!("cache: {{redis: {{db: {url}}}}}"),
            "cache.redis.db: invalid type: string \"***\", expected a whole number from 0 to 4294967295 (",
        ),
        (
            &format!("authz: {{routes: [{{{url}: 1}}]}}"),
            "authz.routes[0]: unknown field `***`, expected one of `name`, `host`",
        ),
    ] {
        let text = error(yaml, &[]);
        assert!(text.starts_with(expected) && !text.contains("hunter2"), "{yaml}: {text}");
    }
}
