//! The live view: the terminal, the keys and the clock.

use std::{future::pending, io, thread, time::Duration};

use anyhow::{Context as _, Result};
use crossterm::{
    clipboard::CopyToClipboard,
    event::{self, Event},
    execute,
};
use ratatui::DefaultTerminal;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc::{Receiver, channel},
    time::{Interval, MissedTickBehavior, interval},
};

use super::{
    add::{Ended, Work},
    controls::{Action, Controls, Popup},
    model::Model,
    sample::Sampler,
    view::{Theme, draw},
};
use crate::{
    context::Context,
    ui::{held::Hold, output::eprint},
};

/// Shows the view until the operator quits. After it come the lines that were not shown: the report
/// of a change that ended with it, and the commands that were copied.
pub(super) async fn run(context: &Context, sampler: Sampler<'_>, period: Duration) -> Result<()> {
    let mut screen = Screen::open()?;
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut live = Live {
        context,
        sampler,
        hold: Hold::begin(),
        ticks,
        model: Model::default(),
        controls: Controls::default(),
        work: None,
        last_lines: Vec::new(),
    };
    let shown = live.show(&mut screen.terminal).await;
    // A change that is under way is made in full, whatever ended the view.
    if let Some(mut work) = live.work.take() {
        live.last_lines.extend(work.end(&live.hold).await.report);
    }
    live.last_lines.extend(live.hold.take());
    let Live {
        hold, last_lines, ..
    } = live;
    drop((screen, hold));
    last_lines.iter().for_each(eprint);
    shown
}

/// The terminal in raw mode, until dropped.
struct Screen {
    terminal: DefaultTerminal,
}

impl Screen {
    /// Takes the terminal. A panic restores it before it prints.
    fn open() -> Result<Self> {
        let terminal = ratatui::try_init().context("take terminal")?;
        Ok(Self { terminal })
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // If the terminal is gone, the failure cannot be shown.
        let _ = self.terminal.show_cursor();
        let _ = ratatui::try_restore();
    }
}

struct Live<'a> {
    context: &'a Context,
    sampler: Sampler<'a>,
    hold: Hold,
    ticks: Interval,
    model: Model,
    controls: Controls,
    /// The change that is under way.
    work: Option<Work>,
    /// What is printed after the view.
    last_lines: Vec<String>,
}

impl Live<'_> {
    /// Updates the screen until the operator quits.
    async fn show(&mut self, terminal: &mut DefaultTerminal) -> Result<()> {
        let mut signals = Signals::new()?;
        let mut events = events()?;
        let theme = Theme::chosen();
        loop {
            tokio::select! {
                () = signals.any() => return Ok(()),
                _ = self.ticks.tick() => self.sample().await,
                ended = ended(&mut self.work, &self.hold) => self.finish(ended),
                event = events.recv() => match event {
                    Some(Ok(event)) => {
                        if self.is_quit_by(&event) {
                            return Ok(());
                        }
                    }
                    Some(Err(error)) => return Err(error).context("read terminal"),
                    None => return Ok(()),
                },
            }
            terminal
                .draw(|frame| draw(frame, &self.model, &mut self.controls, theme))
                .context("write terminal")?;
        }
    }

    async fn sample(&mut self) {
        match self.sampler.sample(false).await {
            Ok(sample) => self.model.add(sample),
            Err(error) => self.model.fail(&error),
        }
    }

    /// Handles an event; returns whether to quit.
    fn is_quit_by(&mut self, event: &Event) -> bool {
        let Event::Key(key) = event else {
            return false;
        };
        match self.controls.press(*key, &self.model) {
            Action::Quit => return true,
            Action::None => {}
            Action::Copy(command) => {
                // A terminal without a clipboard ignores it.
                let copy = CopyToClipboard::to_clipboard_from(&command);
                let _ = execute!(io::stdout(), copy);
                self.last_lines.retain(|line| *line != command);
                self.last_lines.push(command);
            }
            Action::Add { request, dry_run } => {
                self.last_lines.extend(self.hold.take());
                self.work = Some(Work::start(self.context, request, dry_run));
            }
        }
        false
    }

    /// Shows how a change ended, and what the filter does now.
    fn finish(&mut self, ended: Ended) {
        self.work = None;
        self.ticks.reset_immediately();
        match &mut self.controls.popup {
            Some(Popup::Form(form)) => form.finish(ended.is_done, ended.report),
            _ => self.last_lines.extend(ended.report),
        }
    }
}

/// The end of the change; never without one.
async fn ended(work: &mut Option<Work>, hold: &Hold) -> Ended {
    match work {
        Some(work) => work.end(hold).await,
        None => pending().await,
    }
}

/// The signals that end the view.
struct Signals([Signal; 3]);

impl Signals {
    fn new() -> Result<Self> {
        let wait = |kind| signal(kind).context("wait for signals");
        Ok(Self([
            wait(SignalKind::terminate())?,
            wait(SignalKind::interrupt())?,
            wait(SignalKind::hangup())?,
        ]))
    }

    async fn any(&mut self) {
        let [terminate, interrupt, hangup] = &mut self.0;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

/// The events of the terminal, from a thread of its own: where the terminal has gone, the library
/// tries to read it for ever, and no signal would reach the view.
fn events() -> Result<Receiver<io::Result<Event>>> {
    let (events, taken) = channel(64);
    thread::Builder::new()
        .name("keys".to_owned())
        .spawn(move || {
            loop {
                let event = event::read();
                let is_last = event.is_err();
                if events.blocking_send(event).is_err() || is_last {
                    return;
                }
            }
        })
        .context("start thread")?;
    Ok(taken)
}
