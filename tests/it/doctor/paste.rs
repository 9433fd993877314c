//! Pastes the doctor's cures into a configuration, as a reader of its report does.

use serde_json::{Map, Value};

/// Comment before another way to cure.
const OTHER_WAY: &str = "\n# or";
/// Fields of a filter chain itself; others are those of its connection manager.
const OF_CHAIN: [&str; 2] = ["transport_socket", "filters"];
/// Fields of a filter's entry itself; others are those of its configuration.
const OF_FILTER: [&str; 3] = ["name", "disabled", "config_discovery"];

/// A step of a finding's path.
#[derive(Debug, Clone, PartialEq)]
enum Step {
    Field(String),
    /// Name or index of an item, or key of an entry.
    Item(String),
}

fn steps(path: &str) -> Vec<Step> {
    let mut steps = vec![];
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(inner) = rest.strip_prefix('[') {
            // Names may have brackets and dots of their own.
            let ends = |(at, _): &(usize, char)| {
                inner[*at..].starts_with(']')
                    && matches!(inner[at + 1..].chars().next(), None | Some('.' | '['))
            };
            let end = inner.char_indices().find(ends).expect("a closing bracket").0;
            steps.push(Step::Item(inner[..end].to_owned()));
            rest = &inner[end + 1..];
        } else {
            rest = rest.strip_prefix('.').unwrap_or(rest);
            let end = rest.find(['.', '[']).unwrap_or(rest.len());
            steps.push(Step::Field(rest[..end].to_owned()));
            rest = &rest[end..];
        }
    }
    steps
}

/// Applies a cure for the setting at a path. Returns false if it has nothing that could be pasted.
pub fn paste(config: &mut Value, path: &str, fix: &str) -> bool {
    let fix = fix.split(OTHER_WAY).next().unwrap_or_default();
    let steps = steps(path);
    let mut pasted = false;
    for line in fix.lines() {
        if let Some(name) = line.strip_prefix("# remove ") {
            let name = name.trim_matches('"');
            let place = place_of(&steps, name);
            if let Value::Object(fields) = hop(find_or_create(config, &steps[..place]), name) {
                // Several findings may say so.
                fields.remove(name);
                pasted = true;
            }
        }
    }
    let cure: Value = serde_norway::from_str(fix).expect("a fix is YAML");
    let Some(cure) = cure.as_object() else { return pasted };
    if fix.starts_with("# rename the key to") {
        rename(config, &steps, cure.keys().next().expect("a key"));
        return true;
    }
    // The keys of a cure stand beside each other.
    let first = cure.keys().find(|name| steps.contains(&Step::Field((*name).clone())));
    for (name, value) in cure {
        let at_root = ["static_resources", "admin", "overload_manager"].contains(&name.as_str());
        let place = if at_root { 0 } else { place_of(&steps, first.unwrap_or(name)) };
        let target = find_or_create(config, &steps[..place]);
        merge_field(target, name, value);
        pasted = true;
    }
    pasted
}

/// Returns the number of steps to the message that has a field which a cure names.
fn place_of(steps: &[Step], name: &str) -> usize {
    let named = |step: &Step| match step {
        Step::Field(field) => field == name,
        Step::Item(key) => key == name,
    };
    if let Some(at) = steps.iter().rposition(named) {
        return at;
    }
    match steps.last() {
        Some(Step::Item(_)) => steps.len(),
        _ => steps.len() - 1,
    }
}

fn short(name: &str) -> &str {
    ["envoy.filters.http.", "envoy.filters.network."]
        .iter()
        .find_map(|prefix| name.strip_prefix(prefix))
        .unwrap_or(name)
}

/// Returns the configuration of the connection manager of a filter chain, or of a filter.
fn hop<'a>(value: &'a mut Value, field: &str) -> &'a mut Value {
    if value.get(field).is_some() {
        return value;
    }
    if value.get("filters").is_some() && !OF_CHAIN.contains(&field) {
        return &mut value["filters"][0]["typed_config"];
    }
    if value.get("typed_config").is_some() && !OF_FILTER.contains(&field) {
        return &mut value["typed_config"];
    }
    value
}

fn find_or_create<'a>(config: &'a mut Value, steps: &[Step]) -> &'a mut Value {
    let mut value = config;
    for (at, step) in steps.iter().enumerate() {
        value = match step {
            Step::Field(name) if at == 0 && name == "bootstrap" => value,
            Step::Field(name) if at == 0 => &mut value["static_resources"][name],
            Step::Field(name) => {
                let value = hop(value, name);
                if value.is_null() {
                    *value = Value::Object(Map::new());
                }
                &mut value[name]
            }
            Step::Item(name) => item(value, name),
        };
    }
    value
}

fn item<'a>(value: &'a mut Value, name: &str) -> &'a mut Value {
    match value {
        Value::Array(items) => {
            let named = |item: &Value| item["name"].as_str().is_some_and(|of| short(of) == name);
            let at = items.iter().position(named).or_else(|| name.parse().ok()).expect("an item");
            &mut items[at]
        }
        Value::Object(fields) => {
            let key = fields.keys().find(|key| short(key) == name).expect("an entry").clone();
            &mut fields[&key]
        }
        other => panic!("no item {name} in {other}"),
    }
}

fn rename(config: &mut Value, steps: &[Step], new: &str) {
    let Some((Step::Item(old), before)) = steps.split_last() else { panic!("no entry to rename") };
    let Value::Object(fields) = find_or_create(config, before) else { panic!("no map to rename in") };
    let key = fields.keys().find(|key| short(key) == old).expect("an entry").clone();
    let entry = fields.remove(&key).expect("the entry");
    fields.insert(new.to_owned(), entry);
}

fn merge_field(target: &mut Value, name: &str, cure: &Value) {
    if target.is_null() {
        *target = Value::Object(Map::new());
    }
    // A filter's entry has its configuration a level below.
    let target = hop(target, name);
    let old = &mut target[name];
    match (name, cure) {
        ("http_filters", Value::Array(items)) => insert_filters(old, items),
        ("clusters" | "resource_monitors", Value::Array(items)) => {
            let list = old.as_array().cloned().unwrap_or_default();
            let is_kept = |one: &Value| items.iter().all(|item| item["name"] != one["name"]);
            *old = list.into_iter().filter(is_kept).chain(items.iter().cloned()).collect();
        }
        (_, Value::Object(fields)) if !fields.contains_key("@type") && old.is_object() => {
            for (name, value) in fields {
                merge_field(old, name, value);
            }
        }
        _ => *old = cure.clone(),
    }
}

/// Inserts filters in front of the next one that has only a name, or of the last; brings those that
/// have only a name into their order.
fn insert_filters(old: &mut Value, cure: &[Value]) {
    let Value::Array(list) = old else { panic!("no http_filters: {old}") };
    let at = |list: &[Value], name: &Value| list.iter().position(|one| one["name"] == *name);
    for (index, filter) in cure.iter().enumerate().filter(|(_, filter)| filter.get("typed_config").is_some())
    {
        let next = cure[index + 1..].iter().find(|one| one.get("typed_config").is_none());
        match at(list, &filter["name"]) {
            Some(place) => list[place] = filter.clone(),
            None => {
                let place = next.and_then(|next| at(list, &next["name"])).unwrap_or(list.len() - 1);
                list.insert(place, filter.clone());
            }
        }
    }
    let named: Vec<&Value> = cure.iter().filter(|filter| filter.get("typed_config").is_none()).collect();
    if let [first, second] = named[..] {
        let (from, to) =
            (at(list, &first["name"]).expect("a filter"), at(list, &second["name"]).expect("a filter"));
        if from > to {
            let filter = list.remove(from);
            list.insert(to, filter);
        }
    }
}
