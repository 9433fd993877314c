//! Rate limit of selfRevoke calls, per client address and in total. Anybody may call it, and each
//! call may read the database.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use parking_lot::Mutex;

use crate::caller::network_of;
use crate::clock::BootTime;
use crate::config::SelfRevokeLimit;

/// Maximum number of addresses with a limit of their own. Further ones share one until others have
/// been idle for a minute.
const MAX_ADDRESSES: usize = 16_384;
/// Period of the limits, in microseconds.
const MINUTE_MICROS: u64 = 60_000_000;
/// Key of the shared limit, and of peers without an address.
const OTHERS: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// State of the limits: the times at which each is unused again, in microseconds since boot.
#[derive(Default)]
pub struct Throttle(Mutex<Whole>);

#[derive(Default)]
struct Whole {
    total: u64,
    addresses: HashMap<IpAddr, u64>,
}

impl Throttle {
    /// Counts one call against both limits, or against none.
    ///
    /// # Errors
    /// Fails with the time to wait if one of them is used up.
    pub fn take(
        &self,
        address: Option<IpAddr>,
        limit: &SelfRevokeLimit,
        now: BootTime,
    ) -> Result<(), Duration> {
        let now = now.as_micros();
        let mut whole = self.0.lock();
        let mut address = address.map_or(OTHERS, network_of);
        if whole.addresses.len() >= MAX_ADDRESSES && !whole.addresses.contains_key(&address) {
            whole.addresses.retain(|_, whole_again| *whole_again > now);
            if whole.addresses.len() >= MAX_ADDRESSES {
                address = OTHERS;
            }
        }
        let of_address = whole.addresses.get(&address).copied().unwrap_or_default();
        let of_address = used(of_address, limit.per_address, now)?;
        whole.total = used(whole.total, limit.total, now)?;
        if limit.per_address > 0 {
            whole.addresses.insert(address, of_address);
        }
        Ok(())
    }
}

/// Returns the time at which a limit is unused again after one more call.
fn used(whole_again: u64, per_minute: u32, now: u64) -> Result<u64, Duration> {
    if per_minute == 0 {
        return Ok(whole_again);
    }
    let share = MINUTE_MICROS / u64::from(per_minute);
    let next = whole_again.max(now) + share;
    match (next - now).checked_sub(MINUTE_MICROS) {
        None | Some(0) => Ok(next),
        Some(wait) => Err(Duration::from_micros(wait)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> BootTime {
        BootTime::from_micros(1_000_000_000 + seconds * 1_000_000)
    }

    fn address(last: u8) -> Option<IpAddr> {
        Some([192, 0, 2, last].into())
    }

    #[test]
    fn each_has_its_share_and_gets_it_back_in_time() {
        let throttle = Throttle::default();
        let limit = SelfRevokeLimit { per_address: 6, total: 10 };
        for _ in 0..6 {
            throttle.take(address(1), &limit, at(0)).unwrap();
        }
        assert_eq!(throttle.take(address(1), &limit, at(0)), Err(Duration::from_secs(10)));
        for _ in 0..4 {
            throttle.take(address(2), &limit, at(0)).unwrap();
        }
        assert_eq!(throttle.take(address(2), &limit, at(0)), Err(Duration::from_secs(6)), "all together");
        // A refused call is not counted.
        throttle.take(address(2), &limit, at(10)).unwrap();
        assert!(throttle.take(address(1), &limit, at(60)).is_ok());
        let without = SelfRevokeLimit { per_address: 0, total: 0 };
        for _ in 0..1_000 {
            throttle.take(address(3), &without, at(60)).unwrap();
        }
    }

    #[test]
    fn never_more_than_the_limit_in_a_burst_and_twice_in_a_minute() {
        let throttle = Throttle::default();
        let limit = SelfRevokeLimit { per_address: 30, total: 0 };
        let taken =
            |second| (0..100).filter(|_| throttle.take(address(1), &limit, at(second)).is_ok()).count();
        let taken: Vec<usize> = (0..60).map(taken).collect();
        assert_eq!(taken[0], 30);
        assert!(taken.iter().sum::<usize>() <= 60, "{taken:?}");
    }

    #[test]
    fn the_table_stays_small() {
        let throttle = Throttle::default();
        let limit = SelfRevokeLimit { per_address: 1, total: 0 };
        let [mut taken, mut tried] = [0; 2];
        for number in 0..(MAX_ADDRESSES as u32 + 1_000) {
            let address = IpAddr::from((0x0a00_0000 + number).to_be_bytes());
            tried += 1;
            taken += u32::from(throttle.take(Some(address), &limit, at(0)).is_ok());
        }
        assert!(throttle.0.lock().addresses.len() <= MAX_ADDRESSES + 1);
        assert_eq!(tried - taken, 999, "those beyond the table share one allowance");
        assert!(throttle.take(address(1), &limit, at(61)).is_ok(), "and the table is emptied in time");
        assert!(throttle.0.lock().addresses.len() <= 2);
    }
}
