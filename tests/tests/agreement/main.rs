//! Commands, the file and packets agree after every operation in any order: random changes,
//! expiries, trials, edits by hand, boots and deaths. They are compared with a model that shares
//! only the manual with the product.
//!
//! `AGREEMENT_STEPS` makes the run long: scripts of 60 steps, each on a node of its own, with seeds
//! from the clock. `AGREEMENT_SEED` sets the first seed. A failure shows its seed and its steps.
//! Times are the clock's, so a seed repeats the steps, but not the delays of a busy machine.

mod death;
mod list;
mod model;
mod node;
mod steps;
mod world;

use std::{
    collections::BTreeMap,
    fs, thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, ensure};
use fastrand::Rng;
use ipnet::IpNet;
use list::rfc3339;
use model::{Answer, Command, Expires, Verb, net};
use node::{Node, now};
use serde_json::Value;
use steps::Step;
use tests::{
    cli::Ran,
    site::{INTERFACE, Site},
    wait::until,
};
use world::{Outcome, World};

/// Number of steps on one node.
const STEPS: usize = 40;
const LONG: usize = 60;

#[test]
fn commands_file_and_packets_agree_for_one_seed() -> Result<()> {
    script(8005, STEPS)
}

#[test]
fn commands_file_and_packets_agree_for_another_seed() -> Result<()> {
    script(7007, STEPS)
}

#[test]
fn commands_file_and_packets_agree_for_a_chosen_seed() -> Result<()> {
    let number = |name| {
        std::env::var(name)
            .ok()
            .map(|text| text.parse::<u64>().expect("it is a number"))
    };
    let clock = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as u64;
    let seed = number("AGREEMENT_SEED");
    match number("AGREEMENT_STEPS") {
        // Without these variables every run is the same.
        None => script(
            seed.unwrap_or(9009),
            if seed.is_some() { LONG } else { STEPS },
        ),
        Some(steps) => {
            let mut failed = 0;
            for more in 0..steps.div_ceil(LONG as u64) {
                let seed = seed.unwrap_or(clock).wrapping_add(more);
                // A thread has one place for pins.
                let played = thread::spawn(move || script(seed, LONG));
                if let Err(error) = played.join().expect("a script does not panic") {
                    println!("{error:#}\n");
                    failed += 1;
                }
            }
            ensure!(failed == 0, "{failed} scripts failed");
            Ok(())
        }
    }
}

/// Runs that many steps on a node of their own.
fn script(seed: u64, steps: usize) -> Result<()> {
    let site = Site::new()?;
    let world = steps::first_world();
    let mut play = Play {
        node: Node::new(&site, &world)?,
        rng: Rng::with_seed(seed),
        said: Vec::new(),
        done: BTreeMap::new(),
        world,
    };
    play.node.agrees(&play.world, None)?;
    for number in 1..=steps {
        play.step().map_err(|error| {
            let said = play.said.join("\n");
            anyhow::anyhow!("seed {seed} (AGREEMENT_SEED), step {number}:\n{said}\n{error:#}")
        })?;
    }
    println!("seed {seed}, {steps} steps: {:?}", play.done);
    Ok(())
}

struct Play<'a> {
    node: Node<'a>,
    rng: Rng,
    world: World,
    said: Vec<String>,
    done: BTreeMap<&'static str, usize>,
}

impl Play<'_> {
    fn count(&mut self, what: &'static str) {
        *self.done.entry(what).or_default() += 1;
    }

    fn step(&mut self) -> Result<()> {
        self.pass_instants();
        let step = steps::next(&mut self.rng, &self.world, now() as i64);
        match step {
            Step::Run(command) => self.run(&command)?,
            Step::Lapse(command) => self.lapse(&command)?,
            Step::Kill(command, calls, call) => return self.kill(&command, calls, call),
            Step::Edit(list) => {
                self.said
                    .push(format!("cat > ranges <<.\n{}.", list.text()));
                fs::write(self.node.apifence.ranges_file(), list.text())?;
                self.world.file = list;
            }
            Step::Wait => {
                let started = now();
                let soon = self.world.expiries().into_iter().map(|time| time as f64);
                let next = soon.filter(|time| *time > started).fold(f64::MAX, f64::min);
                self.said.push("# an entry expires".to_owned());
                self.count("expired");
                wait_for((next + 1.1).min(started + 10.0));
            }
            Step::Boot => self.boot()?,
        }
        let real = self.rng.u8(..3) == 0;
        let source = node::REAL_SOURCES[self.rng.usize(..node::REAL_SOURCES.len())];
        self.node.agrees(&self.world, real.then_some(source))?;
        if real {
            self.count("real packets");
        }
        Ok(())
    }

    /// If an entry expires while a command runs, the command may meet it or not.
    fn pass_instants(&self) {
        loop {
            let started = now();
            let soon = self.world.expiries().into_iter().map(|time| time as f64);
            let Some(next) = soon
                .filter(|time| (started - 0.05..started + 1.0).contains(time))
                .reduce(f64::min)
            else {
                return;
            };
            wait_for(next + 0.06);
        }
    }

    /// Runs it, and continues with the model.
    fn run(&mut self, command: &Command) -> Result<()> {
        let words = self.words(command)?;
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let started = now();
        let ran = self.node.apifence.run(&words)?;
        self.said.push(transcript(&words, &ran));
        self.follow(command, &ran, started, now())
    }

    /// The command did one of the things that it could do between `from` and `to`.
    fn follow(&mut self, command: &Command, ran: &Ran, from: f64, to: f64) -> Result<()> {
        let text = self.node.text()?;
        let answer = answered(ran)?;
        let mut last = None;
        for outcome in self.outcomes(command, from, to) {
            match fits(&outcome, ran, answer.as_ref(), &text) {
                Ok(()) => {
                    self.count(match (outcome.code, &outcome.answer) {
                        (0, Some(answer)) if answer.dry_run => "shown",
                        (0, Some(answer)) if answer.on_trial => "on trial",
                        (0, Some(_)) => "made",
                        (0, None) => "done",
                        (_, Some(_)) => "refused",
                        (_, None) => "failed",
                    });
                    self.world = outcome.world;
                    if matches!(command.verb, Verb::Attach) && outcome.code == 0 {
                        self.node.reopen()?;
                    }
                    return Ok(());
                }
                Err(error) => last = Some(error),
            }
        }
        Err(last.context("a command has an outcome")?)
    }

    fn outcomes(&self, command: &Command, from: f64, to: f64) -> Vec<Outcome> {
        let mut outcomes: Vec<Outcome> = Vec::new();
        for second in from as i64..=to as i64 {
            for outcome in self.world.outcomes(command, second) {
                if !outcomes.contains(&outcome) {
                    outcomes.push(outcome);
                }
            }
        }
        outcomes
    }

    fn words(&self, command: &Command) -> Result<Vec<String>> {
        let mut words = vec!["-o".to_owned(), "json".to_owned()];
        let mut say = |text: &str| words.extend(text.split(' ').map(str::to_owned));
        match &command.verb {
            Verb::Add {
                ranges,
                expires,
                comment,
            } => {
                say(&format!("ranges add {}", joined(ranges)));
                match expires {
                    Expires::AsItWas => {}
                    Expires::Never => say("--expires never"),
                    Expires::At(time) => say(&format!("--expires {}", rfc3339(*time))),
                    Expires::In(seconds) => say(&format!("--expires {seconds}s")),
                }
                if let Some(comment) = comment {
                    words.extend(["--comment", comment].map(str::to_owned));
                }
            }
            Verb::Remove(ranges) => say(&format!("ranges remove {}", joined(ranges))),
            Verb::Set(ranges) if ranges.is_empty() => say("ranges set 0.0.0.0/32"),
            Verb::Set(ranges) => say(&format!("ranges set {}", joined(ranges))),
            Verb::SetFile(list) => {
                let path = self.node.apifence.ranges_file().with_file_name("wanted");
                fs::write(&path, list.text())?;
                say(&format!("ranges set --from-file {}", path.display()));
            }
            Verb::Prune => say("ranges prune"),
            Verb::Clear => say("ranges clear"),
            Verb::Reload => say("ranges reload"),
            Verb::Attach => say(&format!("attach --interface {INTERFACE}")),
            Verb::Rollback(None) => say("ranges rollback"),
            Verb::Rollback(Some(number)) => say(&format!("ranges rollback {number}")),
            Verb::Mode(mode) => say(node::verb(*mode)),
            Verb::Confirm => say("confirm"),
        }
        if command.dry_run {
            words.push("--dry-run".to_owned());
        }
        if command.force {
            words.push("--force".to_owned());
        }
        if let Some(seconds) = command.within {
            words.extend(["--confirm-within".to_owned(), format!("{seconds}s")]);
        }
        Ok(words)
    }

    /// On trial, without a confirmation.
    fn lapse(&mut self, command: &Command) -> Result<()> {
        let started = now();
        self.run(command)?;
        if self.world.trial.is_none() {
            return Ok(());
        }
        // Its time counts from the activation.
        let verdicts = self.node.verdicts()?;
        if now() < started + 1.9 {
            let wanted = [started, now()].map(|time| Node::wanted(&self.world.policy, time as i64));
            ensure!(
                wanted.contains(&verdicts),
                "on trial packets meet {verdicts:?}, and should meet {wanted:?}"
            );
        }
        if self.rng.bool() {
            self.said
                .push("# edited during the trial: a comment line".to_owned());
            let mut list = self.world.file.clone();
            list.0
                .push(list::Line::Text("# during the trial".to_owned()));
            fs::write(self.node.apifence.ranges_file(), list.text())?;
            self.world.file = list;
        }
        until("the trial is over", || Ok(!self.node.on_trial()?))?;
        self.said.push("# it lapses".to_owned());
        self.world.lapse();
        self.count("lapsed");
        Ok(())
    }
}

fn wait_for(time: f64) {
    // Sleeps until a point in time, because there is no condition to poll.
    thread::sleep(Duration::from_secs_f64((time - now()).max(0.0)));
}

fn joined(ranges: &[IpNet]) -> String {
    let ranges: Vec<String> = ranges.iter().map(IpNet::to_string).collect();
    ranges.join(",")
}

fn transcript(words: &[&str], ran: &Ran) -> String {
    let (code, said) = (ran.code, ran.stderr.trim_end().replace('\n', "\n    "));
    format!("$ apifence {}   [{code:?}]\n    {said}", words.join(" "))
}

/// The JSON answer, if the command reports a change.
fn answered(ran: &Ran) -> Result<Option<Answer>> {
    if ran.stdout.is_empty() {
        return Ok(None);
    }
    let value: Value = serde_json::from_str(&ran.stdout).with_context(|| format!("{ran}"))?;
    if value["added"].is_null() {
        return Ok(None);
    }
    let ranges = |key: &str| -> Vec<IpNet> {
        let all = value[key].as_array().cloned().unwrap_or_default();
        all.iter().filter_map(Value::as_str).map(net).collect()
    };
    Ok(Some(Answer {
        added: ranges("added"),
        removed: ranges("removed"),
        changed: ranges("changed"),
        edited: ranges("edited"),
        unchanged: value["unchanged"].as_u64().context("no `unchanged`")? as usize,
        cut: value["cut"].as_array().map_or(0, Vec::len),
        kept: value["kept"].as_u64().context("no `kept`")? as usize,
        refused: value["refused"].is_string(),
        dry_run: value["dry_run"] == true,
        on_trial: value["confirm_until"].is_string(),
    }))
}

/// Fails unless the command did what `outcome` says.
fn fits(outcome: &Outcome, ran: &Ran, answer: Option<&Answer>, text: &str) -> Result<()> {
    ensure!(
        ran.code == Some(outcome.code),
        "exit status {:?}, and should be {}; {ran}",
        ran.code,
        outcome.code
    );
    let file = outcome.world.file.text();
    ensure!(
        file == text,
        "the file holds\n{text}\nand should hold\n{file}\n{ran}"
    );
    if let Some(want) = &outcome.answer {
        ensure!(
            answer == Some(want),
            "the answer is {answer:#?}\nand should be {want:#?}\n{ran}"
        );
    }
    if ran.code == Some(2) {
        let first = ran
            .stderr
            .lines()
            .find(|line| line.starts_with("error: ") || line.starts_with("refused: "));
        let is_refused = first.is_some_and(|line| line.starts_with("refused: "));
        let refused = outcome.answer.as_ref().is_some_and(|answer| answer.refused);
        ensure!(is_refused == refused, "refused: {refused}; {ran}");
    }
    Ok(())
}
