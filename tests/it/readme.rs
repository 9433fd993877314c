//! README.md: what its sections on the command line and on moving show works, in their order.

use serde_json::json;

use crate::cli::{Cli, feed, shell};
use crate::rig::support::Must;
use crate::rig::talos::{Setup, Talos};

const README: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");

/// The commands that a section shows.
fn script(heading: &str) -> String {
    let readme = std::fs::read_to_string(README).must("the README");
    let section = readme.split("\n## ").find(|section| section.starts_with(&format!("{heading}\n")));
    let section = section.must(&format!("a section `{heading}` in the README"));
    let blocks =
        section.split("```sh\n").skip(1).map(|rest| rest.split("```").next().must("the end of a block"));
    let script: String = blocks.collect();
    assert!(script.lines().count() >= 5, "{script}");
    script
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_of_the_readme_work() {
    let script = script("Command line");
    let cli = Cli::start().await;
    let ran = feed(shell(&cli.setup), &script).await;
    assert_eq!(ran.code, 0, "{script}\n{ran:#?}");
    // Each command says something of its own.
    for told in ["KEY ID", "true", "ACTIVE", "revoked"] {
        assert!(format!("{}{}", ran.stdout, ran.stderr).contains(told), "no {told} in {ran:#?}");
    }
}

/// A second server of ours stands for Ory Talos, which can't be had here: what it lists has the fields and the forms of
/// Ory's published API, and other tests hold the two against each other. It has the same secrets, as the section says.
#[tokio::test(flavor = "multi_thread")]
async fn keys_move_as_the_readme_says() {
    let script = script("Moving from Ory Talos");
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
