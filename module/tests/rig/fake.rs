//! An Envoy of a few functions: streams with headers and metadata in memory.
//!
//! Each stream belongs to one thread, as in Envoy. Its pointer is that of a [`FakeStream`], which
//! only its functions here look at while a hook runs.
#![allow(unsafe_code, reason = "it stands for Envoy, which hands out pointers")]

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, Ordering};

use prost::Message;
use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};
use talos_module::abi::{Buffer, Callbacks, ConfigPtr, FilterPtr, RawHeader, Since1_38};
use talos_module::hooks;

/// Namespace of the module's metadata.
pub const NAMESPACE: &str = "envoy.filters.http.ext_authz";

/// True: an Envoy without the functions that 1.40 added. To be set before the first filter.
pub static IS_OLDER: AtomicBool = AtomicBool::new(false);

/// What this Envoy does wrong.
#[derive(Clone, Default)]
pub struct Faults {
    /// Headers that can still be set or removed, before one can't.
    pub failing_setter: Option<usize>,
    /// Headers can't be read.
    pub no_headers: bool,
    /// The peer's address can't be read.
    pub no_peer: bool,
    /// Keys of metadata can't be read.
    pub no_metadata_keys: bool,
    /// Metadata that are set aren't kept.
    pub loses_metadata: bool,
}

impl Faults {
    /// Returns true if some change may be lost.
    pub fn lets_setters_fail(&self) -> bool {
        self.failing_setter.is_some() || self.loses_metadata
    }
}

/// Stream in memory.
pub struct FakeStream {
    pub headers: Vec<(Vec<u8>, Vec<u8>)>,
    /// Dynamic metadata of the namespace.
    pub metadata: BTreeMap<String, Value>,
    /// Metadata of the route: namespace, key, value.
    pub route_metadata: Vec<(&'static str, &'static str, &'static str)>,
    pub peer: String,
    pub route: *const c_void,
    /// Counters by id.
    pub counters: BTreeMap<usize, u64>,
    /// Calls of setters.
    pub changes: usize,
    pub faults: Faults,
}

impl FakeStream {
    /// Makes a request of a route.
    pub fn new(route: *const c_void, lines: &[(&str, &str)]) -> Self {
        let line = |(name, value): &(&str, &str)| (name.as_bytes().to_vec(), value.as_bytes().to_vec());
        Self {
            headers: lines.iter().map(line).collect(),
            metadata: BTreeMap::new(),
            route_metadata: vec![],
            peer: "10.0.0.1:5000".to_owned(),
            route,
            counters: BTreeMap::new(),
            changes: 0,
            faults: Faults::default(),
        }
    }

    /// Returns the values of a header.
    pub fn values(&self, name: &str) -> Vec<String> {
        let found = self.headers.iter().filter(|(key, _)| key == name.as_bytes());
        found.map(|(_, value)| String::from_utf8_lossy(value).into_owned()).collect()
    }

    /// Returns true if ext_authz would let it pass.
    pub fn passes(&self) -> bool {
        self.text("decision") == Some("allow")
    }

    /// Returns a text of the metadata.
    pub fn text(&self, key: &str) -> Option<&str> {
        match self.metadata.get(key)?.kind.as_ref()? {
            Kind::StringValue(text) => Some(text),
            _ => None,
        }
    }
}

/// Filter configuration, as Envoy holds it.
pub struct FakeFilter(*const c_void);

/// Configuration of a route, as Envoy holds it.
pub struct FakeRoute(pub *const c_void);

// SAFETY: Envoy uses a configuration in all of its threads.
unsafe impl Sync for FakeFilter {}
// SAFETY: likewise.
unsafe impl Sync for FakeRoute {}

impl FakeFilter {
    /// Makes a configuration; `None` if it is refused.
    pub fn new(json: &str) -> Option<Self> {
        install();
        // SAFETY: the text outlives the call, and the functions here don't look at the pointer.
        let config = unsafe {
            hooks::envoy_dynamic_module_on_http_filter_config_new(
                std::ptr::dangling_mut::<c_void>(),
                Buffer::of(b"accelerator"),
                Buffer::of(json.as_bytes()),
            )
        };
        (!config.is_null()).then_some(Self(config))
    }

    /// Runs a request through the module as Envoy does.
    pub fn run(&self, stream: &mut FakeStream) {
        let pointer: FilterPtr = std::ptr::from_mut(stream).cast();
        // SAFETY: the pointers are valid until the hooks return, and nobody else uses the stream.
        unsafe {
            let filter = hooks::envoy_dynamic_module_on_http_filter_new(self.0, pointer);
            let status = hooks::envoy_dynamic_module_on_http_filter_request_headers(pointer, filter, true);
            assert_eq!(status, 0, "a request always goes on");
            assert_eq!(hooks::envoy_dynamic_module_on_http_filter_request_body(pointer, filter, true), 0);
            assert_eq!(hooks::envoy_dynamic_module_on_http_filter_response_headers(pointer, filter, true), 0);
            hooks::envoy_dynamic_module_on_http_filter_stream_complete(pointer, filter);
            hooks::envoy_dynamic_module_on_http_filter_destroy(filter);
        }
    }
}

impl Drop for FakeFilter {
    fn drop(&mut self) {
        // SAFETY: the module made it, and it is given back once.
        unsafe { hooks::envoy_dynamic_module_on_http_filter_config_destroy(self.0) }
    }
}

impl FakeRoute {
    /// Makes a configuration; `None` if it is refused.
    pub fn new(json: &str) -> Option<Self> {
        // SAFETY: the texts outlive the call.
        let config = unsafe {
            hooks::envoy_dynamic_module_on_http_filter_per_route_config_new(
                Buffer::of(b""),
                Buffer::of(json.as_bytes()),
            )
        };
        (!config.is_null()).then_some(Self(config))
    }
}

impl Drop for FakeRoute {
    fn drop(&mut self) {
        // SAFETY: the module made it, and it is given back once.
        unsafe { hooks::envoy_dynamic_module_on_http_filter_per_route_config_destroy(self.0) }
    }
}

/// Makes the functions here those of the process.
fn install() {
    let all = Callbacks {
        headers_size,
        headers,
        set_header,
        set_metadata_text,
        set_metadata_number,
        metadata_text,
        route_config,
        attribute_text,
        define_counter,
        increment_counter,
        log,
        since_1_38: Some(Since1_38 {
            set_metadata_bool,
            add_metadata_text,
            metadata_keys_size,
            metadata_keys,
        }),
        set_metadata_struct: (!IS_OLDER.load(Ordering::SeqCst)).then_some(set_metadata_struct),
    };
    all.install();
}

/// Returns the stream behind a pointer.
///
/// # Safety
/// It must be that of [`FakeFilter::run`], in the same thread.
unsafe fn stream<'a>(filter: FilterPtr) -> &'a mut FakeStream {
    // SAFETY: the caller promises where it comes from; nobody else uses the stream meanwhile.
    unsafe { &mut *filter.cast::<FakeStream>() }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

unsafe extern "C" fn headers_size(filter: FilterPtr, kind: u32) -> usize {
    assert_eq!(kind, 0);
    // SAFETY: as all functions here, it is called from a hook of `run`.
    unsafe { stream(filter) }.headers.len()
}

unsafe extern "C" fn headers(filter: FilterPtr, kind: u32, into: *mut RawHeader) -> bool {
    assert_eq!(kind, 0);
    // SAFETY: as above.
    let stream = unsafe { stream(filter) };
    if stream.faults.no_headers {
        return false;
    }
    let lines = &stream.headers;
    for (at, (name, value)) in lines.iter().enumerate() {
        // SAFETY: the module has room for as many lines as `headers_size` says.
        unsafe { into.add(at).write(RawHeader { name: Buffer::of(name), value: Buffer::of(value) }) };
    }
    true
}

unsafe extern "C" fn set_header(filter: FilterPtr, kind: u32, name: Buffer, value: Buffer) -> bool {
    assert_eq!(kind, 0);
    // SAFETY: as above, and the texts are valid until this returns.
    let (stream, name) = unsafe { (stream(filter), name.bytes().to_vec()) };
    if let Some(left) = &mut stream.faults.failing_setter {
        if *left == 0 {
            return false;
        }
        *left -= 1;
    }
    stream.changes += 1;
    stream.headers.retain(|(key, _)| *key != name);
    if !value.ptr.is_null() {
        // SAFETY: as above.
        stream.headers.push((name, unsafe { value.bytes() }.to_vec()));
    }
    true
}

/// Sets one field of the metadata.
///
/// # Safety
/// As [`stream`], and the texts are valid until this returns.
unsafe fn set(filter: FilterPtr, namespace: Buffer, key: Buffer, kind: Kind) {
    // SAFETY: the caller promises it.
    let (stream, namespace, key) = unsafe { (stream(filter), namespace.bytes(), key.bytes()) };
    assert_eq!(namespace, NAMESPACE.as_bytes());
    stream.changes += 1;
    if !stream.faults.loses_metadata {
        stream.metadata.insert(text(key), Value { kind: Some(kind) });
    }
}

unsafe extern "C" fn set_metadata_text(filter: FilterPtr, namespace: Buffer, key: Buffer, value: Buffer) {
    // SAFETY: as above.
    unsafe { set(filter, namespace, key, Kind::StringValue(text(value.bytes()))) }
}

unsafe extern "C" fn set_metadata_number(filter: FilterPtr, namespace: Buffer, key: Buffer, value: f64) {
    // SAFETY: as above.
    unsafe { set(filter, namespace, key, Kind::NumberValue(value)) }
}

unsafe extern "C" fn set_metadata_bool(filter: FilterPtr, namespace: Buffer, key: Buffer, value: bool) {
    // SAFETY: as above.
    unsafe { set(filter, namespace, key, Kind::BoolValue(value)) }
}

unsafe extern "C" fn add_metadata_text(
    filter: FilterPtr,
    namespace: Buffer,
    key: Buffer,
    value: Buffer,
) -> bool {
    // SAFETY: as above.
    let (stream, namespace, key) = unsafe { (stream(filter), namespace.bytes(), key.bytes()) };
    assert_eq!(namespace, NAMESPACE.as_bytes());
    stream.changes += 1;
    if stream.faults.loses_metadata {
        return false;
    }
    let field = stream
        .metadata
        .entry(text(key))
        .or_insert_with(|| Value { kind: Some(Kind::ListValue(ListValue::default())) });
    let Some(Kind::ListValue(list)) = &mut field.kind else { return false };
    // SAFETY: as above.
    let value = text(unsafe { value.bytes() });
    list.values.push(Value { kind: Some(Kind::StringValue(value)) });
    true
}

unsafe extern "C" fn set_metadata_struct(filter: FilterPtr, namespace: Buffer, encoded: Buffer) {
    // SAFETY: as above.
    let (stream, namespace, encoded) = unsafe { (stream(filter), namespace.bytes(), encoded.bytes()) };
    assert_eq!(namespace, NAMESPACE.as_bytes());
    stream.changes += 1;
    if !stream.faults.loses_metadata {
        stream.metadata.extend(Struct::decode(encoded).expect("a Struct").fields);
    }
}

unsafe extern "C" fn metadata_text(
    filter: FilterPtr,
    source: u32,
    namespace: Buffer,
    key: Buffer,
    into: *mut Buffer,
) -> bool {
    // SAFETY: as above.
    let (stream, namespace, key) = unsafe { (stream(filter), namespace.bytes(), key.bytes()) };
    let found = match source {
        0 => stream.text(&text(key)).map(str::as_bytes),
        _ => stream
            .route_metadata
            .iter()
            .find(|one| one.0.as_bytes() == namespace && one.1.as_bytes() == key)
            .map(|one| one.2.as_bytes()),
    };
    if let Some(found) = found {
        // SAFETY: the module has room for the result.
        unsafe { into.write(Buffer::of(found)) };
    }
    found.is_some()
}

unsafe extern "C" fn metadata_keys_size(filter: FilterPtr, source: u32, namespace: Buffer) -> usize {
    assert_eq!(source, 1);
    // SAFETY: as above.
    let (stream, namespace) = unsafe { (stream(filter), namespace.bytes()) };
    stream.route_metadata.iter().filter(|one| one.0.as_bytes() == namespace).count()
}

unsafe extern "C" fn metadata_keys(
    filter: FilterPtr,
    source: u32,
    namespace: Buffer,
    into: *mut Buffer,
) -> bool {
    assert_eq!(source, 1);
    // SAFETY: as above.
    let (stream, namespace) = unsafe { (stream(filter), namespace.bytes()) };
    if stream.faults.no_metadata_keys {
        return false;
    }
    let keys = stream.route_metadata.iter().filter(|one| one.0.as_bytes() == namespace);
    for (at, (_, key, _)) in keys.enumerate() {
        // SAFETY: the module has room for as many keys as `metadata_keys_size` says.
        unsafe { into.add(at).write(Buffer::of(key.as_bytes())) };
    }
    true
}

unsafe extern "C" fn route_config(filter: FilterPtr) -> *const c_void {
    // SAFETY: as above.
    unsafe { stream(filter) }.route
}

unsafe extern "C" fn attribute_text(filter: FilterPtr, attribute: u32, into: *mut Buffer) -> bool {
    assert_eq!(attribute, 24);
    // SAFETY: as above, and the module has room for the result.
    unsafe {
        into.write(Buffer::of(stream(filter).peer.as_bytes()));
        !stream(filter).faults.no_peer
    }
}

unsafe extern "C" fn define_counter(
    _: ConfigPtr,
    name: Buffer,
    _: *mut Buffer,
    labels: usize,
    into: *mut usize,
) -> u32 {
    assert_eq!(labels, 0);
    let names = ["talos_hits", "talos_misses", "talos_stale", "talos_left_alone", "talos_panics"];
    // SAFETY: the name is valid until this returns, and the module has room for the id.
    unsafe {
        let id = names.iter().position(|known| known.as_bytes() == name.bytes());
        into.write(id.expect("a counter's name"));
    }
    0
}

unsafe extern "C" fn increment_counter(
    filter: FilterPtr,
    id: usize,
    _: *mut Buffer,
    labels: usize,
    by: u64,
) -> u32 {
    assert_eq!(labels, 0);
    // SAFETY: as above.
    *unsafe { stream(filter) }.counters.entry(id).or_default() += by;
    0
}

unsafe extern "C" fn log(level: u32, line: Buffer) {
    // SAFETY: the line is valid until this returns.
    eprintln!("[{level}] {}", text(unsafe { line.bytes() }));
}
