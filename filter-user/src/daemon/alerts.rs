//! Reports each problem once, and its end once.

use std::collections::BTreeMap;

use crate::ui::{
    error::{InputErrors, UserError},
    output::eprint,
};

/// The reported problems, by the matter they concern.
#[derive(Default)]
pub(crate) struct Alerts {
    raised: BTreeMap<String, String>,
}

impl Alerts {
    /// Reports `error`, unless it is the last report about this `matter`.
    pub(crate) fn raise(&mut self, matter: &str, error: &anyhow::Error) {
        let sentence = sentence(error);
        if self.raised.get(matter) != Some(&sentence) {
            lines(error).iter().for_each(eprint);
            eprint("note: the policy in force stays in force");
            self.raised.insert(matter.to_owned(), sentence);
        }
    }

    /// The matter is in order; if an alert was raised, `order` is reported.
    pub(crate) fn clear(&mut self, matter: &str, order: &str) {
        if self.raised.remove(matter).is_some() {
            eprint(format_args!("note: {order} again"));
        }
    }

    /// Whether an alert about this matter is raised.
    pub(crate) fn has(&self, matter: &str) -> bool {
        self.raised.contains_key(matter)
    }

    /// Keeps only the alerts about matters that `concerns` accepts.
    pub(crate) fn retain(&mut self, concerns: impl Fn(&str) -> bool) {
        self.raised.retain(|matter, _| concerns(matter));
    }

    /// One of the raised alerts.
    pub(crate) fn first(&self) -> Option<&str> {
        self.raised.values().next().map(String::as_str)
    }
}

/// The whole error, in one line.
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

/// The same with the hint, as `main` would print it.
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
