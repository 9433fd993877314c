//! The HTTP API as a page (`/docs`): one HTML document without scripts or external assets.

use std::fmt::Write;

use axum::http::HeaderValue;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::operation::{Access, Answer, Operation, Tag, Verb, of};
use super::outline::{OperationOutline, Outline, ResponseOutline, Row, TypeOutline};
use crate::caller::Role;

/// The page of this description.
pub(crate) const DOCS: Operation = Operation {
    verb: Verb::Get,
    access: Access::From(Role::Viewer),
    path: "/docs",
    id: "getDocs",
    tag: Tag::Service,
    summary: "Get the page of this description",
    description: "Returns this description as a page for people, in HTML.",
    parameters: &[],
    body: None,
    answer: Answer { status: "200", description: "The page.", schema: Some(of::<String>), headers: &[] },
};

const STYLE: &str = "
:root{color-scheme:light dark;--line:#8884;--soft:#8882;--blue:#0a58ca}
@media (prefers-color-scheme:dark){:root{--blue:#7db3ff}}
body{margin:0;font:16px/1.5 system-ui,sans-serif;display:grid;grid-template-columns:17rem minmax(0,1fr)}
nav{position:sticky;top:0;height:100vh;overflow:auto;box-sizing:border-box;padding:1rem;border-right:1px solid var(--line)}
nav ul{list-style:none;margin:0;padding:0;font-size:.9rem}
main{padding:1rem 2rem;max-width:62rem}
section{border-top:1px solid var(--line);margin-top:2rem}
a{color:var(--blue);text-decoration:none}
a:hover{text-decoration:underline}
code,pre{font:14px/1.45 ui-monospace,monospace}
code{background:var(--soft);border-radius:3px;padding:0 .25em;overflow-wrap:anywhere}
pre{background:var(--soft);border-radius:6px;padding:.75rem 1rem;overflow:auto}
table{border-collapse:collapse;width:100%;margin:1rem 0}
th,td{text-align:left;vertical-align:top;padding:.35rem .5rem;border-bottom:1px solid var(--line)}
@media (max-width:50rem){body{display:block}nav{position:static;height:auto;border:0}main{padding:1rem}}
";

/// A page that is made once and returned as it is.
#[derive(Clone)]
pub(super) struct Page {
    text: Bytes,
    policy: HeaderValue,
}

impl Page {
    /// Renders the page of an OpenAPI document.
    pub(super) fn new(document: &Value) -> Self {
        // The policy allows no loads and no scripts. The hash allows the one style of the page.
        let hash = BASE64.encode(Sha256::digest(STYLE));
        let policy = format!(
            "default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'; \
             frame-ancestors 'none'"
        );
        let policy = HeaderValue::from_str(&policy);
        Self {
            text: html(&Outline::of(document)).into(),
            policy: policy.unwrap_or_else(|_| HeaderValue::from_static("default-src 'none'")),
        }
    }
}

impl IntoResponse for Page {
    fn into_response(self) -> Response {
        let fixed = HeaderValue::from_static;
        let headers = [
            (CONTENT_TYPE, fixed("text/html; charset=utf-8")),
            (CONTENT_SECURITY_POLICY, self.policy),
            (X_CONTENT_TYPE_OPTIONS, fixed("nosniff")),
            (REFERRER_POLICY, fixed("no-referrer")),
            (CACHE_CONTROL, fixed("no-store")),
        ];
        (headers, self.text).into_response()
    }
}

fn html(outline: &Outline) -> String {
    let names: Vec<&str> = outline.types.iter().map(|described| described.name.as_str()).collect();
    let writer = Writer { types: &names };
    let entries = outline.operations.iter().map(|operation| (&operation.id, &operation.summary));
    let types = outline.types.iter().map(|described| (&described.name, &described.name));
    let mut text = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Talos API</title>\n<style>{STYLE}</style>\n</head>\n<body>\n\
         <nav>\n<h2>Operations</h2>\n{}<h2>Types</h2>\n{}</nav>\n<main>\n<h1>Talos API</h1>\n\
         <p>{}</p>\n<p>For programs: <a href=\"openapi.json\">openapi.json</a>. In the examples, <code>$TALOS</code> \
         is the address of this server.</p>\n<h2>Authentication</h2>\n",
        menu(entries),
        menu(types),
        writer.prose(&outline.description)
    );
    for (name, description) in &outline.credentials {
        add(&mut text, format_args!("<p><code>{}</code>: {}</p>\n", escape(name), writer.prose(description)));
    }
    outline.operations.iter().for_each(|operation| writer.operation(&mut text, operation));
    text.push_str("<h1>Types</h1>\n");
    outline.types.iter().for_each(|described| writer.described_type(&mut text, described));
    text.push_str("</main>\n</body>\n</html>\n");
    text
}

/// Returns a list of links to anchors.
fn menu<'a>(entries: impl Iterator<Item = (&'a String, &'a String)>) -> String {
    let mut text = String::from("<ul>\n");
    for (anchor, title) in entries {
        add(&mut text, format_args!("<li><a href=\"#{}\">{}</a></li>\n", escape(anchor), escape(title)));
    }
    text + "</ul>\n"
}

/// Writes the parts of the page.
struct Writer<'a> {
    /// Names that have a section of their own.
    types: &'a [&'a str],
}

impl Writer<'_> {
    fn operation(&self, text: &mut String, operation: &OperationOutline) {
        let role = match &operation.role {
            Some(role) => format!("Needs the role <code>{}</code>.", escape(role)),
            None => "Open to anyone. The public plane has it, too.".to_owned(),
        };
        add(
            text,
            format_args!(
                "<section id=\"{}\">\n<h2>{}</h2>\n<p><strong>{}</strong> <code>{}</code></p>\n<p>{}</p>\n<p>{role}</p>\n",
                escape(&operation.id),
                escape(&operation.summary),
                escape(&operation.method),
                escape(&operation.path),
                self.prose(&operation.description)
            ),
        );
        self.table(text, "Parameter", &operation.parameters);
        self.table(text, "Member of the body", &operation.members);
        add(text, format_args!("<h3>Example</h3>\n<pre>{}</pre>\n", escape(&command(operation))));
        for response in &operation.responses {
            self.response(text, response);
        }
        text.push_str("</section>\n");
    }

    fn response(&self, text: &mut String, response: &ResponseOutline) {
        let kind = response.kind.as_ref().map(|kind| format!(" ({})", self.prose(kind))).unwrap_or_default();
        let (status, description) = (escape(&response.status), self.prose(&response.description));
        add(text, format_args!("<h3>{status}</h3>\n<p>{description}{kind}</p>\n"));
        self.table(text, "Header", &response.headers);
        if let Some(example) = &response.example {
            add(text, format_args!("<pre>{}</pre>\n", escape(example)));
        }
    }

    fn described_type(&self, text: &mut String, described: &TypeOutline) {
        let (name, description) = (escape(&described.name), self.prose(&described.description));
        add(text, format_args!("<section id=\"{name}\">\n<h2>{name}</h2>\n<p>{description}</p>\n"));
        self.table(text, "Member", &described.members);
        if !described.values.is_empty() {
            let values =
                described.values.iter().map(|value| format!("<li><code>{}</code></li>\n", escape(value)));
            add(text, format_args!("<ul>\n{}</ul>\n", values.collect::<String>()));
        }
        text.push_str("</section>\n");
    }

    fn table(&self, text: &mut String, title: &str, rows: &[Row]) {
        if rows.is_empty() {
            return;
        }
        add(text, format_args!("<table>\n<tr><th>{title}</th><th>Type</th><th>Meaning</th></tr>\n"));
        for row in rows {
            let location =
                row.location.as_ref().map(|location| format!(" ({})", escape(location))).unwrap_or_default();
            let (name, kind, meaning) = (escape(&row.name), self.prose(&row.kind), self.prose(&row.meaning));
            add(
                text,
                format_args!(
                    "<tr><td><code>{name}</code>{location}</td><td>{kind}</td><td>{meaning}</td></tr>\n"
                ),
            );
        }
        text.push_str("</table>\n");
    }

    /// Returns a text in HTML. What stands in backticks is code, with a link if it names a type.
    fn prose(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        for (index, part) in text.split('`').enumerate() {
            let escaped = escape(part);
            match index % 2 == 1 {
                true if self.types.contains(&part) => {
                    add(&mut out, format_args!("<a href=\"#{escaped}\"><code>{escaped}</code></a>"));
                }
                true => add(&mut out, format_args!("<code>{escaped}</code>")),
                false => out.push_str(&escaped),
            }
        }
        out
    }
}

/// Returns the example as a command for a shell.
fn command(operation: &OperationOutline) -> String {
    let (method, path) = (&operation.method, &operation.path);
    let mut text = format!("curl -X {method} \"$TALOS{path}\"");
    if let Some(body) = &operation.request {
        let quoted = body.replace('\'', "'\\''");
        add(&mut text, format_args!(" \\\n  -H 'content-type: application/json' -d '{quoted}'"));
    }
    text
}

/// Appends formatted text.
fn add(text: &mut String, more: std::fmt::Arguments<'_>) {
    // Writing to a String can't fail.
    let _ = text.write_fmt(more);
}

/// Escapes a text for HTML, in elements and in attributes.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn no_text_of_a_description_becomes_markup() {
        let hostile = "<script>&\"'`</code><b>`";
        let operation = json!({
            "operationId": hostile, "summary": hostile, "description": hostile, "x-talos-role": hostile,
            "parameters": [{ "name": hostile, "in": hostile, "description": hostile, "schema": {} }],
            "requestBody": { "content": { "application/json": { "schema": {}, "example": { "a": hostile } } } },
            "responses": { (hostile): { "description": hostile, "content": { "text/html": { "example": hostile } } } },
        });
        let page = Page::new(&json!({
            "info": { "description": hostile },
            "paths": { (hostile): { (hostile): operation } },
            "components": {
                "schemas": { (hostile): { "description": hostile, "enum": [hostile] } },
                "securitySchemes": { (hostile): { "description": hostile } },
            },
        }));
        let text = String::from_utf8(page.text.to_vec()).unwrap();
        assert!(text.matches("&lt;script&gt;").count() > 10, "{text}");
        assert!(!text.contains("<script") && !text.contains("<b>") && !text.contains("\"'"), "{text}");
    }
}
