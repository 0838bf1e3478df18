//! The expiry of an entry: a time in the file, a time or a duration on the command line.

use jiff::{Span, Timestamp, civil::DateTime, tz::TimeZone};

use super::{InputError, meant::shown};

/// From this time on an expiry means never: the kernel counts nanoseconds since boot in 64 bits,
/// which last for some 580 years.
const NEVER: &str = "2500-01-01T00:00:00Z";

fn never() -> Timestamp {
    NEVER.parse().expect("it is a time")
}

/// Parses the time after `expires=`: RFC 3339 with an offset or `Z`. `None` if it is so far away
/// that the entry never expires.
///
/// # Errors
/// Anything else, with a hint: a time without an offset would mean another moment on each machine.
pub(super) fn parse_until(text: &str) -> Result<Option<Timestamp>, InputError> {
    parse_time(text).map(|time| Some(time).filter(|time| *time < never()))
}

/// Parses a time in RFC 3339. The clock here does not reach the last hours of the year 9999: they
/// become its last second.
///
/// # Errors
/// As of [`parse_until`].
pub(super) fn parse_time(text: &str) -> Result<Timestamp, InputError> {
    read(text).ok_or_else(|| {
        let cause = format!("time `{}` is not in RFC 3339 form", shown(text));
        let hint = match text {
            _ if text.contains('[') => "leave out the zone in brackets: the offset is enough",
            _ if read(&format!("{text}Z")).is_some() => {
                "add an offset after the time: `Z` for UTC, or one like `+01:00`"
            }
            _ => "write it like `2027-01-31T18:00:00Z` or `2027-01-31T18:00:00+01:00`",
        };
        InputError::new(cause, hint)
    })
}

/// RFC 3339 section 5.6: the library accepts more than that.
fn read(text: &str) -> Option<Timestamp> {
    const FORM: &[u8] = b"0000-00-00T00:00:00";
    let bytes = text.as_bytes();
    let fits = |form: &[u8], bytes: &[u8]| {
        form.iter().zip(bytes).all(|(form, byte)| match form {
            b'0' => byte.is_ascii_digit(),
            b'T' => matches!(byte, b'T' | b't' | b' '),
            form => form == byte,
        })
    };
    if bytes.len() <= FORM.len() || !text.is_ascii() || !fits(FORM, bytes) {
        return None;
    }
    let (civil, rest) = text.split_at(FORM.len());
    let offset = match rest.strip_prefix('.') {
        Some(fraction) => fraction.trim_start_matches(|digit: char| digit.is_ascii_digit()),
        None => rest,
    };
    if rest.len() - offset.len() == 1 {
        return None;
    }
    let is_utc = matches!(offset, "Z" | "z");
    let is_offset = offset.len() == 6
        && matches!(offset.as_bytes()[0], b'+' | b'-')
        && fits(b"00:00", &offset.as_bytes()[1..])
        && &offset[1..3] <= "23"
        && &offset[4..] <= "59";
    if !is_utc && !is_offset {
        return None;
    }
    let text = text.to_ascii_uppercase().replace(' ', "T");
    match text.parse() {
        Ok(time) => Some(time),
        Err(_) => {
            let civil = civil.to_ascii_uppercase().replace(' ', "T");
            civil.parse::<DateTime>().ok()?;
            civil.starts_with("9999-12-3").then(|| {
                Timestamp::from_second(Timestamp::MAX.as_second()).unwrap_or(Timestamp::MAX)
            })
        }
    }
}

/// Parses the value of `--expires` at `now`: a duration like `8h`, `30d`, `3mo` or `1h 30m`, or a
/// time as in the file. Whole seconds.
///
/// # Errors
/// Anything else, and times in the past or too far in the future.
pub fn parse_expiry(text: &str, now: Timestamp) -> Result<Timestamp, InputError> {
    let text = text.trim();
    let refuse = |what: &str, hint: &str| {
        Err(InputError::new(
            format!("expiry `{}` {what}", shown(text)),
            hint,
        ))
    };
    const LIKE: &str = "write it like `8h`, `30d`, `3mo` or `2027-01-31T18:00:00Z`";
    let is_time = text.as_bytes().get(4) == Some(&b'-')
        && text.starts_with(|digit: char| digit.is_ascii_digit());
    let time = match (is_time, text.parse::<Span>()) {
        (true, _) => parse_time(text).map_err(|refusal| {
            InputError::new(refusal.cause.replacen("time", "expiry", 1), refusal.hint)
        })?,
        (false, Ok(span)) => {
            // Months and years follow the calendar, and a day has 24 hours.
            let then = TimeZone::UTC.to_datetime(now).checked_add(span);
            then.and_then(|then| TimeZone::UTC.to_timestamp(then))
                .unwrap_or(Timestamp::MAX)
        }
        (false, Err(_)) if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) => {
            return refuse(
                "has no unit",
                &format!(
                    "`{0}h`, `{0}d`, or a time like `2027-01-31T18:00:00Z`",
                    shown(text)
                ),
            );
        }
        (false, Err(_)) => return refuse("is not a duration or an RFC 3339 time", LIKE),
    };
    let time = Timestamp::from_second(time.as_second()).unwrap_or(time);
    if time <= now {
        return refuse(
            "is not in the future",
            "`apifence ranges remove` removes an entry",
        );
    }
    if time >= never() {
        return refuse(
            "is too late",
            "the latest year is 2499; `never` removes an expiry",
        );
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
            ("2027-01-31 18:00:00Z", "2027-01-31T18:00:00Z"),
            ("3mo", "2027-02-24T08:00:00Z"),
            ("1y", "2027-11-24T08:00:00Z"),
            ("1y 6months", "2028-05-24T08:00:00Z"),
            ("2499-12-31T23:59:59Z", "2499-12-31T23:59:59Z"),
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
            "never",
            "99999999999d",
            "1000y",
            "9999-12-31T23:59:59Z",
            "2500-01-01T00:00:00Z",
            "2027-01-31T18:00:00",
        ] {
            parse_expiry(text, now()).expect_err(text);
        }
        for (text, words) in [
            ("8", "has no unit"),
            ("1000y", "is too late"),
            ("tomorrow", "is not a duration"),
            ("-1h", "not in the future"),
        ] {
            let refusal = parse_expiry(text, now()).expect_err(text);
            assert!(refusal.cause.contains(words), "{text}: {refusal}");
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

    #[test]
    fn a_time_is_as_the_rfc_has_it() {
        for (text, want) in [
            ("2027-01-31t18:00:00z", "2027-01-31T18:00:00Z"),
            ("2027-01-31T18:00:00.25-23:59", "2027-02-01T17:59:00.25Z"),
            ("2027-01-31T18:00:00-00:00", "2027-01-31T18:00:00Z"),
            ("2300-01-01T00:00:00Z", "2300-01-01T00:00:00Z"),
            ("9999-12-31T23:59:59Z", "9999-12-30T22:00:00Z"),
            ("9999-12-31T23:59:59-12:00", "9999-12-30T22:00:00Z"),
        ] {
            let have = parse_time(text).map(|time| time.to_string());
            assert_eq!(have, Ok(want.to_owned()), "{text}");
        }
        for text in [
            "2027-01-31T18:00:00+25:00",
            "2027-01-31T18:00:00+24:00",
            "2027-01-31T18:00:00+01:60",
            "2027-01-31T18:00:00+01",
            "2027-01-31T18:00:00+0100",
            "2027-01-31T18:00:00+01:00[Europe/Paris]",
            "2027-01-31T18:00:00[Europe/Paris]",
            "2027-01-31T18:00Z",
            "2027-01-31T18:00:00.Z",
            "2027-01-31T24:00:00Z",
            "20270131T180000Z",
            "+002027-01-31T18:00:00Z",
            "9999-12-32T00:00:00Z",
            "9999-12-31T23:59:61Z",
            "10000-01-01T00:00:00Z",
        ] {
            parse_time(text).expect_err(text);
        }
        let missing = parse_time("2027-01-31T18:00:00").expect_err("no offset");
        assert!(missing.hint.contains("add an offset"), "{missing:?}");
        assert_eq!(parse_until("9999-12-31T23:59:59Z"), Ok(None));
        assert_eq!(
            parse_until("2499-12-31T23:59:59Z").map(|time| time.is_some()),
            Ok(true)
        );
    }
}
