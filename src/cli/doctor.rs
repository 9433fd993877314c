//! `talos doctor`: what in an Envoy's configuration makes the check of keys unsafe or slow.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use reqwest::{Url, redirect};
use serde_json::{Value, json};

use super::exit::{Failure, Outcome};
use super::output::write_out;
use super::{config, input};
use crate::config::Loaded;
use crate::doctor::{Finding, Question, Report, Severity, examine, from_bootstrap};
use crate::escape::visible;

/// Largest dump that is read, in bytes.
const MAX_DUMP: usize = 256 * 1024 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(60);
/// Most places that are listed for one finding; scripts get all of them.
const MAX_PLACES: usize = 5;

/// Say what in an Envoy's configuration makes the check of keys unsafe or slow
///
/// Reads the configuration of a running Envoy from its admin interface, or a file with its /config_dump (also as
/// istioctl and egctl print it) or with the bootstrap configuration that `envoy -c` reads. Each finding has its place,
/// what goes wrong, and the configuration as it should be. With --config, Envoy's idea of a client's address is held
/// against Talos' own.
///
/// The exit code is 0 when nothing of the severity of --fail-on was found, 1 otherwise, 64 when there is no such file
/// or it is no configuration, 69 when Envoy gives none.
#[derive(Args)]
#[command(after_help = "\
EXAMPLES:
  talos doctor http://127.0.0.1:9901 || echo \"exit code $?\"
  talos doctor envoy.yaml --config talos.yaml --fail-on error || echo \"exit code $?\"
  talos doctor - --format json < config_dump.json || echo \"exit code $?\"")]
pub struct Doctor {
    /// URL of Envoy's admin interface (http://127.0.0.1:9901), a file, or `-` for stdin
    from: String,
    /// A cluster behind which Talos is [default: those that ext_authz filters ask by gRPC]
    #[arg(long = "cluster", value_name = "NAME")]
    clusters: Vec<String>,
    /// From which severity on the exit code is 1
    #[arg(long, value_name = "SEVERITY", default_value = "warning")]
    fail_on: FailOn,
    /// How to write it
    #[arg(long, default_value = "text")]
    format: Format,
}

#[derive(Clone, Copy, ValueEnum)]
enum FailOn {
    /// Errors
    Error,
    /// Errors and warnings
    Warning,
    /// Nothing
    Never,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Text,
    Json,
}

impl Doctor {
    /// Runs it; `config` is what `--config` names.
    ///
    /// # Errors
    /// When there is no configuration of Envoy's to look at.
    pub async fn run(self, config: Option<PathBuf>) -> Result<Outcome, Failure> {
        let talos = match config {
            None => None,
            Some(file) => {
                let source = config::source(Some(file))?.without_admin();
                let Loaded { config, .. } = source.load().map_err(Failure::unusable)?;
                Some(config)
            }
        };
        let document = match self.from.starts_with("http://") || self.from.starts_with("https://") {
            true => fetched(&self.from).await?,
            false => read(Path::new(&self.from))?,
        };
        let question =
            Question { clusters: &self.clusters, authz: talos.as_ref().map(|config| &config.authz) };
        let report = examine(&document, question)
            .map_err(|error| Failure::unusable(format!("{}: {error}", visible(&self.from))))?;
        match self.format {
            Format::Json => write_out(&format!("{:#}\n", json(&report)))?,
            Format::Text => write_out(&text(&report))?,
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

fn read(path: &Path) -> Result<Value, Failure> {
    let text = input::file(path, MAX_DUMP as u64)?;
    // The dump is JSON, the configuration mostly YAML; both readers bound the depth.
    let value: Value = match serde_json::from_str(&text) {
        Ok(value) => value,
        Err(json) if text.trim_start().starts_with(['{', '[']) => {
            return Err(Failure::unusable(format!("{}: {json}", path.display())));
        }
        Err(_) => serde_norway::from_str(&text)
            .map_err(|error| Failure::unusable(format!("{}: {error}", path.display())))?,
    };
    Ok(from_bootstrap(value))
}

async fn fetched(from: &str) -> Result<Value, Failure> {
    let mut url =
        Url::parse(from).map_err(|_| Failure::unusable("must be a URL such as http://127.0.0.1:9901"))?;
    if url.path() == "/" {
        url.set_path("/config_dump");
    }
    if url.query().is_none() {
        // Where Talos is: clusters without endpoints of their own have them there.
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
        // No need for the machine's certificates, and no failure where it has none.
        builder = builder.tls_certs_only([]);
    }
    let http =
        builder.build().map_err(|_| fail("this machine has no certificates to check an https:// with"))?;
    let no_answer = |error: reqwest::Error| fail(&innermost(&error.without_url()));
    let mut response = http.get(url).send().await.map_err(no_answer)?;
    if !response.status().is_success() {
        return Err(fail(&format!(
            "answered HTTP {}: is it Envoy's admin interface?",
            response.status().as_u16()
        )));
    }
    let mut bytes = vec![];
    while let Some(chunk) = response.chunk().await.map_err(no_answer)? {
        if bytes.len() + chunk.len() > MAX_DUMP {
            return Err(fail(&format!("the dump is larger than {} MiB", MAX_DUMP / (1024 * 1024))));
        }
        bytes.extend_from_slice(&chunk);
    }
    serde_json::from_slice(&bytes).map_err(|error| fail(&format!("{error}: is it Envoy's admin interface?")))
}

/// The error that says something, such as `Connection refused`.
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

/// For people: what differs in its place only stands together.
fn text(report: &Report) -> String {
    let mut text = String::new();
    let mut rest: Vec<&Finding> = report.findings.iter().collect();
    while let Some(first) = rest.first().copied() {
        let is_same =
            |one: &&Finding| (one.id, one.severity, &one.fix) == (first.id, first.severity, &first.fix);
        let (same, others): (Vec<&Finding>, Vec<&Finding>) = rest.into_iter().partition(is_same);
        rest = others;
        let severity = match first.severity {
            Severity::Error => "ERROR",
            Severity::Warning => "WARNING",
            Severity::Note => "NOTE",
        };
        text.push_str(&format!("{severity}  {}\n", first.id));
        for finding in same.iter().take(MAX_PLACES) {
            text.push_str(&format!("  at   {}\n", visible(&finding.path)));
        }
        if same.len() > MAX_PLACES {
            text.push_str(&format!("       and {} more\n", same.len() - MAX_PLACES));
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
        "{} errors, {} warnings, {} notes; looked at {} listeners, {} connection managers, {} ext_authz filters that ask {clusters}, \
         {} routes\n",
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
