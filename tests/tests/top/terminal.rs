//! A program in a terminal of its own, and what its screen shows.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    num::NonZero,
    os::fd::OwnedFd,
    process::{Child, Command, Stdio},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::Instant,
};

use anyhow::{Result, bail, ensure};
use nix::{
    pty::{Winsize, openpty},
    sys::{
        signal::{Signal, kill},
        termios::{Termios, tcgetattr},
    },
    unistd::Pid,
};
use tests::{cli::Apifence, netns::Namespace, wait::PATIENCE};
use vt100::{Parser, Screen};

/// `apifence` in a terminal. Killed when dropped.
pub(crate) struct Terminal {
    child: Child,
    master: File,
    /// Keeps the terminal when the program has ended.
    slave: OwnedFd,
    before: Termios,
    shared: Arc<(Mutex<Parser>, Condvar)>,
}

impl Terminal {
    /// Starts it in a terminal of 24 lines of 80 letters, which is the controlling one of a session of its own.
    pub(crate) fn start(
        filter: &Apifence<'_>,
        namespace: &Namespace,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<Self> {
        let size = Winsize {
            ws_row: 24,
            ws_col: 80,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let pty = openpty(Some(&size), None)?;
        let before = tcgetattr(&pty.slave)?;
        let mut by = Command::new("setpriv");
        by.args(["--pdeathsig", "KILL", "setsid", "--ctty"]);
        let mut command = filter.command_by(by, arguments);
        command
            .env("TERM", "xterm-256color")
            .env_remove("NO_COLOR")
            .envs(environment.iter().copied())
            .stdin(Stdio::from(pty.slave.try_clone()?))
            .stdout(Stdio::from(pty.slave.try_clone()?))
            .stderr(Stdio::from(pty.slave.try_clone()?));
        let child = namespace.spawn(&mut command)?;
        let shared = Arc::new((
            Mutex::new(Parser::new(letters(24), letters(80), 0)),
            Condvar::new(),
        ));
        let (told, master) = (shared.clone(), File::from(pty.master));
        let mut reader = master.try_clone()?;
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            // A terminal ends with an error.
            while let Ok(count @ 1..) = reader.read(&mut bytes) {
                let (parser, news) = &*told;
                let mut parser = parser.lock().expect("nobody panics with it");
                parser.process(&bytes[..count]);
                news.notify_all();
            }
        });
        Ok(Self {
            child,
            master,
            slave: pty.slave,
            before,
            shared,
        })
    }

    /// Waits until the screen is as `wanted`; fails with what it shows instead.
    pub(crate) fn until(&self, what: &str, wanted: impl Fn(&Screen) -> bool) -> Result<()> {
        let (parser, news) = &*self.shared;
        let deadline = Instant::now() + PATIENCE;
        let mut parser = parser.lock().expect("nobody panics with it");
        while !wanted(parser.screen()) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!(
                    "no {what} within {PATIENCE:?}:\n{}",
                    parser.screen().contents()
                );
            }
            let waited = news.wait_timeout(parser, left);
            parser = waited.expect("nobody panics with it").0;
        }
        Ok(())
    }

    /// Waits until all of `words` are on the screen.
    pub(crate) fn shows(&self, words: &[&str]) -> Result<()> {
        self.until(&format!("{words:?}"), |screen| {
            let text = screen.contents();
            words.iter().all(|word| text.contains(word))
        })
    }

    /// What the screen shows now.
    pub(crate) fn contents(&self) -> String {
        let parser = self.shared.0.lock().expect("nobody panics with it");
        parser.screen().contents()
    }

    /// Presses keys.
    pub(crate) fn press(&mut self, keys: &str) -> Result<()> {
        Ok(self.master.write_all(keys.as_bytes())?)
    }

    /// Gives the window another size; the kernel tells the program.
    pub(crate) fn resize(&self, lines: u16, columns: u16) -> Result<()> {
        let mut parser = self.shared.0.lock().expect("nobody panics with it");
        parser
            .screen_mut()
            .set_size(letters(lines), letters(columns));
        let size = rustix::termios::Winsize {
            ws_row: lines,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        Ok(rustix::termios::tcsetwinsize(&self.master, size)?)
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).expect("a pid is an i32");
        Ok(kill(Pid::from_raw(pid), signal)?)
    }

    /// Waits for its end, and wants it to be a good one: exit code 0, and the terminal as it was.
    pub(crate) fn ended_well(mut self) -> Result<()> {
        let status = self.child.wait()?;
        ensure!(status.code() == Some(0), "{status}:\n{}", self.contents());
        self.until("screen as it was", |screen| {
            !screen.alternate_screen() && !screen.hide_cursor()
        })?;
        ensure!(
            self.contents().is_empty(),
            "left on it:\n{}",
            self.contents()
        );
        ensure!(
            tcgetattr(&self.slave)? == self.before,
            "the terminal is set otherwise"
        );
        Ok(())
    }
}

fn letters(count: u16) -> NonZero<u16> {
    NonZero::new(count).expect("no window is empty")
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Ended already, or ended now: both are fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
