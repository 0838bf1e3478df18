//! A list as typed: ranges separated by commas, semicolons, white space or new lines.

use super::{
    Entry, InputError, List, NO_SOURCE,
    meant::parse_range,
    meant::{QUOTES, is_dash, quoted},
    parse::{mask_len, only_implicit_with_others},
};

const SEPARATORS: [char; 2] = [',', ';'];

/// Whether a text has only separators.
pub fn is_blank(text: &str) -> bool {
    text.chars()
        .all(|letter| SEPARATORS.contains(&letter) || letter.is_whitespace())
}

/// Several arguments as one list. A separator at the end of one is harmless; an empty argument is
/// an empty item, since an unset variable looks like that.
pub fn join(texts: &[String]) -> String {
    let last = texts.len().saturating_sub(1);
    let texts: Vec<&str> = (0..)
        .zip(texts)
        .map(|(index, text)| match text.trim_end() {
            _ if index == last || is_blank(text) => text,
            text => text.strip_suffix(SEPARATORS).unwrap_or(text),
        })
        .collect();
    texts.join(",")
}

/// The items of a list. Two words that belong together, such as a network and its mask, are one
/// item, to be refused as a whole.
pub fn typed_items(text: &str) -> Vec<String> {
    let mut items: Vec<String> = Vec::new();
    let mut pieces: Vec<&str> = text.split(SEPARATORS).collect();
    if pieces.len() > 1 && pieces.last().is_some_and(|last| last.trim().is_empty()) {
        pieces.pop();
    }
    for piece in pieces {
        let mut whole: Option<String> = None;
        for word in piece.split_ascii_whitespace() {
            match &mut whole {
                Some(whole) if belongs(whole, word) => {
                    whole.push(' ');
                    whole.push_str(word);
                }
                _ => items.extend(whole.replace(word.to_owned())),
            }
        }
        // An empty item between two commas is refused.
        items.push(whole.unwrap_or_default());
    }
    items
}

/// Whether `word` belongs to the word before it.
fn belongs(before: &str, word: &str) -> bool {
    word.starts_with('/')
        || before.ends_with('/')
        || is_dash(word)
        || before.split(' ').next_back().is_some_and(is_dash)
        || (mask_len(word).is_some() && !before.contains(['/', ' ']))
}

/// Parses a list for `ranges set` and `--authorized-ip-ranges`: empty for the off switch.
///
/// # Errors
/// All refusals, not only the first.
pub fn parse_list(text: &str) -> Result<List, Vec<InputError>> {
    if text.trim().is_empty() {
        return Ok(List::Off);
    }
    let items = typed_items(text);
    let others: Vec<&String> = items.iter().filter(|item| *item != NO_SOURCE).collect();
    let nobody = others.len() < items.len();
    let parsed = parse(&others);
    match parsed {
        Ok(entries) if nobody && !entries.is_empty() => Err(vec![only_implicit_with_others()]),
        Ok(ranges) => Ok(List::Ranges(
            ranges
                .into_iter()
                .map(|range| Entry {
                    range,
                    expires: None,
                    comment: None,
                })
                .collect(),
        )),
        Err(mut refusals) => {
            if nobody && refusals.len() < others.len() {
                refusals.push(only_implicit_with_others());
            }
            Err(refusals)
        }
    }
}

/// Parses ranges for `ranges add` and `ranges remove`.
///
/// # Errors
/// All refusals, not only the first.
pub fn parse_ranges(text: &str) -> Result<Vec<ipnet::IpNet>, Vec<InputError>> {
    let items = typed_items(text);
    parse(&items.iter().collect::<Vec<_>>())
}

fn parse(items: &[&String]) -> Result<Vec<ipnet::IpNet>, Vec<InputError>> {
    let mut ranges = Vec::new();
    let mut refusals = Vec::new();
    for item in items {
        match parse_range(item) {
            Ok(range) => ranges.push(range),
            Err(refusal) => refusals.push(refusal),
        }
    }
    let bare: Vec<&str> = items.iter().map(|item| item.trim_matches(QUOTES)).collect();
    let quotes = bare.iter().zip(items).any(|(bare, item)| bare != item);
    if quotes && items.len() > 1 && bare.iter().all(|item| parse_range(item).is_ok()) {
        return Err(vec![quoted(&bare)]);
    }
    if refusals.is_empty() {
        Ok(ranges)
    } else {
        Err(refusals)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn have(text: &str) -> Vec<String> {
        let list = parse_list(text).unwrap_or_else(|refusals| panic!("{text}: {refusals:?}"));
        list.entries()
            .iter()
            .map(|entry| entry.range.to_string())
            .collect()
    }

    #[test]
    fn separators_are_the_same_everywhere() {
        let want = ["10.0.0.0/8", "192.0.2.1/32"];
        for text in [
            "10.0.0.0/8,192.0.2.1",
            "10.0.0.0/8 192.0.2.1",
            "10.0.0.0/8;192.0.2.1",
            " 10.0.0.0/8 , 192.0.2.1 ,\n",
            "10.0.0.0/8\n192.0.2.1\n",
            "10.0.0.0/8\r\n192.0.2.1\r\n",
            "10.0.0.0/8\t192.0.2.1;",
        ] {
            assert_eq!(have(text), want, "{text:?}");
        }
        for typed in [
            &["10.0.0.0/8", "192.0.2.1"][..],
            &["10.0.0.0/8,", "192.0.2.1,"],
            &["10.0.0.0/8 ;", "192.0.2.1"],
        ] {
            let texts: Vec<String> = typed.iter().map(ToString::to_string).collect();
            assert_eq!(have(&join(&texts)), want, "{typed:?}");
        }
    }

    #[test]
    fn an_empty_item_is_refused() {
        for text in [
            ",10.0.0.0/8",
            "10.0.0.0/8,,192.0.2.1",
            ",",
            ";",
            "10.0.0.0/8,,",
        ] {
            let refusals = parse_list(text).expect_err(text);
            assert!(refusals[0].cause.contains("empty"), "{text}: {refusals:?}");
        }
        let texts = [
            "10.0.0.0/8".to_owned(),
            String::new(),
            "192.0.2.1".to_owned(),
        ];
        parse_list(&join(&texts)).expect_err("one is empty");
        let texts = ["10.0.0.0/8,,".to_owned()];
        parse_list(&join(&texts)).expect_err("one is empty");
    }

    #[test]
    fn a_list_reports_all_its_faults() {
        let refusals = parse_list("10.0.0.1/8, 192.0.2.0/24,ff02::1,x").expect_err("three faults");
        assert_eq!(refusals.len(), 3);
    }

    #[test]
    fn the_range_of_no_source_stands_alone() {
        assert_eq!(parse_list("0.0.0.0/32"), Ok(List::Ranges(Vec::new())));
        assert_eq!(
            parse_list("0.0.0.0/32,10.0.0.0/8"),
            Err(vec![only_implicit_with_others()])
        );
    }

    #[test]
    fn the_empty_list_is_the_off_switch() {
        assert_eq!(parse_list(""), Ok(List::Off));
        assert_eq!(parse_list("  "), Ok(List::Off));
        parse_list(",").expect_err("a comma is not the empty list");
        parse_list("[]").expect_err("brackets are not the empty list");
        parse_list("\"\"").expect_err("quotes are not the empty list");
    }

    #[test]
    fn a_network_and_its_mask_are_one_item() {
        for text in [
            "198.51.100.0 255.255.255.0",
            "198.51.100.0 /24",
            "198.51.100.0/ 24",
            "198.51.100.0 / 24",
        ] {
            let refusals = parse_list(text).expect_err(text);
            assert_eq!(refusals.len(), 1, "{text}: {refusals:?}");
            assert_eq!(refusals[0].hint, "`198.51.100.0/24`", "{text}");
        }
        let refusals = parse_list("192.0.2.4 - 192.0.2.7").expect_err("a range from to");
        assert_eq!(refusals[0].hint, "as a CIDR: `192.0.2.4/30`");
    }

    #[test]
    fn a_list_in_json_is_refused_with_the_list_to_type() {
        let refusals = parse_list(r#"["10.0.0.0/8", "192.0.2.1"]"#).expect_err("JSON");
        let hints: Vec<&str> = refusals.iter().map(|refusal| &*refusal.hint).collect();
        assert_eq!(hints, ["`10.0.0.0/8,192.0.2.1`"]);
    }
}
