//! `apifence version`: the version of this program, and what it needs of the kernel.

use std::fmt;

use anyhow::Result;
use filter_common::layout::LAYOUT_VERSION;
use serde::Serialize;

use crate::{
    context::Context,
    kernel::version::{minimum, release},
};

/// This program, and what it needs of the kernel.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Version {
    /// Its version.
    version: &'static str,
    /// The commit that it was built from; null if the build did not say.
    commit: Option<&'static str>,
    /// The layout of its maps. A filter with another layout is replaced by `attach` and `run`.
    layout: u32,
    /// The oldest kernel that it runs on, like `5.18`.
    kernel_minimum: String,
    /// The release of the kernel of this machine.
    kernel: String,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "apifence {}", self.version)?;
        let rows = [
            ("commit", self.commit.unwrap_or("unknown").to_owned()),
            ("map layout", self.layout.to_string()),
            (
                "kernel",
                format!("{} (needs {} or later)", self.kernel, self.kernel_minimum),
            ),
        ];
        for (index, (what, value)) in rows.iter().enumerate() {
            let end = if index + 1 < rows.len() { "\n" } else { "" };
            write!(f, "  {what:<10}  {value}{end}")?;
        }
        Ok(())
    }
}

pub(super) fn run(context: &Context) -> Result<u8> {
    context.global.output.write(&Version {
        version: env!("CARGO_PKG_VERSION"),
        commit: option_env!("APIFENCE_COMMIT").filter(|commit| !commit.is_empty()),
        layout: LAYOUT_VERSION,
        kernel_minimum: minimum(),
        kernel: release(),
    })?;
    Ok(0)
}
