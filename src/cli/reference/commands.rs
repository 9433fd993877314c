//! The page of all commands.

use clap::{Arg, Command};

/// First lines of the page.
const INTRODUCTION: &str = "\
# Every command

For people and scripts that look up a command or an option of `talos`. Made from the program itself (`talos reference
cli`); [the command line](../cli.md) shows how commands are used together.
";

/// Returns the page.
pub(super) fn page(root: Command) -> String {
    let mut text = INTRODUCTION.to_owned();
    text.push_str("\n## Options of every command\n\n");
    text.push_str(&options(root.get_arguments().filter(|arg| arg.is_global_set())));
    for command in visible(&root) {
        section(command, "talos", &mut text);
    }
    text
}

/// Subcommands that help lists.
pub(super) fn visible(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|command| !command.is_hide_set() && command.get_name() != "help")
}

/// Options and arguments of a command alone, without those of every command.
pub(super) fn own_arguments(command: &Command) -> Vec<&Arg> {
    let is_own = |arg: &&Arg| !arg.is_hide_set() && !["help", "version"].contains(&arg.get_id().as_str());
    command.get_arguments().filter(is_own).filter(|arg| !is_of_root(arg)).collect()
}

/// Returns true for the options of `talos` itself, which every command has.
fn is_of_root(arg: &Arg) -> bool {
    arg.is_global_set() && ["config", "endpoint"].contains(&arg.get_id().as_str())
}

fn section(command: &Command, parent: &str, text: &mut String) {
    let name = format!("{parent} {}", command.get_name());
    text.push_str(&format!("\n## {name}\n\n{}\n", paragraphs(command)));
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage:").trim();
    text.push_str(&format!("\n```text\n{usage}\n```\n"));
    let arguments = own_arguments(command);
    if !arguments.is_empty() {
        text.push('\n');
        text.push_str(&options(arguments.into_iter()));
    }
    let examples = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    if let Some(examples) = examples.strip_prefix("EXAMPLES:\n") {
        let lines = examples.lines().map(|line| line.strip_prefix("  ").unwrap_or(line));
        text.push_str(&format!("\n```text\n{}\n```\n", lines.collect::<Vec<_>>().join("\n").trim_end()));
    }
    for command in visible(command) {
        section(command, &name, text);
    }
}

/// The whole description of a command, as sentences.
pub(super) fn paragraphs(command: &Command) -> String {
    let about = command.get_long_about().or(command.get_about()).map(ToString::to_string);
    let about = about.unwrap_or_default();
    let mut paragraphs: Vec<String> =
        about.trim().split("\n\n").map(|part| part.replace('\n', " ")).collect();
    if let Some(first) = paragraphs.first_mut().filter(|first| !first.ends_with(['.', ':'])) {
        first.push('.');
    }
    paragraphs.join("\n\n")
}

/// Written form of an option or argument.
pub(super) fn spelling(arg: &Arg) -> String {
    let values: Vec<String> =
        arg.get_value_names().unwrap_or_default().iter().map(|name| format!("<{name}>")).collect();
    let takes_value = arg.get_action().takes_values();
    let value = if takes_value { format!(" {}", values.join(" ")) } else { String::new() };
    match (arg.get_short(), arg.get_long()) {
        (Some(short), Some(long)) => format!("-{short}, --{long}{value}"),
        (Some(short), None) => format!("-{short}{value}"),
        (None, Some(long)) => format!("--{long}{value}"),
        (None, None) => value.trim().to_owned(),
    }
}

/// Help of an option with its default and its possible values, in one line.
pub(super) fn help(arg: &Arg) -> String {
    let help = arg.get_long_help().or(arg.get_help()).map(ToString::to_string).unwrap_or_default();
    let mut text = help.split_whitespace().collect::<Vec<_>>().join(" ");
    let possible: Vec<String> = match arg.get_action().takes_values() {
        true => arg.get_possible_values().iter().map(|value| format!("`{}`", value.get_name())).collect(),
        false => vec![],
    };
    if !possible.is_empty() {
        text.push_str(&format!(" ({})", possible.join(", ")));
    }
    let defaults: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    if !defaults.is_empty() && arg.get_action().takes_values() {
        text.push_str(&format!(" [default: {}]", defaults.join(", ")));
    }
    text
}

fn options<'a>(arguments: impl Iterator<Item = &'a Arg>) -> String {
    let mut table = "| option | meaning |\n|---|---|\n".to_owned();
    for arg in arguments {
        let cell = |text: &str| text.replace('|', "\\|");
        let meaning = cell(&help(arg)).replace('<', "&lt;");
        table.push_str(&format!("| `{}` | {meaning} |\n", cell(&spelling(arg))));
    }
    table
}
