//! Escapes untrusted texts for terminals, tables and logs, so that they can't pass for something
//! else.

use std::borrow::Cow;
use std::fmt::Write;

/// Ranges of invisible characters: those that control a terminal, change the direction of writing,
/// have no width, or look like a space without being one. Unicode: Cc, Cf that aren't drawn,
/// default ignorables, Zl, Zp, and Zs but the space.
const INVISIBLE: [(char, char); 31] = [
    ('\u{0}', '\u{1f}'),
    ('\u{7f}', '\u{a0}'),
    ('\u{ad}', '\u{ad}'),
    ('\u{34f}', '\u{34f}'),
    ('\u{61c}', '\u{61c}'),
    ('\u{115f}', '\u{1160}'),
    ('\u{1680}', '\u{1680}'),
    ('\u{17b4}', '\u{17b5}'),
    ('\u{180b}', '\u{180f}'),
    ('\u{2000}', '\u{200f}'),
    ('\u{2028}', '\u{202f}'),
    ('\u{205f}', '\u{206f}'),
    ('\u{2800}', '\u{2800}'),
    ('\u{3000}', '\u{3000}'),
    ('\u{3164}', '\u{3164}'),
    ('\u{fe00}', '\u{fe0f}'),
    ('\u{feff}', '\u{feff}'),
    ('\u{ffa0}', '\u{ffa0}'),
    ('\u{fff0}', '\u{fffb}'),
    ('\u{13430}', '\u{1345f}'),
    ('\u{16fe4}', '\u{16fe4}'),
    ('\u{1bca0}', '\u{1bca3}'),
    ('\u{1d159}', '\u{1d159}'),
    ('\u{1d173}', '\u{1d17a}'),
    ('\u{e0000}', '\u{e0fff}'),
    ('\u{fdd0}', '\u{fdef}'),
    ('\u{fffe}', '\u{ffff}'),
    ('\u{1fffe}', '\u{1ffff}'),
    ('\u{2fffe}', '\u{2ffff}'),
    ('\u{ffffe}', '\u{fffff}'),
    ('\u{10fffe}', '\u{10ffff}'),
];

/// Returns true if a character is invisible.
pub fn is_invisible(character: char) -> bool {
    !matches!(character, ' '..='~')
        && INVISIBLE.iter().any(|(first, last)| (*first..=*last).contains(&character))
}

/// Escapes invisible characters, as `\u{202e}`. For texts that people read, such as messages.
pub fn visible(text: &str) -> Cow<'_, str> {
    match text.contains(is_invisible) {
        false => Cow::Borrowed(text),
        true => Cow::Owned(escape(text, false)),
    }
}

/// Escapes invisible characters in each of several lines.
pub fn visible_lines(text: &str) -> String {
    text.split('\n').map(visible).collect::<Vec<_>>().join("\n")
}

/// Escapes invisible characters, spaces at the ends, and backslashes, so that different texts stay
/// different. For values, such as cells of a table.
pub fn distinct(text: &str) -> Cow<'_, str> {
    let has_outer_space = text.starts_with(' ') || text.ends_with(' ');
    if !has_outer_space && !text.contains(|character| character == '\\' || is_invisible(character)) {
        return Cow::Borrowed(text);
    }
    let trimmed = text.trim_matches(' ');
    let before = text.len() - text.trim_start_matches(' ').len();
    let after = text.len() - before - trimmed.len();
    let space = "\\u{20}";
    Cow::Owned(format!("{}{}{}", space.repeat(before), escape(trimmed, true), space.repeat(after)))
}

/// Writes a value of a log line: bare if it is one word that can't be mistaken, else in quotes.
pub fn value(text: &str) -> Cow<'_, str> {
    let is_bare = !text.is_empty()
        && !text.starts_with('"')
        && !text.contains(|character| matches!(character, '=' | ' ') || is_invisible(character));
    match is_bare {
        true => Cow::Borrowed(text),
        false => Cow::Owned(quoted(text)),
    }
}

/// Writes a text in quotes, with invisible characters escaped.
pub fn quoted(text: &str) -> String {
    format!("\"{}\"", escape(text, true).replace('"', "\\\""))
}

/// Escapes invisible characters in a JSON text, whose meaning stays the same. Line breaks stay.
pub fn json(text: &str) -> Cow<'_, str> {
    // JSON has white space between values. Other invisible characters are inside of strings.
    let is_escaped = |character: char| is_invisible(character) && !matches!(character, '\n' | '\r' | '\t');
    if !text.contains(is_escaped) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match is_escaped(character) {
            false => out.push(character),
            true => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    // Writing to a String can't fail.
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
        }
    }
    Cow::Owned(out)
}

fn escape(text: &str, with_backslashes: bool) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match character {
            '\\' if with_backslashes => out.push_str("\\\\"),
            character if is_invisible(character) => out.extend(character.escape_unicode()),
            character => out.push(character),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn invisible_characters_are_escaped() {
        let hostile =
            "\u{1b}[2J\r\n\t\u{9b}\u{7f}\u{202e}\u{2066}\u{200b}\u{feff}\u{e0041}\u{a0}\u{fe0f}ok ü 鍵 é";
        let escaped = visible(hostile);
        assert_eq!(
            escaped,
            r"\u{1b}[2J\u{d}\u{a}\u{9}\u{9b}\u{7f}\u{202e}\u{2066}\u{200b}\u{feff}\u{e0041}\u{a0}\u{fe0f}ok ü 鍵 é"
        );
        assert_eq!(visible_lines("a\n\u{1b}b\n"), "a\n\\u{1b}b\n");
        assert_eq!(visible(r"a\b"), r"a\b");
        // All white space and control characters are invisible, but the space.
        for character in (0..=0x10_ffff_u32).filter_map(char::from_u32) {
            let invisible = character.is_control() || (character.is_whitespace() && character != ' ');
            assert!(!invisible || is_invisible(character), "{}", character.escape_unicode());
        }
        assert!(!"aé鍵ßا한ไँ🙂…–".contains(is_invisible));
        assert!(INVISIBLE.iter().all(|(first, last)| first <= last));
    }

    #[test]
    fn values_are_bare_or_in_quotes() {
        for (text, written) in [
            ("alice", "alice"),
            ("a b", "\"a b\""),
            (r"a\b", r"a\b"),
            ("a\"b", "a\"b"),
            ("[::1]:1", "[::1]:1"),
            ("", "\"\""),
            (" a", "\" a\""),
            ("a decision=allow", "\"a decision=allow\""),
            ("\"a\"", "\"\\\"a\\\"\""),
            ("a\nb", "\"a\\u{a}b\""),
            ("a\u{202e}\\", "\"a\\u{202e}\\\\\""),
        ] {
            assert_eq!(value(text), written, "{text:?}");
        }
    }

    #[test]
    fn json_keeps_its_meaning() {
        let text = "a\u{202e}\u{e0041}\u{7f}\u{1b}\u{200b} \\ \" é";
        let line = serde_json::json!({ text: [text] }).to_string();
        let escaped = json(&line);
        assert!(!escaped.contains(is_invisible), "{escaped}");
        assert!(escaped.contains(r"\u202e\udb40\udc41\u007f"), "{escaped}");
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&escaped).unwrap(),
            serde_json::from_str::<serde_json::Value>(&line).unwrap()
        );
        assert_eq!(json("{\n\t\"a\": 1\r\n}\n"), "{\n\t\"a\": 1\r\n}\n");
    }

    /// Texts that resemble escaped ones.
    fn text() -> impl Strategy<Value = String> {
        let parts = vec![
            "\\",
            "\\u{202e}",
            "\u{202e}",
            "\u{200b}",
            "\"",
            " ",
            "=",
            "\n",
            "\\n",
            "a",
            "u{a}",
            "\\u{20}",
        ];
        prop_oneof![
            prop::collection::vec(prop::sample::select(parts), 0..5).prop_map(|parts| parts.concat()),
            any::<String>()
        ]
    }

    proptest! {
        #[test]
        fn different_texts_are_written_differently(a in text(), b in text()) {
            prop_assert_eq!(a == b, distinct(&a) == distinct(&b));
            prop_assert_eq!(a == b, value(&a) == value(&b));
            for written in [distinct(&a), value(&a), visible(&a)] {
                prop_assert!(!written.contains(is_invisible));
            }
            // Terminals and `awk` trim cells.
            let cell = distinct(&a);
            prop_assert_eq!(cell.trim(), &*cell);
        }

        /// A bare value can't begin another field.
        #[test]
        fn no_value_begins_another_field(text in text()) {
            let written = value(&text);
            let rest = written.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
            match rest {
                None => prop_assert!(!written.contains(['=', ' '])),
                Some(inside) => {
                    let ends = inside.replace("\\\\", "").replace("\\\"", "");
                    prop_assert!(!ends.contains('"'), "{}", written);
                }
            }
        }
    }
}
