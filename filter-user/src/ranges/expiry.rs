//! When an entry expires: a point in time in the file, a point in time or a duration on the command line.

use jiff::{Span, SpanRelativeTo, Timestamp};

use super::Refusal;

/// Parses the time behind `expires=`: RFC 3339 with an offset or `Z`.
///
/// # Errors
/// Anything else, with the form that would be taken: a time without an offset would mean another moment on each machine.
pub fn parse_time(text: &str) -> Result<Timestamp, Refusal> {
    text.parse().map_err(|_| {
        Refusal::new(
            format!("time `{text}` is no RFC 3339 time"),
            "write it like `2027-01-31T18:00:00Z` or `2027-01-31T18:00:00+01:00`",
        )
    })
}

/// Parses what `--expires` takes, at `now`: a duration like `8h`, `30d` or `1h 30m`, or a time as in the file. Whole
/// seconds.
///
/// # Errors
/// Anything else, and what is not in the future.
pub fn parse_expiry(text: &str, now: Timestamp) -> Result<Timestamp, Refusal> {
    let time = match text.parse::<Timestamp>() {
        Ok(time) => time,
        Err(_) => text
            .parse::<Span>()
            .and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()))
            .and_then(|duration| now.checked_add(duration))
            .map_err(|_| {
                Refusal::new(
                    format!("expiry `{text}` is no duration and no RFC 3339 time"),
                    "write it like `8h`, `30d` or `2027-01-31T18:00:00Z`",
                )
            })?,
    };
    let time = Timestamp::from_second(time.as_second()).unwrap_or(time);
    if time <= now {
        return Err(Refusal::new(
            format!("expiry `{text}` is not in the future"),
            "`ranges remove` takes an entry out of the list",
        ));
    }
    Ok(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        parse_time("2026-11-24T08:00:00.25Z").expect("a time")
    }

    #[test]
    fn durations_and_times_are_taken() {
        for (text, want) in [
            ("8h", "2026-11-24T16:00:00Z"),
            ("30d", "2026-12-24T08:00:00Z"),
            ("1h 30m", "2026-11-24T09:30:00Z"),
            ("90s", "2026-11-24T08:01:30Z"),
            ("2w", "2026-12-08T08:00:00Z"),
            ("2027-01-31T18:00:00+01:00", "2027-01-31T17:00:00Z"),
        ] {
            let have = parse_expiry(text, now()).map(|time| time.to_string());
            assert_eq!(have, Ok(want.to_owned()), "{text}");
        }
    }

    #[test]
    fn nonsense_and_the_past_are_refused() {
        for text in [
            "",
            "8",
            "h",
            "-1h",
            "0s",
            "tomorrow",
            "2020-01-01T00:00:00Z",
            "3mo",
            "99999999999d",
        ] {
            parse_expiry(text, now()).expect_err(text);
        }
    }

    #[test]
    fn a_time_has_an_offset() {
        for text in [
            "2027-01-31T18:00:00",
            "2027-01-31",
            "18:00:00Z",
            "2027-02-30T00:00:00Z",
        ] {
            parse_time(text).expect_err(text);
        }
    }
}
