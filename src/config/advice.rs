//! Advice for values of a wrong type, and for names that nothing has, by the deserializer's text.

use super::suggest;

/// Returns what to write instead of a value that was refused with this text.
pub(super) fn advice(message: &str) -> Option<String> {
    let (found, expected) = message.split_once(", expected ")?;
    if let Some(name) =
        within(found, "unknown variant `", "`").or_else(|| within(found, "unknown field `", "`"))
    {
        let known = expected.split('`').skip(1).step_by(2);
        return suggest::name(name, known).map(|known| format!("did you mean {known}?"));
    }
    let text = within(found, "invalid type: string \"", "\"");
    match expected {
        "a list" if found == "invalid type: map" => Some("begin each entry with `- `".to_owned()),
        "a list" => Some("write a list, as in [one, two]".to_owned()),
        "a text" if found == "invalid type: sequence" => {
            Some("write one text; several words stand in it with spaces between".to_owned())
        }
        "a text" => Some("put it in quotes".to_owned()),
        "true or false" => text.and_then(truth).map(|truth| format!("write {truth}, without quotes")),
        "a number" => text.and_then(share).map(|share| format!("write {share}")),
        _ if expected.starts_with("a whole number") => {
            let number = match text {
                Some(text) => whole(text)?,
                None => within(found, "invalid type: floating point `", "`")?.strip_suffix(".0")?.to_owned(),
            };
            Some(format!("write {number}, as plain digits"))
        }
        _ => None,
    }
}

/// Returns what stands in a text between its beginning and its end.
fn within<'a>(text: &'a str, beginning: &str, end: &str) -> Option<&'a str> {
    text.strip_prefix(beginning)?.strip_suffix(end)
}

/// Returns the bool that YAML 1.1, a shell or a template calls so.
fn truth(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "yes" | "y" | "on" | "1" | "enabled" => Some(true),
        "false" | "no" | "n" | "off" | "0" | "disabled" => Some(false),
        _ => None,
    }
}

/// Returns the share that a percentage or a text of digits stands for.
fn share(text: &str) -> Option<f64> {
    let text = text.trim();
    match text.strip_suffix('%') {
        Some(percent) => percent.trim_end().parse::<f64>().ok().map(|percent| percent / 100.0),
        None => text.parse().ok(),
    }
    .filter(|share| share.is_finite())
}

/// Returns the number that a text stands for: in quotes, with leading zeros or separators, or with
/// a unit of bytes.
fn whole(text: &str) -> Option<String> {
    let text: String = text.chars().filter(|c| !matches!(c, '_' | ',' | ' ')).collect();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let number: u64 = digits.parse().ok()?;
    let (thousand, unit) = match unit.to_ascii_lowercase() {
        unit if unit.ends_with("ib") || unit.len() == 1 => (1024_u64, unit),
        unit => (1000, unit),
    };
    let power = match unit.as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        _ => return None,
    };
    thousand.checked_pow(power).and_then(|factor| number.checked_mul(factor)).map(|bytes| bytes.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_is_what_to_write() {
        const NUMBER: &str = "expected a whole number from 0 to 65535";
        for (message, expected) in [
            (format!("invalid type: string \"010\", {NUMBER}"), Some("write 10, as plain digits")),
            (format!("invalid type: string \"1_000\", {NUMBER}"), Some("write 1000, as plain digits")),
            (format!("invalid type: string \"100MB\", {NUMBER}"), Some("write 100000000, as plain digits")),
            (format!("invalid type: string \"100 MiB\", {NUMBER}"), Some("write 104857600, as plain digits")),
            (format!("invalid type: string \"1G\", {NUMBER}"), Some("write 1073741824, as plain digits")),
            (format!("invalid type: string \"99999999999G\", {NUMBER}"), None),
            (format!("invalid type: string \"soon\", {NUMBER}"), None),
            (format!("invalid type: floating point `4420.0`, {NUMBER}"), Some("write 4420, as plain digits")),
            (format!("invalid type: floating point `4420.5`, {NUMBER}"), None),
            (format!("invalid value: integer `-1`, {NUMBER}"), None),
            (
                "invalid type: string \"on\", expected true or false".into(),
                Some("write true, without quotes"),
            ),
            (
                "invalid type: string \"No\", expected true or false".into(),
                Some("write false, without quotes"),
            ),
            ("invalid type: string \"maybe\", expected true or false".into(), None),
            ("invalid type: string \"50%\", expected a number".into(), Some("write 0.5")),
            ("invalid type: string \"a\", expected a list".into(), Some("write a list, as in [one, two]")),
            ("invalid type: map, expected a list".into(), Some("begin each entry with `- `")),
            ("unknown variant `INFO`, expected one of `debug`, `info`".into(), Some("did you mean info?")),
            ("unknown variant `warning`, expected one of `info`, `warn`".into(), Some("did you mean warn?")),
            ("unknown variant `allow`, expected `deny` or `error`".into(), None),
            (
                "unknown field `methds`, expected one of `host`, `methods`".into(),
                Some("did you mean methods?"),
            ),
            ("must be a text".into(), None),
        ] {
            assert_eq!(advice(&message).as_deref(), expected, "{message}");
        }
    }
}
