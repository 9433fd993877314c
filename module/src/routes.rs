//! Configurations of routes, by the handles that Envoy has of them.
//!
//! Under the name of our filter a route may have the configuration of another module, by an
//! operator's mistake. So what Envoy returns is looked up here, and never followed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::config::RouteSettings;

/// Configurations by handle.
type ByHandle = BTreeMap<usize, Arc<RouteSettings>>;

/// Configurations of all routes of this process.
#[derive(Default)]
pub(crate) struct Routes {
    /// Those that Envoy has a handle of.
    current: Mutex<ByHandle>,
    /// What requests look into: a copy that may lack the newest, and have some that are gone.
    copy: ArcSwap<ByHandle>,
    /// True if the copy lacks one.
    is_behind: AtomicBool,
}

impl Routes {
    /// Adds a configuration; returns its handle, which no other one has while this one is here.
    pub(crate) fn add(&self, settings: RouteSettings) -> usize {
        let settings = Arc::new(settings);
        let handle = Arc::as_ptr(&settings).addr();
        self.current.lock().insert(handle, settings);
        self.is_behind.store(true, Ordering::Release);
        handle
    }

    /// Removes a configuration, if the handle is of one.
    pub(crate) fn remove(&self, handle: usize) {
        self.current.lock().remove(&handle);
    }

    /// Calls a function with the configuration of a handle, `None` if it is of none.
    pub(crate) fn with<T>(&self, handle: usize, action: impl FnOnce(Option<&RouteSettings>) -> T) -> T {
        let mut copy = self.copy.load();
        // One copy for all that were added since, not one for each of a thousand routes. Another
        // thread may find none meanwhile, and leaves its request to ext_authz.
        if handle != 0 && !copy.contains_key(&handle) && self.is_behind.swap(false, Ordering::AcqRel) {
            // Stored under the lock, so that no older copy takes the place of a newer one.
            let current = self.current.lock();
            self.copy.store(Arc::new(current.clone()));
            drop(current);
            copy = self.copy.load();
        }
        action(copy.get(&handle).map(Arc::as_ref))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_is_of_one_configuration_or_of_none() {
        let routes = Routes::default();
        let settings = |accelerate: bool| {
            RouteSettings::parse(format!("{{\"accelerate\": {accelerate}}}").as_bytes()).unwrap()
        };
        let found = |handle| routes.with(handle, |found| found.map(|settings| settings.accelerate));
        assert_eq!(found(0), None);
        let (yes, no) = (routes.add(settings(true)), routes.add(settings(false)));
        assert_eq!((found(yes), found(no)), (Some(true), Some(false)));
        for foreign in [0, 1, yes + 1, usize::MAX] {
            assert_eq!(found(foreign), None);
            routes.remove(foreign);
        }
        routes.remove(yes);
        let third = routes.add(settings(true));
        assert_eq!((found(third), found(no)), (Some(true), Some(false)));
        if third != yes {
            assert_eq!(found(yes), None);
        }
    }

    #[test]
    fn what_several_threads_add_is_found_by_all() {
        let add_and_find = |routes: &Routes| {
            let handle = routes.add(RouteSettings::parse(br#"{"accelerate": true}"#).unwrap());
            // Another thread may be copying: then it may find none for now.
            routes.with(handle, |_| ());
            handle
        };
        for _ in 0..50 {
            let routes = Routes::default();
            let handles: Vec<usize> = std::thread::scope(|scope| {
                let add = || (0..20).map(|_| add_and_find(&routes)).collect::<Vec<_>>();
                let threads = [scope.spawn(add), scope.spawn(add), scope.spawn(add), scope.spawn(add)];
                threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
            });
            assert_eq!(handles.len(), 80);
            for handle in handles {
                assert!(routes.with(handle, |found| found.is_some()));
            }
        }
    }
}
