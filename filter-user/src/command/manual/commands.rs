//! The pages of the commands, section 1.

use std::collections::BTreeMap;

use clap::{Arg, ArgAction, Command};

use super::page::{Page, bold, italic, plain};
use crate::{
    cli::{GROUPS, examples_of},
    config::{
        DEFAULT_BPFFS, DEFAULT_CONFIG, DEFAULT_RANGES_FILE, DEFAULT_RUNTIME_DIR, DEFAULT_STATE_DIR,
    },
};

/// Variables that are not of an option: the commands that read them (all, if it is empty), and what
/// they mean.
const VARIABLES: [(&str, &str, &str); 7] = [
    (
        "APIFENCE_RUNTIME_DIR",
        "",
        "Directory where `run` tells other programs what is in force.",
    ),
    (
        "NO_COLOR",
        "",
        "Use no colours, unless `--color` asks for them.",
    ),
    (
        "CLICOLOR_FORCE",
        "",
        "Use colours even if stdout is not a terminal.",
    ),
    (
        "SSH_CONNECTION",
        "",
        "The SSH session that `me` stands for. A change that would cut its address is refused.",
    ),
    (
        "SUDO_EDITOR",
        "ranges edit",
        "The editor; the first of the three that is set.",
    ),
    ("VISUAL", "ranges edit", "As above."),
    ("EDITOR", "ranges edit", "As above."),
];

/// The pages of `program` and its commands, each with the name of its file.
pub(super) fn pages(mut program: Command) -> Vec<(String, String)> {
    program.build();
    let mut pages = Vec::new();
    add(&mut pages, &program, &program, "");
    pages
}

fn add(pages: &mut Vec<(String, String)>, program: &Command, command: &Command, path: &str) {
    let name = page_name(path);
    pages.push((format!("{name}.1"), page(program, command, path)));
    for inner in visible(command) {
        let path = format!("{path} {}", inner.get_name());
        add(pages, program, inner, path.trim_start());
    }
}

/// The commands that have a page.
pub(super) fn visible(command: &Command) -> impl Iterator<Item = &Command> {
    let all = command.get_subcommands();
    all.filter(|inner| !inner.is_hide_set() && inner.get_name() != "help")
}

fn page_name(path: &str) -> String {
    format!("apifence {path}").trim_end().replace(' ', "-")
}

/// The options of `command` itself, and the options that every command has.
fn options(command: &Command) -> (Vec<&Arg>, Vec<&Arg>) {
    let all = command
        .get_arguments()
        .filter(|option| !option.is_positional());
    all.partition(|option| option.get_help_heading().is_none())
}

fn page(program: &Command, command: &Command, path: &str) -> String {
    let about = text_of(command.get_about());
    let mut page = Page::new(&page_name(path), 1, &about);
    let (own, common) = options(command);
    page.section("SYNOPSIS");
    page.line(&synopsis(command, path, &own));
    page.section("DESCRIPTION");
    page.paragraphs(&format!("{about}."));
    let long = text_of(command.get_long_about());
    if let Some((_, rest)) = long.split_once("\n\n") {
        page.paragraphs(rest);
    }
    list_commands(&mut page, command, path);
    page.section("OPTIONS");
    for argument in command.get_positionals() {
        page.entry(&italic(&value_name(argument)), &texts(argument));
    }
    own.iter().for_each(|option| describe(&mut page, option));
    if !path.is_empty() {
        page.part("Global options");
    }
    common.iter().for_each(|option| describe(&mut page, option));
    let mut examples = examples_of(path).peekable();
    if examples.peek().is_some() {
        page.section("EXAMPLES");
        examples.for_each(|one| page.example(&format!("{}:", one.text), one.line));
    }
    page.section("ENVIRONMENT");
    for (name, text) in environment(command, path) {
        page.entry(&bold(&name), &[text]);
    }
    add_files(&mut page);
    add_exit_status(&mut page, path);
    page.section("SEE ALSO");
    page.line(&see_also(program, command, path));
    page.finish()
}

fn text_of(text: Option<&clap::builder::StyledStr>) -> String {
    text.map(ToString::to_string).unwrap_or_default()
}

fn value_name(argument: &Arg) -> String {
    let name = argument.get_value_names().and_then(<[_]>::first);
    name.map_or_else(
        || argument.get_id().to_string().to_uppercase(),
        ToString::to_string,
    )
}

/// Whether an argument can be given several times, or takes several values.
fn is_repeated(argument: &Arg) -> bool {
    let several = argument
        .get_num_args()
        .is_some_and(|count| count.max_values() > 1);
    several || argument.is_positional() && matches!(argument.get_action(), ArgAction::Append)
}

fn synopsis(command: &Command, path: &str, own: &[&Arg]) -> String {
    let mut parts = vec![bold(format!("apifence {path}").trim_end())];
    for option in own {
        parts.push(format!("[{}]", flag(option, false)));
    }
    parts.push(format!("[{}]", italic("global options")));
    for argument in command.get_positionals() {
        let dots = if is_repeated(argument) { "..." } else { "" };
        let name = italic(&value_name(argument));
        parts.push(match argument.is_required_set() {
            true => format!("{name}{dots}"),
            false => format!("[{name}{dots}]"),
        });
    }
    if command.has_subcommands() {
        parts.push(italic("command"));
    }
    parts.join(" ")
}

/// A flag with the name of its value.
fn flag(option: &Arg, with_short: bool) -> String {
    let short = option.get_short().filter(|_| with_short);
    let short = short.map(|letter| format!("{}, ", bold(&format!("-{letter}"))));
    let long = bold(&format!("--{}", option.get_long().unwrap_or_default()));
    let value = option.get_action().takes_values();
    let value = value.then(|| format!(" {}", italic(&value_name(option))));
    format!(
        "{}{long}{}",
        short.unwrap_or_default(),
        value.unwrap_or_default()
    )
}

fn describe(page: &mut Page, option: &Arg) {
    page.entry(&flag(option, true), &texts(option));
}

/// What is to be said of an argument: its help, values, default and variable.
fn texts(argument: &Arg) -> Vec<String> {
    let help = text_of(argument.get_long_help().or_else(|| argument.get_help()));
    // Of the help, the first paragraph is a title, and the others are sentences.
    let help = match help.split_once("\n\n") {
        Some((first, rest)) => format!("{first}.\n\n{rest}"),
        None => format!("{help}."),
    };
    let mut texts = vec![help];
    let mut facts = Vec::new();
    if argument.get_action().takes_values() {
        let values = argument.get_possible_values();
        let (described, bare): (Vec<_>, Vec<_>) =
            values.iter().partition(|value| value.get_help().is_some());
        for value in described {
            texts.push(format!(
                "`{}`: {}.",
                value.get_name(),
                text_of(value.get_help())
            ));
        }
        let bare: Vec<String> = bare
            .iter()
            .map(|value| format!("`{}`", value.get_name()))
            .collect();
        if !bare.is_empty() {
            facts.push(format!("Values: {}.", bare.join(", ")));
        }
        let defaults = argument.get_default_values().iter();
        let defaults: Vec<_> = defaults.map(|value| value.to_string_lossy()).collect();
        if !defaults.is_empty() {
            facts.push(format!("Default: `{}`.", defaults.join(",")));
        }
    }
    if let Some(name) = argument.get_env() {
        facts.push(format!("Environment: `{}`.", name.to_string_lossy()));
    }
    if !facts.is_empty() {
        texts.push(facts.join(" "));
    }
    texts
}

/// The commands of a command: the program's in their groups.
fn list_commands(page: &mut Page, command: &Command, path: &str) {
    let list = |page: &mut Page, inner: &Command| {
        let path = format!("{path} {}", inner.get_name());
        let head = format!("\\fB{}\\fR(1)", plain(&page_name(path.trim_start())));
        page.entry(&head, &[format!("{}.", text_of(inner.get_about()))]);
    };
    if !path.is_empty() {
        let mut inner = visible(command).peekable();
        if inner.peek().is_some() {
            page.section("COMMANDS");
        }
        inner.for_each(|inner| list(page, inner));
        return;
    }
    page.section("COMMANDS");
    for (heading, names) in GROUPS {
        page.part(heading);
        let found = names
            .iter()
            .filter_map(|name| command.find_subcommand(name));
        found.for_each(|inner| list(page, inner));
    }
}

/// The variables of a command, by name; of every command for the program.
fn environment(command: &Command, path: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for option in command.get_arguments() {
        if let Some(name) = option.get_env() {
            let help = text_of(option.get_help());
            let flag = option.get_long().unwrap_or_default();
            let text = format!("As `--{flag}`: {help}.");
            found.insert(name.to_string_lossy().into_owned(), text);
        }
    }
    for (name, only, text) in VARIABLES {
        if only.is_empty() || path.is_empty() || path == only {
            found.insert(name.to_owned(), text.to_owned());
        }
    }
    if path.is_empty() {
        for inner in visible(command) {
            for (name, text) in environment(inner, inner.get_name()) {
                found.entry(name).or_insert(text);
            }
        }
    }
    found
}

fn add_files(page: &mut Page) {
    page.section("FILES");
    let directory = format!("{DEFAULT_RANGES_FILE}.d");
    let state = format!("{DEFAULT_RUNTIME_DIR}/state.json");
    for (path, text) in [
        (DEFAULT_CONFIG, "Config file: see `apifence.toml`(5)."),
        (
            DEFAULT_RANGES_FILE,
            "The list `default`: see `apifence-ranges`(5).",
        ),
        (&directory, "Further lists, one file each."),
        (
            DEFAULT_STATE_DIR,
            "The policy last in force, and earlier lists.",
        ),
        (DEFAULT_BPFFS, "Pins of the filter."),
        (
            &state,
            "What is in force, for other programs; `run` writes it.",
        ),
    ] {
        page.entry(&italic(path), &[text.to_owned()]);
    }
}

fn add_exit_status(page: &mut Page, path: &str) {
    let no = match path {
        "check" => Some("An address is not allowed."),
        "status" => Some("With `--check`: an interface is not guarded as the files say."),
        "doctor" => Some("A check failed."),
        "init" => Some("You answered no."),
        "" => Some("No: see `check`, `doctor`, `init` and `status --check`."),
        _ => None,
    };
    page.section("EXIT STATUS");
    let rows = [
        ("0", Some("Done, or yes.")),
        ("1", no),
        (
            "2",
            Some("Usage or input error, or a change that needs `--force`. Nothing changed."),
        ),
        ("3", Some("The command failed.")),
    ];
    for (status, text) in rows {
        if let Some(text) = text {
            page.entry(&bold(status), &[text.to_owned()]);
        }
    }
}

/// The pages next to this one: its parent, its commands or the commands next to it.
fn see_also(program: &Command, command: &Command, path: &str) -> String {
    let mut names = Vec::new();
    let (parent, verb) = path.rsplit_once(' ').unwrap_or(("", path));
    if !path.is_empty() {
        names.push(page_name(parent));
    }
    let around = match command.has_subcommands() {
        true => Some((command, path)),
        false => parent
            .split(' ')
            .try_fold(program, |command, name| match name {
                "" => None,
                name => command.find_subcommand(name),
            })
            .map(|command| (command, parent)),
    };
    if let Some((command, path)) = around {
        for inner in visible(command).filter(|inner| inner.get_name() != verb) {
            names.push(page_name(
                format!("{path} {}", inner.get_name()).trim_start(),
            ));
        }
    }
    let mut links: Vec<String> = names
        .iter()
        .map(|name| format!("{}(1)", bold(name)))
        .collect();
    links.extend(["apifence.toml", "apifence-ranges"].map(|name| format!("{}(5)", bold(name))));
    links.join(",\n")
}
