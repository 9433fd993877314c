//! A database of PostgreSQL whose encoding lacks letters.

use crate::rig::database::{execute, migrate, new_name};
use crate::rig::needs::variable;
use crate::rig::support::Must;
use crate::rig::talos::Setup;

#[tokio::test(flavor = "multi_thread")]
async fn an_encoding_that_lacks_letters_is_named() {
    needs!(Postgres);
    for (encoding, is_told) in [("LATIN1", true), ("SQL_ASCII", false), ("UTF8", false)] {
        let (postgres, name) = (variable("TALOS_TEST_POSTGRES"), new_name());
        let create = format!(
            "CREATE DATABASE {name} ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
        );
        execute(&format!("{postgres}/postgres"), create);
        let dsn = format!("{postgres}/{name}");
        migrate(&dsn);
        let setup = Setup::new().set("TALOS_DB_DSN", &dsn);
        let talos = setup.start().await;
        let log = talos.process.log();
        assert_eq!(log.contains("the encoding of the database is LATIN1"), is_told, "{encoding}: {log}");
        talos.stop().await;
        let checked = setup.run(&["config", "check", "--connect"]).await;
        let output = String::from_utf8(checked.stdout).must("text");
        let line = output.lines().find(|line| line.contains(" database: ")).must(&output);
        assert_eq!(line.starts_with('✗') && line.contains("it must be UTF8"), is_told, "{encoding}: {line}");
    }
}
