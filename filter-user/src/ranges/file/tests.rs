//! The ranges file as text.

use super::*;
use crate::ranges::expiry::parse_time;

const TEXT: &str = "# office\n198.51.100.0/24 # Lyon\n\n2001:db8:aa::/48\n";

fn now() -> Timestamp {
    parse_time("2026-11-29T12:00:00Z").expect("a time")
}

/// An edit with nothing but the range.
fn edit(range: &str) -> Edit {
    Edit {
        range: range.parse().expect("a range"),
        expires: None,
        comment: None,
    }
}

fn entry(range: &str, comment: Option<&str>) -> Entry {
    Entry {
        range: range.parse().expect("a range"),
        expires: None,
        comment: comment.map(str::to_owned),
    }
}

fn parse(text: &str) -> RangesFile {
    RangesFile::parse(text).expect(text)
}

#[test]
fn a_file_is_written_back_as_read() {
    assert_eq!(parse(TEXT).to_string(), TEXT);
    assert_eq!(
        parse(TEXT).list(),
        List::Ranges(vec![
            entry("198.51.100.0/24", Some("Lyon")),
            entry("2001:db8:aa::/48", None)
        ])
    );
}

#[test]
fn add_and_remove_keep_the_users_lines() {
    let mut file = parse(TEXT);
    let bastion = Edit {
        comment: Some(Some("bastion".to_owned())),
        ..edit("192.0.2.1/32")
    };
    file.add([bastion, edit("198.51.100.0/24")], now());
    assert!(file.remove("2001:db8:aa::/48".parse().expect("a range")));
    assert!(!file.remove("2001:db8:aa::/64".parse().expect("a range")));
    assert_eq!(
        file.to_string(),
        "# office\n198.51.100.0/24 # Lyon\n\n192.0.2.1/32 # bastion\n"
    );
}

#[test]
fn an_expiry_is_kept_and_can_be_given_later() {
    let text = "10.0.0.0/8 expires=2027-01-31T18:00:00+01:00 # contractor\n";
    let mut file = parse(text);
    assert_eq!(file.to_string(), text);
    let later = Edit {
        expires: Some(Some(parse_time("2028-01-01T00:00:00Z").expect("a time"))),
        ..edit("10.0.0.0/8")
    };
    file.add([later, edit("10.0.0.0/8")], now());
    assert_eq!(
        file.to_string(),
        "10.0.0.0/8 expires=2028-01-01T00:00:00Z # contractor\n"
    );
    for bad in [
        "10.0.0.0/8 expires=tomorrow\n",
        "10.0.0.0/8 expires=\n",
        "10.0.0.0/8 expires=2027-01-31T18:00:00\n",
        "10.0.0.0/8 expires=2028-01-01T00:00:00Z expires=2029-01-01T00:00:00Z\n",
        "10.0.0.0/8 Expires=2028-01-01T00:00:00Z\n",
        "disabled expires=2028-01-01T00:00:00Z\n",
        "0.0.0.0/32 expires=2028-01-01T00:00:00Z\n",
    ] {
        RangesFile::parse(bad).expect_err(bad);
    }
}

#[test]
fn adding_authorizes_and_removes_a_past_expiry() {
    let never = |edit| Edit {
        expires: Some(None),
        ..edit
    };
    let bare = |edit| Edit {
        comment: Some(None),
        ..edit
    };
    let host = || edit("192.0.2.1/32");
    let expired = "192.0.2.1 expires=2026-01-01T00:00:00Z";
    let lives = "192.0.2.1 expires=2027-01-01T00:00:00Z";
    for (text, edit, want) in [
        (
            format!("{expired} # x"),
            host(),
            "192.0.2.1/32 # x".to_owned(),
        ),
        (format!("{lives} # x"), host(), format!("{lives} # x")),
        (
            format!("{lives} # x"),
            never(host()),
            "192.0.2.1/32 # x".to_owned(),
        ),
        (
            format!("{lives} # x"),
            bare(host()),
            lives.replace("1 ", "1/32 "),
        ),
        (
            "192.0.2.1".to_owned(),
            never(bare(host())),
            "192.0.2.1".to_owned(),
        ),
        // A range that is listed twice has the later expiry; an edit applies to both.
        (
            format!("{expired}\n10.0.0.0/8\n{lives}"),
            never(host()),
            "192.0.2.1/32\n10.0.0.0/8".to_owned(),
        ),
        (
            format!("{expired}\n{lives}"),
            host(),
            format!("{expired}\n{lives}"),
        ),
    ] {
        let mut file = parse(&format!("{text}\n"));
        file.add([edit], now());
        assert_eq!(file.to_string(), format!("{want}\n"), "{text}");
    }
}

#[test]
fn expired_entries_can_be_removed() {
    let mut file = parse(
        "# a\n192.0.2.1 expires=2026-01-01T00:00:00Z\n10.0.0.0/8\n192.0.2.2 expires=2027-01-01T00:00:00Z\n",
    );
    file.prune(now());
    assert_eq!(
        file.to_string(),
        "# a\n10.0.0.0/8\n192.0.2.2 expires=2027-01-01T00:00:00Z\n"
    );
    let mut file = parse("# a\n192.0.2.1 expires=2026-01-01T00:00:00Z\n");
    file.prune(now());
    assert_eq!(file.to_string(), "# a\n0.0.0.0/32\n");
    for switch in ["disabled\n", "0.0.0.0/32\n"] {
        let mut file = parse(switch);
        file.prune(now());
        assert_eq!(file.to_string(), switch);
    }
}

#[test]
fn a_first_range_replaces_the_switches() {
    for switch in ["disabled\n", "0.0.0.0/32\n"] {
        let mut file = parse(switch);
        file.add([edit("10.0.0.0/8")], now());
        assert_eq!(file.to_string(), "10.0.0.0/8\n");
    }
}

#[test]
fn lists_survive_the_way_through_a_file() {
    for list in [
        List::Off,
        List::Ranges(vec![]),
        List::Ranges(vec![entry("10.0.0.0/8", Some("x"))]),
    ] {
        assert_eq!(parse(&RangesFile::new(&list).to_string()).list(), list);
    }
}

#[test]
fn a_text_is_the_file_that_it_parses_to() {
    let file = parse(TEXT);
    for same in [TEXT.to_owned(), TEXT.replace('\n', " \r\n")] {
        assert_eq!(parse(&same), file);
        assert!(file.is(&same), "{same:?}");
    }
    for other in [
        "",
        &TEXT[..TEXT.len() / 2],
        &TEXT.replace("Lyon", "Lille"),
        &format!("{TEXT}# more\n"),
    ] {
        assert!(!file.is(other), "{other:?}");
    }
    // The same lines, but refused.
    let half = "128.0.0.0/1";
    assert!(!parse(&format!("{half}\n")).is(half));
    assert!(parse("10.0.0.0/8\n").is("10.0.0.0/8"));
}

#[test]
fn a_file_without_a_range_is_refused() {
    for text in ["", "\n", "# nothing\n\n"] {
        let refusals = RangesFile::parse(text).expect_err(text);
        assert_eq!(refusals.first[0].1.cause, "the file has no range");
    }
}

#[test]
fn every_fault_is_named_with_its_line() {
    let refusals = RangesFile::parse("10.0.0.1/8\n# fine\n10.0.0.0/8 forever\nwhat\n")
        .expect_err("three faults");
    assert_eq!(
        refusals
            .first
            .iter()
            .map(|(line, _)| *line)
            .collect::<Vec<_>>(),
        [1, 3, 4]
    );
}

#[test]
fn switches_stand_alone() {
    for (text, line, words) in [
        ("# x\ndisabled\n10.0.0.0/8\n", 2, "the word `disabled`"),
        ("10.0.0.0/8\n0.0.0.0/32\n", 2, "allows no source"),
        ("0.0.0.0/32\ndisabled\n", 2, "the word `disabled`"),
    ] {
        let refusals = RangesFile::parse(text).expect_err(text);
        assert_eq!((refusals.first.len(), refusals.more), (1, 0), "{text}");
        let (have, refusal) = &refusals.first[0];
        assert_eq!(*have, line, "{text}");
        assert!(refusal.cause.contains(words), "{text}: {refusal}");
    }
}

#[test]
fn a_switch_among_ranges_is_named_with_other_faults() {
    let refusals = RangesFile::parse("10.0.0.1/8\ndisabled\n192.0.2.0/24\n").expect_err("two");
    let lines: Vec<usize> = refusals.first.iter().map(|(line, _)| *line).collect();
    assert_eq!(lines, [1, 2]);
}

#[test]
fn a_cut_last_line_never_widens_the_list() {
    assert!(RangesFile::parse("10.0.0.0/8\n128.0.0.0/1").is_err());
    assert!(RangesFile::parse("8000::/1").is_err());
    parse("10.0.0.0/8\n128.0.0.0/1\n");
    parse("10.0.0.0/8");
    parse("10.0.0.0/8\r\n192.0.2.0/24\r\n");
}

#[test]
fn a_byte_order_mark_is_accepted_and_an_edit_drops_it() {
    let text = format!("\u{feff}{TEXT}");
    let file = parse(&text);
    assert_eq!(file.to_string(), TEXT);
    assert!(file.is(&text));
    RangesFile::parse("10.0.0.0/8\n\u{feff}192.0.2.0/24\n").expect_err("a mark in the middle");
}
