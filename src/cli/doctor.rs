//! `talos doctor`: finds what in an Envoy's configuration makes key checks unsafe or slow.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use reqwest::{Url, redirect};
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::exit::{Failure, Outcome};
use super::input;
use super::output::write_stdout;
use super::source::source;
use crate::config::Loaded;
use crate::doctor::{Finding, Options, Report, Severity, examine};
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
/// /config_dump (also as istioctl and egctl print it), the bootstrap configuration that `envoy -c`
/// reads, parts of these, or ConfigMaps that hold them. Each finding has its path and line, its
/// consequence, and the corrected configuration.
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
pub(super) struct Doctor {
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
    pub(super) async fn run(self, config: Option<PathBuf>) -> Result<Outcome, Failure> {
        let talos = match config {
            None => None,
            Some(file) => {
                let source = source(Some(file))?.without_admin();
                let Loaded { config, .. } = source.load().map_err(Failure::usage)?;
                Some(config)
            }
        };
        let is_fetched = self.from.starts_with("http://") || self.from.starts_with("https://");
        let document = match is_fetched {
            true => fetch_dump(&self.from).await?,
            false => read_file(&self.from)?,
        };
        let options = Options {
            clusters: &self.clusters,
            authz: talos.as_ref().map(|config| &config.authz),
            listener: talos.as_ref().map(|config| &config.serve.authz),
        };
        let mut report = examine(&document, options)
            .map_err(|error| Failure::usage(format!("{}: {error}", visible(&self.from))))?;
        if is_fetched {
            // Lines mean nothing without the file, which a fetched dump doesn't have.
            report.findings.iter_mut().for_each(|finding| finding.line = None);
        }
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

/// Reads the text of a dump or a bootstrap configuration from a file.
fn read_file(from: &str) -> Result<String, Failure> {
    input::read_file(Path::new(from), MAX_DUMP_BYTES as u64).map(|mut text| std::mem::take(&mut *text))
}

/// Fetches the dump from Envoy's admin interface.
async fn fetch_dump(from: &str) -> Result<String, Failure> {
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
    serde_json::from_slice::<IgnoredAny>(&bytes)
        .map_err(|error| fail(&format!("the answer is no JSON ({error}): is it Envoy's admin interface?")))?;
    String::from_utf8(bytes).map_err(|_| fail("the answer isn't UTF-8: is it Envoy's admin interface?"))
}

/// Returns the innermost error, which names the cause, such as `Connection refused`.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

fn json(report: &Report) -> Value {
    json!({
        "findings": report.findings,
        "summary": report.summary,
        "examined": report.examined,
    })
}

/// Formats the report for people; findings that differ only in their path are grouped.
fn text(report: &Report) -> String {
    let mut text = String::new();
    let mut groups: Vec<Vec<&Finding>> = vec![];
    let mut places: HashMap<(&str, Severity, &str), usize> = HashMap::new();
    for finding in &report.findings {
        let place = *places.entry((finding.id, finding.severity, &finding.fix)).or_insert(groups.len());
        match groups.get_mut(place) {
            Some(group) => group.push(finding),
            None => groups.push(vec![finding]),
        }
    }
    for same in groups {
        let Some(first) = same.first() else { continue };
        let severity = match first.severity {
            Severity::Error => "ERROR",
            Severity::Warning => "WARNING",
            Severity::Note => "NOTE",
        };
        text.push_str(&format!("{severity}  {}\n", first.id));
        for finding in same.iter().take(MAX_LISTED_PATHS) {
            let line = finding.line.map(|line| format!(" (line {line})")).unwrap_or_default();
            text.push_str(&format!("  at   {}{line}\n", visible(&finding.path)));
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
    let (examined, summary) = (&report.examined, &report.summary);
    if summary.not_listed > 0 {
        text.push_str(&format!("{} more findings of these kinds aren't listed\n\n", summary.not_listed));
    }
    let clusters = match examined.clusters.is_empty() {
        true => "no cluster".to_owned(),
        false => visible(&examined.clusters.join(", ")).into_owned(),
    };
    text.push_str(&format!(
        "{} errors, {} warnings, {} notes; examined {} listeners, {} connection managers, {} ext_authz filters that \
         call {clusters}, {} routes\n",
        summary.errors,
        summary.warnings,
        summary.notes,
        examined.listeners,
        examined.connection_managers,
        examined.filters,
        examined.routes,
    ));
    text
}
