//! Bounds of what a reader has to take in at once: widths of comments, lengths of functions and
//! files.

use std::path::Path;

use super::sources::{self, Tree};

/// Columns that a line of a comment may have.
const MAX_COLUMNS: usize = 100;
/// Lines that a function may have.
const MAX_FUNCTION_LINES: usize = 80;
/// Lines that a file may have.
const MAX_FILE_LINES: usize = 500;
/// Begins the comment that gives the reason for more lines, in the function or in the file's first
/// lines.
const REASON: &str = "// long: ";
/// Lines at a file's top, or before a function and in it, in which the reason may stand.
const REASON_LINES: usize = 12;
/// Directories whose comments are held.
const DIRECTORIES: &[&str] = &["benches", "http2", "loadtest", "module", "proto", "src", "tests"];

/// A Rust file below the repository's root, and its text.
type File = (String, String);

/// All Rust files in the directories of the repository.
fn files(directories: &[&str]) -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = vec![];
    for directory in directories.iter().filter(|directory| root.join(directory).is_dir()) {
        sources::read_into(root, &root.join(directory), &mut files);
    }
    // Corpora and what is built are nobody's reading.
    files.retain(|(file, _)| !file.contains("/target/") && !file.starts_with("proto/src/"));
    files
}

fn wide_comments((file, text): &File) -> Vec<String> {
    let lines = text.lines().enumerate();
    let wide =
        lines.filter(|(_, line)| line.trim_start().starts_with("//") && line.chars().count() > MAX_COLUMNS);
    wide.map(|(at, line)| format!("{file}:{}: {} columns", at + 1, line.chars().count())).collect()
}

/// The functions of a file that are too long without a reason, its unit tests left out.
fn long_functions((file, text): &File) -> Vec<String> {
    let product = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let lines: Vec<&str> = product.lines().collect();
    let mut found = vec![];
    for (start, line) in lines.iter().enumerate() {
        let indent = line.len() - line.trim_start().len();
        if !begins_function(line.trim_start()) {
            continue;
        }
        let end = format!("{}}}", " ".repeat(indent));
        let length = lines[start..].iter().position(|line| *line == end).map_or(1, |length| length + 1);
        let around = start.saturating_sub(REASON_LINES)..lines.len().min(start + REASON_LINES);
        let has_reason = lines[around].iter().any(|line| line.trim_start().starts_with(REASON));
        if length > MAX_FUNCTION_LINES && !has_reason {
            found.push(format!("{file}:{}: {length} lines, {}", start + 1, line.trim()));
        }
    }
    found
}

/// Returns whether a line, without its indentation, is the head of a function.
fn begins_function(line: &str) -> bool {
    let mut words = line.split(' ').skip_while(|word| {
        word.starts_with("pub")
            || matches!(*word, "crate)" | "super)" | "const" | "async" | "unsafe" | "extern")
    });
    words.next() == Some("fn")
}

fn long_file((file, text): &File) -> Option<String> {
    let has_reason = text.lines().take(REASON_LINES).any(|line| line.starts_with(REASON));
    let count = text.lines().count();
    (count > MAX_FILE_LINES && !has_reason).then(|| format!("{file}: {count} lines"))
}

#[test]
fn comments_are_as_wide_as_a_reader_likes() {
    let wide: Vec<_> = files(DIRECTORIES).iter().flat_map(wide_comments).collect();
    assert!(wide.is_empty(), "{} comments wider than {MAX_COLUMNS}: {wide:#?}", wide.len());
}

#[test]
fn functions_and_files_are_short_or_say_why_not() {
    let tree = Tree::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let for_tests = tree.test_files();
    let product = files(&["src", "http2/src"]);
    let product = product.iter().filter(|(file, _)| !for_tests.contains(file.trim_start_matches("src/")));
    let mut long: Vec<_> = product.clone().flat_map(long_functions).collect();
    long.extend(product.filter_map(long_file));
    assert!(long.is_empty(), "split these, or give the reason as `{REASON}…`: {long:#?}");
}

#[test]
fn wide_comments_and_long_files_are_found() {
    let file = |text: String| ("a.rs".to_owned(), text);
    let comment = |width: usize| file(format!("fn f() {{}}\n// {}\n", "x".repeat(width - 3)));
    assert_eq!(wide_comments(&comment(101)), ["a.rs:2: 101 columns"]);
    assert!(wide_comments(&comment(100)).is_empty());

    let function = |lines: usize, reason: &str| {
        file(format!(
            "impl A {{\n    pub(crate) async fn f() {{\n{reason}{}    }}\n}}\n",
            "        g();\n".repeat(lines - 2)
        ))
    };
    assert_eq!(long_functions(&function(81, "")), ["a.rs:2: 81 lines, pub(crate) async fn f() {"]);
    assert!(long_functions(&function(80, "")).is_empty());
    assert!(long_functions(&function(81, "        // long: a table\n")).is_empty());

    assert_eq!(long_file(&file("\n".repeat(501))).as_deref(), Some("a.rs: 501 lines"));
    assert_eq!(long_file(&file("\n".repeat(500))), None);
    assert_eq!(long_file(&file(format!("//! A.\n{REASON}a table{}", "\n".repeat(501)))), None);
}
