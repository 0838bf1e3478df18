//! The change that the form asks for: that of `apifence ranges add`, in a thread of its own.

use std::{fs, path::Path};

use anyhow::Result;
use nix::unistd::{AccessFlags, access};
use tokio::task::{JoinHandle, spawn_blocking};

use super::form::Request;
use crate::{
    change::{addition::Addition, list_editor::ListEditor},
    cli::ChangeArgs,
    context::Context,
    policy::author::Author,
    ranges::ListName,
    ui::{error::UserError, held::Hold, output::report_error, progress::Progress},
};

/// A change, or its dry run, that is under way.
pub(crate) struct Work(JoinHandle<bool>);

/// How it ended.
pub(crate) struct Ended {
    pub(crate) is_done: bool,
    pub(crate) report: Vec<String>,
}

impl Work {
    /// Starts it. All output of this process must be held: it is the report.
    pub(crate) fn start(context: &Context, request: Request, dry_run: bool) -> Self {
        let context = context.clone();
        Self(spawn_blocking(move || {
            let made = make(&context, &request, dry_run);
            // The hints and the cut clients of a refusal are part of the report.
            made.map_err(|error| report_error(&error)).is_ok()
        }))
    }

    /// Waits for its end. It can be called again if it is not awaited to the end.
    pub(crate) async fn end(&mut self, hold: &Hold) -> Ended {
        let is_done = (&mut self.0).await;
        Ended {
            is_done: is_done.unwrap_or(false),
            report: hold.take(),
        }
    }
}

fn make(context: &Context, request: &Request, dry_run: bool) -> Result<()> {
    refuse_unwritable(context)?;
    let words = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
    let list: ListName = request.list.trim().parse().map_err(|cause| {
        UserError::input(
            format!("add to list `{}`: {cause}", request.list),
            "`apifence ranges lists` shows all lists; nothing changed",
        )
    })?;
    let (expires, comment) = (words(&request.expires), words(&request.comment));
    let ranges = [request.range.clone()];
    let addition = Addition::typed(&ranges, expires.as_deref(), comment.as_deref())?.only_new();
    let author = Author::of_command(&format!("{} (from top)", request.words()));
    let editor = ListEditor::new(context, &list)?
        .with_progress(Progress::hidden())
        .by(author);
    let change = ChangeArgs {
        dry_run,
        force: false,
        confirm_within: None,
    };
    addition.make(editor, &change).map(drop)
}

/// Refuses a change that this process has no right to make, before it begins.
fn refuse_unwritable(context: &Context) -> Result<()> {
    if context.is_list_unknown() {
        return Err(UserError::input(
            "add to list: the config file may name the ranges file, and cannot be read",
            "`apifence config` shows the error; nothing changed",
        ));
    }
    let pins = context.pins.root();
    refuse(pins).map_err(|cause| {
        UserError::failed(
            format!("write pins in `{}`: {cause}", pins.display()),
            "`sudo apifence top`; or copy the command with `c`; nothing changed",
        )
    })
}

fn refuse(directory: &Path) -> Result<(), &'static str> {
    // A detached filter has none: the list is in the file alone.
    if fs::metadata(directory).is_err() {
        return Ok(());
    }
    access(directory, AccessFlags::W_OK).map_err(|error| error.desc())
}
