//! `talos config`: checks and shows a configuration without serving it.

mod check;

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::exit::{Failure, Outcome};
use super::output::write_stdout;
use super::source::source;
use crate::cli::stderr;
use crate::config::{EffectiveSetting, schema};

/// Examples in the help of `talos config`.
pub(super) const EXAMPLES: &str = "\
EXAMPLES:
  talos config check
  talos config show --origin
  talos config schema > talos.schema.json";

#[derive(Subcommand)]
pub(super) enum Command {
    Check(check::Check),
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
pub(super) struct Show {
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
    ///
    /// # Errors
    /// When the configuration is invalid, or stdout can't be written to.
    pub(super) fn run(self, config: Option<PathBuf>) -> Result<Outcome, Failure> {
        match self {
            Self::Check(options) => return options.run(config),
            Self::Show(options) => options.run(config)?,
            Self::Schema => write_stdout(&format!("{:#}\n", schema()))?,
        }
        Ok(Outcome::Done)
    }
}

impl Show {
    fn run(self, config: Option<PathBuf>) -> Result<(), Failure> {
        let source = source(self.file.or(config))?.without_admin();
        let loaded = source.load().map_err(|error| {
            stderr::line(format_args!("{error}"));
            Failure::usage(check::INVALID)
        })?;
        loaded.warnings.iter().for_each(|warning| stderr::line(format_args!("warning: {warning}")));
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
