//! Keys of a round: issued by the admin plane and stored in a file.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::LoadError;
use crate::http::Http;

/// Path of issued keys on the admin plane.
pub(crate) const ISSUED: &str = "/v2alpha1/admin/issuedApiKeys";

/// Issues keys.
#[derive(Args)]
pub(crate) struct Options {
    /// Address of the admin plane.
    #[arg(long)]
    admin: String,
    /// Number of keys.
    #[arg(long)]
    count: usize,
    /// Number of keys to revoke at once.
    #[arg(long, default_value_t = 0)]
    revoked: usize,
    /// Number of connections.
    #[arg(long, default_value_t = 8)]
    connections: usize,
    /// The file to write.
    #[arg(long)]
    out: PathBuf,
}

/// A key in the file.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Key {
    pub id: String,
    pub secret: String,
    #[serde(default)]
    pub revoked: bool,
}

/// Reads a file of keys.
pub(crate) fn read(path: &Path) -> Result<Vec<Key>, LoadError> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(serde_json::from_str(&text)?)
}

/// Revokes a key.
pub(crate) async fn revoke(admin: &mut Http, id: &str) -> Result<(), LoadError> {
    let reason = json!({ "reason": "REVOCATION_REASON_SUPERSEDED" });
    admin.call("POST", &format!("{ISSUED}/{id}:revoke"), Some(&reason), 204).await.map(drop)
}

/// Returns the body of a request for a new key.
pub(crate) fn new_key_request(n: usize) -> Value {
    json!({
        "name": format!("load {n}"),
        "actor_id": format!("user:{n}"),
        "scopes": ["orders:read", "orders:write"],
        "metadata": { "team": "load", "n": n },
    })
}

/// Issues the keys.
pub(crate) async fn run(options: Options) -> Result<Value, LoadError> {
    let started = std::time::Instant::now();
    let next = Rc::new(Cell::new(0));
    let mut workers = Vec::new();
    for _ in 0..options.connections.clamp(1, options.count.max(1)) {
        let (next, count, revoked) = (Rc::clone(&next), options.count, options.revoked);
        let mut admin = Http::connect(&options.admin).await?;
        workers.push(tokio::task::spawn_local(async move {
            let mut keys = Vec::new();
            while next.get() < count {
                let n = next.replace(next.get() + 1);
                let issued = admin.call("POST", ISSUED, Some(&new_key_request(n)), 201).await?;
                let text = |at: &str| issued.pointer(at).and_then(Value::as_str).map(str::to_owned);
                let id = text("/issued_api_key/key_id").ok_or("an issued key without an id")?;
                let secret = text("/secret").ok_or("an issued key without a secret")?;
                let revoked = n < revoked;
                if revoked {
                    revoke(&mut admin, &id).await?;
                }
                keys.push(Key { id, secret, revoked });
            }
            Ok::<_, LoadError>(keys)
        }));
    }
    let mut keys = Vec::with_capacity(options.count);
    for worker in workers {
        keys.extend(worker.await??);
    }
    std::fs::write(&options.out, serde_json::to_vec(&keys)?)?;
    Ok(json!({ "keys": keys.len(), "seconds": started.elapsed().as_secs_f64() }))
}
