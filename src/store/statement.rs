//! Statements that are built together with their values, as each placeholder must occur once and in
//! order.

use sqlx::Any;
use sqlx::any::AnyArguments;
use sqlx::query::Query;

use super::Inner;
use crate::key::Status;

/// Statement with its values.
pub(super) struct Statement {
    text: String,
    values: Vec<Value>,
}

enum Value {
    Text(String),
    Number(i64),
}

impl Statement {
    /// Begins a statement.
    pub(super) fn begin(text: impl Into<String>) -> Self {
        Self { text: text.into(), values: vec![] }
    }

    /// Begins a statement, whose first value is `first`.
    pub(super) fn new(text: String, first: impl ToString) -> Self {
        let mut statement = Self::begin(text);
        statement.text(first.to_string());
        statement
    }

    /// Adds a part of the text.
    pub(super) fn push(&mut self, text: &str) -> &mut Self {
        self.text += text;
        self
    }

    /// Adds a value that is a text.
    pub(super) fn text(&mut self, value: String) -> &mut Self {
        self.value(Value::Text(value))
    }

    /// Adds a value that is a number.
    pub(super) fn number(&mut self, value: i64) -> &mut Self {
        self.value(Value::Number(value))
    }

    fn value(&mut self, value: Value) -> &mut Self {
        self.values.push(value);
        let placeholder = format!("${}", self.values.len());
        self.push(&placeholder)
    }

    /// Adds the conditions of a status at `now`.
    pub(super) fn status(&mut self, status: Status, now: i64) {
        match status {
            Status::Active => {
                self.unended(now).push(" AND (expires_at IS NULL OR expires_at > ").number(now).push(")")
            }
            Status::Expired => self.unended(now).push(" AND expires_at <= ").number(now),
            Status::Revoked => {
                self.push(" AND (revocation_reason IS NOT NULL OR superseded_at <= ").number(now).push(")")
            }
        };
    }

    fn unended(&mut self, now: i64) -> &mut Self {
        self.push(" AND revocation_reason IS NULL AND (superseded_at IS NULL OR superseded_at > ")
            .number(now)
            .push(")")
    }

    /// Makes the query.
    pub(super) fn query(self, inner: &Inner) -> Query<'static, Any, AnyArguments> {
        self.values.into_iter().fold(inner.query(self.text), |query, value| match value {
            Value::Text(text) => query.bind(text),
            Value::Number(number) => query.bind(number),
        })
    }
}
