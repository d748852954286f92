//! An instant on the wall clock.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::time::Duration;

/// An instant on the wall clock, RFC 3339 in UTC with milliseconds when written.
///
/// For people and for ordering records; deadlines use the monotonic clock instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct At(jiff::Timestamp);

impl At {
    /// Returns the present instant.
    pub fn now() -> Self {
        Self(jiff::Timestamp::now())
    }

    /// Returns the instant `ms` milliseconds after the Unix epoch, or the nearest one that can be written.
    pub fn from_unix_ms(ms: i64) -> Self {
        let nearest = if ms < 0 {
            jiff::Timestamp::MIN
        } else {
            jiff::Timestamp::MAX
        };
        Self(jiff::Timestamp::from_millisecond(ms).unwrap_or(nearest))
    }

    /// Returns the milliseconds since the Unix epoch.
    pub fn unix_ms(self) -> i64 {
        self.0.as_millisecond()
    }

    /// Returns the instant `span` later, or the last one that can be written.
    pub fn plus(self, span: Duration) -> Self {
        Self::from_unix_ms(self.unix_ms().saturating_add(ms(span)))
    }

    /// Returns the instant `span` earlier, or the first one that can be written.
    pub fn minus(self, span: Duration) -> Self {
        Self::from_unix_ms(self.unix_ms().saturating_sub(ms(span)))
    }

    /// Reads an RFC 3339 instant.
    pub fn parse(text: &str) -> Option<Self> {
        text.parse().ok().map(Self)
    }
}

fn ms(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

impl std::fmt::Display for At {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.3}", self.0)
    }
}

impl Serialize for At {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for At {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("not an RFC 3339 instant"))
    }
}

impl JsonSchema for At {
    fn schema_name() -> Cow<'static, str> {
        "Instant".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "format": "date-time"})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_written_with_milliseconds_and_read_back() {
        let at = At::from_unix_ms(1_700_000_000_123);
        assert_eq!(at.to_string(), "2023-11-14T22:13:20.123Z");
        assert_eq!(At::parse(&at.to_string()), Some(at));
        assert_eq!(At::from_unix_ms(i64::MAX).unix_ms().signum(), 1);
    }
}
