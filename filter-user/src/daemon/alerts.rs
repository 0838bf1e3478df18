//! What is the matter is said once, and once more when it is over.

use std::collections::BTreeMap;

use crate::ui::{
    error::{InputErrors, UserError},
    output::say,
};

/// What was complained of, by what is the matter.
#[derive(Default)]
pub(crate) struct Alerts {
    made: BTreeMap<String, String>,
}

impl Alerts {
    /// Complains of `error`, unless that was the last complaint of this `matter`.
    pub(crate) fn raise(&mut self, matter: &str, error: &anyhow::Error) {
        let sentence = sentence(error);
        if self.made.get(matter) != Some(&sentence) {
            lines(error).iter().for_each(say);
            say("note: what is in force stays in force");
            self.made.insert(matter.to_owned(), sentence);
        }
    }

    /// The matter is settled: if it was complained of, `order` is restored.
    pub(crate) fn clear(&mut self, matter: &str, order: &str) {
        if self.made.remove(matter).is_some() {
            say(format_args!("note: {order} again"));
        }
    }

    /// Whether this matter is not settled.
    pub(crate) fn has(&self, matter: &str) -> bool {
        self.made.contains_key(matter)
    }

    /// Forgets all that is of no concern any more.
    pub(crate) fn retain(&mut self, concerns: impl Fn(&str) -> bool) {
        self.made.retain(|matter, _| concerns(matter));
    }

    /// One that is not settled.
    pub(crate) fn first(&self) -> Option<&str> {
        self.made.values().next().map(String::as_str)
    }
}

/// All that an error says, in a line.
pub(crate) fn sentence(error: &anyhow::Error) -> String {
    match (
        error.downcast_ref::<InputErrors>(),
        error.downcast_ref::<UserError>(),
    ) {
        (Some(refusals), _) => refusals.to_string(),
        (_, Some(problem)) => problem.cause.clone(),
        _ => format!("{error:#}"),
    }
}

/// The same with what to do about it, as `main` would print it.
fn lines(error: &anyhow::Error) -> Vec<String> {
    match (
        error.downcast_ref::<InputErrors>(),
        error.downcast_ref::<UserError>(),
    ) {
        (Some(refusals), _) => refusals.lines(),
        (_, Some(problem)) => vec![format!("error: {}\nhint: {}", problem.cause, problem.hint)],
        _ => vec![format!("error: {error:#}")],
    }
}
