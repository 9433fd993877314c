//! How often selfRevoke may be called, from one address and from all together: anybody may call it, and each call may
//! ask the database.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::header::RETRY_AFTER;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

use crate::caller::network_of;
use crate::clock::BootTime;
use crate::config::SelfRevokeLimit;
use crate::error::{ApiError, Reason};
use crate::http::openapi::operations;
use crate::http::{Context, admin};
use crate::plane::Plane;
use crate::telemetry::refused_requests::RequestRefusal;

/// The one refusal of selfRevoke takes a multiple of this: how long finding out took isn't told.
const REFUSAL_STEP: Duration = Duration::from_millis(25);

/// Most addresses that are told apart; further ones share one allowance until others have been quiet for a minute.
const MAX_ADDRESSES: usize = 16_384;
/// What the limits count in.
const MINUTE_MICROS: u64 = 60_000_000;
/// Stands for all addresses that aren't told apart, and for peers without one.
const OTHERS: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// Lets selfRevoke through within its limits, and evens out how long its refusals take.
pub async fn limit(State(context): State<Context>, request: Request, next: Next) -> Response {
    if request.uri().path() != operations::SELF_REVOKE.path {
        return next.run(request).await;
    }
    let settings = context.service.snapshot();
    let client = admin::client(settings.client_ip_source, &request);
    let now = context.service.clock.boot_now();
    if let Err(wait) = context.throttle.take(client, &settings.self_revoke, now) {
        context.metrics.refused_requests.count(Plane::Public, RequestRefusal::TooMany);
        let error =
            ApiError::new(Reason::TooManyRequests, "too many keys are being revoked; try again later");
        let mut response = error.into_response();
        response.headers_mut().insert(RETRY_AFTER, (wait.as_secs() + 1).into());
        return response;
    }
    let began = Instant::now();
    let response = next.run(request).await;
    if response.extensions().get::<Reason>() == Some(&Reason::UnknownCredential) {
        let steps = began.elapsed().as_micros() / REFUSAL_STEP.as_micros() + 1;
        sleep_until(began + REFUSAL_STEP * u32::try_from(steps).unwrap_or(1)).await;
    }
    response
}

/// Counts calls. For each allowance it knows when it would be whole again, in microseconds since boot.
#[derive(Default)]
pub struct Throttle(Mutex<Whole>);

#[derive(Default)]
struct Whole {
    total: u64,
    addresses: HashMap<IpAddr, u64>,
}

impl Throttle {
    /// Takes one call from both allowances, or from none.
    ///
    /// # Errors
    /// How long to wait, when one of them is used up.
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

/// When an allowance of so many calls a minute is whole again once one more is taken of it.
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
        // What was refused took nothing.
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
