//! The running kernel, and the oldest supported one.

use anyhow::{Context as _, Result};
use nix::sys::utsname::uname;

use crate::ui::error::UserError;

/// Linux 5.18: `xdp.frags` and `bpf_xdp_load_bytes` (commits f45d5b6ce2e8, 3f364222d032).
const MIN_VERSION: (u32, u32) = (5, 18);

/// The oldest supported kernel, such as `5.18`.
pub fn minimum() -> String {
    format!("{}.{}", MIN_VERSION.0, MIN_VERSION.1)
}

/// The release of the running kernel, such as `6.12.3-amd64`; empty if it does not say.
pub fn release() -> String {
    uname().map_or_else(
        |_| String::new(),
        |name| name.release().to_string_lossy().into_owned(),
    )
}

/// Refuses a kernel that is too old, before anything is created.
///
/// # Errors
/// If it is too old.
pub fn refuse_old() -> Result<()> {
    let name = uname().context("ask for the kernel's version")?;
    let release = name.release().to_string_lossy();
    match version(&release) {
        Some(version) if version < MIN_VERSION => Err(UserError::failed(
            format!(
                "load program `apifence`: it needs Linux {} or later, and this is {release}",
                minimum()
            ),
            "run a newer kernel on this node; nothing changed",
        )),
        // A release that cannot be parsed is accepted.
        _ => Ok(()),
    }
}

/// The first two numbers of a release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read_as_numbers() {
        for (release, known) in [
            ("6.18.44-fc-v669", Some((6, 18))),
            ("5.4.0-216-generic", Some((5, 4))),
            ("5.18", Some((5, 18))),
            ("10.0-rc1", Some((10, 0))),
            ("next-20260101", None),
            ("", None),
        ] {
            assert_eq!(version(release), known, "{release}");
        }
        assert!((5, 4) < MIN_VERSION && MIN_VERSION < (6, 1) && MIN_VERSION < (10, 0));
    }
}
