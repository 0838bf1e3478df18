//! Deaths of a command and of the machine.

use std::process::Command as Process;

use anyhow::{Context as _, Result, bail, ensure};

use super::{
    Play, fits,
    list::List,
    model::{Command, Verb},
    node::{Node, now},
    transcript,
    world::{Lapsed, World},
};

/// A writer that changes nothing itself, and recovers what it finds.
const WRITER: [&str; 5] = ["ranges", "set", "203.0.113.9", "--dry-run", "--force"];

const ATTACH: Command = Command {
    verb: Verb::Attach,
    dry_run: false,
    force: false,
    within: None,
};

impl Play<'_> {
    /// Kills a command at one of its system calls: the change is made completely or not at all.
    pub(super) fn kill(&mut self, command: &Command, calls: &str, call: usize) -> Result<()> {
        let words = self.words(command)?;
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut strace = Process::new("strace");
        strace.args(["-f", "-qq", "-o", "/dev/null", "-e"]);
        strace.args([&format!("trace={calls}"), "-e"]);
        strace.arg(format!("inject={calls}:signal=SIGKILL:when={call}"));
        let started = now();
        let ran = self.node.apifence.run_by(strace, &words)?;
        let ended = now();
        self.said.push(format!(
            "killed at call {call} of {calls}: {}",
            transcript(&words, &ran)
        ));
        if ran.code.is_some() {
            self.follow(command, &ran, started, ended)?;
            return self.node.agrees(&self.world, None);
        }
        if matches!(command.verb, Verb::Attach) {
            self.node.reopen()?;
        }
        let outcomes = self.outcomes(command, started, ended);
        let after = outcomes.iter().map(|outcome| &outcome.world);
        let worlds: Vec<&World> = [&self.world].into_iter().chain(after).collect();
        // Before another writer recovers, packets meet the old policy or the new one.
        let (from, verdicts, to) = (now(), self.node.verdicts()?, now());
        let meets = |world: &&World| {
            [from, to]
                .iter()
                .any(|time| Node::wanted(&world.policy, *time as i64) == verdicts)
        };
        ensure!(
            worlds.iter().any(meets),
            "packets meet a mixture: {verdicts:?}"
        );
        let candidates = || -> Result<Vec<World>> {
            let (text, history) = (self.node.text()?, self.node.history()?);
            let file = List::read(&text);
            // Before a trial the file is reset to the list in force, and its text goes into the
            // history.
            ensure!(
                worlds.iter().any(|world| world.file == file)
                    || file.means(&self.world.policy.list),
                "the file is neither:\n{text}"
            );
            let worlds = worlds.iter().map(|world| World {
                file: match command.within.is_some() && world.trial.is_none() {
                    true => file.clone(),
                    false => world.file.clone(),
                },
                history: history.clone(),
                lapsed: match self.world.lapsed {
                    Lapsed::No => Lapsed::No,
                    _ => Lapsed::Unknown,
                },
                ..(*world).clone()
            });
            Ok(worlds.collect())
        };
        if self.rng.u8(..3) == 0 && !List::read(&self.node.text()?).is_broken() {
            let candidates = candidates()?;
            self.count("cut off");
            return self.start(candidates);
        }
        let next = self.node.apifence.run(&WRITER)?;
        let waiting = next.code == Some(3);
        let mut candidates = candidates()?;
        self.said.push(transcript(&WRITER, &next));
        candidates.retain(|world| world.trial.is_some() == waiting);
        let before = self.world.policy.clone();
        self.settle_for(candidates)?;
        self.count(match self.world.policy == before {
            true => "killed before",
            false => "killed after",
        });
        Ok(())
    }

    /// Continues with the world of `worlds` that the node agrees with.
    fn settle_for(&mut self, worlds: Vec<World>) -> Result<()> {
        let mut errors = Vec::new();
        for world in worlds {
            match self.node.agrees(&world, None) {
                Ok(()) => {
                    self.world = world;
                    return Ok(());
                }
                Err(error) => errors.push(format!("{error:#}")),
            }
        }
        bail!("neither all nor nothing:\n{}", errors.join("\n-- or\n"))
    }

    /// Reboots the machine, and `attach` runs.
    pub(super) fn boot(&mut self) -> Result<()> {
        self.count("boots");
        self.start(vec![self.world.clone()])
    }

    /// Reboots a machine whose power was cut in one of `worlds`.
    fn start(&mut self, mut worlds: Vec<World>) -> Result<()> {
        self.node.apifence.boot()?;
        self.said.push("# a boot".to_owned());
        let text = self.node.text()?;
        worlds.iter_mut().for_each(World::boot);
        worlds.retain(|world| world.file.text() == text);
        for force in [false, true] {
            let command = Command { force, ..ATTACH };
            let words = self.words(&command)?;
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let from = now();
            let ran = self.node.apifence.run(&words)?;
            let to = now();
            self.said.push(transcript(&words, &ran));
            let answer = super::answered(&ran)?;
            let (mut fitting, mut last) = (Vec::new(), None);
            for world in worlds {
                for second in from as i64..=to as i64 {
                    for outcome in world.outcomes(&command, second) {
                        match fits(&outcome, &ran, answer.as_ref(), &text) {
                            Ok(()) => fitting.push(outcome.world),
                            Err(error) => last = Some(error),
                        }
                    }
                }
            }
            worlds = fitting;
            let first = worlds.first().context("no world fits");
            let Ok(first) = first else {
                return Err(last.context("no world at all")?);
            };
            if !first.booted {
                self.node.reopen()?;
                return self.settle_for(worlds);
            }
        }
        bail!("the filter was not attached")
    }
}
