//! One measured figure, as a line of `target/bench.jsonl`.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A figure of one subject, beside its peers in the same run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    /// What was measured.
    pub(crate) title: String,
    /// How much of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) size: Option<u64>,
    /// What all values are in.
    pub(crate) unit: Unit,
    /// How often each subject was measured, in turns.
    pub(crate) rounds: usize,
    /// The subject, then its peers.
    pub(crate) rows: Vec<Row>,
}

impl Record {
    /// Returns the title with the size.
    pub(crate) fn full_title(&self) -> String {
        match self.size {
            Some(size) => format!("{} [{size}]", self.title),
            None => self.title.clone(),
        }
    }
}

/// One subject's values.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Row {
    /// The subject's name.
    pub(crate) name: String,
    /// The median of the rounds' medians.
    pub(crate) median: f64,
    /// Of all pieces of all rounds, the value that one in a hundred is worse than.
    pub(crate) p99: f64,
    /// For a peer: the subject's value divided by the peer's, the median of the rounds' ratios.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ratio: Option<f64>,
    /// What that ratio should be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) goal: Option<Goal>,
}

/// What values are in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Unit {
    /// Nanoseconds for one operation.
    Nanoseconds,
    /// Operations in a second.
    PerSecond,
    /// Bytes.
    Bytes,
}

impl Unit {
    /// Returns `value` with three digits and a unit that fits.
    pub(crate) fn show(self, value: f64) -> String {
        let scales: &[(f64, &str)] = match self {
            Self::Nanoseconds => &[(1.0, "ns"), (1e3, "µs"), (1e6, "ms"), (1e9, "s")],
            Self::PerSecond => &[(1.0, "/s")],
            Self::Bytes => &[(1.0, "B"), (1e3, "kB"), (1e6, "MB"), (1e9, "GB")],
        };
        let fits = scales.iter().rev().find(|(scale, _)| value >= *scale);
        let (scale, name) = fits.unwrap_or(&scales[0]);
        let value = value / scale;
        let blank = match self {
            Self::PerSecond => "",
            Self::Nanoseconds | Self::Bytes => " ",
        };
        let digits = if value < 9.995 {
            2
        } else if value < 99.95 {
            1
        } else {
            0
        };
        format!("{value:.digits$}{blank}{name}")
    }
}

/// What a ratio should be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Goal {
    /// This or less.
    AtMost(f64),
    /// This or more.
    AtLeast(f64),
}

impl Goal {
    /// Returns whether `ratio` is as it should be.
    pub(crate) fn is_met(self, ratio: f64) -> bool {
        match self {
            Self::AtMost(most) => ratio <= most,
            Self::AtLeast(least) => ratio >= least,
        }
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(most) => write!(f, "≤ {most}"),
            Self::AtLeast(least) => write!(f, "≥ {least}"),
        }
    }
}
