//! Parsing instants in arguments: `since`, `until` and ages.

use crate::error::Problem;
use crate::model::At;

/// What such an argument may be.
const ALLOWED: &str = "an RFC 3339 instant such as 2026-11-24T08:00:00Z, a date such as 2026-11-24 (its first moment in UTC), \
     or an age such as 90s, 12h, 7d or 1d 6h";

/// Reads argument `field`: an RFC 3339 instant, a date, or an age before `now`.
///
/// # Errors
///
/// A refusal of `field` for anything else.
pub(super) fn instant(field: &str, text: &str, now: At) -> Result<At, Problem> {
    const SHOWN_CHARS: usize = 60;
    let text = text.trim();
    // A date alone is the instant at which it begins.
    let date = || At::parse(&format!("{text}T00:00:00Z"));
    if let Some(at) = At::parse(text).or_else(date) {
        return Ok(at);
    }
    match humantime::parse_duration(text) {
        Ok(age) => {
            let ms = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
            Ok(At::from_unix_ms(now.unix_ms().saturating_sub(ms)))
        }
        Err(_) => {
            let shown: String = text.chars().take(SHOWN_CHARS).collect();
            let message = format!("{field} is {shown:?}, which is neither an instant nor an age");
            Err(Problem::argument(field, message, ALLOWED))
        }
    }
}

/// Reads `since` and `until`.
///
/// # Errors
///
/// A refusal of either, also where they leave no time between them.
pub(super) fn range(
    since: Option<&str>,
    until: Option<&str>,
    now: At,
) -> Result<(Option<At>, Option<At>), Problem> {
    let read = |field, text: Option<&str>| text.map(|text| instant(field, text, now)).transpose();
    let (since, until) = (read("since", since)?, read("until", until)?);
    match (since, until) {
        (Some(from), Some(to)) if from > to => Err(Problem::argument(
            "since",
            format!("since is {from}, which is after until, {to}"),
            "an instant before until",
        )),
        range => Ok(range),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn now() -> At {
        At::parse("2026-11-24T12:00:00Z").expect("an instant")
    }

    #[test]
    fn instants_dates_and_ages_are_read() {
        for (text, expected) in [
            ("2026-11-24T08:00:00Z", "2026-11-24T08:00:00.000Z"),
            ("2026-11-24T08:00:00+02:00", "2026-11-24T06:00:00.000Z"),
            ("2026-11-23", "2026-11-23T00:00:00.000Z"),
            ("7d", "2026-11-17T12:00:00.000Z"),
            (" 1d 6h ", "2026-11-23T06:00:00.000Z"),
            ("90s", "2026-11-24T11:58:30.000Z"),
        ] {
            let at = instant("since", text, now()).expect(text);
            assert_eq!(at.to_string(), expected, "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused_with_what_is_allowed() {
        for text in [
            "",
            "yesterday",
            "7",
            "-3d",
            "2026-13-01",
            "2026-11-24T25:00:00Z",
        ] {
            let problem = instant("until", text, now()).expect_err(text);
            assert_eq!(problem.field.as_deref(), Some("until"));
            assert!(problem.allowed.expect("told").contains("7d"));
        }
        let problem = range(Some("1d"), Some("2d"), now()).expect_err("nothing between");
        assert_eq!(problem.field.as_deref(), Some("since"));
        assert!(range(Some("2d"), Some("1d"), now()).is_ok());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in any::<String>()) {
            let _ = instant("since", &text, now());
        }

        #[test]
        fn no_age_panics(number in any::<u64>(), unit in "(ns|us|ms|s|m|h|d|w|M|y)") {
            let _ = instant("since", &format!("{number}{unit}"), now());
        }
    }
}
