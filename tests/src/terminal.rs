//! A program in a terminal of its own, and the content of its screen.

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    num::NonZero,
    os::{
        fd::AsFd as _,
        unix::{fs::OpenOptionsExt as _, net::UnixStream},
    },
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::Instant,
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    fcntl::OFlag,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    pty::{grantpt, posix_openpt, ptsname_r, unlockpt},
    sys::{
        signal::{Signal, kill},
        termios::{Termios, tcgetattr},
    },
    unistd::Pid,
};
use vt100::{Parser, Screen};

use crate::{
    cli::Apifence,
    netns::Namespace,
    wait::{PATIENCE, until_ended},
};

/// `apifence` in a terminal. Killed when dropped.
pub struct Terminal {
    child: Child,
    master: File,
    /// Keeps the terminal open after the program has ended.
    slave: File,
    before: Termios,
    shared: Arc<(Mutex<Parser>, Condvar)>,
    /// Once this is closed, no process reads the program's output.
    reading: UnixStream,
}

impl Terminal {
    /// Starts it in a terminal of 24 lines and 80 columns.
    pub fn start(
        filter: &Apifence,
        namespace: &Namespace,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<Self> {
        Self::open(namespace, (24, 80), |by| {
            let mut command = filter.command_by(by, arguments);
            command.envs(environment.iter().copied());
            command
        })
    }

    /// Starts any program in a terminal of this many lines and columns, the controlling terminal of
    /// a new session. `finish` adds it, and its words, to the command that makes the session.
    pub fn open(
        namespace: &Namespace,
        (lines, columns): (u16, u16),
        finish: impl FnOnce(Command) -> Command,
    ) -> Result<Self> {
        // A program that another thread starts meanwhile must not inherit it, because it would keep
        // the terminal open.
        let pty = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC)?;
        grantpt(&pty)?;
        unlockpt(&pty)?;
        let slave = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(OFlag::O_NOCTTY.bits())
            .open(ptsname_r(&pty)?)?;
        let master = File::from(pty.as_fd().try_clone_to_owned()?);
        drop(pty);
        set_size(&master, lines, columns)?;
        let before = tcgetattr(&slave)?;
        let mut by = Command::new("setpriv");
        by.args(["--pdeathsig", "KILL", "setsid", "--ctty"]);
        // What started the tests may ignore signals, as nohup(1) does, and programs inherit that.
        by.args(["env", "--default-signal"]);
        by.env("TERM", "xterm-256color");
        // What chooses colours. In CI also a terminal without them has some.
        for name in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "CI"] {
            by.env_remove(name);
        }
        let mut command = finish(by);
        command
            .stdin(Stdio::from(slave.try_clone()?))
            .stdout(Stdio::from(slave.try_clone()?))
            .stderr(Stdio::from(slave.try_clone()?));
        let child = namespace.spawn(&mut command)?;
        let shared = Arc::new((
            Mutex::new(Parser::new(letters(lines), letters(columns), 0)),
            Condvar::new(),
        ));
        let (copy, (reading, end)) = (shared.clone(), UnixStream::pair()?);
        let mut reader = master.try_clone()?;
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            loop {
                let mut wait = [
                    PollFd::new(reader.as_fd(), PollFlags::POLLIN),
                    PollFd::new(end.as_fd(), PollFlags::POLLIN),
                ];
                let ended =
                    poll(&mut wait, PollTimeout::NONE).is_err() || wait[1].any() != Some(false);
                if ended {
                    return;
                }
                // The end of a terminal is an error.
                let Ok(count @ 1..) = reader.read(&mut bytes) else {
                    return;
                };
                let (parser, news) = &*copy;
                let mut parser = parser.lock().expect("nobody panics with it");
                parser.process(&bytes[..count]);
                news.notify_all();
            }
        });
        Ok(Self {
            child,
            master,
            slave,
            before,
            shared,
            reading,
        })
    }

    /// Waits until `wanted` accepts the screen; fails with the present one.
    pub fn until(&self, what: &str, wanted: impl Fn(&Screen) -> bool) -> Result<()> {
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
    pub fn shows(&self, words: &[&str]) -> Result<()> {
        self.until(&format!("{words:?}"), |screen| {
            let text = screen.contents();
            words.iter().all(|word| text.contains(word))
        })
    }

    /// The text of the present screen.
    pub fn contents(&self) -> String {
        self.look(Screen::contents)
    }

    /// Looks at the present screen.
    pub fn look<T>(&self, look: impl FnOnce(&Screen) -> T) -> T {
        let parser = self.shared.0.lock().expect("nobody panics with it");
        look(parser.screen())
    }

    /// Sends keys.
    pub fn press(&mut self, keys: &str) -> Result<()> {
        Ok(self.master.write_all(keys.as_bytes())?)
    }

    /// Changes the size of the window; the kernel informs the program.
    pub fn resize(&self, lines: u16, columns: u16) -> Result<()> {
        let mut parser = self.shared.0.lock().expect("nobody panics with it");
        parser
            .screen_mut()
            .set_size(letters(lines), letters(columns));
        set_size(&self.master, lines, columns)
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(self.pid(), signal)?)
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a pid is an i32"))
    }

    /// Waits for its end; returns its exit code, `None` if a signal ended it.
    pub fn ended(&mut self) -> Result<Option<i32>> {
        Ok(self.end()?.code())
    }

    /// Closes the other end of the terminal, as when a connection breaks: its programs get
    /// `SIGHUP`. Waits for the end of this one.
    pub fn dies(&mut self) -> Result<()> {
        // The thread that reads has the other copy.
        self.reading.shutdown(std::net::Shutdown::Both)?;
        self.master = File::open("/dev/null")?;
        self.end()?;
        Ok(())
    }

    fn end(&mut self) -> Result<ExitStatus> {
        until_ended(&mut self.child).with_context(|| format!("with:\n{}", self.contents()))
    }

    /// Waits for its end, and requires exit code 0 and a restored terminal.
    pub fn ended_well(mut self) -> Result<()> {
        let status = self.end()?;
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

fn set_size(master: &File, lines: u16, columns: u16) -> Result<()> {
    let size = rustix::termios::Winsize {
        ws_row: lines,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    Ok(rustix::termios::tcsetwinsize(master, size)?)
}

fn letters(count: u16) -> NonZero<u16> {
    NonZero::new(count).expect("no window is empty")
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Whether it has ended before does not matter.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
