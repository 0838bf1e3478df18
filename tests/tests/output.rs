//! Any destination of the output: no command panics, and the exit status stays right.

use std::{
    io::pipe,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use filter_common::layout::LAYOUT_VERSION;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tests::{
    cli::{Apifence, FAILED, Killed, VERBS, words},
    site::{ADMIN, ADMIN_RANGES, ATTACH, INTERFACE, Site, UNLISTED},
    wait::{until, until_ended},
};

/// Destination of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum To {
    /// A pipe with a reader.
    Reader,
    /// None: the descriptor is closed.
    Closed,
    /// A device without room.
    Full,
    /// A pipe whose reader has gone.
    Gone,
}

use To::{Closed, Full, Gone, Reader};

/// Each stream broken in each way, alone and with the other one.
const STREAMS: [(To, To); 9] = [
    (Closed, Reader),
    (Full, Reader),
    (Gone, Reader),
    (Reader, Closed),
    (Reader, Full),
    (Reader, Gone),
    (Closed, Closed),
    (Full, Full),
    (Gone, Gone),
];

impl To {
    /// The stream for a child process.
    fn stdio(self) -> Result<Stdio> {
        Ok(match self {
            Reader | Closed => Stdio::piped(),
            Full => std::fs::File::create("/dev/full")?.into(),
            Gone => pipe().context("make a pipe")?.1.into(),
        })
    }
}

/// `words`, with these streams.
fn command(filter: &Apifence, (stdout, stderr): (To, To), words: &[&str]) -> Result<Command> {
    let close = |to, redirection| if to == Closed { redirection } else { "" };
    let script = format!(
        r#"exec "$@" {} {}"#,
        close(stdout, ">&-"),
        close(stderr, "2>&-")
    );
    let mut shell = Command::new("sh");
    shell.args(["-c", &script, "sh"]);
    let mut command = filter.command_by(shell, words);
    command
        .stdin(Stdio::null())
        .stdout(stdout.stdio()?)
        .stderr(stderr.stdio()?);
    Ok(command)
}

/// Every command, in an order that ends in the initial state.
fn commands() -> Vec<Vec<&'static str>> {
    let verbs = VERBS.into_iter();
    let shells = ["bash", "elvish", "fish", "powershell", "zsh"];
    let mut all: Vec<Vec<&str>> = Vec::new();
    all.extend(verbs.map(|verb| words(verb).into_iter().chain(["--help"]).collect()));
    all.extend(shells.map(|shell| vec!["completions", shell]));
    let others: [&[&str]; _] = [
        &[],
        &["--help"],
        &["-h"],
        &["--version"],
        &["help", "run"],
        &["man"],
        &["fly"],
        &["check", "nobody"],
        &["attach", "--no-such-flag"],
        &["attach", "--interface", "eth7"],
        &["attach", "--interface", INTERFACE, "--dry-run"],
        &["run", "--cluster-cidrs", "all"],
        &["config"],
        &["-o", "json", "config"],
        &["version"],
        &["-o", "json", "version"],
        &["status"],
        &["-o", "json", "status"],
        &["-v", "status"],
        &["check", ADMIN[0]],
        &["check", UNLISTED[0]],
        &["stats"],
        &["-o", "json", "top"],
        &["events", "--recent"],
        &["suggest"],
        &["ranges", "list"],
        &["ranges", "history"],
        &["ranges", "set", "nobody,10.1.2.3/8"],
        &["ranges", "set", "--from-file", "/nowhere"],
        &["ranges", "set", UNLISTED[0], "--dry-run"],
        &["-o", "json", "ranges", "set", UNLISTED[0], "--dry-run"],
        &["ranges", "add", UNLISTED[0], "--confirm-within", "1h"],
        &["confirm"],
        &["ranges", "remove", UNLISTED[0]],
        &["-o", "json", "ranges", "add", UNLISTED[0]],
        &["ranges", "rollback"],
        &["ranges", "clear"],
        &["ranges", "set", ADMIN_RANGES],
        &["ranges", "reload"],
        &["monitor"],
        &["enforce", "--dry-run"],
        &["enforce"],
        &["detach", "--interface", "eth7"],
    ];
    all.extend(others.map(<[&str]>::to_vec));
    all
}

#[test]
fn no_command_panics_and_each_exit_status_stays_the_truth() -> Result<()> {
    let (site, filter) = Site::guarded()?;
    let mut wanted = Vec::new();
    for words in commands() {
        let output = site.node.output(&mut filter.command(&words))?;
        let code = output.status.code();
        ensure!(code.is_some_and(|code| code < 4), "{words:?}: {output:?}");
        wanted.push((words, code, !output.stdout.is_empty()));
    }
    for streams in STREAMS {
        for (words, code, has_output) in &wanted {
            let output = site
                .node
                .spawn(&mut command(&filter, streams, words)?)?
                .wait_with_output()?;
            // Output that cannot be written is a failure, except for a reader that has gone or was
            // never there. The exit status of a change describes the change.
            let shows_only = ["--dry-run", "--help"];
            let changes =
                words.contains(&"add") && !words.iter().any(|word| shows_only.contains(word));
            let unwritten = streams.0 == Full && *has_output;
            let fails = unwritten && !changes;
            let want = if fails { Some(FAILED) } else { *code };
            ensure!(
                output.status.code() == want,
                "`{}` with {streams:?}: {output:?}",
                words.join(" ")
            );
            let stderr = String::from_utf8_lossy(&output.stderr);
            ensure!(
                !unwritten
                    || streams.1 != Reader
                    || stderr.contains(if changes {
                        "warning: write to stdout: no space left on device: the change is made"
                    } else {
                        "error: write to stdout: no space left on device\nhint: "
                    }),
                "`{}` does not say so: {stderr}",
                words.join(" ")
            );
        }
    }
    Ok(())
}

/// Commands that run until they are ended: an output that cannot be written ends them, too.
#[test]
fn a_command_that_goes_on_ends_with_its_output() -> Result<()> {
    let (site, filter) = Site::guarded()?;
    let stats = ["stats", "--watch", "--interval", "100ms"];
    let json = ["-o", "json", "stats", "--watch"];
    for (words, stdout, code) in [
        (&stats[..], Full, FAILED),
        (&stats, Gone, 0),
        (&json, Full, FAILED),
        (&json, Gone, 0),
        (&["events"], Gone, 0),
    ] {
        for stderr in [Reader, Closed, Full, Gone] {
            let mut command = command(&filter, (stdout, stderr), words)?;
            let mut child = Killed(site.node.spawn(&mut command)?);
            let ended = until_ended(&mut child.0)?.code();
            ensure!(
                ended == Some(code),
                "{words:?}, {stdout:?}, {stderr:?}: {ended:?}"
            );
        }
    }
    Ok(())
}

#[test]
fn attach_and_detach_work_without_output() -> Result<()> {
    let (site, filter) = Site::unguarded()?;
    for streams in [(Closed, Closed), (Full, Full), (Gone, Gone)] {
        for (words, state) in [(&ATTACH[..], "enforcing"), (&["detach"], "detached")] {
            let output = site
                .node
                .spawn(&mut command(&filter, streams, words)?)?
                .wait_with_output()?;
            ensure!(
                output.status.code() == Some(0),
                "{words:?} with {streams:?}: {output:?}"
            );
            assert_eq!(filter.status("state")?, state);
        }
    }
    Ok(())
}

#[test]
fn run_guards_without_output() -> Result<()> {
    let (site, filter) = Site::unguarded()?;
    filter.ok(&["ranges", "set", ADMIN_RANGES])?;
    let layout = filter.bpffs().join(format!("layout-{LAYOUT_VERSION}"));
    let link = layout.join(format!("interfaces/{}/link", site.node.ifindex(INTERFACE)?));
    let ready = || {
        let status = filter.json(&["status"])?;
        Ok(status["state"] == "enforcing" && status["interfaces"][0]["guarded"] == true)
    };
    for streams in [(Closed, Closed), (Full, Full), (Gone, Gone)] {
        for output in ["text", "json"] {
            let words = ["-o", output, "run", "--interface", INTERFACE];
            let mut run = Killed(site.node.spawn(&mut command(&filter, streams, &words)?)?);
            until("it guards", ready)?;
            // Pins are looked at each twelve seconds, so in half of the rounds.
            if output == "text" {
                std::fs::remove_file(&link)?;
                until("it guards again", || Ok(link.exists() && ready()?))?;
            }
            // An event to log.
            site.unlisted_is_dropped(tests::site::Family::V4, 6443, &filter)?;
            filter.write_list(UNLISTED[0])?;
            filter.until_authorized(UNLISTED[0], true)?;
            filter.write_list(ADMIN_RANGES.replace(',', "\n"))?;
            filter.until_authorized(ADMIN[0], true)?;
            kill(Pid::from_raw(run.0.id().cast_signed()), Signal::SIGTERM)?;
            assert_eq!(until_ended(&mut run.0)?.code(), Some(0), "{streams:?}");
            filter.ok(&["detach"])?;
        }
    }
    Ok(())
}
