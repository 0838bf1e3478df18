//! `apifence config`: the effective settings and their sources.

use std::fmt;

use anyhow::Result;
use serde::Serialize;

use crate::{
    cli::PolicyArgs,
    config::{Config, SettingRow, Settings},
    context::Context,
    ui::output::{eprint, print, table},
    view::cluster::cluster_rows,
};

/// The settings that `attach` or `run` would use.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct ConfigReport {
    /// The path of the config file; null if there is no file.
    config_file: Option<String>,
    /// All settings.
    settings: Vec<SettingRow>,
}

impl fmt::Display for ConfigReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.settings.iter().map(|row| {
            vec![
                row.key.to_owned(),
                as_in_file(&row.value),
                row.origin.clone(),
            ]
        });
        f.write_str(&table(&["setting", "value", "from"], rows))
    }
}

/// A value in the config file's syntax.
fn as_in_file(value: &serde_json::Value) -> String {
    match value.as_array() {
        Some(items) => {
            let items: Vec<String> = items.iter().map(ToString::to_string).collect();
            format!("[{}]", items.join(", "))
        }
        None => value.to_string(),
    }
}

/// Writes an example of a config file to stdout.
pub(super) fn example() -> Result<u8> {
    print(Config::example())?;
    Ok(0)
}

pub(super) fn run(context: &Context, args: &PolicyArgs) -> Result<u8> {
    let file = &context.file;
    if !file.exists {
        eprint(format_args!(
            "note: there is no config file `{}`",
            file.path
        ));
    }
    if args.authorized_ip_ranges.is_some() {
        eprint(
            "note: `--authorized-ip-ranges` is not a setting: it changes the ranges file once, like `apifence ranges set`",
        );
    }
    let mut config = context.config.clone();
    match in_force(context) {
        Ok(Some(have)) => config.keep(&have, file.exists),
        Ok(None) => {}
        Err(error) => eprint(format_args!(
            "note: {error:#}: settings in force are shown as defaults"
        )),
    }
    context.global.output.write(&ConfigReport {
        config_file: file.exists.then(|| file.path.clone()),
        settings: config.rows(),
    })?;
    let (rows, _) = cluster_rows(context, &config.settings());
    for row in rows.iter().filter(|row| row.is_preset()) {
        match row.fault() {
            None => eprint(format_args!("note: `cluster_cidrs`: {row}")),
            Some(fault) => eprint(format_args!("warning: `cluster_cidrs`: {row}: {fault}")),
        }
    }
    Ok(0)
}

/// The settings in force, if a filter is attached.
fn in_force(context: &Context) -> Result<Option<Settings>> {
    let maps = context.maps()?;
    maps.map(|maps| maps.settings(maps.active_slot()?))
        .transpose()
}
