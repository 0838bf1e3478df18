//! The probable meaning of a text that is not a range, with a hint for the correct form.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};

use super::{
    NO_SOURCE,
    parse::{InputError, as_written, mask_len, refuse},
};
use crate::ui::visible::{code, is_hidden};

/// Maximum length of quoted input.
const MAX_SHOWN_LEN: usize = 60;

/// The number of CIDRs in a hint.
const MAX_NAMED: usize = 10;

/// Parses one range that packets can come from: an address, or a CIDR without host bits.
///
/// # Errors
/// Anything else, with a hint. Nothing is rounded: a range other than the intended one authorizes
/// an unlisted source or locks the operator out.
pub fn parse_range(text: &str) -> Result<IpNet, InputError> {
    let Some(range) = as_written(text) else {
        return Err(explain(text));
    };
    refuse(text, range)?;
    Ok(range)
}

/// The hint if the meaning is unknown.
pub(super) const LIKE: &str =
    "write it like `198.51.100.0/24`, `2001:db8:aa::/48` or `198.51.100.7`";

/// Characters that other formats put around a range.
pub(super) const QUOTES: &[char] = &[
    '"', '\'', '`', '[', ']', '(', ')', '{', '}', '<', '>', '\u{2018}', '\u{2019}', '\u{201c}',
    '\u{201d}',
];

/// The input as a terminal can show it: hidden characters as codes, long input cut.
pub(super) fn shown(text: &str) -> String {
    let visible =
        |letter: char| matches!(letter, '\'' | '"' | '\\') || letter.escape_debug().len() == 1;
    let mut shown: String = text
        .chars()
        .take(MAX_SHOWN_LEN)
        .map(|letter| match letter {
            letter if visible(letter) => letter.to_string(),
            letter => letter.escape_unicode().to_string(),
        })
        .collect();
    if text.chars().nth(MAX_SHOWN_LEN).is_some() {
        shown.push_str("...");
    }
    shown
}

/// The refusal of a text with a hidden character.
pub(super) fn hidden(text: &str) -> Option<InputError> {
    let unseen = |letter: &char| {
        !matches!(letter, ' ' | '\t') && (is_hidden(*letter) || letter.is_whitespace())
    };
    if text.bytes().all(|byte| matches!(byte, b'\t' | b' '..=b'~')) {
        return None;
    }
    let (column, letter) = (1..).zip(text.chars()).find(|(_, letter)| unseen(letter))?;
    let clean: String = text.chars().filter(|letter| !unseen(letter)).collect();
    let clean = clean.trim();
    let hint = match letter {
        '\r' => "end each line with a line feed: `tr '\\r' '\\n' < FILE`".to_owned(),
        _ if parse_range(clean).is_ok() => format!("write `{clean}`"),
        _ => "delete it, or write the line again".to_owned(),
    };
    Some(InputError::new(
        format!("column {column} has a hidden character: {}", code(letter)),
        hint,
    ))
}

/// Whether the word is a dash, as between the ends of a range.
pub(super) fn is_dash(word: &str) -> bool {
    !word.is_empty() && word.chars().all(dash)
}

fn dash(letter: char) -> bool {
    matches!(letter, '-' | '\u{2010}'..='\u{2015}' | '\u{2212}')
}

/// The refusal of valid ranges inside quotes or brackets.
pub(super) fn quoted(bare: &[&str]) -> InputError {
    let hint = if bare.len() <= MAX_NAMED {
        format!("`{}`", bare.join(","))
    } else {
        "leave them out; separate ranges with commas".to_owned()
    };
    InputError::new("the ranges are in quotes or brackets", hint)
}

/// The refusal of words that mean something only together, such as a network and its mask; `None`
/// for other words.
pub(super) fn together(words: &[&str]) -> Option<InputError> {
    TypedRange(&words.join(" ")).in_pieces()
}

/// The word for the address of this SSH session.
pub const ME: &str = "me";

/// The refusal of `text`, which is not a range.
pub(super) fn explain(text: &str) -> InputError {
    if text.trim().is_empty() {
        return InputError::new(
            "a range is empty",
            "check for an unset variable or an extra comma; a range looks like `198.51.100.0/24` or `2001:db8:aa::/48`",
        );
    }
    let range = TypedRange(text);
    if text == ME || text.starts_with("me/") {
        return range.is(
            "works only on the command line",
            "`apifence ranges add me` adds the address of your SSH session; in a file, write the address",
        );
    }
    if let Some(refusal) = hidden(text) {
        return InputError::new(format!("range `{}`: {refusal}", shown(text)), refusal.hint);
    }
    range
        .with_a_port()
        .or_else(|| range.in_quotes())
        .or_else(|| range.in_pieces())
        .or_else(|| range.first_to_last())
        .or_else(|| range.with_a_zone())
        .or_else(|| range.with_another_length())
        .or_else(|| range.numbers())
        .or_else(|| range.word())
        .unwrap_or_else(|| range.is("is not an IP address or CIDR", LIKE))
}

/// A text that was meant as a range.
#[derive(Clone, Copy)]
pub(super) struct TypedRange<'a>(pub(super) &'a str);

impl TypedRange<'_> {
    pub(super) fn is(self, what: &str, hint: impl Into<String>) -> InputError {
        InputError::new(format!("`{}` {what}", shown(self.0)), hint)
    }

    /// The refusal with `corrected` as the hint; if that is not valid either, the refusal of it.
    fn corrected(self, what: &str, corrected: &str) -> InputError {
        match parse_range(corrected) {
            Ok(_) => self.is(what, format!("`{corrected}`")),
            Err(refusal) => self.is(what, refusal.hint),
        }
    }

    fn with_a_port(self) -> Option<InputError> {
        let what = "has a port";
        let hint = |range: &str| {
            format!("write `{range}`: a range has no port; `--port` sets the protected ports")
        };
        if let Ok(socket) = self.0.parse::<SocketAddr>() {
            return Some(self.is(what, hint(&socket.ip().to_string())));
        }
        let (range, port) = self.0.rsplit_once(':')?;
        let is_cidr = range.contains('/') && range.parse::<IpNet>().is_ok();
        (is_cidr && port.parse::<u16>().is_ok()).then(|| self.is(what, hint(range)))
    }

    fn in_quotes(self) -> Option<InputError> {
        let outside: Vec<char> = [QUOTES, &[',', ';', ' ', '\t']].concat();
        let mut bare = self.0.trim_matches(&outside[..]);
        // The end of a sentence.
        if let Some(rest) = bare.strip_suffix(['.', ':'])
            && parse_range(rest).is_ok()
        {
            bare = rest;
        }
        if bare.is_empty() {
            return Some(self.is("is empty", LIKE));
        }
        (bare != self.0).then(|| self.corrected("has punctuation around it", bare))
    }

    /// Several words that make one range.
    fn in_pieces(self) -> Option<InputError> {
        let words: Vec<&str> = self.0.split_whitespace().collect();
        match words[..] {
            [_] => None,
            [address, mask] if mask_len(mask).is_some() && !address.contains('/') => {
                Some(self.corrected("has a network mask", &format!("{address}/{mask}")))
            }
            _ => match words.concat() {
                joined if joined.parse::<IpNet>().is_ok() => {
                    Some(self.corrected("has a space in it", &joined))
                }
                joined => TypedRange(&joined).first_to_last(),
            },
        }
    }

    /// A first and a last address.
    fn first_to_last(self) -> Option<InputError> {
        let (first, last) = self
            .0
            .split_once("..")
            .or_else(|| self.0.split_once(dash))?;
        let (first, last) = (
            first.trim(),
            last.trim_matches(|letter| dash(letter) || letter == '.' || letter == ' '),
        );
        let first: IpAddr = first.parse().ok()?;
        let last = match (first, last.parse::<IpAddr>(), last.parse::<u8>()) {
            (_, Ok(last), _) => last,
            // `192.0.2.1-9`
            (IpAddr::V4(first), _, Ok(last)) => {
                let [a, b, c, _] = first.octets();
                IpAddr::V4(Ipv4Addr::new(a, b, c, last))
            }
            _ => return None,
        };
        let what = "is a range from one address to another";
        if first > last {
            return Some(self.is(
                "ends before it begins",
                "write the lower address first, or CIDRs",
            ));
        }
        let cidrs: Vec<String> = match (first, last) {
            (IpAddr::V4(first), IpAddr::V4(last)) => Ipv4Subnets::new(first, last, 0)
                .map(|range| range.to_string())
                .collect(),
            (IpAddr::V6(first), IpAddr::V6(last)) => Ipv6Subnets::new(first, last, 0)
                .map(|range| range.to_string())
                .collect(),
            _ => return Some(self.is("mixes IPv4 and IPv6", LIKE)),
        };
        let first = cidrs
            .iter()
            .take(MAX_NAMED)
            .cloned()
            .collect::<Vec<_>>()
            .join(",");
        let hint = match cidrs.len() {
            1 => format!("as a CIDR: `{first}`"),
            count if count <= MAX_NAMED => format!("as CIDRs: `{first}`"),
            count => format!("as CIDRs: `{first}` and {} more", count - MAX_NAMED),
        };
        Some(self.is(what, hint))
    }

    fn with_a_zone(self) -> Option<InputError> {
        let (address, rest) = self.0.split_once('%')?;
        address.parse::<Ipv6Addr>().ok()?;
        let len = rest
            .split_once('/')
            .map_or(String::new(), |(_, len)| format!("/{len}"));
        Some(self.corrected(
            "names an interface, which packets do not carry",
            &format!("{address}{len}"),
        ))
    }

    /// An address with something else than a prefix length.
    fn with_another_length(self) -> Option<InputError> {
        let (text, len) = self.0.split_once('/')?;
        let address: IpAddr = text.parse().ok()?;
        let max = if address.is_ipv4() { 32 } else { 128 };
        if let Some(refusal) = self.with_a_mask(address, len) {
            return Some(refusal);
        }
        let digits = len.trim_start_matches('+');
        let digits = match digits.trim_start_matches('0') {
            "" if !digits.is_empty() => "0",
            digits => digits,
        };
        if digits.parse::<u8>().is_ok_and(|len| len <= max)
            && digits.bytes().all(|digit| digit.is_ascii_digit())
        {
            let what = format!("has the prefix length {digits} in an unusual form");
            return Some(self.corrected(&what, &format!("{text}/{digits}")));
        }
        let like = match address {
            IpAddr::V4(address) if address.octets()[3] == 0 => {
                "`/24` as in `198.51.100.0/24`".to_owned()
            }
            IpAddr::V6(address) if address.segments()[7] == 0 => {
                "`/48` as in `2001:db8:aa::/48`".to_owned()
            }
            _ => format!("`{address}/{max}` for one host"),
        };
        Some(self.is(&format!("needs a prefix length from 0 to {max}"), like))
    }

    fn with_a_mask(self, address: IpAddr, mask: &str) -> Option<InputError> {
        let mask: IpAddr = mask.parse().ok()?;
        let (bits, width) = match (address, mask) {
            (IpAddr::V4(_), IpAddr::V4(mask)) => (u128::from(u32::from(mask)) << 96, 32),
            (IpAddr::V6(_), IpAddr::V6(mask)) => (u128::from(mask), 128),
            _ => return None,
        };
        let all = u128::MAX << (128 - width);
        let len = |bits: u128| {
            let ones = bits.leading_ones();
            (ones + bits.trailing_zeros() >= 128).then_some(ones)
        };
        let unspecified = address.is_unspecified();
        let (what, len) = match (len(bits), len(!bits & all)) {
            // Ambiguous: all addresses or one, as a network mask and as a wildcard mask.
            (Some(_), Some(_)) if unspecified != (bits == 0) => {
                let hint = format!(
                    "write the prefix length: `{NO_SOURCE}` for no source, `{address}/0` for every source"
                );
                let hint = if unspecified {
                    hint
                } else {
                    format!("`{address}/{width}` for one host")
                };
                return Some(self.is("has an ambiguous mask", hint));
            }
            (Some(len), Some(_)) if unspecified => ("has a network mask", len),
            (Some(_), Some(_)) => ("has a network mask", width),
            (Some(len), None) => ("has a network mask", len),
            (None, Some(len)) => ("has a wildcard mask", len),
            (None, None) => {
                return Some(self.is("has a mask with gaps", "write CIDRs, one for each part"));
            }
        };
        Some(self.corrected(what, &format!("{address}/{len}")))
    }

    /// Decimal numbers with dots.
    fn numbers(self) -> Option<InputError> {
        let (address, len) = match self.0.split_once('/') {
            Some((address, len)) => (address, format!("/{len}")),
            None => (self.0, String::new()),
        };
        let parts: Vec<&str> = address.split('.').collect();
        let starred = |part: &&str| matches!(*part, "*" | "x" | "X");
        let is_number =
            |part: &&str| !part.is_empty() && part.bytes().all(|digit| digit.is_ascii_digit());
        let count = parts.iter().take_while(|part| is_number(part)).count();
        if count == 0 || parts.len() > 4 {
            return None;
        }
        if count < parts.len() {
            // `192.0.2.*`
            let stars = parts[count..].iter().all(starred) && len.is_empty();
            return stars.then(|| {
                let zeros = [&parts[..count], &vec!["0"; 4 - count]].concat().join(".");
                self.corrected("has a wildcard", &format!("{zeros}/{}", count * 8))
            });
        }
        if let Some(part) = parts.iter().find(|part| part.parse::<u8>().is_err()) {
            if parts.len() == 1 {
                return Some(self.is("is a number", LIKE));
            }
            let what = format!(
                "has the number {}; each number is from 0 to 255",
                shown(part)
            );
            return Some(self.is(&what, LIKE));
        }
        if parts.len() < 4 {
            let zeros = [&parts[..], &vec!["0"; 4 - parts.len()]].concat().join(".");
            let what = format!("has only {} of the four numbers of an address", parts.len());
            return Some(match &*len {
                "" => self.is(
                    &what,
                    "write all four and a prefix length, like `198.51.100.0/24`",
                ),
                "/0" if zeros == "0.0.0.0" => {
                    self.is(&what, "write `0.0.0.0/0` to allow every IPv4 source")
                }
                len => self.corrected(&what, &format!("{zeros}{len}")),
            });
        }
        self.leading_zeros(&parts, &len)
    }

    /// Four numbers, some with leading zeros.
    fn leading_zeros(self, parts: &[&str], len: &str) -> Option<InputError> {
        if !parts
            .iter()
            .any(|part| part.len() > 1 && part.starts_with('0'))
        {
            return None;
        }
        let join = |radix| {
            let numbers = parts
                .iter()
                .map(|part| u8::from_str_radix(part, radix).ok());
            let numbers: Option<Vec<_>> = numbers
                .map(|number| number.map(|number| number.to_string()))
                .collect();
            numbers.map(|numbers| format!("{}{len}", numbers.join(".")))
        };
        let decimal = join(10)?;
        let hint = match join(8) {
            Some(octal) if octal != decimal => {
                format!("`{decimal}`, or `{octal}` if the numbers are octal")
            }
            _ => format!("`{decimal}`"),
        };
        Some(self.is("has leading zeros, which some programs read as octal", hint))
    }
}
