//! Tests of the reader against another one, and of its bounds.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// Returns the tree as JSON: numbers and booleans as YAML 1.2 has them.
fn to_json(tree: &Tree<'_>) -> Value {
    match &tree.data {
        Data::Null => Value::Null,
        Data::Plain(text) if text.contains('\n') => Value::from(text.as_ref()),
        Data::Plain(text) => serde_norway::from_str(text).unwrap_or_else(|_| Value::from(text.as_ref())),
        Data::Quoted(text) | Data::Block(text) => Value::from(text.as_ref()),
        Data::List(items) => items.iter().map(to_json).collect(),
        Data::Map(entries) => {
            Value::Object(entries.iter().map(|(key, value)| (key.to_string(), to_json(value))).collect())
        }
    }
}

fn all(text: &str) -> Vec<Value> {
    read(text, 1).unwrap_or_else(|error| panic!("{error}:\n{text}")).iter().map(to_json).collect()
}

fn problem(text: &str) -> String {
    read(text, 1).unwrap_err().to_string()
}

#[test]
fn yaml_documents_are_read() {
    let cases: &[(&str, Value)] = &[
        ("a: b", json!({ "a": "b" })),
        ("a:\n- b\n- c: d\n  e: f\ng: h", json!({ "a": ["b", { "c": "d", "e": "f" }], "g": "h" })),
        ("- - a\n  - b\n-\n  c: d\n-", json!([["a", "b"], { "c": "d" }, null])),
        (
            "a: 'it''s' # why\n\"b\\n\\u00e4\\U0001F600\": \"\\ud83d\\ude00\"",
            json!({ "a": "it's", "b\nä😀": "😀" }),
        ),
        (
            "{a: [b, c: d,], 'e':f, \"g\":1, h}",
            json!({ "a": ["b", { "c": "d" }], "e": "f", "g": 1, "h": null }),
        ),
        ("a: one\n  two\n\n  three\nb: x", json!({ "a": "one two\nthree", "b": "x" })),
        ("a: [one\n two, 'x\n  y']", json!({ "a": ["one two", "x y"] })),
        (
            "a: |\n  x\n   y\n\n  z\nb: |-\n    q\nc: >\n  f\n  g\n\n  h\n",
            json!({ "a": "x\n y\n\nz\n", "b": "q", "c": "f g\nh\n" }),
        ),
        ("a: |+\n  x\n\nb: |2\n    y\n", json!({ "a": "x\n\n", "b": "  y\n" })),
        ("a: |\n  x", json!({ "a": "x" })),
        ("|\n# none", json!("")),
        ("[# none\na, \"b\"# none\n]", json!(["a", "b"])),
        (
            "a: &x {b: c}\nd: *x\ne: &y\n  - 1\nf: *y",
            json!({ "a": { "b": "c" }, "d": { "b": "c" }, "e": [1], "f": [1] }),
        ),
        ("!ignore a: &t 5s\nb: *t\n!ignore c:\n  - d", json!({ "b": "5s" })),
        ("a: 1\na: 2", json!({ "a": 2 })),
        ("a: http://x:1/y#z\nb: c#d\ne: f #g", json!({ "a": "http://x:1/y#z", "b": "c#d", "e": "f" })),
        ("a: !!str 5\nb: !!str\n  c", json!({ "a": 5, "b": "c" })),
        ("a:\nb: ~\nc: null\nd: ''", json!({ "a": null, "b": null, "c": null, "d": "" })),
        ("\u{feff}a: b\r\nc:\r\n  - d\r\n", json!({ "a": "b", "c": ["d"] })),
        ("{\n\t\"a\": [\n\t\t1,\n\t]\n}\n", json!({ "a": [1] })),
        // A value with a tag isn't null, and `!` alone means text.
        ("a: !!b\nc: ! 5\nd: [!e , ! null]", json!({ "a": "", "c": "5", "d": ["", "null"] })),
    ];
    for (text, expected) in cases {
        assert_eq!(&all(text)[..], std::slice::from_ref(expected), "{text}");
    }
}

#[test]
fn documents_of_a_stream() {
    assert_eq!(
        all("%YAML 1.2\n---\na: b\n---\n# none\n---\n- c\n...\n---\n\"d\"\n"),
        [json!({ "a": "b" }), json!(["c"]), json!("d")]
    );
    assert_eq!(all(""), [json!(null); 0]);
    assert_eq!(all("# nothing\n\n"), [json!(null); 0]);
    assert_eq!(all("--- {a: b}\n--- |\n  x\n"), [json!({ "a": "b" }), json!("x\n")]);
}

#[test]
fn lines() {
    let documents = read("a:\n  - b: c\n    d:\n# x\n\n  - {e: 1,\n     f: 2}\n", 10).unwrap();
    let items = documents[0].entry("a").unwrap().list();
    let line = |item: usize, key: &str| items[item].entry(key).unwrap().line;
    assert_eq!((items[0].line, line(0, "b"), line(0, "d")), (11, 11, 12));
    assert_eq!((items[1].line, line(1, "e"), line(1, "f")), (15, 15, 16));
}

#[test]
fn errors_have_line_and_column() {
    for (text, expected) in [
        ("{\"a\": 1\n \"b\": 2}", "line 2, column 2: expected a comma or `}`"),
        ("{\"a\": 1, // no\n}", "line 1, column 10: JSON has no comments"),
        ("{\"a\": [1, 2}", "line 1, column 12: "),
        ("\n{\"a\": [1, 2", "line 2, column 7: the bracket isn't closed"),
        ("a: \"b\nc: d\n", "line 1, column 4: the quote isn't closed"),
        ("a:\n  b: c\n d: e\n", "line 3, column 2: "),
        ("a: b: c", "line 1, column 5: a second colon in the line"),
        ("a:\n\tb: c", "line 2, column 2: a tab in the indentation"),
        ("a: *b", "line 1, column 4: the alias has no anchor"),
        ("a: \"\\q\"", "line 1, column 5: unknown escape"),
        ("a: b\nc\n", "line 2, column 1: expected `key: value`"),
        ("a: - b", "line 1, column 4: a list or map can't begin here"),
        ("? a\n: b", "line 1, column 1: a list or map can't begin here"),
        ("ä: [\"ö\" x]", "line 1, column 9: expected a comma or `]`"),
        ("[a\n?b, ?c]", "line 2, column 5: a value can't begin with this character"),
        ("[1, , 2]", "line 1, column 5: expected a value"),
    ] {
        let problem = problem(text);
        assert!(problem.starts_with(expected), "{text:?}: {problem}");
    }
}

#[test]
fn bounds() {
    for open in ["[", "{\"a\":", "{a: ", "- ", "[[{a: [", "? "] {
        let text = open.repeat(100_000);
        let problem = problem(&text);
        assert!(problem.contains("levels deep") || problem.contains("can't begin"), "{open}: {problem}");
    }
    let nested: String = (0..50_000).map(|depth| format!("{}a:\n", " ".repeat(depth % 4_000))).collect();
    assert!(problem(&nested).contains("levels deep"));
    // Each alias counts as what it stands for.
    let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..10 {
        let before = format!("*a{}, ", level - 1).repeat(10);
        laughs.push_str(&format!("a{level}: &a{level} [{before}]\n"));
    }
    assert!(problem(&laughs).contains(&format!("more than {MAX_VALUES} values")));
    let mut deep = format!("a0: &a0 {}x{}\n", "[".repeat(100), "]".repeat(100));
    for level in 1..1_000 {
        deep.push_str(&format!("a{level}: &a{level} [*a{}]\n", level - 1));
    }
    assert!(problem(&deep).contains("levels deep"));
    let copied = format!("a: &a \"{}\\n\"\nb: [{}]\n", "x".repeat(1_000_000), "*a, ".repeat(1_000));
    assert!(problem(&copied).contains(&format!("more than {MAX_VALUES} values")));
}

fn values() -> impl Strategy<Value = Value> {
    let texts = prop_oneof![
        "[ -~äß€😀\n\t\"'\\\\:#,{}\\[\\]&*!|>%@-]{0,12}",
        "[a-z]{1,8}( [a-z:#]{1,4}){0,3}",
        Just("null".to_owned()),
        Just("yes".to_owned()),
        Just("0x10".to_owned()),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        texts.clone().prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map("[ -~äß€😀\t]{0,12}", inner, 0..5)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// Returns true if all anchors are ones that every reader takes for anchors: to others than
/// yaml-cpp, `&a:b` is `&a` and a value.
fn has_plain_anchors(text: &str) -> bool {
    let is_end = |c: char| c.is_ascii_whitespace() || ",[]{}".contains(c);
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    let mut names = text.split(['&', '*']).skip(1).filter_map(|rest| rest.split(is_end).next());
    names.all(|name| name.chars().all(is_plain))
}

proptest! {
    #[test]
    fn reads_what_others_write(value in values()) {
        for text in [
            serde_norway::to_string(&value).unwrap(),
            serde_json::to_string(&value).unwrap(),
            serde_json::to_string_pretty(&value).unwrap(),
        ] {
            let read = read(&text, 1).unwrap_or_else(|error| panic!("{error}\n{text}"));
            let read = read.first().map_or(Value::Null, to_json);
            prop_assert_eq!(&read, &value, "{}", text);
        }
    }

    #[test]
    fn no_text_is_too_odd(text in "[ab:\\-\\[\\]{},#&*!|>'\"\\\\\n\r\t ä%?.]{0,60}") {
        if has_plain_anchors(&text)
            && let Ok(ours) = read(&text, 1)
            && let Ok(theirs) = serde_norway::from_str::<Value>(&text)
            && let [one] = &ours[..]
        {
            prop_assert_eq!(to_json(one), theirs, "{:?}", text);
        }
    }
}
