//! A database that can't be reached: errors name the server and the cause within a second.

use std::time::{Duration, Instant};

use crate::rig::process::free_port;
use crate::rig::talos::Setup;

/// Time within which server and cause must be said; the rest is the start of a program in a debug
/// build beside other tests.
const SOON: Duration = Duration::from_millis(2_500);

async fn message(dsn: &str) -> String {
    let setup = Setup::new().set("TALOS_DB_DSN", dsn);
    let began = Instant::now();
    let message = setup.refused().await;
    let took = began.elapsed();
    assert!(took < SOON, "{dsn}: {took:?}: {message}");
    let output = setup.run(&["migrate", "status"]).await;
    assert!(!output.status.success(), "{dsn}");
    message
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_and_the_cause_are_named_at_once() {
    let port = free_port();
    for (dsn, words) in [
        (format!("postgres://u:hunter2@127.0.0.1:{port}/d"), format!("127.0.0.1:{port}: Connection refused")),
        (format!("postgres://u:hunter2@[::1]:{port}/d"), format!("[::1]:{port}: ")),
        (
            format!("mysql://u:hunter2@tcp(127.0.0.1:{port})/d"),
            format!("127.0.0.1:{port}: Connection refused"),
        ),
        (format!("u:hunter2@tcp([::1]:{port})/d"), format!("[::1]:{port}: ")),
        ("postgres:///d?host=/nonesuch&user=u".to_owned(), "/nonesuch: No such file".to_owned()),
        ("u:hunter2@unix(/nonesuch.sock)/d".to_owned(), "/nonesuch.sock: No such file".to_owned()),
        ("postgres://u:hunter2/w@h/d".to_owned(), "percent-encode".to_owned()),
        ("postgres://u:hunter2@h/d?channel_binding=require".to_owned(), "channel_binding".to_owned()),
    ] {
        let output = message(&dsn).await;
        assert!(output.contains(&words), "{dsn}: {output}");
        assert!(!output.contains("hunter2"), "{dsn}: {output}");
    }
}
