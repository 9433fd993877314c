//! Lists that are kept up to their limit only: an item may take many times the memory of its text.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, SeqAccess, Visitor};

/// Deserialises a list of `most` items at most. Of a longer list, one item more is kept and the
/// others are skipped: who counts the items finds too many.
///
/// # Errors
/// Fails if it is no list, or an item that is kept is invalid.
pub(crate) fn list_up_to<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    list: D,
    most: usize,
) -> Result<Vec<T>, D::Error> {
    list.deserialize_seq(ListVisitor { most, items: PhantomData })
}

/// Like [`list_up_to`], for a list that may be unset.
///
/// # Errors
/// Fails like [`list_up_to`].
pub(crate) fn optional_list_up_to<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    list: D,
    most: usize,
) -> Result<Option<Vec<T>>, D::Error> {
    list.deserialize_option(OptionalListVisitor { most, items: PhantomData })
}

struct ListVisitor<T> {
    most: usize,
    items: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for ListVisitor<T> {
    type Value = Vec<T>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a sequence")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<T>, A::Error> {
        let mut kept = vec![];
        while kept.len() <= self.most {
            match items.next_element()? {
                Some(item) => kept.push(item),
                None => return Ok(kept),
            }
        }
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(kept)
    }
}

struct OptionalListVisitor<T> {
    most: usize,
    items: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for OptionalListVisitor<T> {
    type Value = Option<Vec<T>>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a sequence")
    }

    fn visit_none<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, list: D) -> Result<Self::Value, D::Error> {
        list_up_to(list, self.most).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        /// Items that were deserialised by this thread.
        static READ: Cell<usize> = const { Cell::new(0) };
    }

    /// Counts how many there are.
    struct Counted;

    impl<'de> Deserialize<'de> for Counted {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            READ.set(READ.get() + 1);
            IgnoredAny::deserialize(deserializer).map(|_| Self)
        }
    }

    fn read(json: &str) -> Result<Option<Vec<Counted>>, serde_json::Error> {
        READ.set(0);
        let mut deserializer = serde_json::Deserializer::from_str(json);
        let items = optional_list_up_to(&mut deserializer, 3)?;
        deserializer.end().map(|()| items)
    }

    #[test]
    fn one_item_beyond_the_limit_is_read_and_no_more() {
        for (count, kept) in [(0, 0), (1, 1), (3, 3), (4, 4), (5, 4), (10_000, 4)] {
            let json = format!("[{}]", vec!["{}"; count].join(","));
            assert_eq!(read(&json).unwrap().map(|items| items.len()), Some(kept), "{count} items");
            assert_eq!(READ.get(), kept, "{count} items");
        }
        assert!(read("null").unwrap().is_none());
    }

    #[test]
    fn what_is_skipped_must_be_json_and_what_is_no_list_is_refused() {
        for json in ["[1,1,1,1,x]", "[1,1,1,1,1", "[1,1,1,1,1] 1", "5", "{}", r#""[]""#] {
            assert!(read(json).is_err(), "{json}");
        }
        let error = read("5").map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("expected a sequence"), "{error}");
    }
}
