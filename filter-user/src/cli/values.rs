//! Values of flags.

use std::{net::IpAddr, time::Duration};

use ipnet::IpNet;

use crate::config::{Window, parse_duration};

/// A prefix length like `24` or `/24`.
pub(super) fn parse_len<const MAX: u8>(text: &str) -> Result<u8, String> {
    text.strip_prefix('/')
        .unwrap_or(text)
        .parse()
        .ok()
        .filter(|len| (1..=MAX).contains(len))
        .ok_or_else(|| format!("a prefix length is a number from 1 to {MAX}"))
}

/// A percentage like `20%` or `20`.
pub(super) fn parse_percent(text: &str) -> Result<u32, String> {
    text.strip_suffix('%')
        .unwrap_or(text)
        .trim_end()
        .parse()
        .map_err(|_| "write it like `20%`".to_owned())
}

/// An address or a range.
pub(super) fn parse_source(text: &str) -> Result<IpNet, String> {
    let range = match text.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().into(),
        Err(_) => text
            .parse::<IpNet>()
            .map_err(|_| "an address or a CIDR, like `192.0.2.1` or `192.0.2.0/24`".to_owned())?,
    };
    Ok(range.trunc())
}

/// How often something is shown again.
pub(super) fn parse_interval(text: &str) -> Result<Duration, String> {
    match parse_duration(text)?.unsigned_abs() {
        time if time < Duration::from_millis(100) || time > Duration::from_hours(24) => {
            Err("from `100ms` to `24h`".to_owned())
        }
        time => Ok(time),
    }
}

/// How long a change may wait for its confirmation.
pub(super) fn parse_window(text: &str) -> Result<Duration, String> {
    text.parse().map(|Window(time)| time)
}
