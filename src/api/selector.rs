//! How an argument names an item.

use crate::model::ItemIndex;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// An item of a workflow as a caller names it: by its place or by its repository.
///
/// On the wire a string or a whole number; the schema has string, since some hosts refuse unions.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ItemSelector {
    /// The place in the workflow, from 0.
    Index(ItemIndex),
    /// The repository's name or path.
    Repo(String),
}

impl ItemSelector {
    fn of_text(text: &str) -> Self {
        text.parse()
            .map_or_else(|_| Self::Repo(text.to_owned()), Self::Index)
    }
}

impl std::fmt::Display for ItemSelector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Index(index) => write!(f, "{index}"),
            Self::Repo(repo) => f.write_str(repo),
        }
    }
}

impl Serialize for ItemSelector {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ItemSelector {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl serde::de::Visitor<'_> for Visitor {
            type Value = ItemSelector;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an item's index from 0, or its repository's name or path")
            }

            fn visit_u64<E: serde::de::Error>(self, index: u64) -> Result<ItemSelector, E> {
                ItemIndex::try_from(index)
                    .map(ItemSelector::Index)
                    .map_err(|_| E::invalid_value(serde::de::Unexpected::Unsigned(index), &self))
            }

            fn visit_i64<E: serde::de::Error>(self, index: i64) -> Result<ItemSelector, E> {
                u64::try_from(index)
                    .map_err(|_| E::invalid_value(serde::de::Unexpected::Signed(index), &self))
                    .and_then(|index| self.visit_u64(index))
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<ItemSelector, E> {
                Ok(ItemSelector::of_text(text))
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for ItemSelector {
    fn schema_name() -> Cow<'static, str> {
        "ItemSelector".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "description": "index from 0, or repository name or path"})
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_and_texts_of_numbers_are_indexes() {
        let read = |value| serde_json::from_value::<ItemSelector>(value);
        assert_eq!(read(json!(3)).expect("reads"), ItemSelector::Index(3));
        assert_eq!(read(json!("3")).expect("reads"), ItemSelector::Index(3));
        assert_eq!(
            read(json!("a/3")).expect("reads"),
            ItemSelector::Repo("a/3".into())
        );
        for wrong in [
            json!(-1),
            json!(1.5),
            json!(u64::MAX),
            json!(null),
            json!([]),
        ] {
            assert!(read(wrong.clone()).is_err(), "{wrong}");
        }
    }
}
