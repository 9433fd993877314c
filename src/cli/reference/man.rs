//! Manual pages in roff, one a command.

use std::path::Path;

use clap::Command;

use super::commands::{help, own_arguments, paragraphs, spelling, visible};
use crate::cli::exit::{Failure, HELP};

/// Writes the pages of a command and of all below it into a directory.
pub(super) fn write(root: &Command, directory: &Path) -> Result<(), Failure> {
    let fail = |path: &Path, error| Failure::failed(format!("{}: {error}", path.display()));
    std::fs::create_dir_all(directory).map_err(|error| fail(directory, error))?;
    let mut pages = vec![];
    collect(root, "", &mut pages);
    for (name, text) in pages {
        let path = directory.join(format!("{name}.1"));
        std::fs::write(&path, text).map_err(|error| fail(&path, error))?;
    }
    Ok(())
}

fn collect(command: &Command, parent: &str, pages: &mut Vec<(String, String)>) {
    let name = match parent {
        "" => command.get_name().to_owned(),
        parent => format!("{parent}-{}", command.get_name()),
    };
    pages.push((name.clone(), page(command, &name)));
    for command in visible(command) {
        collect(command, &name, pages);
    }
}

fn page(command: &Command, name: &str) -> String {
    let description = paragraphs(command);
    let (summary, _) = description.split_once("\n\n").unwrap_or((&description, ""));
    let version = env!("CARGO_PKG_VERSION");
    let mut text =
        format!(".TH {} 1 \"\" \"talos {version}\" \"Talos for Envoy\"\n", escaped(&name.to_uppercase()));
    text.push_str(&format!(".SH NAME\n{} \\- {}\n", escaped(name), escaped(summary.trim_end_matches('.'))));
    let usage = command.clone().render_usage().to_string();
    text.push_str(&format!(".SH SYNOPSIS\n{}\n", escaped(usage.trim_start_matches("Usage:").trim())));
    text.push_str(&format!(".SH DESCRIPTION\n{}\n", escaped(&description).replace("\n\n", "\n.PP\n")));
    let arguments: Vec<_> = match name {
        "talos" => command.get_arguments().filter(|arg| arg.is_global_set()).collect(),
        _ => own_arguments(command),
    };
    if !arguments.is_empty() {
        text.push_str(".SH OPTIONS\n");
        for arg in arguments {
            let (spelling, help) = (escaped(&spelling(arg)), escaped(&help(arg)));
            text.push_str(&format!(".TP\n\\fB{spelling}\\fR\n{help}\n"));
        }
    }
    let commands: Vec<&Command> = visible(command).collect();
    if !commands.is_empty() {
        text.push_str(".SH COMMANDS\n");
        for command in commands {
            let about = escaped(paragraphs(command).split("\n\n").next().unwrap_or_default());
            text.push_str(&format!(
                ".TP\n\\fB{}-{}\\fR(1)\n{about}\n",
                escaped(name),
                escaped(command.get_name())
            ));
        }
    }
    let examples = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    if let Some(examples) = examples.strip_prefix("EXAMPLES:\n") {
        let examples = examples.split("\n\nEXIT CODES:").next().unwrap_or_default();
        text.push_str(&format!(".SH EXAMPLES\n.nf\n{}\n.fi\n", escaped(examples.trim_end())));
    }
    if name == "talos" {
        let codes = HELP.split_once('\n').map_or("", |(_, codes)| codes);
        text.push_str(&format!(".SH EXIT STATUS\n.nf\n{}\n.fi\n", escaped(codes)));
    }
    text
}

/// Text that roff shows as it is.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    let lines = text.lines().map(|line| match line.starts_with(['.', '\'']) {
        true => format!("\\&{line}"),
        false => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_is_a_request_of_roff() {
        assert_eq!(escaped("a-b \\n\n.TH\n'x"), "a\\-b \\en\n\\&.TH\n\\&'x");
    }
}
