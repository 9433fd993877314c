//! Fills a database: keys that were made elsewhere, imported through the admin plane a thousand at a time.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;

use clap::Args;
use serde_json::{Value, json};

use crate::Failure;
use crate::http::Http;
use crate::keys::{Key, wish};

const BATCH_CREATE: &str = "/v2alpha1/admin/importedApiKeys:batchCreate";
/// As many as the admin plane takes at once.
const BATCH: usize = 1_000;

/// Imports keys.
#[derive(Args)]
pub struct Options {
    /// Address of the admin plane.
    #[arg(long)]
    admin: String,
    /// How many.
    #[arg(long)]
    count: usize,
    /// How many of them, evenly spread, are written to the file.
    #[arg(long)]
    keep: usize,
    /// Batches under way at once.
    #[arg(long, default_value_t = 2)]
    connections: usize,
    /// File to write them to.
    #[arg(long)]
    out: PathBuf,
}

/// Imports keys as the options say.
pub async fn run(options: Options) -> Result<Value, Failure> {
    let begun = std::time::Instant::now();
    let every = (options.count / options.keep.max(1)).max(1);
    let (next, kept) = (Rc::new(Cell::new(0)), Rc::new(RefCell::new(Vec::with_capacity(options.keep))));
    let mut workers = Vec::new();
    for _ in 0..options.connections {
        let (next, kept, count) = (Rc::clone(&next), Rc::clone(&kept), options.count);
        let mut admin = Http::connect(&options.admin).await?;
        workers.push(tokio::task::spawn_local(async move {
            while next.get() < count {
                let from = next.get();
                let to = count.min(from + BATCH);
                next.set(to);
                let ids = import(&mut admin, from, to).await?;
                let keys = (from..to).zip(ids).filter(|(n, _)| n % every == 0);
                let keys = keys.map(|(n, id)| Key { id, secret: raw_key(n), revoked: false });
                kept.borrow_mut().extend(keys);
            }
            Ok::<_, Failure>(())
        }));
    }
    for worker in workers {
        worker.await??;
    }
    let mut kept = kept.take();
    kept.truncate(options.keep);
    std::fs::write(&options.out, serde_json::to_vec(&kept)?)?;
    Ok(json!({ "keys": options.count, "kept": kept.len(), "seconds": begun.elapsed().as_secs_f64() }))
}

fn raw_key(n: usize) -> String {
    format!("legacy-key-of-another-system-{n:012}")
}

/// Imports the keys of those numbers; gives their ids.
async fn import(admin: &mut Http, from: usize, to: usize) -> Result<Vec<String>, Failure> {
    let requests = (from..to).map(|n| {
        let mut request = wish(n);
        request["raw_key"] = raw_key(n).into();
        request
    });
    let body = json!({ "requests": requests.collect::<Vec<_>>() });
    let imported = admin.ask("POST", BATCH_CREATE, Some(&body), 200).await?;
    let results = imported["results"].as_array().ok_or("a batch without results")?;
    let id = |result: &Value| result.pointer("/imported_api_key/key_id")?.as_str().map(str::to_owned);
    results
        .iter()
        .map(|result| id(result).ok_or_else(|| format!("a key was not imported: {result}").into()))
        .collect()
}
