//! Errors of list filters.

/// Length of an unknown field's name that is shown, in bytes.
const MAX_SHOWN: usize = 32;

/// Problem of a filter. The text follows the name of the parameter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FilterError {
    /// The filter is too long.
    #[error("must be 1024 bytes at most")]
    TooLong,
    /// The filter has control characters.
    #[error("must have no control characters")]
    ControlCharacter,
    /// The filter isn't a list of comparisons.
    #[error(
        "must be comparisons joined by AND, such as `actor_id = \"alice\" AND status = KEY_STATUS_ACTIVE`; \
         it can't be read from byte {position} on"
    )]
    Form {
        /// Number of the first byte that can't be read, from 1.
        position: usize,
    },
    /// The filter names a field by which keys can't be filtered.
    #[error(
        "has no field `{field}`: there are actor_id, status, secret_id, key_prefix, name, scopes, metadata.…, \
         create_time, expire_time and last_used_time"
    )]
    UnknownField {
        /// The name, if it can't be a credential in the wrong place.
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

impl FilterError {
    /// Makes the error of an unknown field. A name that could be a credential is left out.
    pub(super) fn unknown_field(name: &str) -> Self {
        let is_plain = |char: char| char.is_ascii_alphabetic() || char == '_' || char == '.';
        let is_shown = name.len() <= MAX_SHOWN && name.chars().all(is_plain);
        Self::UnknownField { field: if is_shown { name.to_owned() } else { "…".to_owned() } }
    }
}
