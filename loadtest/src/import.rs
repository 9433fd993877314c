//! Fills a database: imports keys through the admin plane, a thousand per request.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;

use clap::Args;
use serde_json::{Value, json};

use crate::LoadError;
use crate::http::Http;
use crate::key_file::{Key, new_key_request};

const BATCH_CREATE: &str = "/v2alpha1/admin/importedApiKeys:batchCreate";
/// Largest batch that the admin plane accepts.
const MAX_BATCH: usize = 1_000;

/// Imports keys.
#[derive(Args)]
pub(crate) struct Options {
    /// Address of the admin plane.
    #[arg(long)]
    admin: String,
    /// Number of keys.
    #[arg(long)]
    count: usize,
    /// Number of keys, evenly spread, that are written to the file.
    #[arg(long)]
    keep: usize,
    /// Number of concurrent batches.
    #[arg(long, default_value_t = 2)]
    connections: usize,
    /// The file to write.
    #[arg(long)]
    out: PathBuf,
}

/// Runs the import.
pub(crate) async fn run(options: Options) -> Result<Value, LoadError> {
    let started = std::time::Instant::now();
    let every = (options.count / options.keep.max(1)).max(1);
    let (next, kept) = (Rc::new(Cell::new(0)), Rc::new(RefCell::new(Vec::with_capacity(options.keep))));
    let mut workers = Vec::new();
    for _ in 0..options.connections {
        let (next, kept, count) = (Rc::clone(&next), Rc::clone(&kept), options.count);
        let mut admin = Http::connect(&options.admin).await?;
        workers.push(tokio::task::spawn_local(async move {
            while next.get() < count {
                let from = next.get();
                let to = count.min(from + MAX_BATCH);
                next.set(to);
                let ids = import(&mut admin, from, to).await?;
                let keys = (from..to).zip(ids).filter(|(n, _)| n % every == 0);
                let keys = keys.map(|(n, id)| Key { id, secret: raw_key(n), revoked: false });
                kept.borrow_mut().extend(keys);
            }
            Ok::<_, LoadError>(())
        }));
    }
    for worker in workers {
        worker.await??;
    }
    let mut kept = kept.take();
    kept.truncate(options.keep);
    std::fs::write(&options.out, serde_json::to_vec(&kept)?)?;
    Ok(json!({ "keys": options.count, "kept": kept.len(), "seconds": started.elapsed().as_secs_f64() }))
}

fn raw_key(n: usize) -> String {
    format!("legacy-key-of-another-system-{n:012}")
}

/// Imports the keys of a range of numbers and returns their ids.
async fn import(admin: &mut Http, from: usize, to: usize) -> Result<Vec<String>, LoadError> {
    let requests = (from..to).map(|n| {
        let mut request = new_key_request(n);
        request["raw_key"] = raw_key(n).into();
        request
    });
    let body = json!({ "requests": requests.collect::<Vec<_>>() });
    let imported = admin.call("POST", BATCH_CREATE, Some(&body), 200).await?;
    let results = imported["results"].as_array().ok_or("a batch without results")?;
    let id = |result: &Value| result.pointer("/imported_api_key/key_id")?.as_str().map(str::to_owned);
    results
        .iter()
        .map(|result| id(result).ok_or_else(|| format!("a key was not imported: {result}").into()))
        .collect()
}
