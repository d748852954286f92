//! Ids and names, each a type of its own.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::sync::Arc;
use ulid::Ulid;

macro_rules! ulid_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Ulid);

        impl $name {
            /// Returns a new id: sorted by the time it was made, unique across servers.
            #[expect(clippy::new_without_default, reason = "every call returns another value")]
            pub fn new() -> Self {
                Self(Ulid::generate())
            }

            /// Returns when it was made, by the clock of the server that made it.
            pub fn made_at(self) -> super::At {
                super::At::from_unix_ms(i64::try_from(self.0.timestamp_ms()).unwrap_or(i64::MAX))
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Display::fmt(&self.0, f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = ulid::DecodeError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Ulid::from_string(text).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = Cow::<'de, str>::deserialize(deserializer)?;
                text.parse()
                    .map_err(|_| serde::de::Error::custom(concat!("not ", $what)))
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({"type": "string"})
            }
        }
    };
}

ulid_id!(
    /// A workflow's id, a ULID.
    WorkflowId,
    "a workflow id (26 letters and digits)"
);
ulid_id!(
    /// A server process's id, a ULID; its ownership lock is named after it.
    ServerId,
    "a server id"
);

ulid_id!(
    /// A memory's id, a ULID; also the marker by which it is known at a peer.
    MemoryId,
    "a memory id (26 letters and digits)"
);

impl MemoryId {
    /// Returns `count` new ids in their order; ids of one millisecond that are made one by one are in none.
    pub fn ascending(count: usize) -> Vec<Self> {
        let mut ids: Vec<_> = std::iter::repeat_with(Self::new).take(count).collect();
        ids.sort_unstable();
        ids
    }
}

/// An item's place in its workflow, from 0.
pub type ItemIndex = u32;

/// Which try of an item, from 1; 0 means never started.
pub type Attempt = u32;

/// How often a workflow's journal has changed; grows by one with every write.
pub type Revision = u64;

/// A pool's name: `[a-z0-9][a-z0-9_.-]{0,63}` with no run of ten or more digits.
///
/// Ten digits in a row look like a telephone number to the memory guard of Session-Buddy, which would rewrite them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[schemars(inline, with = "String")]
pub struct PoolName(Arc<str>);

/// Why a text is not a pool name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a pool name")]
pub struct BadPoolName(pub String);

impl BadPoolName {
    /// What a pool name may be.
    pub const ALLOWED: &'static str =
        "1 to 64 of a-z 0-9 _ . -, beginning with a letter or digit, without ten digits in a row";
}

impl PoolName {
    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for PoolName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::borrow::Borrow<str> for PoolName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for PoolName {
    type Err = BadPoolName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const MAX_CHARS: usize = 64;
        const DIGIT_RUN: usize = 10;
        let first_ok =
            text.starts_with(|first: char| first.is_ascii_lowercase() || first.is_ascii_digit());
        let rest_ok = text.bytes().all(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'.' | b'-')
        });
        let digits_ok = text
            .split(|c: char| !c.is_ascii_digit())
            .all(|run| run.len() < DIGIT_RUN);
        if first_ok && rest_ok && digits_ok && text.len() <= MAX_CHARS {
            Ok(Self(text.into()))
        } else {
            Err(BadPoolName(text.chars().take(2 * MAX_CHARS).collect()))
        }
    }
}

impl<'de> Deserialize<'de> for PoolName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(|bad: BadPoolName| {
            serde::de::Error::custom(format!("{bad}: {}", BadPoolName::ALLOWED))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pool_names_are_checked() {
        for good in ["a", "local", "0x", "a.b_c-9", "n123456789"] {
            assert!(good.parse::<PoolName>().is_ok(), "{good}");
        }
        let long = "a".repeat(65);
        for bad in ["", "A", "-a", "a b", "n1234567890", "é", long.as_str()] {
            assert!(bad.parse::<PoolName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn ids_survive_json() {
        let id = WorkflowId::new();
        let text = serde_json::to_string(&id).expect("serialises");
        assert_eq!(
            serde_json::from_str::<WorkflowId>(&text).expect("parses"),
            id
        );
        assert!(serde_json::from_str::<WorkflowId>("\"nope\"").is_err());
    }
}
