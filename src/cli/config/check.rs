//! `talos config check`: finds what would keep `talos serve` from starting, or surprise later.

use std::io::Read;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::app::{self, Options, Preflight, Probe, preflight};
use crate::cli::exit::{Failure, Outcome};
use crate::cli::output::write_stdout;
use crate::cli::source::source;
use crate::cli::stderr;
use crate::cli::{Plane, block_on, planes};
use crate::config::{ConfigError, Problem, Source, description};
use crate::escape::{visible, visible_lines};
use crate::store::{Store, StoreError};

/// Message of the command for an invalid configuration, after its problems.
pub(super) const INVALID: &str = "the configuration is invalid";

/// Largest configuration that is read from stdin, in bytes.
const MAX_STDIN_BYTES: u64 = 16 * 1024 * 1024;
/// Name of a configuration from stdin.
const STDIN: &str = "<stdin>";

/// Check a configuration as `talos serve` would read it, the environment included
///
/// Prints "ok", or lists every problem on its own line and exits with 64: the key, what is wrong,
/// the place, what to do. `talos serve` refuses to start with the same lines. Warnings go to
/// stderr. No HMAC secret is needed.
///
/// The files that the configuration names are read, too. With --connect, database, Redis, key sets
/// and listeners are tried, each with a tick or a cross; a cross makes the exit code 1.
#[derive(Args)]
#[command(after_help = "\
EXAMPLES:
  echo 'cache: {ttl: 1m}' > talos.yaml
  talos config check talos.yaml
  talos config check talos.yaml --plane authz
  talos config check - --no-files --format json < talos.yaml")]
pub(crate) struct Check {
    /// The configuration file, or `-` for stdin [default: --config; without either, only the
    /// environment is checked]
    file: Option<PathBuf>,
    /// Check it for a server of only this plane
    #[arg(long, default_value = "all")]
    plane: CheckedPlane,
    /// Also fetch key sets from other servers
    #[arg(long)]
    fetch: bool,
    /// Check only the settings: the files that they name may be missing here
    #[arg(long, conflicts_with = "connect")]
    no_files: bool,
    /// Also try the database, Redis, key sets and listeners
    #[arg(long)]
    connect: bool,
    /// Output format; json is for editors and CI
    #[arg(short = 'o', long, default_value = "text")]
    format: CheckFormat,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum CheckFormat {
    Text,
    Json,
}

#[derive(Clone, Copy, ValueEnum)]
enum CheckedPlane {
    /// All planes, as `talos serve` without a plane
    All,
    /// Key management
    Admin,
    /// selfRevoke and the public keys
    Public,
    /// Envoy's ext_authz over gRPC
    Authz,
}

impl CheckedPlane {
    const fn plane(self) -> Option<Plane> {
        match self {
            Self::All => None,
            Self::Admin => Some(Plane::Admin),
            Self::Public => Some(Plane::Public),
            Self::Authz => Some(Plane::Authz),
        }
    }
}

impl Check {
    /// Runs the command. `config` is the file that `--config` names.
    ///
    /// # Errors
    /// When the configuration is invalid.
    pub(crate) fn run(self, config: Option<PathBuf>) -> Result<Outcome, Failure> {
        let file = self.file.clone().or(config);
        let source = match file {
            Some(file) if file == Path::new("-") => source(Some(STDIN.into()))?.with_text(read_stdin()?),
            file => source(file)?,
        };
        let plane = self.plane.plane();
        let source = source.for_planes(planes(plane));
        let source = if self.no_files { source.without_network_files() } else { source };
        let (found, probes) = block_on(self.examine(&source, plane))?;
        match self.format {
            CheckFormat::Text => print_text(&found, &probes)?,
            CheckFormat::Json => write_stdout(&format!("{:#}\n", to_json(&found, &probes)))?,
        }
        if !found.problems.is_empty() {
            return Err(Failure::usage(INVALID));
        }
        match probes.iter().any(|probe| probe.result.is_err()) {
            true => Ok(Outcome::PartialFailure),
            false => Ok(Outcome::Done),
        }
    }

    /// Checks the settings, then what they name, then what they connect to.
    async fn examine(&self, source: &Source, plane: Option<Plane>) -> (Preflight, Vec<Probe>) {
        let loaded = match source.load() {
            Ok(loaded) => loaded,
            Err(error) => return (Preflight { problems: problems_of(error), warnings: vec![] }, vec![]),
        };
        let options = Options { fetch: self.fetch, files: !self.no_files };
        let mut found = preflight(source, &loaded, planes(plane), options).await;
        let mut warnings = loaded.warnings.clone();
        warnings.append(&mut found.warnings);
        found.warnings = warnings;
        // Serving needs no database of migrations.
        if let Some(dsn) = &loaded.config.migrate.dsn
            && let Err(StoreError::Dsn(problem)) = Store::check_dsn(dsn.expose())
        {
            found.problems.push(source.problem(&loaded, &format!("migrate.dsn: {problem}"), None));
        }
        if loaded.config.require_serving_secret().is_err() {
            let message = "is unset; `talos serve` needs it (TALOS_SECRETS_HMAC_CURRENT)";
            let unset = Problem::new("secrets.hmac.current", message, "");
            if self.connect { found.problems.push(unset) } else { found.warnings.push(unset) }
        }
        let mut probes = vec![];
        if self.connect && found.problems.is_empty() {
            let is_metrics_port_set = loaded.is_set("serve.metrics.port");
            probes = app::probe(&loaded.config, planes(plane), is_metrics_port_set).await;
        }
        (found, probes)
    }
}

fn read_stdin() -> Result<Vec<u8>, Failure> {
    let mut text = vec![];
    let read = std::io::stdin().lock().take(MAX_STDIN_BYTES + 1).read_to_end(&mut text);
    read.map_err(|error| Failure::usage(format!("stdin: {error}")))?;
    match u64::try_from(text.len()).is_ok_and(|length| length <= MAX_STDIN_BYTES) {
        true => Ok(text),
        false => Err(Failure::usage("stdin: is larger than 16 MiB")),
    }
}

/// The problems of a configuration that can't be loaded.
fn problems_of(error: ConfigError) -> Vec<Problem> {
    match error {
        ConfigError::Invalid(problems) => problems,
        error => {
            let text = error.to_string();
            let (key, message) = text.split_once(": ").unwrap_or(("", &text));
            let location = if let ConfigError::NotYaml { location, .. } = &error { *location } else { None };
            vec![Problem { location, ..Problem::new(key, message, "") }]
        }
    }
}

fn print_text(found: &Preflight, probes: &[Probe]) -> Result<(), Failure> {
    found
        .warnings
        .iter()
        .for_each(|warning| stderr::line(format_args!("warning: {}", visible_lines(&warning.to_string()))));
    found
        .problems
        .iter()
        .for_each(|problem| stderr::line(format_args!("{}", visible_lines(&problem.to_string()))));
    let mut text = String::new();
    for Probe { subject, result } in probes {
        let line = match result {
            Ok(detail) => format!("✓ {subject}: {detail}"),
            // Most errors begin with their key.
            Err(problem) if problem.starts_with(subject.as_str()) => format!("✗ {problem}"),
            Err(problem) => format!("✗ {subject}: {problem}"),
        };
        text.push_str(&visible(&line));
        text.push('\n');
    }
    if found.problems.is_empty() && probes.iter().all(|probe| probe.result.is_ok()) {
        text.push_str("ok\n");
    }
    write_stdout(&text)
}

fn to_json(found: &Preflight, probes: &[Probe]) -> Value {
    let errors = found.problems.iter().map(|problem| finding(problem, "error"));
    let warnings = found.warnings.iter().map(|warning| finding(warning, "warning"));
    let checks = probes.iter().map(|Probe { subject, result }| {
        let (is_ok, detail) = match result {
            Ok(detail) => (true, detail),
            Err(problem) => (false, problem),
        };
        json!({ "subject": subject, "ok": is_ok, "detail": detail })
    });
    json!({
        "findings": errors.chain(warnings).collect::<Vec<_>>(),
        "summary": { "errors": found.problems.len(), "warnings": found.warnings.len() },
        "checks": checks.collect::<Vec<_>>(),
    })
}

fn finding(problem: &Problem, severity: &str) -> Value {
    // The key's description says what it may be, where nothing more specific is known.
    let cure = problem.cure.clone().or_else(|| description(&problem.key));
    json!({
        "path": problem.key,
        "message": problem.message,
        "cure": cure,
        "severity": severity,
        "origin": problem.origin,
        "line": problem.location.map(|location| location.line),
        "column": problem.location.map(|location| location.column),
    })
}
