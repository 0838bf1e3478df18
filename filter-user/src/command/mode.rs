//! `apifence enforce` and `apifence monitor` change the mode alone. All other settings and the list
//! stay as they are in force, even if the files have changed since then.

use anyhow::Result;
use filter_common::{
    Mode,
    layout::{Basis, Trial},
};
use jiff::Timestamp;
use serde::Serialize;

use crate::{
    change::{
        build::{is_saved, known_lists, policy, read_cluster},
        impact::{Impact, assess},
        proposal::{ListChange, Proposal, exit_status},
        recovery::recover,
        transaction::{Transaction, clean_up},
        words::on_trial,
    },
    cli::ChangeArgs,
    config::{Config, PolicyMode, SettingRow, Settings},
    context::{Context, load::load_of_process},
    kernel::{bpf::Maps, links::strays::strays_at_rest},
    ranges::{List, Lists, RangesFile},
    store::{WatchLock, Watcher, WriterLock},
    ui::{error::UserError, output::eprint, progress::Progress},
};

/// The result of the command.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Changed {
    /// The mode.
    mode: PolicyMode,
    /// The one before.
    was: PolicyMode,
    #[serde(flatten)]
    proposal: Proposal,
    /// When the mode before returns, unless `apifence confirm` comes first: RFC 3339, UTC; null if
    /// the change is final.
    #[cfg_attr(test, schemars(with = "Option<crate::ui::json::Time>"))]
    confirm_until: Option<Timestamp>,
}

/// Runs the command.
pub(super) fn run(context: &Context, mode: PolicyMode, change: &ChangeArgs) -> Result<u8> {
    refuse_detached(context)?;
    refuse_overridden(context, mode)?;
    let _lock = WriterLock::take(&context.global.ranges_file, context.pins.root())?;
    let mut maps = context.attached_maps()?;
    if let Some(waiting) = recover(context, &mut maps)? {
        return Err(waiting.problem()?);
    }
    let slot = maps.active_slot()?;
    let (record, have) = (maps.record(slot)?, maps.settings(slot)?);
    let basis = Basis::of(record.basis);
    if mode == PolicyMode::Enforce {
        refuse_nothing_to_enforce(record.mode, basis)?;
    }
    let settings = with_mode(context, &have, mode);
    let changed = |proposal, confirm_until| Changed {
        mode,
        was: have.mode,
        proposal,
        confirm_until,
    };
    if settings == have {
        let nothing = nothing_to_change(mode, record.mode);
        context.global.output.result(&changed(nothing, None))?;
        return Ok(0);
    }
    let (lists, is_known) = lists_in_force(context, record.list)?;
    let list = lists.union();
    let guarded = context.pins.interfaces()?.into_iter().collect();
    let cluster = read_cluster(context, &settings);
    let mut policy = policy(&lists, &settings, &cluster, &guarded)?;
    policy.basis = basis;
    let impact = assess(context, Some(&maps), &policy, &guarded)?;
    let changes = settings.changes_from(&have);
    let mut proposal = Proposal::new(changes, ListChange::none(&list), impact);
    let output = context.global.output;
    if !proposal.put(change, true, output, |shown| changed(shown, None))? {
        return Ok(0);
    }
    let transaction = Transaction {
        saves: (is_known && is_saved(basis)).then_some(&lists),
        within: change.confirm_within,
        trial: Trial::Settings,
        ..Transaction::begin(context, &maps, &policy)?
    };
    let until = transaction.put_in_force(&mut maps, &Progress::start())?;
    report_mode(&maps, (mode, until), change)?;
    if !is_saved(basis) {
        eprint("note: no file has the list in force, so the mode does not survive a reboot");
    }
    let told = context.global.output.result(&changed(proposal, until));
    clean_up(&mut maps);
    Ok(exit_status(told))
}

/// Refuses without an attached filter whose policy can be changed.
fn refuse_detached(context: &Context) -> Result<()> {
    if context.maps()?.is_some() {
        return Ok(());
    }
    // A filter without pins keeps its policy: no command can change that.
    let (strays, _) = strays_at_rest(&context.pins)?;
    Err(match strays.first() {
        Some(stray) => stray.problem("change mode"),
        None => context.nothing_attached(),
    })
}

/// Reports that the mode is already in force; `in_force` is that of the record.
fn nothing_to_change(mode: PolicyMode, in_force: u8) -> Proposal {
    eprint(match mode {
        PolicyMode::Enforce => "nothing to change: the mode is already enforce",
        PolicyMode::Monitor => "nothing to change: the mode is already monitor",
    });
    let list = match in_force == Mode::Off as u8 {
        true => List::Off,
        false => List::Ranges(Vec::new()),
    };
    Proposal::new(Vec::new(), ListChange::none(&list), Impact::default())
}

/// Reports the new mode.
fn report_mode(
    maps: &Maps,
    (mode, until): (PolicyMode, Option<Timestamp>),
    change: &ChangeArgs,
) -> Result<()> {
    if maps.record(maps.active_slot()?)?.mode == Mode::Off as u8 {
        eprint("warning: the list has the word `disabled`: every source passes in both modes");
    } else {
        eprint(match mode {
            PolicyMode::Enforce => "enforcing: sources outside the authorized ranges are dropped",
            PolicyMode::Monitor => {
                "monitoring: nothing is dropped; packets that `enforce` would drop are counted"
            }
        });
    }
    if let Some(until) = until {
        eprint(on_trial(change, until));
    }
    Ok(())
}

/// The settings `have` with another mode. The next command keeps this mode unless the user names
/// one. It counts as a value of the config file only if that file holds it.
fn with_mode(context: &Context, have: &Settings, mode: PolicyMode) -> Settings {
    let mut settings = Settings {
        mode,
        // The operator decided.
        mode_waits: false,
        ..have.clone()
    };
    if row(&context.file.config).source == "file" {
        settings.from_file.insert(KEY.to_owned());
    } else {
        settings.from_file.remove(KEY);
    }
    settings
}

/// The key of the mode.
const KEY: &str = "mode";

/// The mode in `config`, with where it comes from.
fn row(config: &Config) -> SettingRow {
    let mut rows = config.rows().into_iter();
    rows.find(|row| row.key == KEY)
        .expect("every setting has a row")
}

/// The lists in force, which may differ from the files; and whether files hold them.
fn lists_in_force(context: &Context, digest: [u8; 32]) -> Result<(Lists, bool)> {
    if let Some(lists) = known_lists(context, digest) {
        return Ok((lists, true));
    }
    // Lists that are in no file: `disabled` after an unconfirmed first attach, and the empty list
    // while there is no usable one.
    let unwritten = [List::Off, List::Ranges(Vec::new())];
    let mut unwritten = unwritten.iter().filter(|list| list.digest() == digest);
    match unwritten.next() {
        Some(list) => Ok((Lists::of(RangesFile::new(list)), false)),
        None => Err(UserError::failed(
            "change mode: neither the ranges file nor the history has the list in force",
            "run `apifence ranges reload` (`--dry-run` shows the difference), then try again; nothing changed",
        )),
    }
}

/// Refuses to enforce if no packet would be dropped, or all of them.
fn refuse_nothing_to_enforce(mode: u8, basis: Basis) -> Result<()> {
    if basis == Basis::Fresh {
        return Err(UserError::input(
            "change mode to enforce: there is no list yet, so every source would be dropped",
            "run `apifence ranges set CIDR,...`, then `apifence enforce`; nothing changed",
        ));
    }
    if mode == Mode::Off as u8 {
        return Err(UserError::input(
            "change mode to enforce: the list has the word `disabled`, which switches enforcement off",
            "`apifence ranges set CIDR,...` makes a new list; `apifence ranges rollback` restores the previous one; nothing changed",
        ));
    }
    Ok(())
}

/// Refuses a mode that would not last. Within a second `run` restores the mode of the config file,
/// its flags and its environment. Without `run`, the next `attach` or boot restores the mode of the
/// config file.
fn refuse_overridden(context: &Context, mode: PolicyMode) -> Result<()> {
    let Some(watcher) = WatchLock::watcher(&context.pins.watch())? else {
        refuse_row(&row(&context.file.config), mode, None)?;
        let own = row(&context.config);
        if own.source == "environment" && !has_mode(&own, mode) {
            eprint(format_args!(
                "warning: {} is {}: the next `apifence attach` in this environment uses that mode",
                own.origin, own.value
            ));
        }
        return Ok(());
    };
    match watcher.process.as_ref().map(load_of_process) {
        Some(Ok((config, file))) => {
            refuse_row(&row(&config), mode, Some(&watcher))?;
            // The mode of a file that is broken now stays in force if it was read before.
            refuse_row(&row(&file.config), mode, Some(&watcher))
        }
        _ => {
            eprint(format_args!(
                "warning: the flags of {watcher} cannot be read: if they set the mode, they undo this change"
            ));
            refuse_row(&row(&context.file.config), mode, Some(&watcher))
        }
    }
}

fn has_mode(row: &SettingRow, mode: PolicyMode) -> bool {
    row.value == mode.name()
}

/// Refuses `mode` if `row`, from a file, the environment or a flag, holds another one.
fn refuse_row(row: &SettingRow, mode: PolicyMode, watcher: Option<&Watcher>) -> Result<()> {
    let is_said = ["file", "environment", "flag"].contains(&row.source);
    if !is_said || has_mode(row, mode) {
        return Ok(());
    }
    let name = mode.name();
    let (origin, value) = (&row.origin, row.value.as_str().unwrap_or_default());
    let (cause, hint) = match (row.source, watcher) {
        ("file", None) => (
            format!("`{origin}` has `mode = \"{value}\"`, which the next start would apply"),
            format!("set `mode = \"{name}\"` there, then `apifence attach`"),
        ),
        ("file", Some(watcher)) => (
            format!("`{origin}` has `mode = \"{value}\"`, and {watcher} follows that file"),
            format!("set `mode = \"{name}\"` there: `run` applies it within a second"),
        ),
        (_, watcher) => (
            format!(
                "{} was started with `{value}` ({origin}) and would undo the change",
                watcher.map_or_else(|| "`run`".to_owned(), Watcher::to_string)
            ),
            format!("restart it without that, or with `{name}`"),
        ),
    };
    Err(UserError::input(
        format!("change mode to {name}: {cause}"),
        format!("{hint}; nothing changed"),
    ))
}
