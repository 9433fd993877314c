//! Rows of credits: made and changed with the keys that spend them.
//!
//! A row belongs to all keys that name it, and goes with the last of them. Only what was set is
//! written here, never what a key's row said of its balance: others spend meanwhile.

use std::sync::Arc;

use sqlx::AnyConnection;

use super::clock_skew::MAX_CLOCK_SKEW;
use super::{Inner, StoreError};
use crate::clock::Timestamp;
use crate::key::{CreditBalance, Credits, Key, KeyId, NetworkId};

/// Inserts the credits of a new key, which nobody has inherited yet. The first refill counts from
/// the database's time.
pub(super) async fn insert_credits(
    inner: &Inner,
    transaction: &mut AnyConnection,
    key: &Key,
) -> Result<(), StoreError> {
    let Some(credits) = &key.credits else { return Ok(()) };
    let mut credits = **credits;
    let CreditBalance { remaining, refill, .. } = credits.balance;
    let balance = |now| CreditBalance::new(remaining, refill, now);
    // Nothing is inserted if the clocks differ by more than this, so the database's is read only if
    // a refill is due near this moment.
    let (earliest, latest) = (key.created.minus(MAX_CLOCK_SKEW), key.created.plus(MAX_CLOCK_SKEW));
    if balance(earliest) != balance(latest)
        && let Some(now) = inner.read_clock(transaction).await?
    {
        credits.balance = balance(now);
    }
    give(inner, transaction, key.network, &credits, 1).await
}

/// Lets a successor spend the credits of the key that it replaces, unless it was given its own.
pub(super) async fn inherit_credits(
    inner: &Inner,
    transaction: &mut AnyConnection,
    old: &Key,
    successor: &Key,
) -> Result<(), StoreError> {
    match &successor.credits {
        Some(credits) if Credits::are_kept(old.credits.as_ref(), successor.credits.as_ref()) => {
            let share = "UPDATE credits SET holders = holders + 1 WHERE network_id = $1 AND credits_id = $2";
            let share = inner.query(share).bind(old.network.to_string()).bind(credits.account.to_string());
            share.execute(&mut *transaction).await?;
            Ok(())
        }
        _ => insert_credits(inner, transaction, successor).await,
    }
}

/// Writes credits that a change has set or taken away, and sets those of `after` to what is
/// written. The next refill counts from the database's time; `now` is the process's, where the
/// database has none.
pub(super) async fn change_credits(
    inner: &Inner,
    transaction: &mut AnyConnection,
    before: &Key,
    after: &mut Key,
    now: Timestamp,
) -> Result<(), StoreError> {
    if Credits::are_kept(before.credits.as_ref(), after.credits.as_ref()) {
        return Ok(());
    }
    let account = |key: &Key| key.credits.as_ref().map(|credits| credits.account);
    let is_same_row = account(before) == account(after);
    if !is_same_row {
        release_credits(inner, transaction, before).await?;
    }
    if let Some(credits) = &after.credits {
        let mut account = credits.account;
        if !is_same_row && exists(inner, transaction, after.network, account).await? {
            // Keys that replaced this one still spend the credits that it had before.
            account = KeyId::Issued(inner.rng.uuid());
        }
        let now = inner.read_clock(transaction).await?.unwrap_or(now);
        let CreditBalance { remaining, refill, .. } = credits.balance;
        let credits = Credits { account, balance: CreditBalance::new(remaining, refill, now) };
        give(inner, transaction, after.network, &credits, i64::from(!is_same_row)).await?;
        after.credits = Some(Arc::new(credits));
    }
    Ok(())
}

/// Returns true if there is a balance of this id.
async fn exists(
    inner: &Inner,
    transaction: &mut AnyConnection,
    network: NetworkId,
    account: KeyId,
) -> Result<bool, StoreError> {
    let find = inner.query("SELECT holders FROM credits WHERE network_id = $1 AND credits_id = $2");
    let find = find.bind(network.to_string()).bind(account.to_string());
    Ok(find.fetch_optional(&mut *transaction).await?.is_some())
}

/// Ends a key's part in its credits.
pub(super) async fn release_credits(
    inner: &Inner,
    transaction: &mut AnyConnection,
    key: &Key,
) -> Result<(), StoreError> {
    let Some(credits) = &key.credits else { return Ok(()) };
    for statement in [
        "UPDATE credits SET holders = holders - 1 WHERE network_id = $1 AND credits_id = $2",
        "DELETE FROM credits WHERE network_id = $1 AND credits_id = $2 AND holders <= 0",
    ] {
        let statement = inner.query(statement).bind(key.network.to_string());
        statement.bind(credits.account.to_string()).execute(&mut *transaction).await?;
    }
    Ok(())
}

/// Writes a balance, in the place of the one that is there, for so many more keys.
async fn give(
    inner: &Inner,
    transaction: &mut AnyConnection,
    network: NetworkId,
    credits: &Credits,
    holders: i64,
) -> Result<(), StoreError> {
    let dialect = inner.dialect;
    let taken = |column: &str| format!("{column} = {}", dialect.inserted(column));
    let set = ["remaining", "refill", "refill_due_at"].map(taken).join(", ");
    let set = format!("{set}, holders = credits.holders + {}", dialect.inserted("holders"));
    let insert = format!(
        "INSERT INTO credits (network_id, credits_id, remaining, refill, refill_due_at, holders) \
         VALUES ($1, $2, $3, $4, $5, $6) {}",
        dialect.on_conflict("network_id, credits_id", &set)
    );
    let CreditBalance { remaining, refill, due } = credits.balance;
    inner
        .query(insert)
        .bind(network.to_string())
        .bind(credits.account.to_string())
        .bind(i64::try_from(remaining).map_err(|_| StoreError::Corrupt("remaining"))?)
        .bind(refill.map(|refill| refill.to_stored()))
        .bind(due.map(Timestamp::as_micros))
        .bind(holders)
        .execute(&mut *transaction)
        .await?;
    Ok(())
}
