//! `migrate adopt`: keys of another Talos come in with their ids, their times and their state.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::listing::{Listing, Place, Reader};
use crate::cli::client::Answer;
use crate::cli::exit::{Failure, Outcome};
use crate::cli::input;
use crate::cli::output::{Format, Output, Shown, Table};
use crate::clock::Clock;
use crate::key::{Key, NetworkId};
use crate::rng::Rng;
use crate::store::{Adopted, Store};

/// Most bytes of a file: about a million keys.
const MAX_FILE: u64 = 1024 * 1024 * 1024;
/// Keys a transaction: changes to other keys wait for it.
const BATCH: usize = 1000;
/// Most keys of which stderr tells how they differ; the result has all.
const MAX_TOLD: usize = 20;

const EXAMPLES: &str = "\
EXAMPLES:
  talos keys issued list --all --format json -e http://localhost:4420 > issued.json
  talos keys imported list --all --format json -e http://localhost:4420 > imported.json
  talos migrate adopt issued.json imported.json --database sqlite://talos.db --dry-run
  talos migrate adopt issued.json imported.json --database sqlite://talos.db
  talos keys issued list --all --format json -e http://localhost:4420 | talos migrate adopt - --database sqlite://talos.db";

/// Take over the keys of another Talos, with their ids, times and states
///
/// The files hold what `talos keys issued list --all --format json` and `talos keys imported list …` print, pages of the
/// API, JSON lists of keys, or keys one after the other. They have no secrets: that of a key verifies here when
/// secrets.hmac, the prefixes and (for an imported key) the network are those of where it comes from.
///
/// Nothing is written unless everything in the files is good. A key that is there already is left as it is: told as
/// unchanged, or as different (exit code 1; revoke here what was revoked there meanwhile). So it can be run again, and
/// beside running servers.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Adopt {
    /// The files, or `-` for stdin
    #[arg(value_name = "FILE|-", required = true)]
    files: Vec<PathBuf>,
    /// Only check the files, and compare them with the database
    #[arg(long)]
    dry_run: bool,
    /// The network of the keys [default: the one of a deployment without tenants]
    #[arg(long, value_name = "UUID", value_parser = network)]
    network: Option<NetworkId>,
    /// table, json, json-pretty, yaml, jsonpath=PATH or jsonpointer=POINTER
    #[arg(long, value_name = "FORMAT", default_value = "table", value_parser = Format::parse)]
    format: Format,
}

/// What came of all keys.
#[derive(Default)]
struct Report {
    adopted: usize,
    unchanged: usize,
    different: Vec<(Key, Place, Vec<&'static str>)>,
}

impl Adopt {
    /// Runs it on the database at `dsn`.
    ///
    /// # Errors
    /// When a file can't be read or something in it is wrong, or the database fails.
    pub async fn run(self, dsn: &str) -> Result<Outcome, Failure> {
        let clock = Clock::system();
        let mut reader = Reader::new(self.network.unwrap_or(NetworkId::SINGLE), clock.now());
        for path in &self.files {
            let text = input::file(path, MAX_FILE)?;
            let name = if path.as_os_str() == "-" { "stdin".into() } else { path.display().to_string() };
            reader.read(&name, &text);
        }
        let listing = reader.finish().map_err(Failure::unusable)?;
        for place in &listing.unfinished {
            eprintln!("{place}: there are more keys than these (next_page_token): list with --all");
        }
        let store = match self.dry_run {
            true => Store::open_existing(dsn).await,
            false => Store::open(dsn, Rng::system()).await,
        };
        let store = store.map_err(Failure::failed)?;
        let report = adopt(&store, listing, &clock, self.dry_run).await;
        store.close().await;
        let report = report?;
        report.tell();
        Output::new(self.format, false).print(&report.shown(self.dry_run))?;
        Ok(if report.different.is_empty() { Outcome::Done } else { Outcome::PartlyRefused })
    }
}

async fn adopt(store: &Store, listing: Listing, clock: &Clock, dry_run: bool) -> Result<Report, Failure> {
    let mut report = Report { unchanged: listing.repeated, ..Report::default() };
    for batch in listing.keys.chunks(BATCH) {
        let keys = batch.iter().map(|(key, _)| key.clone()).collect();
        let adopted = store.adopt_keys(keys, clock.now(), dry_run).await.map_err(|error| {
            let before = report.adopted;
            Failure::failed(format!("{error} ({before} keys were adopted before; run it again for the rest)"))
        })?;
        for ((key, place), adopted) in batch.iter().zip(adopted) {
            match adopted {
                Adopted::New => report.adopted += 1,
                Adopted::Unchanged => report.unchanged += 1,
                Adopted::Different(fields) => report.different.push((key.clone(), place.clone(), fields)),
            }
        }
    }
    Ok(report)
}

impl Report {
    fn tell(&self) {
        for (key, place, fields) in self.different.iter().take(MAX_TOLD) {
            eprintln!("{place}: {} is there with another {}; left as it is", key.id, fields.join(", "));
        }
        let more = self.different.len().saturating_sub(MAX_TOLD);
        if more > 0 {
            eprintln!("and {more} more: --format json has all");
        }
    }

    fn shown(&self, dry_run: bool) -> Shown {
        let different = self.different.len();
        let differences = self
            .different
            .iter()
            .map(|(key, _, fields)| json!({ "key_id": key.id.to_string(), "fields": fields }));
        let answer = json!({
            "dry_run": dry_run,
            "adopted": self.adopted,
            "unchanged": self.unchanged,
            "different": different,
            "differences": differences.collect::<Vec<_>>(),
        });
        let table = Table::Fields(vec![
            (if dry_run { "WOULD ADOPT" } else { "ADOPTED" }, self.adopted.to_string()),
            ("UNCHANGED", self.unchanged.to_string()),
            ("DIFFERENT", different.to_string()),
        ]);
        Shown { answer: Answer::from(answer), table, quiet: vec![] }
    }
}

fn network(text: &str) -> Result<NetworkId, &'static str> {
    NetworkId::parse(text).ok_or("must be a UUID")
}
