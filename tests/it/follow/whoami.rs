//! The caller's own identity, as the server reports it.

use serde_json::json;
use tokio::net::UnixStream;

use crate::cli::Cli;
use crate::rig::http::{Base, Call, Version};
use crate::rig::support::{Json, Must};
use crate::rig::talos::{NETWORK, Setup};

const WHOAMI: &str = "/v2alpha1/admin/whoami";

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_learns_its_name_role_network_and_what_it_may_do() {
    let setup = Setup::new();
    let socket = setup.path("admin.sock");
    let talos = setup.set("TALOS_SERVE_HTTP_SOCKET", &socket.display().to_string()).start().await;
    let anonymous = talos.admin.get(WHOAMI).await.expect(200).json();
    assert_eq!(anonymous.text("/caller"), "anonymous");
    assert_eq!((anonymous.at("/is_verified"), anonymous.text("/proof")), (&json!(false), "none"));
    assert_eq!((anonymous.text("/role"), anonymous.text("/auth_mode")), ("admin", "none"));
    assert_eq!(anonymous.text("/network_id"), NETWORK);
    let operations = anonymous.texts("/operations");
    for operation in ["adminIssueApiKey", "adminListEvents", "adminWhoami", "adminDeleteActor", "getJwks"] {
        assert!(operations.contains(&operation), "{operation}: {operations:?}");
    }
    let stream = UnixStream::connect(&socket).await.must("connecting to the socket");
    let call = Call::get(WHOAMI).header("host", "localhost");
    let own = Base::local(0).exchange_over(stream, Version::Http1, call).await.must("an answer");
    let own = own.expect(200).json();
    assert_eq!(own.text("/caller"), format!("uid:{}", rustix::process::geteuid().as_raw()));
    assert_eq!((own.at("/is_verified"), own.text("/proof")), (&json!(true), "unix"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_may_only_look() {
    use crate::rig::authority::{Authority, forwarded, uri};
    let authority = Authority::new();
    let (certificate, _) = authority.client(vec![uri("spiffe://test/viewer")], 2100);
    let viewer = forwarded(&certificate, "URI=spiffe://test/viewer");
    let talos = Setup::new()
        .set("TALOS_SERVE_HTTP_AUTH_MODE", "xfcc")
        .set("TALOS_SERVE_HTTP_AUTH_XFCC_PEERS", "127.0.0.1")
        .set("TALOS_SERVE_HTTP_AUTH_ROLES_VIEWER", "spiffe://test/viewer")
        .start()
        .await;
    let call = Call::get(WHOAMI).header("x-forwarded-client-cert", &viewer);
    let answer = talos.admin.send(Version::Http1, call).await.expect(200).json();
    assert_eq!((answer.text("/caller"), answer.text("/role")), ("spiffe://test/viewer", "viewer"));
    assert_eq!((answer.text("/proof"), answer.text("/auth_mode")), ("xfcc", "xfcc"));
    let operations = answer.texts("/operations");
    assert!(operations.contains(&"adminListEvents") && operations.contains(&"revokeApiKey"));
    for operation in ["adminIssueApiKey", "adminDeleteActor", "adminRevokeApiKey"] {
        assert!(!operations.contains(&operation), "{operation}: {operations:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_shows_it() {
    let cli = Cli::start().await;
    let shown = cli.line("whoami").await.ok();
    assert!(shown.contains("ROLE       admin\n"), "{shown}");
    assert_eq!(cli.line("whoami --format jsonpath=caller").await.captured(), "anonymous");
}
