use std::collections::BTreeSet;

use clap::Command;

use super::{commands::visible, formats::LIST, pages};
use crate::{cli, config::Config, ranges::RangesFile};

/// The text of a page without the marks of roff.
fn text(name: &str) -> String {
    let found = pages().into_iter().find(|(file, _)| file == name);
    let (_, page) = found.unwrap_or_else(|| panic!("no page `{name}`"));
    let marks = ["\\fB", "\\fI", "\\fR", "\\&"];
    let page = marks.iter().fold(page, |page, mark| page.replace(mark, ""));
    page.replace("\\-", "-").replace("\\(dq", "\"")
}

fn each(command: &Command, path: &str, look: &mut impl FnMut(&Command, &str)) {
    look(command, path);
    for inner in visible(command) {
        each(inner, &format!("{path}-{}", inner.get_name()), look);
    }
}

#[test]
fn every_option_and_variable_is_in_the_page_of_its_command() {
    let mut program = cli::command();
    program.build();
    let mut variables = BTreeSet::new();
    each(&program, "apifence", &mut |command, name| {
        let page = text(&format!("{name}.1"));
        let (options, rest) = page.split_once(".SH \"ENVIRONMENT\"").expect("a section");
        for option in command.get_arguments() {
            if let Some(long) = option.get_long() {
                assert!(options.contains(&format!("--{long}")), "{name}: --{long}");
            }
            if let Some(variable) = option.get_env() {
                let variable = variable.to_string_lossy().into_owned();
                assert!(rest.contains(&variable), "{name}: {variable}");
                variables.insert(variable);
            }
        }
        let titles = [
            "NAME",
            "SYNOPSIS",
            "DESCRIPTION",
            "OPTIONS",
            "ENVIRONMENT",
            "FILES",
        ];
        for title in titles.iter().chain(&["EXIT STATUS", "SEE ALSO"]) {
            assert!(
                page.contains(&format!(".SH \"{title}\"\n")),
                "{name}: {title}"
            );
        }
    });
    let page = text("apifence.1");
    let (_, rest) = page.split_once(".SH \"ENVIRONMENT\"").expect("a section");
    for variable in variables {
        assert!(rest.contains(&variable), "{variable}");
    }
}

#[test]
fn a_synopsis_has_the_values() {
    let page = text("apifence-ranges-add.1");
    let want = "[--confirm-within DURATION]";
    assert!(page.contains(want), "{page}");
    assert!(page.contains("[global options] CIDR...\n"), "{page}");
    let page = text("apifence-ranges-rollback.1");
    assert!(page.contains("[global options] [N]\n"), "{page}");
}

#[test]
fn every_key_is_in_the_page_of_the_config_file() {
    let page = text("apifence.toml.5");
    for key in Config::keys() {
        assert!(page.contains(&format!(".TP\n{}\n", key.name)) || key.default.is_none());
        let default = key.default.unwrap_or_else(|| key.name.to_owned());
        assert!(page.contains(&default), "{}: {default}", key.name);
    }
}

#[test]
fn the_example_of_a_list_is_one() {
    let list = RangesFile::parse(LIST).expect("a list").list();
    assert_eq!(list.entries().len(), 4);
}

/// The names of pages under `SEE ALSO` and `COMMANDS`.
#[test]
fn pages_name_pages_that_there_are() {
    let files: BTreeSet<String> = pages().into_iter().map(|(name, _)| name).collect();
    assert!(files.len() > 30, "{files:?}");
    for file in &files {
        let page = text(file);
        for word in page.split_whitespace() {
            let word = word.trim_end_matches([',', '.']);
            for section in [1, 5] {
                if let Some(name) = word.strip_suffix(&format!("({section})")) {
                    assert!(
                        files.contains(&format!("{name}.{section}")),
                        "{file}: {word}"
                    );
                }
            }
        }
    }
}
