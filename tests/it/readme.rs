//! README.md: what its section on the command line shows works, in its order.

use crate::cli::{Cli, feed, shell};
use crate::support::Must;

const README: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_of_the_readme_work() {
    let readme = std::fs::read_to_string(README).must("the README");
    let section = readme.split("\n## ").find(|section| section.starts_with("Command line\n"));
    let section = section.must("a section `Command line` in the README");
    let blocks =
        section.split("```sh\n").skip(1).map(|rest| rest.split("```").next().must("the end of a block"));
    let script: String = blocks.collect();
    assert!(script.lines().count() >= 5, "{script}");

    let cli = Cli::start().await;
    let ran = feed(shell(&cli.setup), &script).await;
    assert_eq!(ran.code, 0, "{script}\n{ran:#?}");
    // Each command says something of its own.
    for told in ["KEY ID", "true", "ACTIVE", "revoked"] {
        assert!(format!("{}{}", ran.stdout, ran.stderr).contains(told), "no {told} in {ran:#?}");
    }
}
