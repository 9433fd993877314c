//! Envoy's interface for dynamic modules: the functions that it offers, found by name at load, and
//! safe access to one request.
//!
//! The functions are looked up with `dlsym` and never linked: a library that names a function that
//! an older Envoy lacks would not load there. All signatures are those of Envoy's public header,
//! `source/extensions/dynamic_modules/abi/abi.h`. They are the same from 1.37 to 1.40.

use std::ffi::{CStr, c_char, c_void};
use std::marker::PhantomData;
use std::sync::OnceLock;

/// Filter of one HTTP stream, as Envoy knows it.
pub type FilterPtr = *mut c_void;
/// Filter configuration, as Envoy knows it.
pub type ConfigPtr = *mut c_void;

/// Bytes that belong to Envoy or to the module, passed by value.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Buffer {
    /// First byte; null for no value at all.
    pub ptr: *const u8,
    /// Length in bytes.
    pub len: usize,
}

/// Header line that belongs to Envoy.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct RawHeader {
    /// Name in lower case.
    pub name: Buffer,
    /// Value.
    pub value: Buffer,
}

impl Buffer {
    /// No value: removes a header that is set to it.
    pub const NONE: Self = Self { ptr: std::ptr::null(), len: 0 };

    /// Refers to bytes that must outlive the call that it is passed to.
    pub const fn of(bytes: &[u8]) -> Self {
        Self { ptr: bytes.as_ptr(), len: bytes.len() }
    }

    /// Returns the bytes.
    ///
    /// # Safety
    /// Unless `ptr` is null or `len` is 0, `len` bytes must be readable there for `'a`, and nobody
    /// may write to them meanwhile.
    pub unsafe fn bytes<'a>(self) -> &'a [u8] {
        if self.ptr.is_null() || self.len == 0 {
            return &[];
        }
        // SAFETY: the pointer isn't null, and the caller promises that so many bytes are readable
        // for as long. Bytes need no alignment.
        unsafe { std::slice::from_raw_parts(self.ptr, self.len) }
    }
}

/// Request headers, among the header maps of a stream.
const REQUEST_HEADERS: u32 = 0;
/// Dynamic metadata of the stream, among the sources of metadata.
const DYNAMIC: u32 = 0;
/// Metadata of the route.
const ROUTE: u32 = 1;
/// `source.address` among the attributes.
const SOURCE_ADDRESS: u32 = 24;
/// Success among the results of metric functions.
const METRIC_OK: u32 = 0;

/// Levels of Envoy's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Level {
    /// For people who look for something.
    Debug = 1,
    /// For everybody.
    Info = 2,
    /// Something works less well than it should.
    Warn = 3,
    /// Something doesn't work.
    Error = 4,
}

/// Versions of the interface, by what a module must return when it is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AbiVersion {
    /// Envoy 1.37.0.
    V1_37,
    /// Envoy 1.38 and 1.39.
    V1_38,
    /// Envoy 1.40, and later ones, which warn when the version is another than theirs.
    V1_40,
}

impl AbiVersion {
    /// Returns the text that this Envoy expects.
    pub const fn text(self) -> &'static CStr {
        match self {
            // SHA-256 of the header of 1.37.0, whose Envoy refuses anything else.
            Self::V1_37 => c"4dae397a7c9ff0238d318d57ea656ce8b3fbff595787dcd7ee2ff5b79c9fe10f",
            Self::V1_38 => c"v0.1.0",
            Self::V1_40 => c"v0.2.0",
        }
    }

    /// Returns the Envoy that has it, for people.
    pub const fn envoy(self) -> &'static str {
        match self {
            Self::V1_37 => "1.37",
            Self::V1_38 => "1.38 or 1.39",
            Self::V1_40 => "1.40 or later",
        }
    }
}

/// Functions of every supported Envoy, and those that only newer ones have.
#[derive(Clone, Copy)]
pub struct Callbacks {
    /// Number of header lines of a map.
    pub headers_size: unsafe extern "C" fn(FilterPtr, u32) -> usize,
    /// All header lines of a map, into an array with room for so many.
    pub headers: unsafe extern "C" fn(FilterPtr, u32, *mut RawHeader) -> bool,
    /// Replaces all lines of a header; null removes them.
    pub set_header: unsafe extern "C" fn(FilterPtr, u32, Buffer, Buffer) -> bool,
    /// Sets a text of the dynamic metadata: namespace, key, value.
    pub set_metadata_text: unsafe extern "C" fn(FilterPtr, Buffer, Buffer, Buffer),
    /// Sets a number of the dynamic metadata.
    pub set_metadata_number: unsafe extern "C" fn(FilterPtr, Buffer, Buffer, f64),
    /// Reads a text of some metadata.
    pub metadata_text: unsafe extern "C" fn(FilterPtr, u32, Buffer, Buffer, *mut Buffer) -> bool,
    /// Per-route configuration of the module, null without one.
    pub route_config: unsafe extern "C" fn(FilterPtr) -> *const c_void,
    /// Reads an attribute that is a text.
    pub attribute_text: unsafe extern "C" fn(FilterPtr, u32, *mut Buffer) -> bool,
    /// Defines a counter without labels.
    pub define_counter: unsafe extern "C" fn(ConfigPtr, Buffer, *mut Buffer, usize, *mut usize) -> u32,
    /// Increments a counter.
    pub increment_counter: unsafe extern "C" fn(FilterPtr, usize, *mut Buffer, usize, u64) -> u32,
    /// Writes a line to Envoy's log.
    pub log: unsafe extern "C" fn(u32, Buffer),
    /// Functions that Envoy has since 1.38.
    pub since_1_38: Option<Since1_38>,
    /// Sets many fields of the dynamic metadata from an encoded `google.protobuf.Struct`: since
    /// 1.40.
    pub set_metadata_struct: Option<unsafe extern "C" fn(FilterPtr, Buffer, Buffer)>,
}

/// Functions that Envoy has since 1.38.
#[derive(Clone, Copy)]
pub struct Since1_38 {
    /// Sets a truth value of the dynamic metadata.
    pub set_metadata_bool: unsafe extern "C" fn(FilterPtr, Buffer, Buffer, bool),
    /// Appends a text to a list of the dynamic metadata.
    pub add_metadata_text: unsafe extern "C" fn(FilterPtr, Buffer, Buffer, Buffer) -> bool,
    /// Number of keys of a namespace of some metadata.
    pub metadata_keys_size: unsafe extern "C" fn(FilterPtr, u32, Buffer) -> usize,
    /// All keys of a namespace, into an array with room for so many.
    pub metadata_keys: unsafe extern "C" fn(FilterPtr, u32, Buffer, *mut Buffer) -> bool,
}

static CALLBACKS: OnceLock<Callbacks> = OnceLock::new();

unsafe extern "C" {
    fn dlsym(handle: *mut c_void, symbol: *const c_char) -> *mut c_void;
}

/// Finds a function of Envoy's by its name.
///
/// # Safety
/// `F` must be the type of the function with this name: an `unsafe extern "C" fn`.
unsafe fn find<F: Copy>(name: &CStr) -> Option<F> {
    const { assert!(size_of::<F>() == size_of::<*mut c_void>()) };
    // SAFETY: a null handle stands for all objects of the process, and the name is a C string.
    let found = unsafe { dlsym(std::ptr::null_mut(), name.as_ptr()) };
    // SAFETY: both have the size of a pointer, it isn't null, and the caller vouches for the type.
    (!found.is_null()).then(|| unsafe { std::mem::transmute_copy(&found) })
}

macro_rules! function {
    ($name:literal) => {
        // SAFETY: the field that it is stored in has the type that Envoy's header declares for
        // this name, and the header hasn't changed it since 1.37.
        unsafe { find(const { concat_c(concat!("envoy_dynamic_module_callback_", $name, "\0")) }) }
    };
}

/// Returns a text that ends with a zero byte as a C string.
const fn concat_c(text: &'static str) -> &'static CStr {
    match CStr::from_bytes_with_nul(text.as_bytes()) {
        Ok(text) => text,
        Err(_) => panic!("a zero byte is missing"),
    }
}

impl Callbacks {
    /// Looks all functions up in this process; `None` if one that is needed is missing.
    pub fn look_up() -> Option<Self> {
        Some(Self {
            headers_size: function!("http_get_headers_size")?,
            headers: function!("http_get_headers")?,
            set_header: function!("http_set_header")?,
            set_metadata_text: function!("http_set_dynamic_metadata_string")?,
            set_metadata_number: function!("http_set_dynamic_metadata_number")?,
            metadata_text: function!("http_get_metadata_string")?,
            route_config: function!("get_most_specific_route_config")?,
            attribute_text: function!("http_filter_get_attribute_string")?,
            define_counter: function!("http_filter_config_define_counter")?,
            increment_counter: function!("http_filter_increment_counter")?,
            log: function!("log")?,
            since_1_38: Since1_38::look_up(),
            set_metadata_struct: function!("http_set_dynamic_metadata_struct"),
        })
    }

    /// Returns the version of the interface, by the functions that are there.
    pub const fn version(&self) -> AbiVersion {
        match (self.since_1_38, self.set_metadata_struct) {
            (_, Some(_)) => AbiVersion::V1_40,
            (Some(_), None) => AbiVersion::V1_38,
            (None, None) => AbiVersion::V1_37,
        }
    }

    /// Makes these the functions of the process. The first ones stay.
    pub fn install(self) -> &'static Self {
        CALLBACKS.get_or_init(|| self)
    }
}

impl Since1_38 {
    fn look_up() -> Option<Self> {
        Some(Self {
            set_metadata_bool: function!("http_set_dynamic_metadata_bool")?,
            add_metadata_text: function!("http_add_dynamic_metadata_list_string")?,
            metadata_keys_size: function!("http_get_metadata_keys_count")?,
            metadata_keys: function!("http_get_metadata_keys")?,
        })
    }
}

/// Returns the functions of the process, `None` before the module was loaded.
pub fn callbacks() -> Option<&'static Callbacks> {
    CALLBACKS.get()
}

/// Writes a line to Envoy's log. Must not contain a secret.
pub fn log(level: Level, line: &str) {
    if let Some(callbacks) = callbacks() {
        // SAFETY: the line outlives the call, and Envoy's log may be written to by any thread.
        unsafe { (callbacks.log)(level as u32, Buffer::of(line.as_bytes())) }
    }
}

/// Defines a counter of a filter configuration; `None` if Envoy refuses.
///
/// # Safety
/// `config` must be the pointer of the configuration that Envoy is just making.
pub unsafe fn define_counter(callbacks: &Callbacks, config: ConfigPtr, name: &str) -> Option<Counter> {
    let mut id = 0;
    // SAFETY: the caller vouches for the pointer. The name outlives the call, there are no labels,
    // and the id has room for what is written.
    let result = unsafe {
        (callbacks.define_counter)(config, Buffer::of(name.as_bytes()), std::ptr::null_mut(), 0, &raw mut id)
    };
    (result == METRIC_OK).then_some(Counter(id))
}

/// Counter that was defined for a filter configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counter(usize);

/// Header lines that a request may have. One with more is left alone.
pub const MAX_HEADERS: usize = 100;

/// Room for the header lines of a request.
pub struct HeaderRoom([RawHeader; MAX_HEADERS]);

impl Default for HeaderRoom {
    fn default() -> Self {
        Self([RawHeader { name: Buffer::NONE, value: Buffer::NONE }; MAX_HEADERS])
    }
}

/// Header lines of a request, as they were before anything was set.
#[derive(Clone, Copy)]
pub struct Headers<'a>(&'a [RawHeader]);

impl<'a> Headers<'a> {
    /// Returns all lines: name in lower case, and value.
    pub fn lines(self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone {
        // SAFETY: Envoy wrote these, and what they point to stays until a setter is called. Setters
        // need the stream exclusively, which `'a` borrows.
        self.0.iter().map(|line| unsafe { (line.name.bytes(), line.value.bytes()) })
    }

    /// Returns the values of a header.
    pub fn values<'n>(self, name: &'n str) -> impl Iterator<Item = &'a [u8]> + Clone + use<'a, 'n> {
        self.lines().filter(move |(key, _)| *key == name.as_bytes()).map(|(_, value)| value)
    }
}

/// Request that is being looked at, in the one hook for its headers.
pub struct Stream<'a> {
    filter: FilterPtr,
    callbacks: &'a Callbacks,
    /// Ties it to the hook, and to the thread.
    hook: PhantomData<*mut &'a ()>,
}

impl<'a> Stream<'a> {
    /// Wraps the filter of a stream.
    ///
    /// # Safety
    /// `filter` must be the pointer that Envoy passed to a hook that doesn't return before `'a`
    /// ends, and there must be no other `Stream` of it.
    pub unsafe fn new(filter: FilterPtr, callbacks: &'a Callbacks) -> Self {
        Self { filter, callbacks, hook: PhantomData }
    }

    /// Returns the version of the interface.
    pub const fn version(&self) -> AbiVersion {
        self.callbacks.version()
    }

    /// Returns the request's header lines; `None` if there are too many.
    pub fn headers<'s>(&'s self, room: &'s mut HeaderRoom) -> Option<Headers<'s>> {
        // SAFETY: `new` was promised that the pointer is valid in this hook.
        let count = unsafe { (self.callbacks.headers_size)(self.filter, REQUEST_HEADERS) };
        let lines = room.0.get_mut(..count)?;
        // SAFETY: as above, and the array has room for as many lines as Envoy just said. Envoy
        // can't add one in between: it works in this thread only.
        let is_done = unsafe { (self.callbacks.headers)(self.filter, REQUEST_HEADERS, lines.as_mut_ptr()) };
        is_done.then_some(Headers(lines))
    }

    /// Replaces all lines of a request header.
    pub fn set_header(&mut self, name: &[u8], value: &[u8]) -> bool {
        self.replace_header(name, Buffer::of(value))
    }

    /// Removes all lines of a request header.
    pub fn remove_header(&mut self, name: &[u8]) -> bool {
        self.replace_header(name, Buffer::NONE)
    }

    fn replace_header(&mut self, name: &[u8], value: Buffer) -> bool {
        // SAFETY: the pointer is valid in this hook, and Envoy copies both texts. What `headers`
        // returned borrows the stream, so nothing of it is used any more.
        unsafe { (self.callbacks.set_header)(self.filter, REQUEST_HEADERS, Buffer::of(name), value) }
    }

    /// Returns the address of the connection's peer, with its port.
    pub fn source_address(&self) -> Option<&[u8]> {
        let mut value = Buffer::NONE;
        // SAFETY: the pointer is valid in this hook, and there is room for the result.
        let is_there =
            unsafe { (self.callbacks.attribute_text)(self.filter, SOURCE_ADDRESS, &raw mut value) };
        // SAFETY: Envoy wrote it, and it stays until a setter is called: those need the stream
        // exclusively.
        is_there.then(|| unsafe { value.bytes() })
    }

    /// Returns a text of the dynamic metadata.
    pub fn metadata_text(&self, namespace: &str, key: &str) -> Option<&[u8]> {
        self.text_of(DYNAMIC, namespace, key.as_bytes())
    }

    /// Returns a text of the route's metadata.
    pub fn route_metadata_text(&self, namespace: &str, key: &[u8]) -> Option<&[u8]> {
        self.text_of(ROUTE, namespace, key)
    }

    fn text_of(&self, source: u32, namespace: &str, key: &[u8]) -> Option<&[u8]> {
        let (namespace, key) = (Buffer::of(namespace.as_bytes()), Buffer::of(key));
        let mut value = Buffer::NONE;
        // SAFETY: the pointer is valid in this hook, the texts outlive the call, and there is room
        // for the result.
        let is_there =
            unsafe { (self.callbacks.metadata_text)(self.filter, source, namespace, key, &raw mut value) };
        // SAFETY: as in `source_address`.
        is_there.then(|| unsafe { value.bytes() })
    }

    /// Returns the keys of the route's metadata in a namespace; `None` if this Envoy can't say, or
    /// if they are more than `N`.
    pub fn route_metadata_keys<const N: usize>(&self, namespace: &str) -> Option<Vec<&[u8]>> {
        let since = self.callbacks.since_1_38?;
        let namespace = Buffer::of(namespace.as_bytes());
        // SAFETY: the pointer is valid in this hook, and the text outlives the call.
        let count = unsafe { (since.metadata_keys_size)(self.filter, ROUTE, namespace) };
        if count == 0 {
            return Some(vec![]);
        }
        let mut room = [Buffer::NONE; N];
        let keys = room.get_mut(..count)?;
        // SAFETY: as above, and the array has room for as many keys as Envoy just said.
        let is_done = unsafe { (since.metadata_keys)(self.filter, ROUTE, namespace, keys.as_mut_ptr()) };
        // SAFETY: Envoy wrote them, and they stay while the request has this route: what changes
        // it needs the stream exclusively.
        is_done.then(|| keys.iter().map(|key| unsafe { key.bytes() }).collect())
    }

    /// Sets a text of the dynamic metadata.
    pub fn set_metadata_text(&mut self, namespace: &str, key: &str, value: &[u8]) {
        let (namespace, key) = (Buffer::of(namespace.as_bytes()), Buffer::of(key.as_bytes()));
        // SAFETY: the pointer is valid in this hook, and Envoy copies the texts.
        unsafe { (self.callbacks.set_metadata_text)(self.filter, namespace, key, Buffer::of(value)) }
    }

    /// Sets a number of the dynamic metadata.
    pub fn set_metadata_number(&mut self, namespace: &str, key: &str, value: f64) {
        let (namespace, key) = (Buffer::of(namespace.as_bytes()), Buffer::of(key.as_bytes()));
        // SAFETY: the pointer is valid in this hook, and Envoy copies the texts.
        unsafe { (self.callbacks.set_metadata_number)(self.filter, namespace, key, value) }
    }

    /// Sets a truth value of the dynamic metadata. Returns false if this Envoy can't.
    pub fn set_metadata_bool(&mut self, namespace: &str, key: &str, value: bool) -> bool {
        let (namespace, key) = (Buffer::of(namespace.as_bytes()), Buffer::of(key.as_bytes()));
        let Some(since) = self.callbacks.since_1_38 else { return false };
        // SAFETY: the pointer is valid in this hook, and Envoy copies the texts.
        unsafe { (since.set_metadata_bool)(self.filter, namespace, key, value) };
        true
    }

    /// Appends a text to a list of the dynamic metadata. Returns false if this Envoy can't.
    pub fn add_metadata_text(&mut self, namespace: &str, key: &str, value: &[u8]) -> bool {
        let (namespace, key) = (Buffer::of(namespace.as_bytes()), Buffer::of(key.as_bytes()));
        let Some(since) = self.callbacks.since_1_38 else { return false };
        // SAFETY: the pointer is valid in this hook, and Envoy copies the texts.
        unsafe { (since.add_metadata_text)(self.filter, namespace, key, Buffer::of(value)) }
    }

    /// Merges an encoded `google.protobuf.Struct` into the dynamic metadata. Returns false if this
    /// Envoy can't.
    pub fn set_metadata_struct(&mut self, namespace: &str, encoded: &[u8]) -> bool {
        let Some(set) = self.callbacks.set_metadata_struct else { return false };
        // SAFETY: the pointer is valid in this hook, and Envoy copies what it reads.
        unsafe { set(self.filter, Buffer::of(namespace.as_bytes()), Buffer::of(encoded)) };
        true
    }

    /// Adds to a counter of the filter's configuration.
    pub fn count(&self, counter: Counter, by: u64) {
        // SAFETY: the pointer is valid in this hook, and there are no labels. An id that isn't the
        // configuration's is refused.
        unsafe { (self.callbacks.increment_counter)(self.filter, counter.0, std::ptr::null_mut(), 0, by) };
    }

    /// Returns the module's configuration of the route.
    pub fn route_config(&self) -> *const c_void {
        // SAFETY: the pointer is valid in this hook.
        unsafe { (self.callbacks.route_config)(self.filter) }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Shows header lines to a function as a request's.
    pub(crate) fn with_headers(lines: &[(&str, &str)], show: impl FnOnce(Headers<'_>)) {
        let buffer = |text: &str| Buffer::of(text.as_bytes());
        let raw: Vec<_> = lines
            .iter()
            .map(|(name, value)| RawHeader { name: buffer(name), value: buffer(value) })
            .collect();
        show(Headers(&raw));
    }

    #[test]
    fn the_version_follows_from_the_functions_that_are_there() {
        assert!(Callbacks::look_up().is_none(), "this process is no Envoy");
        assert!(AbiVersion::V1_37 < AbiVersion::V1_38 && AbiVersion::V1_38 < AbiVersion::V1_40);
        assert_eq!(AbiVersion::V1_37.text().count_bytes(), 64);
    }
}
