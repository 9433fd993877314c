//! Fixture of the fuzz targets: settings with the secrets and keys of `tests/vectors`, and an authz
//! plane with a database.

use std::rc::Rc;
use std::sync::{Arc, OnceLock};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD as BASE64, URL_SAFE_NO_PAD as BASE64URL};
use bytes::Bytes;
use serde_json::Value;

use crate::app::build;
use crate::audit::{Call, Origin};
use crate::authz::{AuthorizationService, CheckAnswer};
use crate::clock::Timestamp;
use crate::config::Source;
use crate::credential::page_token::{self, Cursor};
use crate::event::Operation;
use crate::key::{ActorId, AddressList, KeyName, NetworkId, Scopes, Visibility};
use crate::plane::{self, Planes};
use crate::rng::Rng;
use crate::service::{ImportRequest, KeyMaterial, KeyRequest, Service};

/// The current time of the targets, at which the tokens of the vectors are valid.
pub(super) const NOW: Timestamp = Timestamp::from_secs(1_790_000_000);
/// Issuer of the vectors' tokens.
pub(super) const ISSUER: &str = "https://keys.example.test";
/// An imported key that is in the database.
pub(super) const GOOD_KEY: &str = "sk_fuzz_a_good_key";

/// State shared by all targets of a process.
pub(super) struct Fixture {
    /// The service of the authz plane.
    pub service: Arc<Service>,
    /// The signed parts of all valid JWTs.
    pub signed: Vec<String>,
    /// A valid macaroon.
    pub macaroon: String,
    /// All valid page tokens.
    pub page_tokens: Vec<String>,
    authorization: AuthorizationService,
    runtime: tokio::runtime::Runtime,
}

/// Returns the fixture of this process.
pub(super) fn fixture() -> &'static Fixture {
    static FIXTURE: OnceLock<Fixture> = OnceLock::new();
    FIXTURE.get_or_init(Fixture::new)
}

impl Fixture {
    /// Returns the authz plane.
    #[cfg(test)]
    pub(super) fn authorization(&self) -> AuthorizationService {
        self.authorization.clone()
    }

    fn new() -> Self {
        let vectors: Value =
            serde_json::from_str(include_str!("../../tests/vectors/credentials.json")).expect("JSON");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let folder = format!("{}/target/tmp", env!("CARGO_MANIFEST_DIR"));
        std::fs::create_dir_all(&folder).expect("a folder for the database");
        let database = format!("{folder}/fuzz-{}.db", std::process::id());
        let yaml = serde_json::json!({
            "db": { "dsn": format!("sqlite://{database}") },
            "secrets": { "hmac": vectors["secrets"] },
            "credentials": { "issuer": ISSUER, "derived_tokens": { "jwt": { "signing_key_id": "ed-1", "signing_keys": {
                "urls": [format!("base64://{}", BASE64.encode(vectors["jwks"].to_string()))],
            } } } },
            // There is no poll in the background, so the lease must not lapse.
            "consistency": { "lease": "8760h" },
            "authz": { "sources": [
                { "header": "authorization", "scheme": "Bearer" }, { "header": "x-api-key" }, { "query": "key" }, { "cookie": "key" },
                { "path": "/v2/{key}" }, { "websocket_protocol": "bearer" },
                { "header": "x-token", "scheme": "Bearer", "scheme_optional": true },
            ] },
        });
        let loaded =
            Source::new(None, []).load_text(yaml.to_string().as_bytes()).expect("a good configuration");
        let planes = Planes::Only(plane::Plane::Authz);
        let context = runtime.block_on(async {
            let context = build(&loaded.config, planes).await.expect("a service").context;
            context.service.freshness.poll(&context.service.store).await.expect("a poll");
            let key = KeyRequest {
                name: KeyName::parse("good").expect("a name"),
                actor: ActorId::parse("me").expect("an actor"),
                scopes: Scopes::parse(&["orders:read"]).expect("scopes"),
                role: None,
                ttl: None,
                metadata: None,
                visibility: Visibility::Secret,
                addresses: AddressList::default(),
                rate_policy: None,
                rate_policies: crate::key::RatePolicies::default(),
                credits: None,
                request_id: None,
            };
            let material = KeyMaterial::Raw(GOOD_KEY.to_owned().into());
            let request = ImportRequest { material, key };
            // Ignores the error that the key exists, when a process with the same id left its
            // database.
            let call = Call::new(Arc::clone(&context.service.audit), Operation::Import, Origin::default());
            let settings = context.service.snapshot();
            drop(context.service.import(&settings, request, &call).await);
            context
        });
        let texts = |list: &str, name: &str| -> Vec<String> {
            let list = vectors[list].as_array().expect("a list").iter();
            list.filter_map(|entry| entry[name].as_str()).map(str::to_owned).collect()
        };
        let tokens = texts("jwts", "token");
        let signed =
            tokens.iter().filter_map(|token| token.rsplit_once('.')).map(|(signed, _)| signed.to_owned());
        let signed = signed.collect();
        let valid = |entry: &&Value| {
            entry["valid"] == true && entry["extra_caveats"].as_array().is_some_and(Vec::is_empty)
        };
        let macaroon =
            vectors["macaroons"].as_array().expect("a list").iter().find(valid).expect("a valid one");
        let macaroon = macaroon["token"].as_str().expect("a token").to_owned();
        let secrets = &context.service.snapshot().secrets;
        let page_tokens = (1..4).map(|seed| {
            let cursor = Cursor { created: NOW, key_id: format!("key-{seed}") };
            page_token::seal(secrets, &Rng::seeded(seed), NetworkId::SINGLE, "issued", &cursor)
        });
        let page_tokens = page_tokens.collect();
        let authorization = AuthorizationService::new(
            Arc::clone(&context.service),
            Arc::clone(&context.metrics),
            runtime.handle().clone(),
        );
        Self { service: context.service, signed, macaroon, page_tokens, authorization, runtime }
    }

    /// Sends a request to the authz plane; returns none when it can't be decoded.
    pub(super) fn check(&self, message: &[u8]) -> Option<Bytes> {
        let authorization = Rc::new(self.authorization.clone());
        let answer = self.runtime.block_on(authorization.check(Bytes::copy_from_slice(message)));
        answer.ok().map(CheckAnswer::into_bytes)
    }
}

/// Encodes a macaroon's bytes as a credential.
pub(super) fn encode_macaroon(bytes: &[u8]) -> String {
    format!("mc_v1_{}", BASE64URL.encode(bytes))
}

/// Decodes a macaroon credential to its bytes.
pub(super) fn decode_macaroon(token: &str) -> Vec<u8> {
    let encoded = token.strip_prefix("mc_v1_").expect("a macaroon");
    BASE64URL.decode(encoded).expect("base64")
}
