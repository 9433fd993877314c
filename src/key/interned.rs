//! Values that many keys have, kept in memory once.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use parking_lot::Mutex;

/// Values that are remembered.
const MAX_VALUES: usize = 1_024;
/// Longest text whose value is remembered, in bytes.
const MAX_TEXT_BYTES: usize = 512;

/// Values by the texts that they are made of. A value has one place, where the last one made
/// replaces the previous one: what many keys have is usually there.
pub(super) struct Interned<T>(Mutex<Vec<Option<Value<T>>>>);

/// Text, and the value that is made of it.
type Value<T> = (Box<str>, T);

impl<T: Clone> Interned<T> {
    /// Creates one without values.
    pub(super) const fn new() -> Self {
        Self(Mutex::new(vec![]))
    }

    /// Returns the value of a text: the one that is remembered, or a new one.
    ///
    /// # Errors
    /// Those of `make`.
    pub(super) fn get_or_make<E>(&self, text: &str, make: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        if text.len() > MAX_TEXT_BYTES {
            return make();
        }
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(text);
        let at = hash as usize % MAX_VALUES;
        if let Some(Some((known, value))) = self.0.lock().get(at)
            && **known == *text
        {
            return Ok(value.clone());
        }
        let value = make()?;
        let mut values = self.0.lock();
        if values.is_empty() {
            values.resize_with(MAX_VALUES, || None);
        }
        values[at] = Some((text.into(), value.clone()));
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_value_is_made_once_unless_its_text_is_long() {
        let interned = Interned::<Arc<str>>::new();
        let get = |text: &str| interned.get_or_make(text, || Ok::<_, ()>(text.into())).unwrap();
        assert!(Arc::ptr_eq(&get("a"), &get("a")));
        assert_eq!(&*get("b"), "b");
        let long = "x".repeat(MAX_TEXT_BYTES + 1);
        assert!(!Arc::ptr_eq(&get(&long), &get(&long)));
        assert!(interned.get_or_make("bad", || Err(())).is_err());
        for n in 0..10 * MAX_VALUES {
            assert_eq!(*get(&n.to_string()), *n.to_string());
        }
    }
}
