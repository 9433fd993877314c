//! `talos doctor`: finds what in an Envoy's configuration makes key checks unsafe or slow.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use reqwest::{Url, redirect};
use serde_json::{Value, json};

use super::exit::{Failure, Outcome};
use super::input;
use super::output::write_stdout;
use super::source::source;
use crate::config::Loaded;
use crate::doctor::{Finding, Options, Report, Severity, examine, from_bootstrap};
use crate::escape::visible;

/// Largest configuration dump that is read, in bytes.
const MAX_DUMP_BYTES: usize = 256 * 1024 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(60);
/// Number of paths listed for one finding in text form; JSON has all of them.
const MAX_LISTED_PATHS: usize = 5;

/// Find what in an Envoy's configuration makes key checks unsafe or slow
///
/// Reads the configuration of a running Envoy from its admin interface, or from a file: its
/// /config_dump (also as istioctl and egctl print it), or the bootstrap configuration that
/// `envoy -c` reads. Each finding has its path, its consequence, and the corrected configuration.
/// With --config, Envoy's settings for the client address are compared with those of Talos.
///
/// The exit code is 0 when there is no finding of the severity of --fail-on or above, 1 when there
/// is one, 64 when the file can't be read or isn't an Envoy configuration, and 69 when Envoy's
/// admin interface can't be reached.
#[derive(Args)]
#[command(after_help = "\
EXAMPLES:
  talos doctor http://127.0.0.1:9901 || echo \"exit code $?\"
  talos doctor envoy.yaml --config talos.yaml --fail-on error || echo \"exit code $?\"
  talos doctor - --format json < config_dump.json || echo \"exit code $?\"")]
pub struct Doctor {
    /// URL of Envoy's admin interface (http://127.0.0.1:9901), a file, or `-` for stdin
    from: String,
    /// Cluster of the Talos servers; may be repeated [default: all gRPC clusters of ext_authz
    /// filters]
    #[arg(long = "cluster", value_name = "NAME")]
    clusters: Vec<String>,
    /// Lowest severity that makes the exit code 1
    #[arg(long, value_name = "SEVERITY", default_value = "warning")]
    fail_on: FailOn,
    /// Output format
    #[arg(short = 'o', long, default_value = "text")]
    format: Format,
}

#[derive(Clone, Copy, ValueEnum)]
enum FailOn {
    /// Errors
    Error,
    /// Errors and warnings
    Warning,
    /// No finding
    Never,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Text,
    Json,
}

impl Doctor {
    /// Runs the command. `config` is the file that `--config` names.
    ///
    /// # Errors
    /// Fails when the Envoy configuration can't be read.
    pub async fn run(self, config: Option<PathBuf>) -> Result<Outcome, Failure> {
        let talos = match config {
            None => None,
            Some(file) => {
                let source = source(Some(file))?.without_admin();
                let Loaded { config, .. } = source.load().map_err(Failure::usage)?;
                Some(config)
            }
        };
        let document = match self.from.starts_with("http://") || self.from.starts_with("https://") {
            true => fetch_dump(&self.from).await?,
            false => read_dump(Path::new(&self.from))?,
        };
        let options = Options { clusters: &self.clusters, authz: talos.as_ref().map(|config| &config.authz) };
        let report = examine(&document, options)
            .map_err(|error| Failure::usage(format!("{}: {error}", visible(&self.from))))?;
        match self.format {
            Format::Json => write_stdout(&format!("{:#}\n", json(&report)))?,
            Format::Text => write_stdout(&text(&report))?,
        }
        let worst = report.findings.first().map(|finding| finding.severity);
        let fails = match self.fail_on {
            FailOn::Never => false,
            FailOn::Error => worst == Some(Severity::Error),
            FailOn::Warning => worst.is_some_and(|worst| worst <= Severity::Warning),
        };
        Ok(if fails { Outcome::Findings } else { Outcome::Done })
    }
}

/// Reads a dump or a bootstrap configuration from a file.
fn read_dump(path: &Path) -> Result<Value, Failure> {
    let text = input::read_file(path, MAX_DUMP_BYTES as u64)?;
    // A dump is JSON, a bootstrap configuration mostly YAML; both parsers bound the nesting.
    let value: Value = match serde_json::from_str(&text) {
        Ok(value) => value,
        Err(json) if text.trim_start().starts_with(['{', '[']) => {
            return Err(Failure::usage(format!("{}: {json}", path.display())));
        }
        Err(_) => serde_norway::from_str(&text)
            .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?,
    };
    Ok(from_bootstrap(value))
}

/// Fetches the dump from Envoy's admin interface.
async fn fetch_dump(from: &str) -> Result<Value, Failure> {
    let mut url =
        Url::parse(from).map_err(|_| Failure::usage("FROM: must be a URL such as http://127.0.0.1:9901"))?;
    if url.path() == "/" {
        url.set_path("/config_dump");
    }
    if url.query().is_none() {
        // Endpoints of EDS clusters are only in the dump when asked for.
        url.set_query(Some("include_eds"));
    }
    let name = format!("{}{}", url.origin().ascii_serialization(), url.path());
    let fail = |problem: &str| Failure::unavailable(format!("{name}: {}", visible(problem)));
    let mut builder = reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(TIMEOUT)
        .redirect(redirect::Policy::none())
        .no_proxy();
    if url.scheme() == "http" {
        // Plain HTTP needs no CA certificates, and must work where none are installed.
        builder = builder.tls_certs_only([]);
    }
    let http = builder
        .build()
        .map_err(|_| fail("no CA certificates found to verify https:// with; set SSL_CERT_FILE"))?;
    let unreachable = |error: reqwest::Error| fail(&innermost(&error.without_url()));
    let mut response = http.get(url).send().await.map_err(unreachable)?;
    if !response.status().is_success() {
        return Err(fail(&format!(
            "answered HTTP {}: is it Envoy's admin interface?",
            response.status().as_u16()
        )));
    }
    let mut bytes = vec![];
    while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
        if bytes.len() + chunk.len() > MAX_DUMP_BYTES {
            return Err(fail(&format!("the dump is larger than {} MiB", MAX_DUMP_BYTES / (1024 * 1024))));
        }
        bytes.extend_from_slice(&chunk);
    }
    serde_json::from_slice(&bytes).map_err(|error| fail(&format!("{error}: is it Envoy's admin interface?")))
}

/// Returns the innermost error, which names the cause, such as `Connection refused`.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

fn count(report: &Report, severity: Severity) -> usize {
    report.findings.iter().filter(|finding| finding.severity == severity).count()
}

fn json(report: &Report) -> Value {
    json!({
        "findings": report.findings,
        "summary": {
            "errors": count(report, Severity::Error),
            "warnings": count(report, Severity::Warning),
            "notes": count(report, Severity::Note),
        },
        "examined": report.examined,
    })
}

/// Formats the report for people; findings that differ only in their path are grouped.
fn text(report: &Report) -> String {
    let mut text = String::new();
    let mut rest: Vec<&Finding> = report.findings.iter().collect();
    while let Some(first) = rest.first().copied() {
        let is_same = |other: &&Finding| {
            (other.id, other.severity, &other.fix) == (first.id, first.severity, &first.fix)
        };
        let (same, others): (Vec<&Finding>, Vec<&Finding>) = rest.into_iter().partition(is_same);
        rest = others;
        let severity = match first.severity {
            Severity::Error => "ERROR",
            Severity::Warning => "WARNING",
            Severity::Note => "NOTE",
        };
        text.push_str(&format!("{severity}  {}\n", first.id));
        for finding in same.iter().take(MAX_LISTED_PATHS) {
            text.push_str(&format!("  at   {}\n", visible(&finding.path)));
        }
        if same.len() > MAX_LISTED_PATHS {
            text.push_str(&format!("       and {} more\n", same.len() - MAX_LISTED_PATHS));
        }
        text.push_str(&format!("  why  {}\n", visible(&first.why)));
        let mut lead = "  fix  ";
        for line in first.fix.lines() {
            text.push_str(&format!("{lead}{}\n", visible(line)));
            lead = "       ";
        }
        text.push('\n');
    }
    let examined = &report.examined;
    let clusters = match examined.clusters.is_empty() {
        true => "no cluster".to_owned(),
        false => visible(&examined.clusters.join(", ")).into_owned(),
    };
    text.push_str(&format!(
        "{} errors, {} warnings, {} notes; examined {} listeners, {} connection managers, {} ext_authz filters that \
         call {clusters}, {} routes\n",
        count(report, Severity::Error),
        count(report, Severity::Warning),
        count(report, Severity::Note),
        examined.listeners,
        examined.connection_managers,
        examined.filters,
        examined.routes,
    ));
    text
}
