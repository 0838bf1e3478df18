//! The commands of a console block, and the output that a page shows.

use std::sync::OnceLock;

use anyhow::{Context as _, Result, bail};
use regex::Regex;

use crate::page::Block;

/// A command.
#[derive(Debug)]
pub(crate) struct Step {
    /// As a shell takes it.
    pub(crate) command: String,
    /// The output that the page shows, if it shows any.
    pub(crate) shown: Option<Shown>,
    /// Its exit status: 0 unless a comment ends with `exit status N`.
    pub(crate) status: i32,
    /// It goes on until it is interrupted.
    pub(crate) endless: bool,
}

/// Output in a page.
#[derive(Debug)]
pub(crate) struct Shown {
    /// Index of its first line in the block.
    pub(crate) start: usize,
    /// Its lines.
    pub(crate) lines: Vec<String>,
}

impl Step {
    fn new(command: String, shown: Option<Shown>) -> Result<Self> {
        let comment = command
            .rsplit_once(" # ")
            .map_or("", |(_, comment)| comment);
        let status = match comment.rsplit_once("exit status ") {
            Some((_, number)) => number.parse().unwrap_or(0),
            None => 0,
        };
        let endless = comment.contains("until ctrl-c");
        Ok(Self {
            command,
            shown,
            status,
            endless,
        })
    }
}

/// The commands of `block`. A block with a prompt `$ ` shows their output; one without has only
/// commands.
pub(crate) fn steps(block: &Block) -> Result<Vec<Step>> {
    let shows_output = block.lines.iter().any(|line| line.starts_with("$ "));
    let mut steps = Vec::new();
    let mut index = 0;
    while let Some(line) = block.lines.get(index) {
        index += 1;
        let mut command = if !shows_output {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            line.clone()
        } else if let Some(command) = line.strip_prefix("$ ") {
            command.to_owned()
        } else {
            bail!("the line `{line}` is before the first `$ `");
        };
        let end = here_document(&command);
        let goes_on = |command: &str, last: &str| match &end {
            Some(end) => last != end,
            None => command.ends_with('\\'),
        };
        let mut last = String::new();
        while goes_on(&command, &last) {
            let more = block.lines.get(index);
            last = more
                .with_context(|| format!("`{command}` has no end"))?
                .clone();
            index += 1;
            command = format!("{command}\n{last}");
        }
        let start = index;
        while shows_output
            && block
                .lines
                .get(index)
                .is_some_and(|line| !line.starts_with("$ "))
        {
            index += 1;
        }
        let shown = shows_output.then(|| Shown {
            start,
            lines: block.lines[start..index].to_vec(),
        });
        steps.push(Step::new(command, shown)?);
    }
    if steps.is_empty() {
        bail!("a block without a command");
    }
    Ok(steps)
}

/// The word that ends the here-document of a command.
fn here_document(command: &str) -> Option<String> {
    let (_, rest) = command.split_once("<<")?;
    let word = rest.trim_start_matches('-').split_whitespace().next()?;
    Some(word.trim_matches(['\'', '"']).to_owned())
}

/// What differs from run to run, and what stands for it in a comparison.
const VARIES: [(&str, &str); 13] = [
    (r"\b20\d\d-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?Z?", "TIME"),
    (r"\b\d\d:\d\d:\d\d\b", "CLOCK"),
    (r"\bjust now\b|\bnow\b|\b\d+ (s|min|h|d) ago\b", "AGO"),
    (r"\bin \d+ (s|min|h|d)\b", "IN"),
    (r"\bin force for \d+ (s|min)( \d+ s)?", "IN FORCE FOR"),
    (r"\bpid \d+", "PID"),
    (r", \d+ (s|min|h|d)\b", ", FOR"),
    (r"\bgeneration \d+", "GENERATION"),
    (r"\bLinux \d\S+", "LINUX"),
    (r"(\d\.\d|\]):\d{4,5}\b", "$1:PORT"),
    (
        r"\b[\d,]+(\.\d+)? (packets?|bytes|kB|B|/s|dropped/s|passed/s)",
        "N $2",
    ),
    (
        r"(\.\d+|/\d\d)(  +\S+)(  +[\d,]+)  +(AGO|never)",
        "$1 $2 N AGO",
    ),
    (r"\s+", " "),
];

/// A line without what differs from run to run.
fn constant(line: &str) -> String {
    static PATTERNS: OnceLock<Vec<(Regex, &str)>> = OnceLock::new();
    let patterns = PATTERNS.get_or_init(|| {
        let compiled = VARIES.iter().map(|(pattern, instead)| {
            let pattern = Regex::new(pattern).expect("the list has valid patterns");
            (pattern, *instead)
        });
        compiled.collect()
    });
    let replace = |text: String, (pattern, instead): &(Regex, &str)| {
        pattern.replace_all(&text, *instead).into_owned()
    };
    let text = patterns.iter().fold(line.to_owned(), replace);
    text.trim().to_owned()
}

/// Whether a page shows `output`. A line `...` stands for any number of lines.
pub(crate) fn shows(shown: &[String], output: &[String]) -> bool {
    let (shown, output) = (constants(shown), constants(output));
    matches(&shown, &output)
}

fn constants(lines: &[String]) -> Vec<String> {
    let lines = lines.iter().map(|line| constant(line));
    let mut lines: Vec<_> = lines.collect();
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines
}

fn matches(shown: &[String], output: &[String]) -> bool {
    match (shown.split_first(), output.split_first()) {
        (None, None) => true,
        (Some((first, rest)), _) if first == "..." => {
            (0..=output.len()).any(|skipped| matches(rest, &output[skipped..]))
        }
        (Some((first, rest)), Some((line, more))) => first == line && matches(rest, more),
        _ => false,
    }
}

#[test]
fn blocks_are_split_into_commands_and_output() -> Result<()> {
    let lines = [
        "$ one \\",
        "two",
        "said",
        "$ three # exit status 1",
        "",
        "$ tail -f # until ctrl-c",
    ];
    let block = |lines: &[&str]| Block {
        start: 0,
        lines: lines.iter().map(|&line| line.to_owned()).collect(),
        indent: String::new(),
        not_run: None,
        node: None,
    };
    let found = steps(&block(&lines))?;
    let commands: Vec<&str> = found.iter().map(|step| &*step.command).collect();
    assert_eq!(commands[..1], ["one \\\ntwo"]);
    assert_eq!(
        found.iter().map(|step| step.status).collect::<Vec<_>>(),
        [0, 1, 0]
    );
    assert!(found[2].endless);
    let found = steps(&block(&[
        "# a comment",
        "cat > x <<'END'",
        "a",
        "END",
        "two",
    ]))?;
    assert_eq!(found[0].command, "cat > x <<'END'\na\nEND");
    assert_eq!(found.len(), 2);
    let same = ["changed 2 min ago", "...", "end"].map(str::to_owned);
    let other = ["changed 5 s ago", "any", "thing", "end"].map(str::to_owned);
    assert!(shows(&same, &other) && !shows(&other, &same));
    Ok(())
}
