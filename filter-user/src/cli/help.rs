//! The description of the command line: groups of commands, common options, examples.

use std::fmt::Write as _;

use clap::{Arg, ArgAction};

use super::examples::examples_of;

/// The commands in groups, as the help of the program shows them.
pub(crate) const GROUPS: [(&str, &[&str]); 4] = [
    ("Start", &["init", "status", "ranges", "confirm"]),
    ("Watch", &["top", "stats", "events", "check", "suggest"]),
    (
        "Operate",
        &[
            "run", "attach", "detach", "enforce", "monitor", "config", "doctor",
        ],
    ),
    ("More", &["explain", "completions", "man", "version"]),
];

/// The heading of the options that every command has.
const GLOBAL: &str = "Global options";

/// Gives `program` the options that every command has, under a heading of their own.
pub(super) fn with_common(program: clap::Command) -> clap::Command {
    let help = Arg::new("help")
        .short('h')
        .long("help")
        .action(ArgAction::Help)
        .global(true)
        .help("Print help; `-h` is a summary");
    let version = Arg::new("version")
        .short('V')
        .long("version")
        .action(ArgAction::Version)
        .help("Print the version");
    program
        .disable_help_flag(true)
        .disable_version_flag(true)
        .args([help, version])
        .mut_args(|option| option.help_heading(GLOBAL).hide_short_help(true))
}

/// The description that help is printed from: all of it if it `is_long`, or a summary. The help of
/// a command has a line for each common option, and the help of the program says all of them.
pub(super) fn shown(mut program: clap::Command, is_long: bool) -> clap::Command {
    program.build();
    let header = *program.get_styles().get_header();
    let common = match is_long {
        true => format!("{header}{GLOBAL}:{header:#}\n{}", common_options(&program)),
        false => format!("{header}{GLOBAL}:{header:#} apifence --help"),
    };
    let command = with_examples(program, "", &common, is_long);
    let groups = groups(&command);
    let options = match is_long {
        true => format!("\n\n{header}{GLOBAL}:{header:#}\n{{options}}"),
        false => String::new(),
    };
    command.help_template(format!(
        "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{groups}{options}{{after-help}}"
    ))
}

/// A line for each common option.
fn common_options(program: &clap::Command) -> String {
    let literal = program.get_styles().get_literal();
    let rows = program
        .get_arguments()
        .filter(|option| option.is_global_set());
    let rows = rows.map(|option| {
        let short = option.get_short().map(|letter| format!("-{letter}, "));
        let value = option
            .get_value_names()
            .filter(|_| option.get_action().takes_values());
        let value = value
            .and_then(<[_]>::first)
            .map(|name| format!(" <{name}>"));
        let flag = format!(
            "{}--{}{}",
            short.unwrap_or_else(|| "    ".to_owned()),
            option.get_long().unwrap_or_default(),
            value.unwrap_or_default()
        );
        let help = option.get_help().map(ToString::to_string);
        format!(
            "  {literal}{flag:<26}{literal:#}  {}",
            help.unwrap_or_default()
        )
    });
    rows.collect::<Vec<_>>().join("\n")
}

/// Whether `arguments` ask for all of the help, not for the summary. One of them asks for help.
pub(super) fn is_long(arguments: impl Iterator<Item = String>) -> bool {
    let is_short = |word: &str| {
        let letters = word.strip_prefix('-');
        letters.is_some_and(|letters| !letters.starts_with('-') && letters.contains('h'))
    };
    let mut asked = arguments
        .skip(1)
        .filter(|word| word == "--help" || is_short(word));
    asked.next().is_none_or(|word| word == "--help")
}

/// The groups of commands, with what each does.
fn groups(command: &clap::Command) -> String {
    let header = command.get_styles().get_header();
    let literal = command.get_styles().get_literal();
    let mut text = String::new();
    for (heading, names) in GROUPS {
        let _ = writeln!(text, "{header}{heading}:{header:#}");
        for name in names {
            let own = command.find_subcommand(name);
            let about = own.and_then(clap::Command::get_about);
            let about = about.map(ToString::to_string).unwrap_or_default();
            let _ = writeln!(text, "  {literal}{name:<11}{literal:#}  {about}");
        }
        text.push('\n');
    }
    text.truncate(text.trim_end_matches('\n').len());
    text
}

/// Puts the examples and the `common` options below the help of `command` and of its commands. The
/// summary hides what the long help says of variables and values.
fn with_examples(
    mut command: clap::Command,
    path: &str,
    common: &str,
    is_long: bool,
) -> clap::Command {
    let header = *command.get_styles().get_header();
    let mut examples = String::new();
    for example in examples_of(path) {
        let _ = write!(examples, "\n  {}:\n    {}", example.text, example.line);
    }
    if !examples.is_empty() {
        examples.insert_str(0, &format!("{header}Examples:{header:#}"));
    }
    // The program has its options in full.
    let own = if path.is_empty() && is_long {
        ""
    } else {
        common
    };
    let parts = match is_long {
        true => [own, &examples],
        false => [&*examples, own],
    };
    let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    command = command.after_help(parts.join("\n\n"));
    if !is_long {
        command = command.mut_args(|argument| {
            let takes_values = argument.get_action().takes_values();
            argument
                .hide_env(true)
                .hide_default_value(takes_values)
                .hide_possible_values(takes_values)
        });
    }
    command.mut_subcommands(|inner| {
        let path = format!("{path} {}", inner.get_name());
        let inner = inner.mut_args(|option| {
            let is_common = option.get_help_heading() == Some(GLOBAL);
            option.hide_long_help(is_common)
        });
        with_examples(inner, path.trim_start(), common, is_long)
    })
}

#[cfg(test)]
mod tests {
    use super::{super::command, *};

    #[test]
    fn every_command_is_in_one_group_in_order() {
        let grouped: Vec<&str> = GROUPS
            .iter()
            .flat_map(|(_, names)| *names)
            .copied()
            .collect();
        let command = command();
        let visible = command
            .get_subcommands()
            .filter(|inner| !inner.is_hide_set());
        let names: Vec<&str> = visible.map(clap::Command::get_name).collect();
        assert_eq!(grouped, names);
    }

    #[test]
    fn the_first_word_for_help_decides() {
        for (line, want) in [
            ("apifence --help", true),
            ("apifence -h", false),
            ("apifence attach -vh", false),
            ("apifence help attach", true),
            ("apifence --help -h", true),
        ] {
            let words = line.split(' ').map(ToOwned::to_owned);
            assert_eq!(is_long(words), want, "{line}");
        }
    }

    /// The line of a command in its group, or in the help of `ranges`, on a terminal.
    #[test]
    fn each_about_fits_into_eighty_columns() {
        fn check(command: &clap::Command) {
            for inner in command.get_subcommands() {
                let about = inner.get_about().map(ToString::to_string);
                let about = about.unwrap_or_default();
                assert!(about.chars().count() <= 65, "{}: {about}", inner.get_name());
                assert!(!about.ends_with('.'), "{about}");
                check(inner);
            }
        }
        check(&command());
    }
}
