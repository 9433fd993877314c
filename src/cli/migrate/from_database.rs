//! Reads the keys that Ory Talos has in the tables of a database.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::listing::{Listing, Reader};
use super::ory_row::listed_key;
use crate::cli::exit::Failure;
use crate::cli::stderr;
use crate::clock::Timestamp;
use crate::key::{KeyKind, NetworkId};
use crate::store::{OryTable, Store, StoreError};

/// Name of the option, for messages.
const OPTION: &str = "--from-database";

/// A table, and the networks that have rows in it.
struct Source {
    table: OryTable,
    /// Name in messages.
    label: Arc<str>,
    nids: Vec<String>,
}

/// Reads the keys of a network, or of the only one that the tables have, from the database at
/// `dsn`. Their JSON may have `max_bytes`, as all of them are held until the last one is checked.
///
/// # Errors
/// Fails when the database fails, has no such tables, or has a key that is invalid.
pub(super) async fn read(
    dsn: &str,
    network: Option<NetworkId>,
    now: Timestamp,
    max_bytes: u64,
) -> Result<Listing, Failure> {
    Store::check_dsn(dsn).map_err(failure)?;
    let store = Store::open_any(dsn).await.map_err(failure)?;
    let listing = read_tables(&store, network, now, max_bytes).await;
    store.close().await;
    listing
}

async fn read_tables(
    store: &Store,
    network: Option<NetworkId>,
    now: Timestamp,
    max_bytes: u64,
) -> Result<Listing, Failure> {
    let sources = sources(store).await?;
    let all: BTreeSet<&str> = sources.iter().flat_map(|source| &source.nids).map(String::as_str).collect();
    let wanted = choose(&all, network)?;
    let mut reader = Reader::new(network.unwrap_or(NetworkId::SINGLE), now);
    let mut bytes_left = max_bytes;
    for source in &sources {
        for nid in source.nids.iter().filter(|nid| wanted.contains(nid.as_str())) {
            read_rows(store, source, nid, &mut reader, &mut bytes_left).await?;
        }
    }
    let listing = reader.finish().map_err(Failure::usage)?;
    let is_imported = |source: &Source| source.table.kind() == KeyKind::Imported && !source.nids.is_empty();
    let other = wanted.iter().find(|nid| NetworkId::parse(nid) != Some(NetworkId::SINGLE));
    if let (None, Some(nid)) = (network, other)
        && sources.iter().any(is_imported)
    {
        stderr::line(format_args!(
            "the network of the tables is {nid}, not that of a deployment without tenants. The id of an imported key is \
             a hash over the network, too: if imported keys aren't valid, run again with --network {nid}, and configure \
             that network (docs/networks.md)"
        ));
    }
    Ok(listing)
}

/// Finds the tables, and checks that they have the columns that matter.
async fn sources(store: &Store) -> Result<Vec<Source>, Failure> {
    let tables = store.ory_key_tables().await.map_err(failure)?;
    if tables.is_empty() {
        return Err(Failure::usage(format!(
            "{OPTION}: the database has no tables of Ory Talos (issued_api_keys, imported_api_keys, or api_keys with \
             the column nid) that this user may read"
        )));
    }
    let mut sources = vec![];
    for table in &tables {
        // Only with PostgreSQL, several schemas can have tables of one name.
        let is_unique = tables.iter().filter(|other| other.name() == table.name()).count() == 1;
        let label: Arc<str> = match is_unique {
            true => table.name().into(),
            false => format!("{}.{}", table.schema(), table.name()).into(),
        };
        if let Some(column) = table.missing_column() {
            return Err(Failure::usage(format!("{OPTION}: the table {label} has no column {column}")));
        }
        let nids = store.ory_networks(table).await.map_err(failure)?;
        sources.push(Source { table: table.clone(), label, nids });
    }
    Ok(sources)
}

/// Returns the values of `nid` whose rows are wanted.
fn choose<'n>(all: &BTreeSet<&'n str>, network: Option<NetworkId>) -> Result<BTreeSet<&'n str>, Failure> {
    let list = || all.iter().copied().collect::<Vec<_>>().join(", ");
    let Some(network) = network else {
        return match all.len() {
            0 | 1 => Ok(all.clone()),
            count => Err(Failure::usage(format!(
                "{OPTION}: the tables have keys of {count} networks: run the command once for each, with --network. They \
                 are {}",
                list()
            ))),
        };
    };
    let wanted: BTreeSet<&str> =
        all.iter().copied().filter(|nid| NetworkId::parse(nid) == Some(network)).collect();
    match wanted.is_empty() && !all.is_empty() {
        true => Err(Failure::usage(format!(
            "--network: the tables have no key of the network {network}. They have keys of {}",
            list()
        ))),
        false => Ok(wanted),
    }
}

/// Reads the rows of a table that belong to one network.
async fn read_rows(
    store: &Store,
    source: &Source,
    nid: &str,
    reader: &mut Reader,
    bytes_left: &mut u64,
) -> Result<(), Failure> {
    let mut after = None;
    loop {
        let rows = store.ory_rows(&source.table, nid, after).await.map_err(failure)?;
        for row in &rows {
            let json = listed_key(row);
            let length = json.as_ref().map_or(0, String::len);
            let Some(left) = bytes_left.checked_sub(u64::try_from(length).unwrap_or(u64::MAX)) else {
                return Err(Failure::usage(format!(
                    "{OPTION}: the tables have more than can be adopted at once (about a million keys): adopt lists of \
                     the API, in parts"
                )));
            };
            *bytes_left = left;
            reader.row(&source.label, source.table.kind(), &row.key_id, json);
        }
        match rows.last() {
            Some(last) => after = Some(last.key_id.clone()),
            None => return Ok(()),
        }
    }
}

fn failure(error: StoreError) -> Failure {
    match error {
        StoreError::Dsn(problem) => Failure::usage(format!("{OPTION}: {problem}")),
        StoreError::NoFile { file } => Failure::failed(format!("{OPTION}: there is no file {file}")),
        error => Failure::failed(error).in_option(OPTION),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NIL: &str = "00000000-0000-0000-0000-000000000000";
    const ONE: &str = "3774b4ac-520e-45a9-a0cc-6b029890c7ae";
    const TWO: &str = "6ba7b810-9dad-41d1-80b4-00c04fd430c8";

    #[test]
    fn networks_are_chosen() {
        let network = |text: &str| Some(NetworkId::parse(text).unwrap());
        let set = |nids: &[&'static str]| nids.iter().copied().collect::<BTreeSet<_>>();
        let upper = "3774B4AC-520E-45A9-A0CC-6B029890C7AE";
        for (all, wanted, chosen) in [
            (set(&[]), None, set(&[])),
            (set(&[]), network(ONE), set(&[])),
            (set(&[NIL]), None, set(&[NIL])),
            (set(&[ONE]), None, set(&[ONE])),
            (set(&[ONE, TWO]), network(TWO), set(&[TWO])),
            (set(&[ONE, TWO, upper]), network(ONE), set(&[ONE, upper])),
        ] {
            assert_eq!(choose(&all, wanted).unwrap(), chosen, "{all:?}");
        }
        for (all, wanted) in [(set(&[ONE, TWO]), None), (set(&[ONE, TWO]), network(NIL))] {
            let problem = format!("{:?}", choose(&all, wanted).unwrap_err());
            assert!(problem.contains(ONE) && problem.contains(TWO), "{problem}");
            assert!(problem.contains("--network"), "{problem}");
        }
    }
}
