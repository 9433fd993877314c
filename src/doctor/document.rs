//! Finds Envoy configurations in documents: dumps, bootstraps, parts of these, and ConfigMaps that
//! hold any of them. What is something else is recognised, to say what to do.

use super::dump::{Dump, Origin};
use super::node::{field, short_name, type_name};
use super::reader::{self, Unreadable};
use super::tree::{Data, Tree};

/// Depth of objects that a tool may have wrapped around a dump.
const MAX_WRAPPING: usize = 4;
/// Maximum number of Kubernetes objects that a message names.
const MAX_NAMED: usize = 3;

/// Text within a document that may be a configuration of its own, as in a ConfigMap.
pub(super) struct Embedded<'t> {
    /// Prefix of its paths.
    prefix: String,
    text: &'t str,
    /// Line of the file where the text begins.
    line: u32,
}

/// A Kubernetes object that isn't an Envoy configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Foreign {
    /// Kind and name, such as `EnvoyFilter talos`.
    pub name: String,
    /// Line of the object.
    pub line: u32,
    /// Advice: how to have it examined.
    pub advice: &'static str,
}

/// All that was found in the documents of an input.
pub(super) struct Found<'t> {
    dumps: Vec<Dump<'t>>,
    /// Kubernetes objects that aren't configurations.
    foreign: Vec<Foreign>,
    parts: Dump<'t>,
}

/// Error: an input holds no Envoy configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotADump {
    /// The text isn't YAML or JSON.
    #[error("{0}")]
    Unreadable(#[from] Unreadable),
    /// The text is a template.
    #[error(
        "{0}; this is a template (`{{{{`): render it first, as with `helm template`, and examine the result"
    )]
    Template(Unreadable),
    /// There are only Kubernetes objects.
    #[error("not an Envoy configuration: {name}. {advice}")]
    Kubernetes {
        /// Kinds and names of the objects.
        name: String,
        /// Advice.
        advice: &'static str,
    },
    /// Another answer of the admin interface.
    #[error(
        "not an Envoy configuration: it looks like the answer to {path} of Envoy's admin interface. Fetch /config_dump?include_eds"
    )]
    AdminAnswer {
        /// Path of the answer.
        path: &'static str,
    },
    /// Anything else.
    #[error(
        "not an Envoy configuration: it has neither static_resources or dynamic_resources (a bootstrap configuration), \
         nor `configs` (a /config_dump), nor listeners, clusters or routes"
    )]
    Other,
}

/// Reads the documents of a text.
///
/// # Errors
/// Fails when the text isn't YAML or JSON.
pub(super) fn read(text: &str) -> Result<Vec<Tree<'_>>, NotADump> {
    reader::read(text, 1).map_err(|error| match text.contains("{{") && !text.trim_start().starts_with('{') {
        true => NotADump::Template(error),
        false => NotADump::Unreadable(error),
    })
}

/// Returns the texts in the documents that may be configurations: the data of ConfigMaps.
pub(super) fn embedded<'t>(documents: &'t [Tree<'t>]) -> Vec<Embedded<'t>> {
    let mut found = vec![];
    for object in documents.iter().flat_map(objects) {
        let kind = object.entry("kind").and_then(Tree::text);
        if !matches!(kind, Some("ConfigMap" | "Secret")) {
            continue;
        }
        let name = object_name(object);
        for data in ["data", "stringData"] {
            for (key, value) in object.entry(data).map(Tree::entries).unwrap_or_default() {
                let Some(text) = value.text() else { continue };
                let line = value.line + u32::from(matches!(value.data, Data::Block(_)));
                let prefix = format!("{name}.{data}[{}].", short_name(key));
                found.push(Embedded { prefix, text, line });
            }
        }
    }
    found
}

impl<'t> Embedded<'t> {
    /// Reads the text. A text that isn't YAML has no documents.
    ///
    /// # Errors
    /// Fails when the text can't be read, though it looks like a bootstrap configuration.
    pub(super) fn read(&self) -> Result<Vec<Tree<'t>>, NotADump> {
        match reader::read(self.text, self.line) {
            Err(error) if self.text.contains("static_resources") => Err(NotADump::Unreadable(error)),
            other => Ok(other.unwrap_or_default()),
        }
    }

    /// Returns the prefix of paths in it.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }
}

impl<'t> Found<'t> {
    /// Returns an empty collection.
    pub(super) fn new() -> Self {
        Self { dumps: vec![], foreign: vec![], parts: Dump::new(String::new(), Origin::Parts) }
    }

    /// Adds what is in a document.
    pub(super) fn collect(&mut self, tree: &'t Tree<'t>, prefix: &str) {
        self.collect_at(tree, prefix.to_owned(), 0);
    }

    /// Returns all configurations. Parts that were found alone belong to the one bootstrap
    /// configuration beside them, if there is one, and are a configuration of their own otherwise.
    pub(super) fn into_dumps(mut self) -> Vec<Dump<'t>> {
        match &mut self.dumps[..] {
            _ if self.parts.is_empty() => {}
            [one] if one.origin == Origin::Bootstrap => one.absorb(self.parts),
            _ => self.dumps.push(self.parts),
        }
        self.dumps
    }

    /// Returns the objects from which a controller makes configurations that aren't in the input.
    pub(super) fn sources(&self) -> impl Iterator<Item = &Foreign> {
        self.foreign.iter().filter(|object| object.advice != OTHER_OBJECT)
    }

    /// Returns true if there is no configuration.
    pub(super) fn is_empty(&self) -> bool {
        self.dumps.is_empty() && self.parts.is_empty()
    }

    /// Returns why there is no configuration in the documents.
    pub(super) fn why_none(&self, documents: &[Tree<'_>]) -> NotADump {
        if let Some(first) = self.foreign.first() {
            let names: Vec<&str> = self.foreign.iter().take(MAX_NAMED).map(|one| one.name.as_str()).collect();
            let more = self.foreign.len().saturating_sub(MAX_NAMED);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            return NotADump::Kubernetes { name: names.join(", ") + &more, advice: first.advice };
        }
        let has = |name: &str| documents.iter().any(|document| document.entry(name).is_some());
        let answers = [
            ("listener_statuses", "/listeners"),
            ("cluster_statuses", "/clusters"),
            ("stats", "/stats"),
            ("certificates", "/certs"),
        ];
        match answers.into_iter().find(|(name, _)| has(name)) {
            Some((_, path)) => NotADump::AdminAnswer { path },
            None => NotADump::Other,
        }
    }

    /// Collects the configurations within a value: dumps, bootstraps, their parts, and ConfigMaps
    /// that hold any of these.
    fn collect_at(&mut self, tree: &'t Tree<'t>, prefix: String, depth: usize) {
        if !tree.list().is_empty() {
            for (index, item) in tree.list().iter().enumerate() {
                if depth < MAX_WRAPPING && !self.parts.add(item) && item.is_map() {
                    self.collect_at(item, format!("{prefix}[{index}]."), depth + 1);
                }
            }
            return;
        }
        if !tree.is_map() {
            return;
        }
        if tree.entry("apiVersion").is_some() && tree.entry("kind").is_some() {
            self.collect_objects(tree);
            return;
        }
        let parts = field(tree, "configs").or_else(|| field(tree, "resources"));
        let parts = parts.map(Tree::list).unwrap_or_default();
        if parts.iter().filter_map(type_name).any(|kind| kind.ends_with("ConfigDump")) {
            let mut dump = Dump::new(prefix.clone(), Origin::Running);
            if parts.iter().filter(|part| dump.add(part)).count() > 0 {
                dump.finish();
                self.dumps.push(dump);
                return;
            }
        }
        let is_bootstrap =
            ["static_resources", "dynamic_resources"].iter().any(|name| field(tree, name).is_some());
        if is_bootstrap {
            self.dumps.push(Dump::from_bootstrap(tree, prefix));
        } else if !self.parts.add(tree) && depth < MAX_WRAPPING {
            for (name, value) in tree.entries() {
                self.collect_at(value, format!("{prefix}{}.", short_name(name)), depth + 1);
            }
        }
    }

    /// Records Kubernetes objects that hold no configuration.
    fn collect_objects(&mut self, tree: &Tree<'_>) {
        for object in objects(tree) {
            let kind = object.entry("kind").and_then(Tree::text).unwrap_or_default();
            let api = object.entry("apiVersion").and_then(Tree::text).unwrap_or_default();
            self.foreign.push(Foreign {
                name: object_name(object),
                line: object.line,
                advice: advice(api, kind),
            });
        }
    }
}

/// Returns a Kubernetes object, or the objects of a `List`.
fn objects<'t>(tree: &'t Tree<'t>) -> Vec<&'t Tree<'t>> {
    match tree.entry("items").map(Tree::list) {
        Some(items) if !items.is_empty() => items.iter().collect(),
        _ => vec![tree],
    }
}

/// Returns kind and name of a Kubernetes object.
fn object_name(object: &Tree<'_>) -> String {
    let kind = object.entry("kind").and_then(Tree::text).unwrap_or("object");
    let name = object.entry("metadata").and_then(|metadata| metadata.entry("name")).and_then(Tree::scalar);
    format!("{} {}", short_name(kind), short_name(name.unwrap_or("without a name")))
}

const ISTIO: &str = "Istio makes Envoy's configuration from it; examine that: \
    `istioctl proxy-config all POD -o json > dump.json`, then `talos doctor dump.json`";
const ENVOY_GATEWAY: &str = "Envoy Gateway makes Envoy's configuration from it; examine that: \
    `egctl config envoy-proxy all -A -o json > dump.json`, then `talos doctor dump.json`";
const ANY_GATEWAY: &str = "The gateway's controller makes Envoy's configuration from it; examine that: \
    `kubectl port-forward POD 9901` to Envoy's admin interface (15000 with Istio, 19000 with Envoy Gateway), then \
    `talos doctor http://127.0.0.1:9901`";
const OTHER_OBJECT: &str = "Examine Envoy's own configuration: the ConfigMap that has its file, or its admin interface \
    (`talos doctor http://127.0.0.1:9901`)";

/// Returns what to do with an object that isn't an Envoy configuration itself.
fn advice(api: &str, kind: &str) -> &'static str {
    match api.split('/').next().unwrap_or_default() {
        _ if matches!(kind, "ConfigMap" | "Secret") => OTHER_OBJECT,
        group if group.ends_with("istio.io") => ISTIO,
        "gateway.envoyproxy.io" => ENVOY_GATEWAY,
        "gateway.networking.k8s.io" | "networking.k8s.io" | "projectcontour.io" | "getambassador.io" => {
            ANY_GATEWAY
        }
        _ => OTHER_OBJECT,
    }
}
