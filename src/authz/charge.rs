//! Charges for a use that nothing else refuses: to the rate limits of its key, then to its credits.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::runtime::Handle;

use super::deny_reason::DenyReason;
use crate::clock::BootTime;
use crate::key::{Key, SpentCredits};
use crate::limit::RateDecision;
use crate::service::Service;
use crate::settings::Settings;

/// Longest time for a Check that spends credits, the lookup of its key included; Envoy gives up at
/// 200 ms.
const CREDITS_BUDGET: Duration = Duration::from_millis(180);

/// Charges for a use that is allowed.
#[derive(Default)]
pub(super) struct Charges {
    /// Decision of its rate limits; `None` when it isn't counted.
    pub(super) rate: Option<RateDecision>,
    /// Credits that it cost; `None` when it costs none.
    pub(super) credits: Option<SpentCredits>,
}

/// Charges a use, which costs `cost`, of a Check that began at a time: to all rate limits first, so
/// that one of those refuses it without a wait for the database, then to the credits.
pub(super) async fn charge(
    (service, runtime): (&Service, &Handle),
    settings: &Settings,
    key: &Key,
    cost: u32,
    began: Option<BootTime>,
) -> Result<Charges, DenyReason> {
    let rate = match service.charge(settings, key, cost).await {
        Some(charge) if !charge.allowed => {
            let policy = key.rate_policy_header().unwrap_or_default();
            return Err(DenyReason::RateLimited(policy, Box::new(charge)));
        }
        charge => charge,
    };
    let credits = match key.credits.is_some() && cost > 0 {
        // Boxed, so that the future of a key without credits stays small.
        true => Box::pin(spend(service, runtime, key, cost, began)).await?,
        false => None,
    };
    Ok(Charges { rate, credits })
}

async fn spend(
    service: &Service,
    runtime: &Handle,
    key: &Key,
    cost: u32,
    began: Option<BootTime>,
) -> Result<Option<SpentCredits>, DenyReason> {
    let gone = began.map(|began| service.clock.boot_now().since(began)).unwrap_or_default();
    let budget = CREDITS_BUDGET.saturating_sub(gone);
    let spending = inside(runtime, service.spend_credits(key, cost));
    let spent = tokio::time::timeout(budget, spending).await;
    match spent.unwrap_or_else(|_| Err(service.credits_not_spent())) {
        Ok(Some(spent)) if !spent.allowed => Err(DenyReason::CreditsExhausted(Box::new(spent))),
        Ok(spent) => Ok(spent),
        Err(_) => Err(DenyReason::Unavailable),
    }
}

/// Polls and drops a future as if in `runtime`: what it opens and starts belongs there, whoever
/// waits for it. A database connection that is dropped elsewhere would panic.
pub(super) fn inside<F: Future>(runtime: &Handle, future: F) -> impl Future<Output = F::Output> {
    Inside { runtime, future: Some(Box::pin(future)) }
}

struct Inside<'r, F> {
    runtime: &'r Handle,
    /// None only while it is dropped.
    future: Option<Pin<Box<F>>>,
}

impl<F: Future> Future for Inside<'_, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let _entered = self.runtime.enter();
        match &mut self.future {
            Some(future) => future.as_mut().poll(context),
            None => Poll::Pending,
        }
    }
}

impl<F> Drop for Inside<'_, F> {
    fn drop(&mut self) {
        let _entered = self.runtime.enter();
        self.future = None;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    /// As a connection of the pool, which gives itself back by a task.
    struct NeedsRuntime;

    impl Drop for NeedsRuntime {
        fn drop(&mut self) {
            drop(Handle::current().spawn(async {}));
        }
    }

    #[test]
    fn what_is_given_up_is_dropped_in_its_runtime() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let held = NeedsRuntime;
        let lookup = async move {
            let _held = held;
            std::future::pending::<()>().await;
        };
        assert_eq!(inside(runtime.handle(), lookup).now_or_never(), None);
    }
}
