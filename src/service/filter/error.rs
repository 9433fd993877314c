//! Errors of list filters.

/// Problem of a filter. The text follows the name of the parameter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FilterError {
    /// It is too long.
    #[error("must be 1024 bytes at most")]
    TooLong,
    /// It has control characters.
    #[error("must have no control characters")]
    ControlCharacter,
    /// It isn't a list of comparisons.
    #[error(
        "must be comparisons joined by AND, such as `actor_id = \"alice\" AND status = KEY_STATUS_ACTIVE`; \
         it can't be read from `{rest}` on"
    )]
    Form {
        /// Beginning of what can't be read.
        rest: String,
    },
    /// It names a field that keys aren't filtered by.
    #[error(
        "has no field `{field}`: there are actor_id, status, secret_id, key_prefix, name, scopes, metadata.…, \
         create_time, expire_time and last_used_time"
    )]
    UnknownField {
        /// The name.
        field: String,
    },
    /// A field is compared by another operator than it can be.
    #[error("{field} takes {operators}")]
    Operator {
        /// The field.
        field: &'static str,
        /// Operators that it takes.
        operators: &'static str,
    },
    /// A field is compared with a value that it can't have.
    #[error("{field} must be {form}")]
    Value {
        /// The field.
        field: &'static str,
        /// Form of its values.
        form: &'static str,
    },
    /// A field has two values, or two bounds of the same side.
    #[error("names a field twice: {field}")]
    Twice {
        /// The field.
        field: &'static str,
    },
    /// A field has too many values.
    #[error("has more than {most} comparisons of {field}")]
    TooMany {
        /// The field.
        field: &'static str,
        /// Most comparisons.
        most: usize,
    },
}
