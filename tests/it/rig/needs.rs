//! The servers and tools that a test needs beside `talos`.
//!
//! A test begins with `needs!(Envoy, Redis)`. Without their variables it is skipped, and the end of
//! the run says so. With `TALOS_TEST_REQUIRE_ALL=1`, which `tests/run` sets, it fails instead.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Mutex;

/// Returns from a test, and notes it as skipped, unless everything that it needs is there.
macro_rules! needs {
    ($($need:ident),+ $(,)?) => {
        if !$crate::rig::needs::are_met(&[$($crate::rig::needs::Need::$need),+], module_path!()) {
            return;
        }
    };
}

/// A server or a tool.
#[derive(Clone, Copy, Debug)]
pub enum Need {
    /// Envoy, the newest that is supported.
    Envoy,
    /// The program `redis-server`; tests start their own.
    Redis,
    /// A running PostgreSQL, which speaks TLS, too.
    Postgres,
    /// PostgreSQL's programs, for tests that start servers of their own.
    PostgresPrograms,
    /// MariaDB's programs, for tests that start servers of their own.
    MariaDbPrograms,
    /// Python with PyJWT and pymacaroons.
    Python,
    /// Python with the published SDK.
    Sdk,
    /// Python with grpcio.
    GrpcClient,
    /// Prometheus' `promtool`.
    Promtool,
}

impl Need {
    /// Returns the variables that name it.
    fn variables(self) -> &'static [&'static str] {
        match self {
            Self::Envoy => &["TALOS_TEST_ENVOY"],
            Self::Redis => &["TALOS_TEST_REDIS"],
            Self::Postgres => &["TALOS_TEST_POSTGRES", "TALOS_TEST_POSTGRES_CA"],
            Self::PostgresPrograms => &["TALOS_TEST_POSTGRES_BIN"],
            Self::MariaDbPrograms => &["TALOS_TEST_MARIADBD", "TALOS_TEST_MARIADB_INSTALL"],
            Self::Python => &["TALOS_TEST_PYTHON", "TALOS_TEST_PYTHONPATH"],
            Self::Sdk => &["TALOS_TEST_PYTHON", "TALOS_TEST_SDK_PYTHONPATH"],
            Self::GrpcClient => &["TALOS_TEST_PYTHON", "TALOS_TEST_GRPC_PYTHONPATH"],
            Self::Promtool => &["TALOS_TEST_PROMTOOL"],
        }
    }
}

/// Skipped tests with the variables that they lack; None until the first one.
static SKIPPED: Mutex<Option<BTreeMap<String, Vec<&str>>>> = Mutex::new(None);

/// Returns whether all needs are met; notes the running test, in `module`, as skipped otherwise.
pub fn are_met(needs: &[Need], module: &str) -> bool {
    let variables = needs.iter().flat_map(|need| need.variables()).copied();
    let missing: Vec<&str> = variables.filter(|name| std::env::var_os(name).is_none()).collect();
    if missing.is_empty() {
        return true;
    }
    let is_required = std::env::var_os("TALOS_TEST_REQUIRE_ALL").is_some();
    assert!(
        !is_required,
        "{} not set, and TALOS_TEST_REQUIRE_ALL is: start with tests/run",
        missing.join(", ")
    );
    let thread = std::thread::current();
    let test = thread.name().filter(|name| name.contains("::")).unwrap_or(module).to_owned();
    let mut skipped = SKIPPED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let skipped = skipped.get_or_insert_with(|| {
        report_at_exit();
        BTreeMap::new()
    });
    skipped.insert(test, missing);
    false
}

/// Returns a variable that `tests/run` sets, for tests that have checked their needs.
pub fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: start the tests with tests/run"))
}

/// Registers the list of skipped tests to be printed when the process ends, after the summary.
#[allow(unsafe_code, reason = "std can't register a function at exit")]
fn report_at_exit() {
    unsafe extern "C" {
        fn atexit(callback: extern "C" fn()) -> std::ffi::c_int;
    }
    // SAFETY: the declaration is C's, and the callback neither panics nor needs a thread's locals.
    let code = unsafe { atexit(report) };
    assert_eq!(code, 0, "no room for another function at exit");
}

extern "C" fn report() {
    let Ok(Some(skipped)) = SKIPPED.lock().map(|mut skipped| skipped.take()) else { return };
    let mut text = format!("\n===== SKIPPED: {} tests, which count as ok above =====\n", skipped.len());
    for (test, missing) in &skipped {
        text += &format!("  {test} (not set: {})\n", missing.join(", "));
    }
    text += "===== tests/run installs and starts what they need; see tests/README.md =====\n";
    // The process ends here, so a failure can't be reported.
    let _ = std::io::stderr().write_all(text.as_bytes());
}
