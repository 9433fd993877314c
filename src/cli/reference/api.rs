//! The page of all operations of the HTTP API.

use crate::http::{OperationOutline, Outline, Row};

/// First lines of the page.
const INTRODUCTION: &str = "\
# The HTTP API

For developers who call the admin or the public plane. Made from the description that the admin plane serves as
`/openapi.json`, for programs, and as the page `/docs`, for people, which have the whole types (this page:
`talos reference api`); [error reasons](../errors.md) lists the errors.

In requests a member that is absent, `null` or `*_UNSPECIFIED` means the same, and unknown members are refused. In
answers, what is unset is absent. Each path is one of the admin plane, where callers need a role; those that anyone may
call are on the public plane, too. Secrets of the examples have `EXAMPLE` in them.
";

/// Returns the page of the API.
pub(super) fn page(outline: &Outline) -> String {
    let sections = outline.operations.iter().map(section);
    std::iter::once(INTRODUCTION.to_owned()).chain(sections).collect()
}

fn section(operation: &OperationOutline) -> String {
    let OperationOutline { summary, method, path, description, .. } = operation;
    let mut text = format!("\n## {summary}\n\n`{method} {path}`\n\n{description}\n\n");
    text.push_str(&match &operation.role {
        Some(role) => format!("Needs the role `{role}`.\n"),
        None => "Open to anyone. The public plane has it, too.\n".to_owned(),
    });
    text.push_str(&table("parameter", &operation.parameters));
    text.push_str(&table("member of the body", &operation.members));
    text.push_str("\n| status | answer |\n|---|---|\n");
    for response in &operation.responses {
        let kind = response.kind.as_ref().map(|kind| format!(" ({kind})")).unwrap_or_default();
        text.push_str(&format!("| {} | {}{kind} |\n", response.status, cell(&response.description)));
    }
    if let Some(request) = &operation.request {
        text.push_str(&format!("\nExample of a body:\n\n```json\n{request}\n```\n"));
    }
    let answers = operation.responses.iter().filter(|response| response.status.starts_with('2'));
    for (response, example) in answers.filter_map(|response| Some((response, response.example.as_ref()?))) {
        let kind = if example.starts_with(['{', '[']) { "json" } else { "text" };
        text.push_str(&format!(
            "\nExample of an answer ({}):\n\n```{kind}\n{example}\n```\n",
            response.status
        ));
    }
    text
}

fn table(title: &str, rows: &[Row]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let mut text = format!("\n| {title} | type | meaning |\n|---|---|---|\n");
    for Row { name, location, kind, meaning } in rows {
        let location = location.as_ref().map(|location| format!(" ({location})")).unwrap_or_default();
        text.push_str(&format!("| `{name}`{location} | {} | {} |\n", cell(kind), cell(meaning)));
    }
    text
}

/// Returns a text that stays within a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;")
}
