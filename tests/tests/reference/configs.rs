//! The config files and lists on pages load, and do what the pages say.

use anyhow::{Context as _, Result, ensure};
use tests::{
    cli::Apifence,
    netns::Namespace,
    plant::{Plant, tree},
};

use super::{
    STAND_IN,
    page::{Block, Page},
};

/// What a page says of a source: `ADDRESS [at PORT]  allowed|dropped  words`.
struct Verdict<'a> {
    address: &'a str,
    port: Option<&'a str>,
    allowed: bool,
}

impl<'a> Verdict<'a> {
    fn read(line: &'a str) -> Result<Self> {
        let context = || format!("the verdict `{line}`");
        let (source, rest) = line.split_once("  ").with_context(context)?;
        let verdict = rest.split_whitespace().next();
        let allowed = match verdict {
            Some("allowed") => true,
            Some("dropped") => false,
            _ => anyhow::bail!("{}: `allowed` or `dropped`", context()),
        };
        let (address, port) = match source.split_once(" at ") {
            Some((address, port)) => (address, Some(port)),
            None => (source, None),
        };
        Ok(Self {
            address,
            port,
            allowed,
        })
    }
}

/// A config file of a page, and what comes with it before the next one.
#[derive(Default)]
struct Setup {
    config: String,
    ranges: String,
    /// Named lists, each with its text.
    lists: Vec<(String, String)>,
    verdicts: String,
}

/// The set-ups of a page, in order.
fn setups(blocks: Vec<Block>) -> Vec<Setup> {
    let mut setups: Vec<Setup> = Vec::new();
    for Block {
        language,
        marker,
        text,
        ..
    } in blocks
    {
        if language == "toml" {
            let config = text;
            setups.push(Setup {
                config,
                ..Setup::default()
            });
            continue;
        }
        let Some(setup) = setups.last_mut() else {
            continue;
        };
        match &*marker {
            "ranges" => setup.ranges = text,
            "check" => setup.verdicts = text,
            marker => {
                if let Some(name) = marker.strip_prefix("list ") {
                    setup.lists.push((name.to_owned(), text));
                }
            }
        }
    }
    setups
}

/// A node with the filter attached as a page says. `without` is a port to leave out.
fn attached(setup: &Setup, without: Option<&str>) -> Result<Plant> {
    let plant = Plant::new(STAND_IN)?;
    let filter = &plant.filter;
    let left_out = without.map(|port| format!("{port},"));
    let stays = |line: &&str| {
        let left_out = left_out.as_ref();
        left_out.is_none_or(|port| !line.trim_start().starts_with(&**port))
    };
    let config: Vec<&str> = setup.config.lines().filter(stays).collect();
    filter.write_config(config.join("\n"))?;
    filter.write_list(&setup.ranges)?;
    for (name, text) in &setup.lists {
        filter.write_list_of(name, text)?;
    }
    filter.ok(&["attach"])?;
    Ok(plant)
}

/// Attaches the filter as a page says, and asks for its verdicts.
fn try_setup(setup: &Setup) -> Result<usize> {
    let plant = attached(setup, None)?;
    let filter = &plant.filter;
    ensure!(filter.status("state")? == "enforcing");
    let drift = filter.status("drift")?;
    ensure!(drift.as_array().is_some_and(Vec::is_empty), "{drift}");
    let mut count = 0;
    for line in setup.verdicts.lines() {
        let verdict = Verdict::read(line)?;
        let port = verdict.port.map(|port| ["--port", port]);
        let port = port.as_ref().map_or(&[][..], |words| &words[..]);
        let words = [&["-o", "json", "check", verdict.address], port].concat();
        let ran = filter.run(&words)?;
        let said: serde_json::Value =
            serde_json::from_str(&ran.stdout).with_context(|| format!("{line}: {ran}"))?;
        let allowed = said["results"][0]["allowed"].as_bool();
        ensure!(allowed == Some(verdict.allowed), "{line}: {said:#}");
        count += 1;
    }
    filter.ok(&["detach"])?;
    Ok(count)
}

#[test]
fn the_config_of_each_topology_does_what_its_page_says() -> Result<()> {
    let mut count = 0;
    for page in Page::all("docs/topologies")? {
        for setup in setups(page.blocks()) {
            let context = || format!("{}: {}", page.path.display(), setup.config);
            ensure!(!setup.verdicts.is_empty(), "no verdicts: {}", context());
            count += try_setup(&setup).with_context(context)?;
        }
    }
    ensure!(count > 40, "only {count} verdicts");
    Ok(())
}

#[test]
fn every_config_file_of_a_page_can_be_read() -> Result<()> {
    let desk = Namespace::new("desk")?;
    let filter = Apifence::new(&desk)?;
    let mut count = 0;
    for page in Page::all("docs")? {
        for block in page.blocks() {
            let context = || format!("{}: {}", page.path.display(), block.text);
            if block.language == "toml" {
                filter.write_config(&block.text)?;
                let ran = filter.run(&["config"])?;
                ran.succeeded().with_context(context)?;
                count += 1;
            } else if block.marker == "ranges" || block.marker.starts_with("list ") {
                filter.write_config("")?;
                filter.write_list(&block.text)?;
                let ran = filter.run(&["ranges", "reload", "--dry-run"])?;
                ran.succeeded().with_context(context)?;
                count += 1;
            }
        }
    }
    ensure!(count > 20, "only {count} files");
    Ok(())
}

/// `<!-- doctor TREE, without PORT -->` before a block stands for the faults that `doctor` finds on
/// a node with these files, where the port is left out of the config file of the page.
#[test]
fn doctor_says_what_pages_show() -> Result<()> {
    let mut count = 0;
    for mut page in Page::all("docs/topologies")? {
        for number in 0..page.blocks().len() {
            let block = &page.blocks()[number];
            let Some(marker) = block.marker.strip_prefix("doctor ") else {
                continue;
            };
            let place = || format!("{}: {marker}", page.path.display());
            let (name, port) = marker.split_once(", without ").with_context(place)?;
            let setups = setups(page.blocks());
            let plant = attached(setups.first().with_context(place)?, Some(port))?;
            let ran = plant.filter.run(&["doctor", "--from-root", &tree(name)])?;
            plant.filter.ok(&["detach"])?;
            ensure!(ran.code == Some(1), "{}: {ran}", place());
            let mut is_fault = false;
            let lines = ran.stdout.lines().filter(|line| {
                is_fault = line.starts_with("FAIL") || is_fault && line.starts_with(' ');
                is_fault
            });
            let lines: Vec<&str> = lines.collect();
            page.require_block(block, &(lines.join("\n") + "\n"))?;
            count += 1;
        }
    }
    ensure!(count > 1, "only {count} quotes of `doctor`");
    Ok(())
}
