//! `apifence status --ack` and `--unack`: silence warnings, or report them again.

use anyhow::Result;

use crate::{
    codes::Acknowledgement,
    config::join,
    context::Context,
    store::AcknowledgedStore,
    ui::{error::InputErrors, output::eprint},
    warnings::Warning,
};

/// Parses the typed acknowledgements.
///
/// # Errors
/// All errors: unknown codes, and codes that cannot be acknowledged.
pub(super) fn parse(texts: &[String]) -> Result<Vec<Acknowledgement>> {
    let mut parsed = Vec::new();
    let mut list = Vec::new();
    for text in texts {
        match Acknowledgement::parse(text) {
            Ok(one) => parsed.push(one),
            Err((cause, hint)) => list.push((
                format!("acknowledge warning: {cause}"),
                format!("{hint}; nothing changed"),
            )),
        }
    }
    if list.is_empty() {
        Ok(parsed)
    } else {
        Err(InputErrors::new(list).into())
    }
}

/// Stores the acknowledgements of `warnings` that `ack` names; removes those that `unack` names.
///
/// A code alone stands for the present warnings: a later tunnel is reported.
///
/// # Errors
/// If a name matches nothing, or the state directory cannot be written. Nothing changed then.
pub(super) fn change(
    context: &Context,
    warnings: &[Warning],
    ack: &[Acknowledgement],
    unack: &[Acknowledgement],
) -> Result<()> {
    if context.config.has_unreadable(&["state_dir"]) {
        let list = context.file.errors.clone();
        return Err(InputErrors::new(list).into());
    }
    let store = AcknowledgedStore::new(&context.config.state_dir);
    let kept = store.read()?;
    let mut errors = Vec::new();
    let mut add = Vec::new();
    for wanted in ack {
        match present(warnings, wanted) {
            Ok(found) => add.extend(found),
            Err(error) => errors.push(error),
        }
    }
    let gone = |kept: &Acknowledgement, wanted: &Acknowledgement| {
        kept.code == wanted.code && (wanted.object.is_none() || wanted.object == kept.object)
    };
    let unknown = unack
        .iter()
        .filter(|wanted| !kept.iter().any(|kept| gone(kept, wanted)));
    errors.extend(unknown.map(|wanted| not_made(context, wanted)));
    if !errors.is_empty() {
        return Err(InputErrors::new(errors).into());
    }
    store.change(|known| {
        known.retain(|kept| !unack.iter().any(|wanted| gone(kept, wanted)));
        known.extend(add.iter().cloned());
    })?;
    if !add.is_empty() {
        eprint(format_args!("acknowledged: {}", join(&add)));
    }
    if !unack.is_empty() {
        eprint(format_args!("shown again: {}", join(unack)));
    }
    Ok(())
}

/// The acknowledgements of the present objects that `wanted` names.
///
/// # Errors
/// The cause and the hint, if there is none.
fn present(
    warnings: &[Warning],
    wanted: &Acknowledgement,
) -> Result<Vec<Acknowledgement>, (String, String)> {
    let same = warnings.iter().filter(|one| one.code == wanted.code);
    let objects = same.flat_map(|one| &one.objects);
    let found: Vec<Acknowledgement> = objects
        .filter(|object| wanted.object.as_ref().is_none_or(|own| own == *object))
        .map(|object| Acknowledgement {
            code: wanted.code,
            object: Some(object.clone()),
        })
        .collect();
    if found.is_empty() {
        return Err((
            format!("acknowledge warning: there is no {wanted} now"),
            format!(
                "`apifence status` shows the warnings; `acknowledged_warnings = [\"{wanted}\"]` in the config file \
                 acknowledges future ones; nothing changed"
            ),
        ));
    }
    Ok(found)
}

/// The error for an acknowledgement that is not stored: its cause and its hint.
fn not_made(context: &Context, wanted: &Acknowledgement) -> (String, String) {
    let set = &context.config.acknowledged_warnings;
    let hint = if set.iter().any(|set| set.code == wanted.code) {
        "the setting `acknowledged_warnings` acknowledges it: change that; nothing changed"
    } else {
        "`apifence status -v` shows acknowledged warnings; nothing changed"
    };
    (
        format!("remove acknowledgement: {wanted} was not acknowledged with `--ack`"),
        hint.to_owned(),
    )
}
