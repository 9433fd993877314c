//! The paths that Rust sources name, found in their tokens, and what they say of the modules.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// Words that begin an item, where an attribute stands before one.
const ITEMS: &[&str] = &[
    "async", "const", "enum", "extern", "fn", "impl", "mod", "pub", "static", "struct", "trait", "type",
    "union", "unsafe", "use",
];

/// A source tree, with all paths that its files name.
pub struct Tree {
    modules: BTreeMap<String, Module>,
}

/// A file's module.
#[derive(Default)]
struct Module {
    file: String,
    /// Modules that it declares, each with whether only tests have it.
    children: BTreeMap<String, bool>,
    paths: Vec<Named>,
    /// First segments of paths: crates, and whatever else is named so.
    roots: BTreeSet<String>,
    is_for_tests: bool,
}

/// A path that a file names.
struct Named {
    /// From the crate's root.
    segments: Vec<String>,
    /// The local name, if an import gives it one.
    local: Option<String>,
    is_exported: bool,
    /// Begins with the name of one of the file's own children: a parent is composed of them.
    is_composition: bool,
    is_for_tests: bool,
}

impl Tree {
    /// Reads all Rust files in a directory.
    pub fn read(directory: &Path) -> Tree {
        let mut files = vec![];
        read_into(directory, directory, &mut files);
        Tree::new(files)
    }

    /// A tree of files, each with its path in `src/` and its text.
    pub fn new(files: Vec<(String, String)>) -> Tree {
        let mut modules = BTreeMap::new();
        for (file, text) in files {
            let name = file.trim_end_matches(".rs").trim_end_matches("/mod").replace('/', "::");
            if name == "main" {
                continue;
            }
            let name = if name == "lib" { String::new() } else { name };
            let tokens: TokenStream = text.parse().unwrap_or_else(|error| panic!("{file}: {error}"));
            let mut reader = Reader { module: Module { file, ..Module::default() }, at: segments(&name) };
            reader.items(tokens, false);
            modules.insert(name, reader.module);
        }
        let mut tree = Tree { modules };
        tree.mark_tests();
        tree
    }

    /// Marks the files that only tests compile, and those below them.
    fn mark_tests(&mut self) {
        let names: Vec<String> = self.modules.keys().cloned().collect();
        for name in names {
            let Some((parent, own)) = name.rsplit_once("::") else { continue };
            let Some(parent) = self.modules.get(parent) else { continue };
            let for_tests = parent.is_for_tests || parent.children.get(own) == Some(&true);
            if let Some(module) = self.modules.get_mut(&name) {
                module.is_for_tests |= for_tests;
            }
        }
    }

    /// The files that only tests compile.
    pub fn test_files(&self) -> BTreeSet<&str> {
        let modules = self.modules.values().filter(|module| module.is_for_tests);
        modules.map(|module| module.file.as_str()).collect()
    }

    /// For each module at the top: the other ones that it imports, each with a file that does.
    pub fn imports_of_modules(&self) -> BTreeMap<String, BTreeMap<String, String>> {
        let mut all: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        for (name, module) in self.modules.iter().filter(|(name, _)| !name.is_empty()) {
            let top = top(name);
            let imports = all.entry(top.to_owned()).or_default();
            for first in module.paths.iter().filter_map(|path| path.segments.first()) {
                if first != top && self.modules.contains_key(first) {
                    imports.entry(first.clone()).or_insert_with(|| module.file.clone());
                }
            }
        }
        all
    }

    /// Each file with its module at the top and the first segments of its paths.
    pub fn roots(&self) -> impl Iterator<Item = (&str, &str, &BTreeSet<String>)> {
        self.modules.iter().map(|(name, module)| (module.file.as_str(), top(name), &module.roots))
    }

    /// The circles of imports between files, tests left out, as "a <-> b".
    pub fn circles(&self) -> Vec<String> {
        let edges: BTreeMap<&str, BTreeSet<&str>> = self
            .modules
            .iter()
            .filter(|(_, module)| !module.is_for_tests)
            .map(|(name, module)| (name.as_str(), self.imports(name, module)))
            .collect();
        let reached: BTreeMap<&str, BTreeSet<&str>> =
            edges.keys().map(|name| (*name, reachable(name, &edges))).collect();
        let mut circles = BTreeSet::new();
        for (name, all) in &reached {
            let circle: Vec<&str> =
                all.iter().filter(|other| reached[**other].contains(name)).copied().collect();
            if circle.len() > 1 {
                circles.insert(circle.join(" <-> "));
            }
        }
        circles.into_iter().collect()
    }

    /// The modules whose items a file uses.
    fn imports<'a>(&'a self, name: &str, module: &'a Module) -> BTreeSet<&'a str> {
        let paths = module.paths.iter();
        let paths = paths.filter(|path| !path.is_for_tests && !path.is_exported && !path.is_composition);
        let found = paths.filter_map(|path| self.home(&path.segments));
        found.filter(|home| *home != name && !self.modules[*home].is_for_tests).collect()
    }

    /// The module that a path leads to, through what modules on the way show of others.
    fn home(&self, path: &[String]) -> Option<&str> {
        let mut path = path.to_vec();
        // More re-exports of one name than any module has.
        for _ in 0..8 {
            let (name, module, rest) = (0..=path.len()).rev().find_map(|length| {
                let (name, module) = self.modules.get_key_value(&path[..length].join("::"))?;
                Some((name, module, &path[length..]))
            })?;
            let shown = rest.first().and_then(|wanted| {
                module.paths.iter().find(|path| !path.is_for_tests && path.local.as_ref() == Some(wanted))
            });
            match shown {
                Some(shown) if self.knows(&shown.segments) => {
                    path = shown.segments.iter().chain(&rest[1..]).cloned().collect();
                }
                _ => return (!name.is_empty()).then_some(name),
            }
        }
        None
    }

    /// Returns whether a path leads into this tree.
    fn knows(&self, path: &[String]) -> bool {
        path.first().is_some_and(|first| self.modules.contains_key(first))
    }
}

/// Everything that can be reached from a module by imports.
fn reachable<'a>(from: &str, edges: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    let mut open: Vec<&str> = edges.get(from).into_iter().flatten().copied().collect();
    while let Some(name) = open.pop() {
        if found.insert(name) {
            open.extend(edges.get(name).into_iter().flatten());
        }
    }
    found
}

fn top(name: &str) -> &str {
    name.split("::").next().unwrap_or_default()
}

fn segments(name: &str) -> Vec<String> {
    name.split("::").filter(|segment| !segment.is_empty()).map(str::to_owned).collect()
}

/// Reads the Rust files below a directory, each with its path from `root`.
pub fn read_into(root: &Path, directory: &Path, files: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_into(root, &path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let file = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            files.push((file, fs::read_to_string(&path).unwrap()));
        }
    }
}

/// Reads one file's tokens.
struct Reader {
    module: Module,
    /// The module whose items are being read: the file's own, or one inside it.
    at: Vec<String>,
}

impl Reader {
    /// Reads tokens; `for_tests`: only tests compile them.
    fn items(&mut self, tokens: TokenStream, for_tests: bool) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            at = self.step(&tokens, at, for_tests);
        }
    }

    /// Reads what begins at a token; returns where the next begins.
    fn step(&mut self, tokens: &[TokenTree], at: usize, for_tests: bool) -> usize {
        match &tokens[at] {
            TokenTree::Punct(hash) if hash.as_char() == '#' => {
                let is_inner = is_punct(tokens, at + 1, '!');
                let after = if is_inner { at + 3 } else { at + 2 };
                let attribute = tokens.get(after - 1).map(ToString::to_string).unwrap_or_default();
                if !is_cfg_test(&attribute) {
                    return after;
                }
                if is_inner {
                    self.module.is_for_tests = true;
                    return after;
                }
                let end = end_of_item(tokens, after);
                self.items(tokens[after..end].iter().cloned().collect(), true);
                end
            }
            TokenTree::Ident(word) if *word == "use" => {
                let end = (at..tokens.len()).find(|at| is_punct(tokens, *at, ';')).unwrap_or(tokens.len());
                let is_exported = at > 0 && is_visibility(tokens, at - 1);
                self.import(&tokens[at + 1..end], &mut vec![], is_exported, for_tests);
                end + 1
            }
            TokenTree::Ident(word) if *word == "mod" => self.inner_module(tokens, at, for_tests),
            // The path in pub(in …) imports nothing.
            TokenTree::Ident(word) if *word == "pub" && is_group(tokens, at + 1) => at + 2,
            TokenTree::Ident(_) => self.path(tokens, at, for_tests),
            TokenTree::Group(group) => {
                self.items(group.stream(), for_tests);
                at + 1
            }
            _ => at + 1,
        }
    }

    /// Reads `mod name;` or `mod name { … }`.
    fn inner_module(&mut self, tokens: &[TokenTree], at: usize, for_tests: bool) -> usize {
        let Some(TokenTree::Ident(name)) = tokens.get(at + 1) else { return at + 1 };
        let Some(TokenTree::Group(body)) = tokens.get(at + 2) else {
            self.module.children.insert(name.to_string(), for_tests);
            return at + 2;
        };
        self.at.push(name.to_string());
        self.items(body.stream(), for_tests);
        self.at.pop();
        at + 3
    }

    /// Reads a path in code, `crate::a::b` or `a::b`.
    fn path(&mut self, tokens: &[TokenTree], at: usize, for_tests: bool) -> usize {
        let mut path = vec![tokens[at].to_string()];
        let mut end = at + 1;
        while is_punct(tokens, end, ':') && is_punct(tokens, end + 1, ':') {
            let Some(TokenTree::Ident(next)) = tokens.get(end + 2) else { break };
            path.push(next.to_string());
            end += 3;
        }
        let goes_on = at > 1 && is_punct(tokens, at - 1, ':') && is_punct(tokens, at - 2, ':');
        let is_of_macro = at > 0 && is_punct(tokens, at - 1, '$');
        if path.len() > 1 && !goes_on && !is_of_macro {
            self.note(path, None, false, for_tests);
        }
        end
    }

    /// Reads the tree of a `use`.
    fn import(&mut self, tokens: &[TokenTree], before: &mut Vec<String>, is_exported: bool, for_tests: bool) {
        let depth = before.len();
        let mut local = None;
        let mut at = 0;
        while at < tokens.len() {
            match &tokens[at] {
                TokenTree::Ident(word) if *word == "as" => {
                    local = tokens.get(at + 1).map(ToString::to_string);
                    at += 1;
                }
                TokenTree::Ident(word) => before.push(word.to_string()),
                TokenTree::Group(group) => {
                    let inside: Vec<TokenTree> = group.stream().into_iter().collect();
                    for one in inside.split(|token| is(token, ',')).filter(|one| !one.is_empty()) {
                        self.import(one, before, is_exported, for_tests);
                    }
                    before.truncate(depth);
                    return;
                }
                TokenTree::Punct(star) if star.as_char() == '*' => local = Some(String::from("*")),
                _ => {}
            }
            at += 1;
        }
        let mut path = before.clone();
        before.truncate(depth);
        if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
            path.pop();
        }
        let local = local.or_else(|| path.last().cloned());
        self.note(path, local, is_exported, for_tests);
    }

    /// Notes a path, made absolute.
    fn note(&mut self, path: Vec<String>, local: Option<String>, is_exported: bool, for_tests: bool) {
        let mut rest = &path[..];
        let mut base = self.at.clone();
        let mut is_composition = false;
        match rest.first().map(String::as_str) {
            Some("crate") => {
                base.clear();
                rest = &rest[1..];
            }
            Some("self") => rest = &rest[1..],
            Some("super") => {
                while let Some(("super", after)) =
                    rest.split_first().map(|(first, after)| (first.as_str(), after))
                {
                    base.pop();
                    rest = after;
                }
            }
            Some(first) => {
                self.module.roots.insert(first.to_owned());
                if !self.module.children.contains_key(first) {
                    return;
                }
                is_composition = true;
            }
            None => return,
        }
        let segments = base.into_iter().chain(rest.iter().cloned()).collect();
        self.module.paths.push(Named {
            segments,
            local,
            is_exported,
            is_composition,
            is_for_tests: for_tests,
        });
    }
}

/// Returns where the item ends that begins at a token, its own attributes included.
fn end_of_item(tokens: &[TokenTree], start: usize) -> usize {
    let mut at = start;
    while is_punct(tokens, at, '#') {
        at += 2;
    }
    let first = tokens.get(at).map(ToString::to_string).unwrap_or_default();
    let is_item = ITEMS.contains(&first.as_str());
    let is_use = tokens[at..].iter().take(3).any(|token| token.to_string() == "use");
    while at < tokens.len() {
        let is_body = matches!(&tokens[at], TokenTree::Group(group) if group.delimiter() == Delimiter::Brace);
        if is(&tokens[at], ';') || (!is_item && is(&tokens[at], ',')) || (is_body && !is_use) {
            return at + 1;
        }
        at += 1;
    }
    at
}

fn is_cfg_test(attribute: &str) -> bool {
    let plain: String = attribute.chars().filter(|symbol| !symbol.is_whitespace()).collect();
    plain.starts_with("[cfg(test") || plain.starts_with("[cfg(all(test") || plain.starts_with("[cfg(any(test")
}

fn is(token: &TokenTree, symbol: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == symbol)
}

fn is_punct(tokens: &[TokenTree], at: usize, symbol: char) -> bool {
    tokens.get(at).is_some_and(|token| is(token, symbol))
}

fn is_group(tokens: &[TokenTree], at: usize) -> bool {
    matches!(tokens.get(at), Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Parenthesis)
}

/// Returns whether the visibility `pub` or `pub(…)` ends at a token.
fn is_visibility(tokens: &[TokenTree], at: usize) -> bool {
    let is_pub = |at: usize| tokens.get(at).is_some_and(|token| token.to_string() == "pub");
    is_pub(at) || (is_group(tokens, at) && at > 0 && is_pub(at - 1))
}
