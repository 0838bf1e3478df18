//! Edits at a terminal, with questions.

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use tests::{
    cli::{Apifence, FAILED, INPUT, refused},
    netns::Namespace,
    site::{Family, INTERFACE, Site, UNLISTED},
    terminal::Terminal,
    wait::until,
};

use super::{ADMIT, EDIT, Editors, PORT, done, edit, kept, nothing_is_kept};

fn terminal(node: &Namespace, filter: &Apifence, editor: &str, more: &[&str]) -> Result<Terminal> {
    let environment = [("EDITOR", editor), ("VISUAL", ""), ("SUDO_EDITOR", "")];
    Terminal::start(filter, node, &[&EDIT[..], more].concat(), &environment)
}

#[test]
fn a_fault_leads_back_to_the_editor() -> Result<()> {
    let (site, filter) = Site::guarded()?;
    let editors = Editors::new()?;
    // The second time it is fixed.
    let editor = editors.editor(
        "grep -q 203.0.113.999 \"$1\" && sed -i s/999/9/ \"$1\" || echo 203.0.113.999 >> \"$1\"",
    )?;
    let mut terminal = terminal(&site.node, &filter, &editor, &[])?;
    terminal.shows(&["edit:3: `203.0.113.999`", "e: edit again, q: quit"])?;
    terminal.press("what?\n")?;
    terminal.shows(&["what?"])?;
    terminal.press("e\n")?;
    terminal.shows(&["on trial for 60 s"])?;
    ensure!(terminal.ended()? == Some(0));
    filter.ok(&["confirm"])?;
    ensure!(filter.list()?.contains("203.0.113.9\n"));
    nothing_is_kept(&filter)
}

#[test]
fn enter_is_harmless_and_loses_nothing() -> Result<()> {
    let (site, filter) = Site::guarded()?;
    let editors = Editors::new()?;
    let before = filter.list()?;
    let nonsense = editors.editor("echo nonsense >> \"$1\"")?;
    for key in ["\n", "q\n", "\u{4}"] {
        let mut terminal = terminal(&site.node, &filter, &nonsense, &["--discard"])?;
        terminal.shows(&["(Enter: q)"])?;
        terminal.press(key)?;
        terminal.shows(&["note: the edit is kept in"])?;
        ensure!(terminal.ended()? == Some(INPUT), "{key:?}");
        ensure!(kept(&filter)?.len() == 2, "{key:?}");
    }
    // An interrupt at the question ends the command.
    let mut terminal = terminal(&site.node, &filter, "true", &[])?;
    terminal.shows(&["continuing the edit", "(Enter: q)"])?;
    terminal.press("\u{3}")?;
    ensure!(terminal.ended()?.is_none());
    assert_eq!(filter.list()?, before);
    ensure!(kept(&filter)?.len() == 2);
    Ok(())
}

#[test]
fn an_interrupt_in_the_editor_is_for_the_editor() -> Result<()> {
    let (site, filter) = Site::guarded()?;
    let editors = Editors::new()?;
    // An editor that continues after the interrupt.
    let editor = editors.open(&format!(
        "trap 'touch {}' INT; {ADMIT}",
        editors.path("int").display()
    ))?;
    let mut prompt = terminal(&site.node, &filter, &editor, &[])?;
    editors.until_open()?;
    prompt.press("\u{3}")?;
    until("the editor is interrupted", || {
        Ok(editors.path("int").exists())
    })?;
    editors.close()?;
    prompt.shows(&["on trial for 60 s"])?;
    ensure!(prompt.ended()? == Some(0));
    filter.ok(&["ranges", "rollback"])?;
    // An editor that the interrupt ends.
    let editor = editors.open("echo nonsense >> \"$1\"")?;
    let mut prompt = terminal(&site.node, &filter, &editor, &["--discard"])?;
    editors.until_open()?;
    prompt.press("\u{3}")?;
    prompt.shows(&["failed", "your edit is kept"])?;
    ensure!(prompt.ended()? == Some(FAILED));
    Ok(())
}

#[test]
fn a_change_during_an_edit_is_not_lost() -> Result<()> {
    let (site, filter) = Site::guarded()?;
    let editors = Editors::new()?;
    let add = |range: &str| filter.ok(&["ranges", "add", range, "--comment", "colleague"]);
    let editor = editors.open(ADMIT)?;
    let mut prompt = terminal(&site.node, &filter, &editor, &[])?;
    editors.until_open()?;
    let ran = edit(&site, &filter, "true", &[])?;
    refused(&ran, FAILED, &["another `apifence ranges edit` is open"])?;
    add("192.0.2.128/25")?;
    editors.close()?;
    prompt.shows(&["192.0.2.128/25", "does not have that", "(Enter: q)"])?;
    prompt.press("\n")?;
    prompt.shows(&["note: the edit is kept in"])?;
    ensure!(prompt.ended()? == Some(INPUT));
    let said = filter.list()?;
    ensure!(
        said.contains("colleague") && !said.contains("by hand"),
        "{said}"
    );

    // The next edit puts it in force; with further changes, it asks again.
    let take = "echo '192.0.2.128/25 # colleague' >> \"$1\"";
    let mut prompt = terminal(&site.node, &filter, "true", &["--no-trial"])?;
    prompt.shows(&["continuing the edit", "e: edit again, y: replace"])?;
    add("192.0.2.64/26")?;
    prompt.press("y\n")?;
    // Keys that come before the question are discarded.
    prompt.until("a second question", |screen| {
        screen.contents().matches("(Enter: q)").count() >= 2
    })?;
    prompt.press("q\n")?;
    ensure!(prompt.ended()? == Some(INPUT));
    filter.ok(&["ranges", "remove", "192.0.2.64/26"])?;
    let mut prompt = terminal(&site.node, &filter, &editors.editor(take)?, &["--no-trial"])?;
    prompt.shows(&["e: edit again, y: replace"])?;
    prompt.press("y\n")?;
    prompt.shows(&["in force: 4 ranges"])?;
    ensure!(prompt.ended()? == Some(0));
    let said = filter.list()?;
    ensure!(
        said.contains("colleague") && said.contains("by hand"),
        "{said}"
    );
    nothing_is_kept(&filter)
}

#[test]
fn nothing_is_lost_with_the_terminal() -> Result<()> {
    let (site, filter) = Site::guarded()?;
    let editors = Editors::new()?;
    let continues = |words: &[&str]| -> Result<()> {
        let ran = edit(&site, &filter, "true", &["--confirm-within", "5m"])?;
        ran.stderr_has(&["note: continuing the edit of"])?;
        ran.stderr_has(words)
    };
    for signal in [None, Some(Signal::SIGKILL), Some(Signal::SIGHUP)] {
        let mut open = terminal(&site.node, &filter, &editors.open(ADMIT)?, &[])?;
        editors.until_open()?;
        match signal {
            None => open.dies()?,
            Some(signal) => {
                open.signal(signal)?;
                open.ended()?;
            }
        }
        editors.close()?;
        continues(&["203.0.113.9/32", "on trial for 300 s"])?;
        filter.ok(&["ranges", "rollback"])?;
    }
    let nonsense = editors.editor("echo nonsense >> \"$1\"")?;
    let mut prompt = terminal(&site.node, &filter, &nonsense, &[])?;
    prompt.shows(&["(Enter: q)"])?;
    prompt.dies()?;
    continues(&["`nonsense` is a name"])?;
    // The trial needs no terminal.
    let admit = editors.editor(ADMIT)?;
    let mut on_trial = terminal(&site.node, &filter, &admit, &["--discard"])?;
    on_trial.shows(&["on trial for 60 s"])?;
    on_trial.dies()?;
    filter.ok(&["confirm"])?;
    ensure!(filter.list()?.contains("by hand"));
    nothing_is_kept(&filter)
}

#[test]
fn an_edit_that_cuts_every_client_needs_force() -> Result<()> {
    let (site, filter, _server) = Site::guarded_server(PORT)?;
    let editors = Editors::new()?;
    let mut daemon = filter.start(&["run", "--interface", INTERFACE])?;
    daemon.line(|line| line.contains("guarding") || line.contains("in force"))?;
    let _admin = site.admin_gets_in(Family::V4, PORT)?;
    let cutting = editors.editor(&format!("echo {} > \"$1\"", UNLISTED[0]))?;
    let mut prompt = terminal(&site.node, &filter, &cutting, &[])?;
    prompt.shows(&["refused: ", "would be cut", "(Enter: q)"])?;
    prompt.press("\n")?;
    ensure!(prompt.ended()? == Some(INPUT));
    let ran = edit(&site, &filter, "true", &["--dry-run", "--force"])?;
    done(
        &ran,
        &["dry run: nothing changed", "note: the edit is kept in"],
    )?;
    let ran = edit(&site, &filter, "true", &["--force", "-o", "json"])?;
    done(&ran, &["on trial for 60 s"])?;
    let answer: serde_json::Value = serde_json::from_str(&ran.stdout)?;
    ensure!(!answer["confirm_until"].is_null(), "{answer:#}");
    site.unlisted_gets_in(Family::V4, PORT)?;
    // `run` leaves it alone, and recognizes it when it is confirmed.
    filter.ok(&["confirm"])?;
    site.unlisted_gets_in(Family::V4, PORT)?;
    ensure!(filter.status("drift")? == serde_json::json!([]));
    let ran = edit(&site, &filter, "true", &["-o", "json"])?;
    ensure!(ran.stdout.contains("\"edited\": false"), "{ran}");
    Ok(())
}
