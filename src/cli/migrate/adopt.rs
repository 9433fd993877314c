//! `migrate adopt`: imports the keys of another Talos with their ids, times and states.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::from_database;
use super::listing::{Listing, Location, Reader};
use crate::cli::client::JsonBody;
use crate::cli::exit::{Failure, Outcome};
use crate::cli::input;
use crate::cli::output::{Format, Output, Table, View};
use crate::cli::stderr;
use crate::clock::{Clock, Timestamp};
use crate::key::{Key, NetworkId};
use crate::rng::Rng;
use crate::secret::SecretString;
use crate::store::{Adopted, Store};

/// Largest file in bytes, and the most that is read of tables: about a million keys.
const MAX_BYTES: u64 = 1024 * 1024 * 1024;
/// Keys per transaction. Changes to other keys wait while the rows of one are written: few enough
/// for one statement that a revocation isn't held up, also if the database is far away.
const BATCH_SIZE: usize = 40;
/// Number of differing keys that stderr lists; the JSON result has all.
const MAX_REPORTED: usize = 20;

const EXAMPLES: &str = "\
EXAMPLES:
  talos keys issued list --all --format json -e http://localhost:4420 > issued.json
  talos keys imported list --all --format json -e http://localhost:4420 > imported.json
  talos migrate adopt issued.json imported.json --database sqlite://talos.db --dry-run
  talos migrate adopt issued.json imported.json --database sqlite://talos.db
  talos keys issued list --all --format json -e http://localhost:4420 | talos migrate adopt - --database sqlite://talos.db";

/// Adopt the keys of another Talos, with their ids, times and states
///
/// The files hold the output of `talos keys issued list --all --format json` and `talos keys
/// imported list …`, pages of the API, JSON lists of keys, or a sequence of keys. They contain no
/// secrets. A key's secret verifies here when secrets.hmac, the prefixes and (for an imported key)
/// the network are the same as in the other Talos.
///
/// With --from-database, the keys are read from the tables of Ory Talos instead (issued_api_keys,
/// imported_api_keys, or api_keys of older releases): those in the database itself, or those of
/// another, whose tables aren't changed (an SQLite file gets a write-ahead log). Tables that have
/// keys of several networks need --network, once for each. About a million keys can be read at
/// once.
///
/// Nothing is written unless all keys are valid. An existing key is never changed: it is counted
/// as unchanged, or reported as different (exit code 1; revoke here what has been revoked there
/// since). So the command can be repeated, also while servers are running.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Adopt {
    /// The files to read, or `-` for stdin
    #[arg(
        value_name = "FILE|-",
        required_unless_present = "from_database",
        conflicts_with = "from_database"
    )]
    files: Vec<PathBuf>,
    /// Read the tables of Ory Talos in this database instead [default: the one to write]
    #[arg(long, value_name = "DSN")]
    from_database: Option<Option<SecretString>>,
    /// Only validate the keys and compare them with the database
    #[arg(long)]
    dry_run: bool,
    /// The network of the keys; with --from-database, only its rows are read [default: that of a
    /// deployment without tenants]
    #[arg(long, value_name = "UUID", value_parser = network)]
    network: Option<NetworkId>,
    /// table, json, json-pretty, yaml, jsonpath=PATH or jsonpointer=POINTER
    #[arg(short = 'o', long, value_name = "FORMAT", default_value = "table", value_parser = Format::parse)]
    format: Format,
}

/// Result of an adoption.
#[derive(Default)]
struct Report {
    adopted: usize,
    unchanged: usize,
    different: Vec<(Key, Location, Vec<&'static str>)>,
}

impl Adopt {
    /// Runs the command on the database at `dsn`.
    ///
    /// # Errors
    /// Fails when a file or table can't be read or is invalid, or the database fails.
    pub(super) async fn run(self, dsn: &str) -> Result<Outcome, Failure> {
        let clock = Clock::system();
        let listing = match &self.from_database {
            Some(source) => {
                let source = source.as_ref().map_or(dsn, SecretString::expose);
                from_database::read(source, self.network, clock.now(), MAX_BYTES).await?
            }
            None => self.read_files(clock.now())?,
        };
        for location in &listing.unfinished {
            stderr::line(format_args!(
                "{location}: the list is incomplete (it has a next_page_token): list the keys with --all"
            ));
        }
        let store = match self.dry_run {
            true => Store::open_existing(dsn).await,
            false => Store::open(dsn, Rng::system()).await,
        };
        let store = store.map_err(Failure::failed)?;
        let report = adopt(&store, listing, &clock, self.dry_run).await;
        store.close().await;
        let report = report?;
        report.print_differences();
        Output::new(self.format, false).print(&report.view(self.dry_run))?;
        Ok(if report.different.is_empty() { Outcome::Done } else { Outcome::PartialFailure })
    }

    fn read_files(&self, now: Timestamp) -> Result<Listing, Failure> {
        let mut reader = Reader::new(self.network.unwrap_or(NetworkId::SINGLE), now);
        for path in &self.files {
            let text = input::read_file(path, MAX_BYTES)?;
            let name = if path.as_os_str() == "-" { "stdin".into() } else { path.display().to_string() };
            reader.read(&name, &text);
        }
        reader.finish().map_err(Failure::usage)
    }
}

async fn adopt(store: &Store, listing: Listing, clock: &Clock, dry_run: bool) -> Result<Report, Failure> {
    let mut report = Report { unchanged: listing.repeated, ..Report::default() };
    for batch in listing.keys.chunks(BATCH_SIZE) {
        let keys = batch.iter().map(|(key, _)| key.clone()).collect();
        let adopted = store.adopt_keys(keys, clock.now(), dry_run).await.map_err(|error| {
            let before = report.adopted;
            Failure::failed(format!(
                "{error} ({before} keys were adopted before this failure; run the command again for the rest)"
            ))
        })?;
        for ((key, location), adopted) in batch.iter().zip(adopted) {
            match adopted {
                Adopted::New => report.adopted += 1,
                Adopted::Unchanged => report.unchanged += 1,
                Adopted::Different(fields) => report.different.push((key.clone(), location.clone(), fields)),
            }
        }
    }
    Ok(report)
}

impl Report {
    fn print_differences(&self) {
        for (key, location, fields) in self.different.iter().take(MAX_REPORTED) {
            stderr::line(format_args!(
                "{location}: {} exists with another {}; not changed",
                key.id,
                fields.join(", ")
            ));
        }
        let more = self.different.len().saturating_sub(MAX_REPORTED);
        if more > 0 {
            stderr::line(format_args!("and {more} more; use --format json to list all"));
        }
    }

    fn view(&self, dry_run: bool) -> View {
        let different = self.different.len();
        let differences = self
            .different
            .iter()
            .map(|(key, _, fields)| json!({ "key_id": key.id.to_string(), "fields": fields }));
        let body = json!({
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
        View { body: JsonBody::from(body), table, quiet: vec![] }
    }
}

fn network(text: &str) -> Result<NetworkId, &'static str> {
    NetworkId::parse(text).ok_or("must be a UUID")
}
