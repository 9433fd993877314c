//! A real Envoy with the library, and an upstream that answers with what it gets.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use tempfile::TempDir;

/// Tries of something that takes a moment, and the time between two of them.
const TRIES: usize = 600;
const BETWEEN_TRIES: Duration = Duration::from_millis(50);
/// Tries to start with free ports.
const PORT_TRIES: usize = 5;
const WITHOUT_HOT_RESTART: &[&str] = &["--disable-hot-restart"];

/// The Envoys to test with: version and program. None of them is no failure, unless all are
/// required.
pub fn envoys() -> Vec<(String, PathBuf)> {
    let Ok(list) = std::env::var("TALOS_TEST_ENVOYS") else {
        assert!(std::env::var_os("TALOS_TEST_REQUIRE_ALL").is_none(), "TALOS_TEST_ENVOYS is not set");
        eprintln!("skipped: TALOS_TEST_ENVOYS is not set");
        return vec![];
    };
    let pair = |entry: &str| {
        let (version, path) = entry.split_once('=').expect("version=path");
        (version.to_owned(), PathBuf::from(path))
    };
    // 1.36 has another interface.
    list.split(',').map(pair).filter(|(version, _)| !version.starts_with("1.36")).collect()
}

/// The library that was built with this test.
pub fn library() -> PathBuf {
    let test = std::env::current_exe().expect("the test's own path");
    let library = test.with_file_name("libtalos_module.so");
    assert!(library.exists(), "{} is not there", library.display());
    library
}

/// A running Envoy.
pub struct Envoy {
    child: Child,
    dir: TempDir,
    /// Ports in the order of the configuration's placeholders.
    pub ports: Vec<u16>,
}

impl Drop for Envoy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Envoy {
    /// Starts Envoy with a configuration in which `{port0}`, `{port1}` and so on are free ports.
    pub fn start(program: &Path, config: &str, ports: usize) -> Self {
        for _ in 0..PORT_TRIES {
            let dir = tempfile::tempdir().expect("a directory");
            let free = (0..ports).map(|_| free_port()).collect();
            match Self::try_start(dir, program, config, free, WITHOUT_HOT_RESTART) {
                Ok(envoy) => return envoy,
                // Something else was quicker: a connection, most likely.
                Err(log) if log.contains("Address already in use") => {}
                Err(log) => panic!("Envoy does not start:\n{log}"),
            }
        }
        panic!("{PORT_TRIES} times, a free port was taken before Envoy listened");
    }

    /// Starts Envoy in a directory, on these ports.
    pub fn start_in(dir: TempDir, program: &Path, config: &str, ports: Vec<u16>) -> Self {
        Self::start_with(dir, program, config, ports, WITHOUT_HOT_RESTART)
    }

    /// Starts Envoy with further arguments.
    pub fn start_with(
        dir: TempDir,
        program: &Path,
        config: &str,
        ports: Vec<u16>,
        arguments: &[&str],
    ) -> Self {
        Self::try_start(dir, program, config, ports, arguments)
            .unwrap_or_else(|log| panic!("Envoy does not start:\n{log}"))
    }

    /// Starts Envoy; returns its log if it ends before it listens.
    fn try_start(
        dir: TempDir,
        program: &Path,
        config: &str,
        ports: Vec<u16>,
        arguments: &[&str],
    ) -> Result<Self, String> {
        let file = write_config(&dir, config, &ports);
        let log = fs::File::create(dir.path().join("log")).expect("a log");
        let child = command(program, &file)
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("Envoy starts");
        let mut envoy = Self { child, dir, ports };
        for _ in 0..TRIES {
            if envoy.ports.iter().all(|port| TcpStream::connect(("127.0.0.1", *port)).is_ok()) {
                return Ok(envoy);
            }
            if let Some(status) = envoy.child.try_wait().expect("a child") {
                return Err(format!("{status}\n{}", envoy.log()));
            }
            std::thread::sleep(BETWEEN_TRIES);
        }
        panic!("Envoy does not listen:\n{}", envoy.log());
    }

    /// Returns the id of its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns how it ended.
    pub fn wait(&mut self) -> std::process::ExitStatus {
        self.child.wait().expect("a child")
    }

    /// Returns its directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Returns what Envoy logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Sends a request over HTTP/1.1; returns the status and the body.
    pub fn send(&self, port: usize, path: &str, headers: &str) -> (u16, String) {
        send(self.ports[port], path, headers).expect("a reply")
    }
}

/// Sends a request over HTTP/1.1 on a connection of its own; returns the status and the body.
///
/// # Errors
/// Fails if there is no whole reply.
pub fn send(port: u16, path: &str, headers: &str) -> std::io::Result<(u16, String)> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: edge.example\r\n{headers}connection: close\r\n\r\n");
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.write_all(request.as_bytes())?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply)?;
    let whole = reply.split_once("\r\n\r\n").and_then(|(head, body)| {
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some((status, body.to_owned()))
    });
    whole.ok_or_else(|| std::io::ErrorKind::UnexpectedEof.into())
}

/// Lets Envoy read a configuration, without starting; returns its log if it refuses.
pub fn validate(program: &Path, config: &str) -> Result<(), String> {
    let dir = tempfile::tempdir().expect("a directory");
    // Nothing listens there.
    let file = write_config(&dir, config, &[10_000, 10_001]);
    let arguments = ["--mode", "validate", "--disable-hot-restart"];
    let output = command(program, &file).args(arguments).output().expect("Envoy starts");
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

fn write_config(dir: &TempDir, config: &str, ports: &[u16]) -> PathBuf {
    let mut text = config.to_owned();
    for (index, port) in ports.iter().enumerate() {
        text = text.replace(&format!("{{port{index}}}"), &port.to_string());
    }
    let file = dir.path().join("envoy.yaml");
    fs::write(&file, text).expect("a configuration");
    file
}

fn command(program: &Path, config: &Path) -> Command {
    let mut command = Command::new(program);
    command.arg("-c").arg(config);
    command.args(["--concurrency", "1", "--log-level", "info"]);
    command.env("ENVOY_DYNAMIC_MODULES_SEARCH_PATH", library().parent().expect("a directory"));
    command
}

/// Returns a port that was free a moment ago and that no other test of this run was given.
pub fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        if GIVEN.lock().expect("the list of ports").insert(port) {
            return port;
        }
    }
}

/// Starts a server that answers each request with its head, and redirects those for `/moved` to
/// `/a`; returns its port.
pub fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer(stream));
        }
    });
    port
}

fn answer(stream: TcpStream) {
    let mut reader = BufReader::new(&stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            match reader.read_line(&mut head) {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
        let reply = match head.starts_with("GET /moved ") {
            true => "HTTP/1.1 302 Found\r\nlocation: http://edge.example/a\r\ncontent-length: 0\r\n\r\n"
                .to_owned(),
            false => format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{head}", head.len()),
        };
        if (&stream).write_all(reply.as_bytes()).is_err() {
            return;
        }
    }
}
