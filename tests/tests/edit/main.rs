//! `ranges edit`, with all kinds of editors, with and without a terminal.

mod prompts;
#[path = "../snapshot/mod.rs"]
mod snapshot;

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;
use tests::{
    cli::{Apifence, FAILED, INPUT, Ran, refused},
    config_map::ConfigMap,
    site::{ADMIN_RANGES, ATTACH, Family, Site},
    wait::until,
};

const PORT: u16 = 6443;
const EDIT: [&str; 2] = ["ranges", "edit"];
const LIST: &str = "198.51.100.0/24\n2001:db8:aa::/48\n";
/// An editor's script that adds the unlisted client's address.
const ADMIT: &str = "echo '203.0.113.9 # by hand' >> \"$1\"";

/// Editors, each a script of its own; the file is its first argument.
struct Editors(TempDir);

impl Editors {
    fn new() -> Result<Self> {
        Ok(Self(TempDir::with_prefix("apf-")?))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn named(&self, name: &str, script: &str) -> Result<String> {
        let path = self.path(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n"))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(path.display().to_string())
    }

    fn editor(&self, script: &str) -> Result<String> {
        self.named("editor", script)
    }

    /// An editor that runs `script` once there is a file `open`, and ends once there is a file
    /// `close`.
    fn open(&self, script: &str) -> Result<String> {
        let [open, close] = ["open", "close"].map(|name| self.path(name).display().to_string());
        for file in [&open, &close] {
            let _ = fs::remove_file(file);
        }
        let wait = format!("until [ -e {close} ]; do sleep 0.02; done; exit 0");
        self.editor(&format!("{script}\ntouch {open}\n{wait}"))
    }

    fn until_open(&self) -> Result<()> {
        until("the editor is open", || Ok(self.path("open").exists()))
    }

    fn close(&self) -> Result<()> {
        Ok(fs::write(self.path("close"), "")?)
    }
}

/// Runs it without a terminal.
fn run(
    site: &Site,
    filter: &Apifence,
    arguments: &[&str],
    environment: &[(&str, &str)],
) -> Result<Ran> {
    let mut command = filter.command(arguments);
    for name in ["SUDO_EDITOR", "VISUAL", "EDITOR"] {
        command.env_remove(name);
    }
    command
        .envs(environment.iter().copied())
        .stdin(Stdio::null());
    Ok(Ran::new(arguments, &site.node.output(&mut command)?))
}

fn edit(site: &Site, filter: &Apifence, editor: &str, more: &[&str]) -> Result<Ran> {
    run(
        site,
        filter,
        &[&EDIT[..], more].concat(),
        &[("EDITOR", editor)],
    )
}

fn done(ran: &Ran, words: &[&str]) -> Result<()> {
    ensure!(ran.code == Some(0), "{ran}");
    for word in words {
        ensure!(ran.stderr.contains(word), "`{word}` is not said; {ran}");
    }
    Ok(())
}

/// All files that edits have kept, each with its mode.
fn kept(filter: &Apifence) -> Result<Vec<(PathBuf, u32)>> {
    fn walk(folder: &Path, found: &mut Vec<(PathBuf, u32)>) -> Result<()> {
        for entry in fs::read_dir(folder)? {
            let (path, data) = entry.and_then(|entry| Ok((entry.path(), entry.metadata()?)))?;
            if data.is_dir() {
                ensure!(data.permissions().mode() & 0o077 == 0, "{path:?} is open");
                walk(&path, found)?;
            } else {
                found.push((path, data.permissions().mode() & 0o777));
            }
        }
        Ok(())
    }
    let mut found = Vec::new();
    let folder = filter.state_dir().join("edits");
    if folder.exists() {
        walk(&folder, &mut found)?;
    }
    Ok(found)
}

fn nothing_is_kept(filter: &Apifence) -> Result<()> {
    let kept = kept(filter)?;
    ensure!(kept.is_empty(), "left: {kept:?}");
    Ok(())
}

fn lapsed(filter: &Apifence) -> Result<()> {
    filter.until_status("provisional", ())
}

#[test]
fn an_edit_is_on_trial_and_kept_until_it_is_confirmed() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(PORT)?;
    let editors = Editors::new()?;
    filter.ok(&ATTACH)?;
    let before = filter.list()?;
    let admit = editors.editor(ADMIT)?;
    let ran = edit(&site, &filter, &admit, &[])?;
    done(
        &ran,
        &[
            "203.0.113.9/32",
            "on trial for 60 s",
            "keep it:  apifence confirm",
        ],
    )?;
    site.unlisted_gets_in(Family::V4, PORT)?;
    assert_eq!(filter.list()?, before);
    for shows in [["ranges", "list"], ["ranges", "history"]] {
        let ran = filter.run(&shows)?;
        done(
            &ran,
            &["note: a change by `ranges edit`", "is on trial until"],
        )?;
    }
    // An edit that cannot be applied is refused before the editor starts.
    let marks = editors.named(
        "marks",
        &format!("touch {}", editors.path("mark").display()),
    )?;
    let ran = edit(&site, &filter, &marks, &[])?;
    refused(&ran, FAILED, &["another change is on trial"])?;
    ensure!(!editors.path("mark").exists(), "the editor was opened");

    filter.ok(&["confirm"])?;
    let after = filter.list()?;
    assert_eq!(after, format!("{before}203.0.113.9 # by hand\n"));
    nothing_is_kept(&filter)?;
    ensure!(!filter.run(&["ranges", "list"])?.stderr.contains("on trial"));
    Ok(())
}

#[test]
fn an_unconfirmed_edit_is_continued() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(PORT)?;
    let editors = Editors::new()?;
    filter.ok(&ATTACH)?;
    let admit = editors.editor(ADMIT)?;
    done(
        &edit(&site, &filter, &admit, &["--confirm-within", "1s"])?,
        &["on trial for 1 s"],
    )?;
    lapsed(&filter)?;
    site.unlisted_is_dropped(Family::V4, PORT, &filter)?;
    // Another operator's change in between is not lost either.
    filter.ok(&["ranges", "add", "192.0.2.128/25"])?;
    let ran = edit(&site, &filter, "true", &["--no-trial"])?;
    ensure!(ran.code == Some(INPUT), "{ran}");
    let words = [
        "continuing the edit of",
        "your edit does not have that",
        "192.0.2.128/25",
    ];
    for word in words {
        ensure!(ran.stderr.contains(word), "{word}: {ran}");
    }
    filter.ok(&["ranges", "remove", "192.0.2.128/25"])?;
    done(
        &edit(&site, &filter, "true", &["--no-trial"])?,
        &["in force: 3 ranges"],
    )?;
    site.unlisted_gets_in(Family::V4, PORT)?;
    nothing_is_kept(&filter)?;
    // A trial that is taken back keeps it, too; `--discard` starts again.
    let remove = "sed -i /by.hand/d \"$1\"";
    let remove = editors.editor(remove)?;
    done(
        &edit(&site, &filter, &remove, &["--confirm-within", "5m"])?,
        &["on trial for 300 s"],
    )?;
    filter.ok(&["ranges", "rollback"])?;
    ensure!(kept(&filter)?.iter().all(|(_, mode)| *mode == 0o600));
    ensure!(kept(&filter)?.len() == 2);
    done(&edit(&site, &filter, "true", &["--discard"])?, &["no edit"])?;
    nothing_is_kept(&filter)
}

#[test]
fn the_output_of_an_editor_is_a_list_or_is_refused() -> Result<()> {
    let (site, filter) = Site::guarded()?;
    let editors = Editors::new()?;
    let before = filter.list()?;
    for (script, code, word) in [
        ("exit 7", FAILED, "failed (exit status: 7)"),
        ("kill -9 $$", FAILED, "failed (exit status: 137)"),
        (": > \"$1\"", INPUT, "the file has no range"),
        ("rm \"$1\"", INPUT, "the editor did not save a file"),
        ("rm \"$1\"; mkdir \"$1\"", FAILED, "a directory"),
        ("echo nonsense >> \"$1\"", INPUT, "edit:3: `nonsense`"),
        (
            "echo me >> \"$1\"",
            INPUT,
            "`me` works only on the command line",
        ),
        ("printf '\\377\\376x\\0' > \"$1\"", INPUT, "UTF-16"),
        (
            "umask 0; (cat \"$1\"; echo x) > \"$1~\"; chmod 666 \"$1~\"; mv \"$1~\" \"$1\"",
            INPUT,
            "edit:3: `x`",
        ),
    ] {
        let ran = edit(&site, &filter, &editors.editor(script)?, &["--discard"])?;
        refused(&ran, code, &[word]).with_context(|| script.to_owned())?;
        assert_eq!(filter.list()?, before, "{script}");
        let open = kept(&filter)?.into_iter().find(|(_, mode)| *mode != 0o600);
        ensure!(open.is_none(), "{script}: {open:?}");
        if code == INPUT {
            ensure!(ran.stderr.contains("note: the edit is kept in"), "{ran}");
        }
        let _ = Command::new("rm")
            .args(["-rf", "--"])
            .arg(filter.state_dir().join("edits"))
            .status()?;
    }
    for script in [
        "sed -i 's/$/\\r/' \"$1\"; printf '203.0.113.9\\r\\n' >> \"$1\"",
        "printf 203.0.113.9/31 >> \"$1\"; sed -i s,9/31,8/31, \"$1\"",
        "printf '\\357\\273\\2770.0.0.0/0\\n' > \"$1\"",
        "(cat \"$1\"; echo 203.0.113.9) > \"$1~\"; mv \"$1~\" \"$1\"; touch \"$1.swp\"",
        "echo disabled > \"$1\"",
    ] {
        let ran = edit(&site, &filter, &editors.editor(script)?, &["--no-trial"])?;
        done(&ran, &["in force:"]).with_context(|| script.to_owned())?;
        ensure!(filter.status("drift")? == serde_json::json!([]));
        nothing_is_kept(&filter)?;
        filter.ok(&["ranges", "set", ADMIN_RANGES])?;
    }
    // The change affects no packet, so there is no trial.
    let comment = editors.editor("echo '# ours' >> \"$1\"")?;
    let ran = edit(&site, &filter, &comment, &[])?;
    done(&ran, &["in force: 2 ranges"])?;
    ensure!(filter.status("provisional")?.is_null());
    ensure!(filter.list()?.ends_with("# ours\n"));
    done(&edit(&site, &filter, "true", &[])?, &["no edit"])?;
    nothing_is_kept(&filter)
}

#[test]
fn any_ranges_file_can_be_edited() -> Result<()> {
    let (site, filter) = Site::unguarded()?;
    let editors = Editors::new()?;
    // Without a filter and a trial: only the file is written.
    done(&edit(&site, &filter, "true", &[])?, &["no edit"])?;
    ensure!(!filter.ranges_file().exists());
    let admit = editors.editor(ADMIT)?;
    let ran = edit(&site, &filter, &admit, &[])?;
    done(&ran, &["the list is saved; it has no effect"])?;
    ensure!(!ran.stderr.contains("on trial"), "{ran}");
    ensure!(filter.list()?.ends_with("203.0.113.9 # by hand\n"));
    nothing_is_kept(&filter)?;

    filter.ok(&ATTACH)?;
    filter.write_list("nonsense\n")?;
    let mend = editors.editor(&format!("printf '{}' > \"$1\"", LIST.replace('\n', "\\n")))?;
    done(&edit(&site, &filter, &mend, &[])?, &["in force: 2 ranges"])?;
    assert_eq!(filter.list()?, LIST);

    let map = ConfigMap::new(LIST)?;
    let filter = filter.with_ranges_file(map.file());
    let marks = editors.editor(&format!(
        "{ADMIT}; touch {}",
        editors.path("mark").display()
    ))?;
    let ran = edit(&site, &filter, &marks, &[])?;
    refused(&ran, FAILED, &["write ranges file"])?;
    ensure!(!editors.path("mark").exists(), "the editor was opened");
    let ran = edit(&site, &filter, &marks, &["--dry-run"])?;
    ensure!(
        ran.code == Some(0) && ran.stdout.contains("203.0.113.9/32"),
        "{ran}"
    );
    Ok(())
}

#[test]
fn the_editor_is_the_one_that_is_named() -> Result<()> {
    let (site, filter) = Site::unguarded()?;
    let editors = Editors::new()?;
    let says = |word: &str| format!("echo {word} \"$@\" >&2; exit 9");
    let [sudo, visual, plain] =
        ["sudo", "visual", "plain"].map(|name| editors.named(name, &says(name)));
    let [sudo, visual, plain] = [sudo?, visual?, plain?];
    let spaces = editors.named("with some spaces", &says("spaces"))?;
    let plain_with = format!("{plain} --wait -n 'a b'");
    for (environment, want) in [
        (
            &[
                ("SUDO_EDITOR", &*sudo),
                ("VISUAL", &*visual),
                ("EDITOR", &*plain),
            ][..],
            "sudo /",
        ),
        (
            &[
                ("SUDO_EDITOR", " "),
                ("VISUAL", &*visual),
                ("EDITOR", &*plain),
            ],
            "visual /",
        ),
        (&[("EDITOR", &*plain_with)], "plain --wait -n a b /"),
        (&[("EDITOR", &*spaces)], "spaces /"),
        (&[("EDITOR", "no-such-editor")], "no-such-editor"),
    ] {
        let ran = run(&site, &filter, &EDIT, environment)?;
        refused(&ran, FAILED, &["failed (exit status"])?;
        ensure!(ran.stderr.contains(want), "{want}: {ran}");
    }
    // The editors that are installed, if none is named.
    let ran = run(&site, &filter, &EDIT, &[("PATH", "/nowhere")])?;
    refused(&ran, INPUT, &["no editor found"])?;
    ensure!(ran.stderr.contains("`EDITOR="), "{ran}");
    editors.named("vi", &says("vi"))?;
    let folder = editors.0.path().display().to_string();
    let ran = run(&site, &filter, &EDIT, &[("PATH", &folder)])?;
    ensure!(ran.stderr.contains("vi /"), "{ran}");
    nothing_is_kept(&filter)
}

#[test]
fn the_questions_of_an_edit_match_their_snapshot() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(PORT)?;
    let editors = Editors::new()?;
    filter.ok(&ATTACH)?;
    let admin = site.admin_gets_in(Family::V4, PORT)?;
    let mut said = Vec::new();
    let discard = &["--discard"][..];
    for (script, more) in [
        ("exit 0", &[][..]),
        ("exit 1", &[]),
        ("echo 203.0.113.9/24 >> \"$1\"; echo x >> \"$1\"", &[]),
        ("echo 203.0.113.9 > \"$1\"", discard),
        (ADMIT, &["--dry-run", "--discard"]),
        ("exit 0", &[]),
    ] {
        said.push(edit(&site, &filter, &editors.editor(script)?, more)?);
    }
    said.extend(filter.run_all(&[&["status"], &["ranges", "list"], &["ranges", "rollback"]])?);
    filter.ok(&["ranges", "add", "192.0.2.128/25"])?;
    said.push(edit(&site, &filter, &editors.editor("exit 0")?, &[])?);
    let folder = editors.0.path().display().to_string();
    let port = format!(":{} ->", admin.local_addr()?.port());
    for ran in &mut said {
        ran.stderr = ran
            .stderr
            .replace(&folder, "EDITORS")
            .replace(&port, ":PORT ->");
        // Whichever user runs the tests.
        if let Some((before, after)) = ran.stderr.split_once("a change by `ranges edit` by ")
            && let Some((_, after)) = after.split_once(" is on trial")
        {
            ran.stderr = format!("{before}a change by `ranges edit` by USER is on trial{after}");
        }
        for (path, _) in kept(&filter)? {
            let place = path.parent().context("a folder")?.display().to_string();
            ran.stderr = ran.stderr.replace(&place, "EDITS");
        }
    }
    snapshot::same("edit", &filter, &said);
    Ok(())
}
