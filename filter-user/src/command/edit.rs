//! `apifence ranges edit`: the list in an editor, then checked and applied like any other change.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use serde::Serialize;

use super::editor::{Editor, has_terminal, prompt};
use crate::{
    change::list_editor::ListEditor,
    cli::{ChangeArgs, EditArgs},
    clock::to_second,
    context::Context,
    kernel::bpf::Maps,
    policy::Difference,
    ranges::{List, ListName, RangesFile},
    store::{Draft, Input, MAX_LIST_LEN, Staged, is_same_list, read_regular, written},
    ui::{
        error::{EXIT_INPUT, UserError, errno},
        output::{eprint, report_error},
    },
};

/// The default duration of an edit's trial: the time to try the connection that matters.
const TRIAL: Duration = Duration::from_secs(60);

/// The text that a new list begins with.
const BLANK: &[u8] =
    b"# One entry on each line: CIDR [expires=2027-01-31T18:00:00Z] [# comment]\n\n";

pub(super) fn run(context: &Context, name: &ListName, args: &EditArgs) -> Result<u8> {
    let editor = Editor::find()?;
    let mut edit = EditSession::open(context, name, args)?;
    loop {
        edit.run_editor(&editor)?;
        let (exit, again) = match edit.apply(args) {
            Ok(EditOutcome::Done(exit)) => return Ok(exit),
            Ok(EditOutcome::Again) => continue,
            Ok(EditOutcome::Stopped) => (EXIT_INPUT, None),
            Err(error) => (
                report_error(&error),
                prompt(
                    "e: edit again, q: quit and keep the edit (Enter: q)",
                    &['q', 'e'],
                ),
            ),
        };
        if again != Some('e') {
            edit.report_draft();
            return Ok(exit);
        }
    }
}

/// The result of an edit.
enum EditOutcome {
    /// It is in force, or nothing was edited.
    Done(u8),
    /// The list is to be edited again.
    Again,
    /// The operator quit, or no terminal was there to ask.
    Stopped,
}

/// The JSON answer if nothing was edited.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Unedited {
    /// Whether the list was changed in the editor; always false here.
    edited: bool,
}

struct EditSession<'a> {
    context: &'a Context,
    /// The list that is edited, and its file.
    name: ListName,
    path: PathBuf,
    draft: Draft,
    /// The ranges file when the edit began, or as the operator last saw it.
    base: Vec<u8>,
    /// The unedited copy; `None` if an earlier edit is continued.
    fresh: Option<Vec<u8>>,
}

impl<'a> EditSession<'a> {
    /// Makes the copy, or continues an existing one that differs from the file. Obstacles to the
    /// change are reported before the editor starts.
    fn open(context: &'a Context, name: &ListName, args: &EditArgs) -> Result<Self> {
        let path = &context.list_files().path(name);
        let draft = Draft::open(&context.config.state_dir, path)
            .map_err(|error| draft_failure(context, &error))?
            .ok_or_else(|| {
                UserError::failed(
                    "edit ranges: another `apifence ranges edit` is open",
                    "close its editor first; `apifence ranges add` and `remove` still work; nothing changed",
                )
            })?;
        let writer = ListEditor::new(context, name)?;
        if let Some(waiting) = writer.waiting() {
            return Err(waiting.problem()?);
        }
        drop(writer);
        if !args.change.dry_run {
            Staged::expect_any(path)?;
        }
        let mut edit = Self {
            context,
            name: name.clone(),
            path: path.clone(),
            draft,
            base: read(path)?,
            fresh: None,
        };
        edit.begin(args.discard)?;
        Ok(edit)
    }

    fn begin(&mut self, discard: bool) -> Result<()> {
        let explain = |error: io::Error| draft_failure(self.context, &error);
        let kept = match self.draft.text() {
            _ if discard => None,
            // An unreadable copy cannot be continued.
            kept => kept.ok().flatten(),
        };
        if kept.is_some_and(|kept| !is_same_list(&kept, &self.base)) {
            let since = written(self.draft.path()).unwrap_or(Timestamp::UNIX_EPOCH);
            eprint(format_args!(
                "note: continuing the edit of {}, which is not in force (`apifence ranges edit --discard` starts again)",
                to_second(since)
            ));
            let now = std::mem::take(&mut self.base);
            self.base = self
                .draft
                .base()
                .map_err(explain)?
                .unwrap_or_else(|| now.clone());
            // Without a terminal it is reported once, after the editor closes.
            if self.base != now && has_terminal() {
                self.report_concurrent_edit(&now);
            }
            return Ok(());
        }
        let text = if self.base.is_empty() {
            BLANK
        } else {
            &self.base
        };
        self.draft.begin(&self.base, text).map_err(explain)?;
        self.fresh = Some(text.to_vec());
        Ok(())
    }

    fn run_editor(&mut self, editor: &Editor) -> Result<()> {
        let status = editor.edit(self.draft.path())?;
        self.draft.close();
        if status.success() {
            return Ok(());
        }
        let saved = if self.is_unedited() {
            self.draft.forget();
            String::new()
        } else {
            format!(
                "; your edit is kept in `{}`: `apifence ranges edit` continues it",
                self.draft.path().display()
            )
        };
        Err(UserError::failed(
            format!(
                "edit ranges: the editor `{}` failed ({status})",
                editor.name
            ),
            format!("{}{saved}; nothing changed", editor.advice()),
        ))
    }

    /// Whether the copy is unedited.
    fn is_unedited(&self) -> bool {
        let text = self.draft.text().ok().flatten();
        self.fresh.is_some() && (text.is_none() || text == self.fresh)
    }

    /// Applies the edited list.
    fn apply(&mut self, args: &EditArgs) -> Result<EditOutcome> {
        let path = &self.path.clone();
        let text = self
            .draft
            .text()
            .map_err(|error| draft_failure(self.context, &error))?;
        let Some(text) = text else {
            return Err(UserError::input(
                "edit ranges: the editor did not save a file",
                "save the list; to switch enforcement off, run `apifence ranges clear`; nothing changed",
            ));
        };
        if self.is_unedited() || is_same_list(&text, &self.base) {
            self.draft.forget();
            eprint("no edit: nothing changed");
            let answer = Unedited { edited: false };
            self.context.global.output.result(&answer)?;
            return Ok(EditOutcome::Done(0));
        }
        let file = Input::edited(text).parse()?;
        let list_editor = match self.lock_unchanged(path)? {
            Ok(list_editor) => list_editor,
            Err(end) => return Ok(end),
        };
        let change = self.trial(args, &file)?;
        let done = list_editor.change(&file, &change)?;
        if change.dry_run {
            self.report_draft();
        } else if change.confirm_within.is_some() {
            // The next edit starts from the file: the trial may have restored a hand-edited one.
            if let Ok(now) = read(path) {
                let _ = self.draft.rebase(&now);
            }
            eprint(
                "test a new connection before you confirm; if the edit reverts, `apifence ranges edit` continues it",
            );
        } else {
            self.draft.forget();
        }
        Ok(EditOutcome::Done(done))
    }

    /// Takes the lock while the ranges file is as the operator last saw it. A newer version is
    /// shown first, and the operator decides; inner error: the edit is not applied now.
    fn lock_unchanged(&mut self, path: &Path) -> Result<Result<ListEditor<'a>, EditOutcome>> {
        let mut list_editor = ListEditor::new(self.context, &self.name)?;
        // This process holds the lock: only an editor can write now, and the change detects that.
        let mut now = read(path)?;
        while now != self.base {
            drop(list_editor);
            self.report_concurrent_edit(&now);
            if !has_terminal() {
                return Err(UserError::input(
                    "edit ranges: the edit would undo another change, and there is no terminal to ask",
                    "run `apifence ranges edit` at a terminal, or start again with `--discard`; nothing changed",
                ));
            }
            let answer = prompt(
                "e: edit again, y: replace the file (the history keeps it), q: quit and keep the edit (Enter: q)",
                &['q', 'e', 'y'],
            );
            if !matches!(answer, Some('e' | 'y')) {
                return Ok(Err(EditOutcome::Stopped));
            }
            // The operator has seen this version; a later edit of the copy reports it again.
            self.base = now;
            if answer == Some('e') {
                return Ok(Err(EditOutcome::Again));
            }
            list_editor = ListEditor::new(self.context, &self.name)?;
            now = read(path)?;
        }
        Ok(Ok(list_editor))
    }

    /// How the change is made: on trial, unless a flag says otherwise or the list is in force.
    fn trial(&self, args: &EditArgs, file: &RangesFile) -> Result<ChangeArgs> {
        let mut change = args.change.clone();
        if change.confirm_within.is_none()
            && !args.no_trial
            && let Some(maps) = self.context.maps()?
            && !self.is_in_force(&maps, file)?
        {
            change.confirm_within = Some(TRIAL);
        }
        Ok(change)
    }

    /// Whether the lists in force are those of the files with `file` as the edited one.
    fn is_in_force(&self, maps: &Maps, file: &RangesFile) -> Result<bool> {
        let lists = self
            .context
            .read_lists()?
            .lists
            .with(&self.name, file.clone());
        let list = maps.record(maps.active_slot()?)?.list;
        Ok(list == lists.digest())
    }

    /// Reports changes that another process made to the file, which now holds `now`.
    fn report_concurrent_edit(&self, now: &[u8]) {
        let list = |bytes: &[u8]| -> Option<List> {
            let file = RangesFile::parse(std::str::from_utf8(bytes).ok()?).ok()?;
            Some(file.list())
        };
        let difference = list(&self.base)
            .zip(list(now))
            .map(|(before, now)| Difference::new(before.entries(), now.entries()));
        let what = difference.map_or_else(String::new, |difference| format!(": {difference}"));
        eprint(format_args!(
            "warning: the ranges file changed since you started to edit it{what}; your edit does not have that change"
        ));
    }

    /// Reports where the edit is kept.
    fn report_draft(&self) {
        eprint(format_args!(
            "note: the edit is kept in `{}`: `apifence ranges edit` continues it, `--discard` starts again",
            self.draft.path().display()
        ));
    }
}

/// The failure to keep an edit.
fn draft_failure(context: &Context, error: &io::Error) -> anyhow::Error {
    UserError::failed(
        format!(
            "edit ranges in `{}`: {}",
            context.config.state_dir.display(),
            errno(error)
        ),
        "name a writable directory with `--state-dir`; nothing changed",
    )
}

/// The bytes of a file; none if there is no file.
fn read(path: &Path) -> Result<Vec<u8>> {
    match read_regular(path, MAX_LIST_LEN) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        read => read.with_context(|| format!("read `{}`", path.display())),
    }
}
