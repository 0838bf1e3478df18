//! A file in another format: one refusal that names the format instead of one for each line.

use std::net::IpAddr;

use super::{InputError, meant::parse_range};

/// The number of lines that are examined.
const EXAMINED_LEN: usize = 100;

/// The refusal of bytes that are not UTF-8 text.
pub fn not_text(bytes: &[u8]) -> Option<InputError> {
    let refuse = |cause: String, hint: &str| Some(InputError::new(cause, hint));
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return refuse(
            "this is UTF-16, not UTF-8 text".to_owned(),
            "save it as UTF-8: `iconv -f UTF-16 -t UTF-8 FILE`",
        );
    }
    if bytes.starts_with(&[0x1f, 0x8b]) || bytes.starts_with(b"PK\x03\x04") {
        return refuse("this is compressed".to_owned(), "unpack it first");
    }
    if let Some(encoding) = every_other_zero(bytes) {
        return refuse(
            format!(
                "this looks like {encoding} without a byte order mark: every other byte is zero"
            ),
            &format!("save it as UTF-8: `iconv -f {encoding} -t UTF-8 FILE`"),
        );
    }
    let error = std::str::from_utf8(bytes).err()?;
    let before = &bytes[..error.valid_up_to()];
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let byte = bytes[error.valid_up_to()];
    refuse(
        format!("this is not UTF-8 text: line {line} has the byte 0x{byte:02X}"),
        "save it as UTF-8, with one range on each line",
    )
}

/// The encoding of ASCII text in which every other byte is zero. A torn file has adjacent zeros.
fn every_other_zero(bytes: &[u8]) -> Option<&'static str> {
    let head = &bytes[..bytes.len().min(200) & !1];
    let zero = |odd: usize| head.chunks_exact(2).filter(|pair| pair[odd] == 0).count();
    match (zero(0), zero(1), head.len() / 2) {
        (_, _, 0..=2) => None,
        (0, zeros, pairs) if zeros == pairs => Some("UTF-16LE"),
        (zeros, 0, pairs) if zeros == pairs => Some("UTF-16BE"),
        _ => None,
    }
}

/// The format of a text that is not a list.
pub(super) fn detect_format(text: &str) -> Option<InputError> {
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .take(EXAMINED_LEN)
        .collect();
    let first = *lines.first()?;
    let refuse = |what: &str, hint: &str| {
        Some(InputError::new(
            format!("this looks like {what}; apifence needs one CIDR on each line"),
            hint,
        ))
    };
    if first
        .split_whitespace()
        .next()
        .is_some_and(|word| parse_range(word).is_ok())
    {
        return fields(&lines).then(csv);
    }
    if is_section(first) || is_key(first, '=') {
        return refuse(
            "a settings file",
            "settings belong in the config file (`--config`)",
        );
    }
    if first.starts_with('{') || first.starts_with('[') && !is_address(first) {
        return refuse(
            "JSON",
            "`jq -r '.. | strings | select(test(\"^[0-9a-fA-F.:]+/[0-9]+$\"))' FILE` prints its CIDRs: check them before you set them",
        );
    }
    if first.starts_with("<<<<<<<") {
        return refuse(
            "an unfinished merge",
            "choose one side of each conflict and delete the lines with `<<<<<<<`, `=======` and `>>>>>>>`",
        );
    }
    if first.starts_with('<') {
        return refuse(
            "HTML or XML, perhaps an error page",
            "check the download and its address",
        );
    }
    if first == "---" || first.starts_with("- ") || is_key(first, ':') {
        return refuse(
            "YAML",
            "`sed -n 's/^ *- *//p' FILE` prints its list items: check them before you set them",
        );
    }
    fields(&lines).then(csv)
}

fn csv() -> InputError {
    InputError::new(
        "this looks like CSV; apifence needs one CIDR on each line",
        "`cut -d, -f1 FILE` prints its first column",
    )
}

/// Whether most lines have several fields, separated by commas or semicolons.
fn fields(lines: &[&str]) -> bool {
    let has_fields = |line: &&&str| {
        let words = line.split('#').next().unwrap_or_default();
        words
            .split([',', ';'])
            .filter(|field| !field.trim().is_empty())
            .count()
            > 1
    };
    lines.len() > 1 && lines.iter().filter(has_fields).count() * 2 > lines.len()
}

/// Whether the line has the form `key: value` or `key = value`.
fn is_key(line: &str, sign: char) -> bool {
    let Some((key, value)) = line.split_once(sign) else {
        return false;
    };
    let is_word = |letter: char| letter.is_ascii_alphanumeric() || "_-.\"'".contains(letter);
    let key = key.trim_end();
    key.starts_with(|letter: char| letter.is_ascii_alphabetic() || letter == '"')
        && key.chars().all(is_word)
        && (value.is_empty() || sign == '=' || value.starts_with(' '))
}

/// Whether the line has the form `[section]`.
fn is_section(line: &str) -> bool {
    let name = line
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    name.is_some_and(|name| {
        name.starts_with(|letter: char| letter.is_ascii_alphabetic())
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"_-. ".contains(&byte))
    })
}

/// Whether the line begins with an address in brackets.
fn is_address(line: &str) -> bool {
    let inside = line[1..].split([']', '/', '%']).next().unwrap_or_default();
    inside.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ranges::RangesFile;

    #[test]
    fn other_formats_are_named_once() {
        for (text, what) in [
            (
                "{\n  \"prefixes\": [\n    {\"ip_prefix\": \"3.2.34.0/26\"}\n  ]\n}\n",
                "JSON",
            ),
            ("[\"10.0.0.0/8\",\"192.0.2.0/24\"]", "JSON"),
            ("[\n  \"10.0.0.0/8\"\n]\n", "JSON"),
            (
                "# from the provider\n- 10.0.0.0/8\n- 192.0.2.0/24\n",
                "YAML",
            ),
            ("ranges:\n  - 10.0.0.0/8\n", "YAML"),
            ("---\n- 10.0.0.0/8\n", "YAML"),
            ("network,region\n10.0.0.0/8,eu\n192.0.2.0/24,us\n", "CSV"),
            ("10.0.0.0/8,eu\n192.0.2.0/24,us\n", "CSV"),
            ("10.0.0.0/8;eu\n192.0.2.0/24;us\n", "CSV"),
            (
                "<!DOCTYPE html>\n<html><body>502 Bad Gateway</body></html>\n",
                "HTML",
            ),
            (
                "<<<<<<< HEAD\n192.0.2.1\n=======\n192.0.2.2\n>>>>>>> theirs\n",
                "an unfinished merge",
            ),
            ("mode = \"enforce\"\nports = [443]\n", "settings file"),
            ("[settings]\nmode = \"enforce\"\n", "settings file"),
        ] {
            let faults = RangesFile::parse(text).expect_err(text);
            assert_eq!(
                (faults.first.len(), faults.more),
                (1, 0),
                "{text}: {faults:?}"
            );
            let (line, refusal) = &faults.first[0];
            assert_eq!(*line, 0, "{text}");
            assert!(
                refusal.cause.contains(&format!("looks like {what}"))
                    || refusal.cause.contains(what),
                "{text}: {}",
                refusal.cause
            );
        }
    }

    #[test]
    fn a_list_with_faults_is_still_a_list() {
        for text in [
            "[2001:db8::1]\n10.0.0.0/8\n",
            "vpn.example.com\n10.0.0.0/8\n",
            "2001:db8:::\n10.0.0.0/8\n",
            "10.0.0.1/8\n192.0.2.0/24\n10.0.0.0/8,192.0.2.0/24\n",
            "10.0.0.0/8,192.0.2.0/24\n",
            "nonsense\n",
        ] {
            let faults = RangesFile::parse(text).expect_err(text);
            assert!(
                faults.first.iter().all(|(line, _)| *line > 0),
                "{text}: {faults:?}"
            );
        }
    }

    #[test]
    fn bytes_that_are_not_text_are_named() {
        let utf16 = |big: bool, mark: bool| {
            let text = "10.0.0.0/8\r\n192.0.2.0/24\r\n".encode_utf16();
            let units = mark.then_some(0xfeff).into_iter().chain(text);
            let bytes = units.flat_map(|unit| {
                if big {
                    unit.to_be_bytes()
                } else {
                    unit.to_le_bytes()
                }
            });
            bytes.collect::<Vec<u8>>()
        };
        for (bytes, what) in [
            (utf16(true, true), "UTF-16"),
            (utf16(false, true), "UTF-16"),
            (utf16(false, false), "UTF-16"),
            (
                b"10.0.0.0/8 # ok\n192.0.2.0/24 # caf\xe9\n".to_vec(),
                "line 2 has the byte 0xE9",
            ),
            (vec![0x1f, 0x8b, 8, 0], "compressed"),
        ] {
            let refusal = not_text(&bytes).expect(what);
            assert!(refusal.cause.contains(what), "{}", refusal.cause);
        }
        assert_eq!(not_text("10.0.0.0/8 # caf\u{e9}\n".as_bytes()), None);
        assert_eq!(not_text(b""), None);
    }
}
