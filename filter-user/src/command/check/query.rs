//! The addresses and ranges that `apifence check` is asked about.

use std::{
    io::{self, Read as _},
    net::{IpAddr, SocketAddr},
};

use anyhow::{Context as _, Result};
use ipnet::IpNet;

use crate::{
    change::build::me,
    ranges::ME,
    ui::error::{InputErrors, UserError},
};

/// A question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Query {
    pub(super) range: IpNet,
    /// Whether it was written as a range.
    pub(super) is_range: bool,
    pub(super) note: Option<String>,
}

impl Query {
    /// Parses an address, one with a port, or a range. The error is the refusal and its hint.
    fn parse(text: &str) -> Result<Self, (String, String)> {
        let of = |address: IpAddr, note: Option<String>| {
            let canonical = address.to_canonical();
            let note = note.or_else(|| {
                (canonical != address).then(|| {
                    format!(
                        "`{text}` is the IPv4-mapped form, in which programs show an IPv4 client"
                    )
                })
            });
            Self {
                range: canonical.into(),
                is_range: false,
                note,
            }
        };
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(of(address, None));
        }
        if let Ok(client) = text.parse::<SocketAddr>() {
            let note = format!("whatever its own port: {} decides nothing", client.port());
            return Ok(of(client.ip(), Some(note)));
        }
        match text.parse::<IpNet>() {
            Ok(range) if range.trunc() != range => Err((
                format!(
                    "check `{text}`: it has bits set after the first {}",
                    range.prefix_len()
                ),
                format!("`{}`, or `{}` for one host", range.trunc(), range.addr()),
            )),
            Ok(range) => Ok(Self {
                range,
                is_range: true,
                note: None,
            }),
            Err(_) => Err((
                format!("check `{text}`: it is not an address or a range"),
                "write `192.0.2.1`, `192.0.2.1:50000`, `[2001:db8::1]:50000` or `192.0.2.0/24`; `-` reads standard input".to_owned(),
            )),
        }
    }

    /// All questions on the command line, and on standard input if that is named.
    pub(super) fn all(sources: &[String]) -> Result<Vec<Self>> {
        let mut text = String::new();
        let mut words: Vec<&str> = sources.iter().map(String::as_str).collect();
        if let Some(place) = words.iter().position(|word| *word == "-") {
            io::stdin()
                .read_to_string(&mut text)
                .context("read standard input")?;
            let read = text
                .lines()
                .map(|line| line.split('#').next().unwrap_or_default())
                .flat_map(|line| line.split([' ', '\t', ',']))
                .filter(|word| !word.is_empty());
            words.retain(|word| *word != "-");
            words.splice(place..place, read);
        }
        let (mut queries, mut refusals) = (Vec::new(), Vec::new());
        for word in words {
            if word == ME {
                queries.push(Self {
                    range: me()?.into(),
                    is_range: false,
                    note: None,
                });
                continue;
            }
            match Self::parse(word) {
                Ok(query) => queries.push(query),
                Err(refusal) => refusals.push(refusal),
            }
        }
        if !refusals.is_empty() {
            return Err(InputErrors::new(refusals).into());
        }
        if queries.is_empty() {
            return Err(UserError::input(
                "check: standard input names no address",
                "write one or more on a line, with spaces or commas in between",
            ));
        }
        Ok(queries)
    }
}
