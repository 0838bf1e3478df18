//! `apifence top`: live rates of dropped and authorized packets, by source and range.
//!
//! `sample` reads the kernel, `model` turns samples into rates, `rows` sorts them, `keys` and
//! `view` are the screen, `once` prints without it. Only `sample` and this file have side effects.

mod keys;
mod meter;
mod model;
mod once;
mod rows;
mod sample;
mod view;

#[cfg(test)]
mod tests;

use std::{
    io::{self, IsTerminal as _},
    time::Duration,
};

use anyhow::{Context as _, Result};
use crossterm::event::{Event, EventStream};
use futures_util::StreamExt as _;
use ratatui::DefaultTerminal;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{MissedTickBehavior, interval, sleep},
};

#[cfg(test)]
pub(crate) use self::once::Summary as Printed;
use self::{
    keys::Controls,
    model::Model,
    once::Summary,
    sample::Sampler,
    view::{Theme, draw},
};
use crate::{cli::TopArgs, context::Context};

pub(crate) async fn run(context: &Context, args: &TopArgs) -> Result<u8> {
    let mut sampler = Sampler::open(context)?;
    let is_once = args.once || !context.global.output.is_text();
    if is_once || !io::stdout().is_terminal() {
        let mut model = Model::default();
        model.add(sampler.sample(false).await?);
        sleep(args.interval).await;
        model.add(sampler.sample(true).await?);
        context.global.output.write(&Summary::of(&model))?;
        return Ok(0);
    }
    let mut screen = Screen::open()?;
    live(&mut screen.terminal, &mut sampler, args.interval).await?;
    Ok(0)
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

/// Updates the screen until the operator quits.
async fn live(
    terminal: &mut DefaultTerminal,
    sampler: &mut Sampler<'_>,
    period: Duration,
) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("wait for signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("wait for signals")?;
    let mut hangup = signal(SignalKind::hangup()).context("wait for signals")?;
    let mut events = EventStream::new();
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let theme = Theme::from_environment();
    let (mut model, mut controls) = (Model::default(), Controls::default());
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = hangup.recv() => return Ok(()),
            _ = ticks.tick() => match sampler.sample(false).await {
                Ok(sample) => model.add(sample),
                Err(error) => model.fail(&error),
            },
            event = events.next() => match event {
                Some(Ok(Event::Key(key))) => {
                    if controls.press(key, &model) {
                        return Ok(());
                    }
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error).context("read terminal"),
                None => return Ok(()),
            },
        }
        terminal
            .draw(|frame| draw(frame, &model, &mut controls, theme))
            .context("write terminal")?;
    }
}
