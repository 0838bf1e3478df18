//! `cargo xtask test`: every test of the workspace, or with `--cluster` those with real API
//! servers; the last line printed is `N passed, N failed`.

use std::{
    env,
    io::{self, BufRead as _, BufReader, Write as _},
    process::{self, Command, ExitCode},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use crate::{cluster, machine::Privilege, setup, tally::Tally, toolchain::Toolchain, workspace};

/// The suites to run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Suites {
    /// All that need nothing but this machine's packages.
    All,
    /// The suite `lab`, which needs API servers.
    Cluster,
}

/// Runs the tests of these suites whose name contains `filter`, or all of them.
pub(crate) fn run(filter: Option<&str>, which: Suites) -> Result<ExitCode> {
    let tally = suites(filter, which).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        Tally::broken()
    });
    let in_ci = env::var_os("CI").is_some_and(|ci| ci == "true" || ci == "1");
    let problem = tally.problem(in_ci);
    if let Some(problem) = &problem {
        eprintln!("error: run tests: {problem}");
    }
    println!("{tally}");
    Ok(if problem.is_none() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// What makes cargo build the suite `lab`. The crates are chosen as for all suites: for fewer,
/// cargo would build the dependencies again, with fewer features.
const CLUSTER: &str = "--features=tests/cluster";

/// Number of tests of a suite that run at a time.
const THREADS: &str = "RUST_TEST_THREADS";

/// Sets up, builds, and runs every suite, whether or not the previous one passed.
fn suites(filter: Option<&str>, which: Suites) -> Result<Tally> {
    if setup::ensure(setup::Purpose::Work)? != ExitCode::SUCCESS {
        bail!("run tests: the machine is not set up");
    }
    let sudo = Privilege::probe().prefix_with_environment()?;
    let mut tests = workspace::cargo(&["test", "--no-fail-fast"]);
    match which {
        // One build for the rest, so that cargo builds the common dependencies once.
        Suites::All => workspace::build(&["--bins", "--tests"])?,
        Suites::Cluster => {
            let programs = cluster::programs()?;
            workspace::build(&["--bins", "--test", "lab", CLUSTER])?;
            tests
                .args(["--test", "lab", CLUSTER])
                .env("CLUSTER_PROGRAMS", programs)
                .env(
                    "APIFENCE_KUBE_BIN",
                    workspace::program("debug", "apifence-kube")?,
                );
        }
    }
    // Tests that need no root run as root as well.
    tests
        .args(filter)
        .env("APIFENCE_BIN", workspace::program("debug", "apifence")?);
    if env::var_os(THREADS).is_none() {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let threads = match which {
            // Most of the time they wait for packets that must not arrive.
            Suites::All => 2 * cores,
            // Each has servers of its own, which are busy when they start.
            Suites::Cluster => cores.div_ceil(2),
        };
        tests.env(THREADS, threads.to_string());
    }
    if !sudo.is_empty() {
        tests.env(Toolchain::probe()?.runner_variable(), sudo.join(" "));
    }
    watch(tests)
}

/// How long the tests may print nothing: many times what the longest of them takes. A test that
/// waits for ever is named before CI gives up without a word.
const LONGEST_SILENCE: Duration = Duration::from_secs(20 * 60);

/// Ends this process with an error once `lines` gives nothing for [`LONGEST_SILENCE`].
fn end_if_silent(lines: mpsc::Receiver<String>) {
    thread::spawn(move || {
        let mut last = String::new();
        loop {
            match lines.recv_timeout(LONGEST_SILENCE) {
                Ok(line) => last = line,
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    eprintln!(
                        "error: run tests: nothing was printed for {LONGEST_SILENCE:?}; the last line was `{}`",
                        last.trim_end()
                    );
                    process::exit(1);
                }
            }
        }
    });
}

/// Runs `cargo test`, forwards its output at once, and counts.
fn watch(mut command: Command) -> Result<Tally> {
    // One pipe for both streams keeps their order.
    let (output, input) = io::pipe().context("make a pipe")?;
    command
        .stdout(input.try_clone().context("share a pipe")?)
        .stderr(input);
    let mut child = command.spawn().context("run `cargo test`")?;
    // It holds copies of our ends of the pipe, which would keep it open.
    drop(command);

    let (heard, lines) = mpsc::channel();
    end_if_silent(lines);
    let mut tally = Tally::default();
    let mut output = BufReader::new(output);
    let mut line = Vec::new();
    while output
        .read_until(b'\n', &mut line)
        .context("read what `cargo test` prints")?
        > 0
    {
        io::stdout()
            .write_all(&line)
            .context("print what `cargo test` prints")?;
        let text = String::from_utf8_lossy(&line).into_owned();
        tally.read(&text);
        // Its receiver lives as long as this process.
        let _ = heard.send(text);
        line.clear();
    }
    let status = child.wait().context("wait for `cargo test`")?;
    tally.end(status.success());
    Ok(tally)
}
