//! The environment: `APIFENCE_...` for each setting. No I/O here: the caller passes the variables.

use std::{
    collections::BTreeMap,
    error::Error as _,
    ffi::{OsStr, OsString},
};

use clap::{
    Arg, ArgAction, ArgMatches,
    error::{ContextKind, ContextValue},
};

use super::nearest::nearest;
use crate::ranges::InputError;

/// The prefix of all our variables.
const PREFIX: &str = "APIFENCE_";

/// Our variables that are not empty.
#[derive(Debug, Default)]
pub struct Environment {
    variables: BTreeMap<String, OsString>,
}

impl Environment {
    /// Selects ours from `variables`. An empty one counts as unset, even if it is unknown.
    pub fn new(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let ours = variables.into_iter().filter_map(|(name, value)| {
            let name = name.to_string_lossy().into_owned();
            let text = value.to_string_lossy();
            let rest = name.strip_prefix(PREFIX)?;
            let says = !text.trim().is_empty() && !is_service_link(rest, &text);
            says.then_some((name, value))
        });
        Self {
            variables: ours.collect(),
        }
    }

    /// The value of the variable `name`.
    pub fn get(&self, name: &str) -> Option<&OsStr> {
        self.variables.get(name).map(OsString::as_os_str)
    }

    /// The variable for `key`, and its value: the variable of `argument`, or the one named after
    /// the key.
    pub(super) fn find<'a>(
        &'a self,
        argument: &Arg,
        key: &str,
    ) -> Result<Option<(&'a str, &'a OsStr)>, InputError> {
        let names = names(argument, key);
        let mut variables = names
            .iter()
            .filter_map(|name| self.variables.get_key_value(name));
        match (variables.next(), variables.next()) {
            (Some((one, first)), Some((other, second))) if first != second => Err(InputError {
                cause: format!("{one} and {other} set the same setting to different values"),
                hint: format!("unset {other}"),
            }),
            (found, _) => Ok(found.map(|(name, value)| (name.as_str(), value.as_os_str()))),
        }
    }

    /// The faults for variables that are not `known`: arguments of settings, each with its key.
    pub(super) fn unknown(&self, known: &[(&Arg, &str)]) -> Vec<(String, String)> {
        let mut names: Vec<String> = known
            .iter()
            .flat_map(|(argument, key)| names(argument, key))
            .collect();
        names.extend(["CONFIG", "RUNTIME_DIR"].map(|name| format!("{PREFIX}{name}")));
        let bare: Vec<&str> = names.iter().map(|name| &name[PREFIX.len()..]).collect();
        let unknown = self.variables.keys().filter(|name| !names.contains(name));
        unknown
            .map(|name| {
                let rest = &name[PREFIX.len()..];
                let hint = if rest.contains("AUTHORIZED") || rest == "RANGES" {
                    "the list has a file of its own (`APIFENCE_RANGES_FILE`): `apifence ranges set` changes it"
                        .to_owned()
                } else if let Some(near) = nearest(rest, &bare) {
                    format!("did you mean `{PREFIX}{near}`? if not, unset it")
                } else {
                    "unset it; `apifence config --help` lists the variables".to_owned()
                };
                (format!("environment: unknown variable `{name}`"), hint)
            })
            .collect()
    }
}

/// The variables for `key`: the one in the help text and, if the key is another word, such as a
/// plural, the one named after it.
fn names(argument: &Arg, key: &str) -> Vec<String> {
    let shown = argument.get_env().unwrap_or_default();
    let mut names = vec![shown.to_string_lossy().into_owned()];
    let by_key = format!("{PREFIX}{}", key.to_uppercase());
    if names[0] != by_key {
        names.push(by_key);
    }
    names
}

/// Whether Kubernetes sets the variable in pods, for a Service named `apifence`: it is not ours
/// despite the prefix.
fn is_service_link(rest: &str, value: &str) -> bool {
    rest.starts_with("SERVICE_HOST")
        || rest.starts_with("SERVICE_PORT")
        || rest == "PORT" && value.contains("://")
        || rest
            .strip_prefix("PORT_")
            .is_some_and(|rest| rest.starts_with(|letter: char| letter.is_ascii_digit()))
}

/// Parses `value` as the flag `argument` would.
pub(super) fn parse(argument: &Arg, value: &OsStr) -> Result<ArgMatches, InputError> {
    let flag = argument.get_long().unwrap_or_default().to_owned();
    // A switch takes no value on the command line, but takes one here.
    let action = match argument.get_action() {
        ArgAction::SetTrue | ArgAction::SetFalse => ArgAction::Set,
        action => action.clone(),
    };
    let argument = argument.clone().env(None::<&str>).action(action);
    let mut word = OsString::from(format!("--{flag}="));
    word.push(value);
    let command = clap::Command::new("apifence").no_binary_name(true);
    command
        .arg(argument)
        .try_get_matches_from([word])
        .map_err(|error| refusal(&error, &flag))
}

fn refusal(error: &clap::Error, flag: &str) -> InputError {
    let value = match error.get(ContextKind::InvalidValue) {
        Some(ContextValue::String(value)) => value.as_str(),
        _ => "",
    };
    let why = error.source().map(|why| format!(": {why}"));
    let words = match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(words)) => words.join("`, `"),
        _ => String::new(),
    };
    InputError {
        cause: format!("invalid value `{value}`{}", why.unwrap_or_default()),
        hint: if words.is_empty() {
            format!("it takes the same values as `--{flag}`: `apifence config --help`")
        } else {
            format!("use one of `{words}`")
        },
    }
}
