//! `talos config`: checks and shows a configuration without serving it.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::exit::Failure;
use super::output::write_stdout;
use super::{Plane, block_on};
use crate::app::read_templates;
use crate::config::{Config, EffectiveSetting, KeySetUrl, Loaded, Source, schema};
use crate::settings::key_set;
use crate::settings::sources::{Documents, Reading, Renewed};

/// Examples in the help of `talos config`.
pub const EXAMPLES: &str = "\
EXAMPLES:
  talos config check
  talos config show --origin
  talos config schema > talos.schema.json";

#[derive(Subcommand)]
pub enum Command {
    /// Check a configuration as `talos serve` would read it, the environment included
    ///
    /// Prints "ok", or lists every problem on its own line and exits with 64. Warnings go to
    /// stderr. No HMAC secret is needed.
    #[command(after_help = "\
EXAMPLES:
  echo 'cache: {ttl: 1m}' > talos.yaml
  talos config check talos.yaml
  talos config check talos.yaml --plane authz")]
    Check(Check),
    /// Show all settings, merged from defaults, file and environment; secrets are shown as ***
    #[command(after_help = "\
EXAMPLES:
  echo 'cache: {ttl: 1m}' > talos.yaml
  talos config show talos.yaml
  talos config show talos.yaml --origin --format json")]
    Show(Show),
    /// Print the JSON Schema of the configuration file, for editors and CI
    #[command(after_help = "\
EXAMPLES:
  talos config schema > talos.schema.json")]
    Schema,
}

#[derive(Args)]
pub struct Check {
    /// The configuration file [default: --config; without either, only the environment is checked]
    file: Option<PathBuf>,
    /// Check it for a server of only this plane
    #[arg(long)]
    plane: Option<Plane>,
    /// Also fetch key sets from other servers
    #[arg(long)]
    fetch: bool,
}

#[derive(Args)]
pub struct Show {
    /// The configuration file [default: --config; without either, defaults and environment are
    /// shown]
    file: Option<PathBuf>,
    /// Output format
    #[arg(short = 'o', long, default_value = "yaml")]
    format: Format,
    /// List the settings by key, each with the source of its value
    #[arg(long)]
    origin: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Yaml,
    Json,
}

impl Command {
    /// Runs the command. `config` is the file that `--config` names.
    pub fn run(self, config: Option<PathBuf>) -> Result<(), Failure> {
        match self {
            Self::Check(options) => options.run(config),
            Self::Show(options) => options.run(config),
            Self::Schema => write_stdout(&format!("{:#}\n", schema())),
        }
    }
}

/// Returns the configuration source: the file, if given, overridden by this process's environment.
pub fn source(file: Option<PathBuf>) -> Result<Source, Failure> {
    let mut variables = vec![];
    for (name, value) in std::env::vars_os() {
        let Ok(name) = name.into_string() else { continue };
        match value.into_string() {
            Ok(value) => variables.push((name, value)),
            Err(_) if name.starts_with("TALOS_") => {
                return Err(Failure::usage(format!("{name}: must be UTF-8 text")));
            }
            Err(_) => {}
        }
    }
    Ok(Source::new(file, variables))
}

impl Check {
    fn run(self, config: Option<PathBuf>) -> Result<(), Failure> {
        let source = source(self.file.or(config))?;
        let source = match self.plane {
            Some(Plane::Public | Plane::Authz) => source.without_admin(),
            Some(Plane::Admin) | None => source,
        };
        let Loaded { config, warnings, .. } =
            source.load().map_err(|error| report_problems(&[error.to_string()]))?;
        warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
        if config.require_serving_secret().is_err() {
            eprintln!(
                "warning: secrets.hmac.current: is unset; `talos serve` needs it (TALOS_SECRETS_HMAC_CURRENT)"
            );
        }
        let mut problems = block_on(key_set_problems(&config, self.fetch))?;
        let templates = config.authz.denied_template_file.as_deref().map(read_templates);
        problems.extend(templates.and_then(Result::err).map(|error| error.to_string()));
        if problems.is_empty() { write_stdout("ok\n") } else { Err(report_problems(&problems)) }
    }
}

/// Reads the key sets and returns their problems. Remote ones are read only if `fetch` is set.
async fn key_set_problems(config: &Config, fetch: bool) -> Vec<String> {
    let urls = config.key_set_urls();
    let what = if fetch { Reading::All } else { Reading::Offline };
    let Renewed { documents, failures } = Documents::default().renew(&urls, what).await;
    if !failures.is_empty() {
        return failures.values().map(ToString::to_string).collect();
    }
    let skipped: Vec<&KeySetUrl> = urls.iter().filter(|set| documents.get(&set.url).is_none()).collect();
    for KeySetUrl { key, .. } in &skipped {
        eprintln!("warning: {key}: was not checked; use --fetch to fetch it");
    }
    let (all_there, documents) = (skipped.is_empty(), documents.or_empty(&urls));
    let networks = config.tenants().map(|(network, config)| (format!("{}: ", network.hostname), config));
    let all = std::iter::once((String::new(), config)).chain(networks);
    all.filter_map(|(place, config)| {
        let problem = key_set_problem(config, &documents, all_there)?;
        Some(format!("{place}{problem}"))
    })
    .collect()
}

/// Returns the problem with the combined key sets of one network, if any.
fn key_set_problem(config: &Config, documents: &Documents, all_there: bool) -> Option<String> {
    match (key_set(config, documents), &config.credentials.derived_tokens.jwt.signing_key_id) {
        (Err(error), _) => Some(error.to_string()),
        (Ok(keys), Some(named)) if all_there && keys.signing(Some(named)).is_none() => {
            let key = "credentials.derived_tokens.jwt.signing_key_id";
            Some(format!("{key}: no signing key with this id is in the key sets"))
        }
        _ => None,
    }
}

/// Prints the problems on stderr, one per line, and returns the error that ends the command.
fn report_problems(problems: &[String]) -> Failure {
    problems.iter().flat_map(|problem| problem.lines()).for_each(|line| eprintln!("{line}"));
    Failure::usage("the configuration is invalid")
}

impl Show {
    fn run(self, config: Option<PathBuf>) -> Result<(), Failure> {
        let source = source(self.file.or(config))?.without_admin();
        let loaded = source.load().map_err(|error| report_problems(&[error.to_string()]))?;
        loaded.warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
        let shown = if self.origin { by_key(loaded.origins()) } else { loaded.config.to_masked() };
        let text = match self.format {
            Format::Json => format!("{shown:#}\n"),
            Format::Yaml => serde_norway::to_string(&shown).map_err(Failure::failed)?,
        };
        write_stdout(&text)
    }
}

fn by_key(settings: Vec<EffectiveSetting>) -> Value {
    let entry = |EffectiveSetting { key, value, origin }| {
        (key.to_owned(), json!({ "value": value, "origin": origin }))
    };
    Value::Object(settings.into_iter().map(entry).collect())
}
