//! docs/cli.md and docs/migrate-from-ory.md: the commands that they show work, in their order.

use serde_json::json;

use crate::cli::{Cli, feed, shell};
use crate::rig::support::Must;
use crate::rig::talos::{Setup, Talos};

/// The commands of a page in docs/.
fn script(page: &str) -> String {
    let path = format!("{}/docs/{page}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).must(&path);
    let blocks =
        text.split("```sh\n").skip(1).map(|rest| rest.split("```").next().must("the end of a block"));
    let script: String = blocks.collect();
    assert!(script.lines().count() >= 5, "{script}");
    script
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_of_the_command_line_page_work() {
    let script = script("cli.md");
    let cli = Cli::start().await;
    let ran = feed(shell(&cli.setup), &script).await;
    assert_eq!(ran.code, 0, "{script}\n{ran:#?}");
    // Each command says something of its own.
    for output in ["KEY ID", "true", "ACTIVE", "revoked"] {
        assert!(format!("{}{}", ran.stdout, ran.stderr).contains(output), "no {output} in {ran:#?}");
    }
}

/// A second server of ours stands in for Ory Talos, which isn't available here. Its lists have the
/// fields and forms of Ory's published API (other tests compare the two), and it has the same
/// secrets, as the page requires.
#[tokio::test(flavor = "multi_thread")]
async fn keys_move_as_the_page_says() {
    let script = script("migrate-from-ory.md");
    let (ory, setup) = (Talos::start().await, Setup::new().sqlite());
    let key = ory.issue(json!({ "name": "moved" })).await;
    let imported = ory.import("legacy-0123456789", json!({})).await;
    let token = ory.derive(&key, json!({})).await;
    let talos = setup.start().await;
    let bare = Setup::bare()
        .set("ORY", &ory.admin.url(""))
        .set("SECRET", &key.secret)
        .set("TALOS_ENDPOINT", &talos.admin.url(""));
    let config = format!("db:\n  dsn: sqlite://{}\n", setup.path("talos.db").display());
    std::fs::write(bare.path("talos.yaml"), config).must("a configuration");

    let ran = feed(shell(&bare), &script).await;
    assert_eq!(ran.code, 0, "{script}\n{ran:#?}");
    assert_eq!((ran.field("ADOPTED"), ran.field("KEY ID")), ("2", key.id.as_str()));
    for credential in [&key.secret, &imported.secret, &token] {
        assert_eq!(talos.verify(credential).await, ory.verify(credential).await);
    }
    assert_eq!(talos.verify(&imported.secret).await["is_valid"], true);
}
