//! The functions that Envoy calls. Each body is contained: a panic never unwinds into Envoy.
//!
//! Envoy's contract, on which the `unsafe` blocks rest:
//! - Pointers that it passes are valid until the hook returns.
//! - A pointer that a `_new` hook returned comes back unchanged, and last to its `_destroy` hook.
//! - A filter's configuration lives longer than its filters. So a filter is the pointer to its
//!   configuration, and needs no memory of its own.
//! - A stream's hooks run one after the other, in one thread.

use std::ffi::{c_char, c_void};
use std::sync::LazyLock;

use crate::abi::{self, Buffer, Callbacks, ConfigPtr, Counter, FilterPtr, Level, RawHeader, Stream};
use crate::config::{ConfigError, FilterSettings, RouteSettings};
use crate::filter::{Counters, Filter};
use crate::guard::PANICS;
use crate::now_micros;
use crate::routes::Routes;

/// Configurations of the routes.
static ROUTES: LazyLock<Routes> = LazyLock::new(Routes::default);

/// `Continue`, among the results of every hook that has one.
const CONTINUE: u32 = 0;

/// Runs a hook's body; see [`crate::guard::Panics::contain`].
fn contained<T>(fallback: T, body: impl FnOnce() -> T) -> T {
    PANICS.contain(now_micros, fallback, body)
}

/// Looks up Envoy's functions and returns the version that this Envoy expects. Null, upon which
/// Envoy refuses the configuration: one of the functions is missing.
#[unsafe(no_mangle)]
pub extern "C" fn envoy_dynamic_module_on_program_init() -> *const c_char {
    contained(std::ptr::null(), || {
        let Some(callbacks) = Callbacks::look_up() else { return std::ptr::null() };
        let version = callbacks.install().version();
        let line = format!("talos module {} in Envoy {}", env!("CARGO_PKG_VERSION"), version.envoy());
        abi::log(Level::Info, &line);
        version.text().as_ptr()
    })
}

/// Makes a filter configuration. Null, upon which Envoy refuses it, if it isn't valid.
///
/// # Safety
/// As in the module's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn envoy_dynamic_module_on_http_filter_config_new(
    config: ConfigPtr,
    _name: Buffer,
    json: Buffer,
) -> *const c_void {
    contained(std::ptr::null(), || {
        let Some(callbacks) = abi::callbacks() else { return std::ptr::null() };
        // SAFETY: the text is valid until the hook returns.
        let settings = FilterSettings::parse(unsafe { json.bytes() });
        let define = |name: &str| -> Option<Counter> {
            // SAFETY: the pointer is that of the configuration that Envoy is just making.
            unsafe { abi::define_counter(callbacks, config, name) }
        };
        let filter = settings.and_then(|settings| Filter::new(&settings, Counters::define(define)));
        logged(filter).map_or(std::ptr::null(), |filter| Box::into_raw(Box::new(filter)).cast_const().cast())
    })
}

/// Drops a filter configuration.
///
/// # Safety
/// As in the module's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn envoy_dynamic_module_on_http_filter_config_destroy(config: *const c_void) {
    contained((), || {
        if !config.is_null() {
            // SAFETY: the `_new` hook made it from a box of this type, and Envoy gives it back
            // once, after all of its filters.
            drop(unsafe { Box::from_raw(config.cast::<Filter>().cast_mut()) });
        }
    });
}

/// Makes the configuration of a route. Null, upon which Envoy refuses it, if it isn't valid.
///
/// # Safety
/// As in the module's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn envoy_dynamic_module_on_http_filter_per_route_config_new(
    _name: Buffer,
    json: Buffer,
) -> *const c_void {
    contained(std::ptr::null(), || {
        // SAFETY: the text is valid until the hook returns.
        let settings = RouteSettings::parse(unsafe { json.bytes() });
        // A handle, which nobody follows.
        logged(settings)
            .map_or(std::ptr::null(), |settings| std::ptr::without_provenance(ROUTES.add(settings)))
    })
}

/// Drops the configuration of a route.
///
/// # Safety
/// As in the module's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn envoy_dynamic_module_on_http_filter_per_route_config_destroy(config: *const c_void) {
    contained((), || ROUTES.remove(config.addr()));
}

/// Returns a configuration, or logs why there is none.
fn logged<T>(value: Result<T, ConfigError>) -> Option<T> {
    value.map_err(|error| abi::log(Level::Error, &format!("talos module: {error}"))).ok()
}

/// Makes the filter of a stream: the pointer to its configuration.
///
/// # Safety
/// As in the module's contract.
#[unsafe(no_mangle)]
pub const unsafe extern "C" fn envoy_dynamic_module_on_http_filter_new(
    config: *const c_void,
    _filter: FilterPtr,
) -> *const c_void {
    config
}

/// Ends the filter of a stream, which has no memory of its own.
///
/// # Safety
/// As in the module's contract.
#[unsafe(no_mangle)]
pub const unsafe extern "C" fn envoy_dynamic_module_on_http_filter_destroy(_filter: *const c_void) {}

/// Looks at a request: lets it pass the ext_authz filter, or leaves it alone. The request goes on
/// in both cases.
///
/// # Safety
/// As in the module's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn envoy_dynamic_module_on_http_filter_request_headers(
    filter: FilterPtr,
    module: *const c_void,
    _end_of_stream: bool,
) -> u32 {
    contained(CONTINUE, || {
        let Some(callbacks) = abi::callbacks() else { return CONTINUE };
        // SAFETY: the pointer is that of the filter's configuration, which lives longer, or null.
        let Some(config) = (unsafe { module.cast::<Filter>().as_ref() }) else { return CONTINUE };
        // SAFETY: Envoy passed the pointer to this hook, and this is the only `Stream` of it.
        let mut stream = unsafe { Stream::new(filter, callbacks) };
        ROUTES.with(stream.route_config().addr(), |route| config.on_request(&mut stream, route));
        CONTINUE
    })
}

/// Makes hooks that only let things pass.
macro_rules! pass {
    ($($name:ident($($argument:ty),*) $(-> $result:expr)?;)*) => {$(
        /// Lets pass what it is told of.
        ///
        /// # Safety
        /// It looks at nothing.
        #[unsafe(no_mangle)]
        pub const unsafe extern "C" fn $name($(_: $argument),*) $(-> pass!(@type $result))? { $($result)? }
    )*};
    (@type $result:expr) => { u32 };
}

pass! {
    envoy_dynamic_module_on_http_filter_request_body(FilterPtr, *const c_void, bool) -> CONTINUE;
    envoy_dynamic_module_on_http_filter_request_trailers(FilterPtr, *const c_void) -> CONTINUE;
    envoy_dynamic_module_on_http_filter_response_headers(FilterPtr, *const c_void, bool) -> CONTINUE;
    envoy_dynamic_module_on_http_filter_response_body(FilterPtr, *const c_void, bool) -> CONTINUE;
    envoy_dynamic_module_on_http_filter_response_trailers(FilterPtr, *const c_void) -> CONTINUE;
    envoy_dynamic_module_on_http_filter_stream_complete(FilterPtr, *const c_void);
    envoy_dynamic_module_on_http_filter_scheduled(FilterPtr, *const c_void, u64);
    envoy_dynamic_module_on_http_filter_http_callout_done(
        FilterPtr, *const c_void, u64, u32, *mut RawHeader, usize, *mut Buffer, usize);
    envoy_dynamic_module_on_http_filter_http_stream_headers(
        FilterPtr, *const c_void, u64, *mut RawHeader, usize, bool);
    envoy_dynamic_module_on_http_filter_http_stream_data(
        FilterPtr, *const c_void, u64, *const Buffer, usize, bool);
    envoy_dynamic_module_on_http_filter_http_stream_trailers(
        FilterPtr, *const c_void, u64, *mut RawHeader, usize);
    envoy_dynamic_module_on_http_filter_http_stream_complete(FilterPtr, *const c_void, u64);
    envoy_dynamic_module_on_http_filter_http_stream_reset(FilterPtr, *const c_void, u64, u32);
    envoy_dynamic_module_on_http_filter_downstream_above_write_buffer_high_watermark(
        FilterPtr, *const c_void);
    envoy_dynamic_module_on_http_filter_downstream_below_write_buffer_low_watermark(
        FilterPtr, *const c_void);
}
