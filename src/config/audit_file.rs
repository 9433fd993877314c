//! Finds an audit log in the file of something else: lines appended to a database, a key or a
//! configuration destroy it.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use percent_encoding::percent_decode_str;

use super::error::Problems;
use super::model::Config;

/// Finds an audit log in a file that the configuration names for something else.
pub(super) fn check(config: &Config) -> Problems {
    let Some(log) = &config.audit.file else { return vec![] };
    let other = named_files(config).into_iter().find(|(_, file)| is_same_file(log, file));
    other.map(|(key, _)| problem(&key)).into_iter().collect()
}

/// Finds an audit log in the file from which the configuration itself is read.
pub(super) fn check_own(config: &Config, own: &Path) -> Option<(String, String)> {
    let is_own = config.audit.file.as_ref().is_some_and(|log| is_same_file(log, own));
    is_own.then(|| problem("the configuration"))
}

fn problem(other: &str) -> (String, String) {
    let message = format!("is the file of {other} too, which the log would spoil: name another");
    ("audit.file".to_owned(), message)
}

/// Returns true if both paths lead to one file, or would once it is made.
fn is_same_file(file: &Path, other: &Path) -> bool {
    let id = |path: &Path| std::fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
    // Of a file that isn't there yet, the directory is compared.
    let place = |path: &Path| {
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = directory.unwrap_or(Path::new(".")).canonicalize().ok()?;
        Some(directory.join(path.file_name()?))
    };
    file == other
        || id(file).is_some_and(|id_of_file| id(other) == Some(id_of_file))
        || place(file).is_some_and(|place_of_file| place(other) == Some(place_of_file))
}

/// Files that the configuration names for something else than the audit log, each with its key.
fn named_files(config: &Config) -> Vec<(String, PathBuf)> {
    let (serve, redis) = (&config.serve, &config.cache.redis.tls);
    let jwt = &config.credentials.derived_tokens.jwt;
    let mut files: Vec<(String, PathBuf)> = vec![];
    for (key, dsn) in [("db.dsn", Some(&config.db.dsn)), ("migrate.dsn", config.migrate.dsn.as_ref())] {
        let files_of_database = dsn.map(|dsn| sqlite_files(dsn.expose())).unwrap_or_default();
        files.extend(files_of_database.into_iter().map(|file| (key.to_owned(), file)));
    }
    for (section, tls) in [
        ("serve.http", &serve.http.tls),
        ("serve.public", &serve.public.tls),
        ("serve.metrics", &serve.metrics.tls),
        ("serve.authz", &serve.authz.tls),
    ] {
        for (name, file) in [
            ("cert_file", &tls.cert_file),
            ("key_file", &tls.key_file),
            ("client_ca_file", &tls.client_ca_file),
        ] {
            files.extend(file.iter().map(|file| (format!("{section}.tls.{name}"), file.clone())));
        }
    }
    for (key, file) in [
        ("cache.redis.tls.ca_file", &redis.ca_file),
        ("cache.redis.tls.cert_file", &redis.cert_file),
        ("cache.redis.tls.key_file", &redis.key_file),
        ("authz.denied_template_file", &config.authz.denied_template_file),
        ("consistency.deny_file", &config.consistency.deny_file),
        ("serve.http.socket", &serve.http.socket),
        ("serve.authz.socket", &serve.authz.socket),
    ] {
        files.extend(file.iter().map(|file| (key.to_owned(), file.clone())));
    }
    let jwks = serve.http.auth.jwt.jwks.iter().map(|url| ("serve.http.auth.jwt.jwks".to_owned(), url));
    let sets = jwt
        .signing_keys
        .urls
        .iter()
        .enumerate()
        .map(|(index, url)| (format!("credentials.derived_tokens.jwt.signing_keys.urls[{index}]"), url));
    files.extend(
        jwks.chain(sets)
            .filter_map(|(key, url)| Some((key, PathBuf::from(url.expose().strip_prefix("file://")?)))),
    );
    for (index, network) in config.multitenancy.networks.iter().enumerate() {
        let key = format!("multitenancy.networks[{index}].config_path");
        files.extend(network.config_path.iter().map(|file| (key.clone(), file.clone())));
    }
    files
}

/// The file of an SQLite database, and those that SQLite makes beside it.
fn sqlite_files(dsn: &str) -> Vec<PathBuf> {
    let Some((scheme, rest)) = dsn.trim().split_once("://") else { return vec![] };
    if !["sqlite", "sqlite3"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
        return vec![];
    }
    let path = percent_decode_str(rest.split('?').next().unwrap_or_default()).decode_utf8_lossy();
    let beside = |end: &str| PathBuf::from(format!("{path}{end}"));
    ["", "-wal", "-shm", "-journal"].into_iter().map(beside).collect()
}

#[cfg(test)]
mod tests {
    use crate::config::load;
    use crate::config::tests::load_with;

    #[test]
    fn an_audit_log_in_a_file_of_something_else_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().display();
        std::fs::write(directory.path().join("there"), "a").unwrap();
        std::fs::hard_link(directory.path().join("there"), directory.path().join("link")).unwrap();
        let network = "hostname: a, id: 6ba7b810-9dad-41d1-80b4-00c04fd430c8";
        for (audit, other, key) in [
            ("new", format!("db: {{dsn: 'sqlite://{root}/new'}}"), "db.dsn"),
            ("new-wal", format!("db: {{dsn: 'sqlite3://{root}/./new?_fk=true'}}"), "db.dsn"),
            ("there", format!("db: {{dsn: 'sqlite://{root}/li%6Ek'}}"), "db.dsn"),
            ("new", format!("migrate: {{dsn: 'SQLITE://{root}/../{{}}/new'}}"), "migrate.dsn"),
            ("link", format!("consistency: {{deny_file: {root}/there}}"), "consistency.deny_file"),
            ("there", format!("authz: {{denied_template_file: {root}/there}}"), "authz.denied_template_file"),
            ("new", format!("serve: {{authz: {{socket: {root}/new}}}}"), "serve.authz.socket"),
            (
                "there",
                format!("serve: {{public: {{tls: {{cert_file: {root}/a, key_file: {root}/link}}}}}}"),
                "serve.public.tls.key_file",
            ),
            (
                "there",
                format!(
                    "credentials: {{derived_tokens: {{jwt: {{signing_keys: {{urls: ['file://{root}/link']}}}}}}}}"
                ),
                "credentials.derived_tokens.jwt.signing_keys.urls[0]",
            ),
            (
                "there",
                format!("multitenancy: {{networks: [{{{network}, config_path: {root}/there}}]}}"),
                "multitenancy.networks[0].config_path",
            ),
        ] {
            let name = directory.path().file_name().unwrap().to_string_lossy().into_owned();
            let other = other.replace("{}", &name);
            let yaml = format!("audit: {{file: {root}/{audit}}}\n{other}");
            let text = load_with(&yaml, &[]).expect_err(&yaml).to_string();
            assert!(text.starts_with(&format!("audit.file: is the file of {key} too")), "{yaml}: {text}");
        }
        for (audit, other) in [
            ("other", format!("db: {{dsn: 'sqlite://{root}/there'}}")),
            ("there", format!("db: {{dsn: 'postgres://h{root}/there'}}")),
            ("new", format!("consistency: {{deny_file: {root}/none/new}}")),
        ] {
            let yaml = format!("audit: {{file: {root}/{audit}}}\n{other}");
            assert!(load_with(&yaml, &[]).is_ok(), "{yaml}");
        }
        let file = directory.path().join("talos.yaml");
        std::fs::write(&file, format!("audit: {{file: {root}/./talos.yaml}}")).unwrap();
        let text = load(Some(&file), Vec::new()).unwrap_err().to_string();
        assert!(text.starts_with("audit.file: is the file of the configuration too"), "{text}");
    }
}
