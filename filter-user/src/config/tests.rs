//! The layers, the file among them. The suites `config` and `words` test the refusals and their
//! text.

mod environment;
mod in_force;

use clap::{ArgMatches, CommandFactory as _};

use super::{
    Config, Environment,
    layers::{FILE_ONLY, Origin, TypedErrors},
};
use crate::cli::Cli;

const EXAMPLE: &str = include_str!("../../../deploy/apifence.toml");

fn matches(words: &[&str]) -> ArgMatches {
    let all = ["apifence", "config"].iter().chain(words);
    let matches = Cli::command().get_matches_from(all);
    let (_, matches) = matches.subcommand().expect("a subcommand was given");
    matches.clone()
}

/// Applies the flags, which are valid, to `config`.
fn typed_into(config: &mut Config, flags: &[&str]) {
    let errors = config.read_typed(&Cli::command(), &matches(flags), &Environment::default());
    assert_eq!(errors, TypedErrors::default());
}

/// The value of `key` in `config`, and its origin.
fn row_of(config: &Config, key: &str) -> (String, String) {
    let rows = config.rows();
    let row = rows.iter().find(|row| row.key == key).expect("a known key");
    (row.value.to_string(), row.origin.clone())
}

/// The causes of all faults in `text`, and the settings that could be read.
fn read(text: &str) -> (Vec<String>, Config) {
    let mut config = Config::default();
    let errors = config.read_file("F", text);
    (errors.into_iter().map(|(cause, _)| cause).collect(), config)
}

fn values(config: &Config) -> Vec<(&'static str, serde_json::Value)> {
    let rows = config.rows().into_iter();
    rows.map(|row| (row.key, row.value)).collect()
}

#[test]
fn the_example_changes_nothing_as_it_is_and_with_every_line_uncommented() {
    let (errors, config) = read(EXAMPLE);
    assert_eq!(errors, [""; 0]);
    assert!(config.rows().iter().all(|row| row.source == "default"));

    let uncommented: String = EXAMPLE
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if !rest.is_empty() && !rest.starts_with(' ') => format!("{rest}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let (errors, config) = read(&uncommented);
    assert_eq!(errors, [""; 0]);
    let plain = |config: &Config| {
        let values = values(config).into_iter();
        values
            .filter(|(key, _)| !FILE_ONLY.contains(key))
            .collect::<Vec<_>>()
    };
    assert_eq!(plain(&config), plain(&Config::default()));
    for row in config.rows() {
        assert_eq!(row.source, "file", "`{}` is not in the example", row.key);
    }
}

#[test]
fn the_defaults_that_help_shows_are_those_that_hold() {
    let matches = matches(&[]);
    let mut config = Config::default();
    for setting in config.iter_mut() {
        let refusals = setting.take(&matches, Origin::Default);
        assert_eq!(refusals, []);
    }
    assert_eq!(values(&config), values(&Config::default()));
}

#[test]
fn every_setting_has_a_flag_and_a_variable() {
    let command = Cli::command();
    let rows = Config::default().rows().into_iter();
    for row in rows.filter(|row| !FILE_ONLY.contains(&row.key)) {
        let argument = super::layers::argument(&command, row.key);
        let flag = argument.get_long().expect("a setting has a flag");
        let variable = argument.get_env().expect("a setting has a variable");
        let name = flag.trim_start_matches("no-").replace('-', "_");
        let want = format!("APIFENCE_{}", name.to_uppercase());
        assert_eq!(variable.to_string_lossy(), want);
    }
}

#[test]
fn a_flag_goes_before_the_file_and_the_file_before_the_default() {
    let (errors, mut config) =
        read("# ours\nports = [443]\n\nmax_ranges = 1_000\nmode = 'monitor'\n");
    assert_eq!(errors, [""; 0]);
    let flags = ["--port", "6443,8443", "--no-node-addresses", "-v"];
    typed_into(&mut config, &flags);
    let assert_row = |key, value: &str, origin: &str| {
        assert_eq!(row_of(&config, key), (value.to_owned(), origin.to_owned()));
    };
    assert_row("ports", "[6443,8443]", "flag --port");
    assert_row("node_addresses", "false", "flag --no-node-addresses");
    assert_row("verbose", "true", "flag --verbose");
    assert_row("max_ranges", "1000", "F:4");
    assert_row("mode", "\"monitor\"", "F:5");
    assert_row("xdp_mode", "\"auto\"", "default");
}

#[test]
fn an_empty_flag_takes_a_list_back() {
    let (_, mut config) = read("destinations = ['10.0.0.0/8']\n");
    typed_into(&mut config, &["--destination", ""]);
    assert_eq!(
        row_of(&config, "destinations"),
        ("[]".to_owned(), "flag --destination".to_owned())
    );
}

/// A mode that opens the port must not come from the middle of another value.
#[test]
fn the_lines_of_a_string_are_not_settings_where_another_setting_is_broken() {
    for quotes in ["\"\"\"", "'''"] {
        for end in [quotes, ""] {
            let (errors, config) = read(&format!(
                "ports = [443\nnote = {quotes}\nmode = 'monitor'\n{end}\n"
            ));
            assert!(!errors.is_empty());
            let mode = row_of(&config, "mode");
            assert_eq!(mode.0, "\"enforce\"", "{mode:?}");
        }
    }
}

#[test]
fn one_mistake_is_one_complaint_and_hides_no_other() {
    let (errors, config) = read(
        "max_ranges 5\n\
         mode = enforce\n\
         cluster_cidrs = [\n  '10.0.0.0/8'\n  '11.0.0.0/8'\n]\n\
         ports = [443, 6443\n\
         bpffs = '/sys/fs/bpf/other'\n\
         = 3\n\
         bpfs = 1\n\
         verbose = 1\n\
         output = \"json\n",
    );
    let lines: Vec<&str> = errors
        .iter()
        .map(|cause| cause.split(": ").next().unwrap_or_default())
        .collect();
    assert_eq!(
        lines,
        ["F:1", "F:2", "F:4", "F:7", "F:9", "F:10", "F:11", "F:12"],
        "{errors:#?}"
    );
    assert_eq!(row_of(&config, "bpffs").1, "F:8");
    for key in [
        "max_ranges",
        "mode",
        "cluster_cidrs",
        "ports",
        "output",
        "verbose",
    ] {
        assert!(config.has_unreadable(&[key]), "{key}");
        assert_eq!(row_of(&config, key).1, "default");
    }
    assert!(!config.has_unreadable(&["bpffs", "ranges_file", "destinations"]));
}

#[test]
fn a_flag_overrides_an_unreadable_value() {
    let (_, mut config) = read("bpffs = /x\nranges_file = 3\n");
    typed_into(&mut config, &["--bpffs", "/x"]);
    assert!(!config.has_unreadable(&["bpffs"]));
    assert!(config.has_unreadable(&["bpffs", "ranges_file"]));
    assert!(!config.has_unreadable(&["output"]));
}

#[test]
fn a_key_that_is_set_twice_is_unreadable() {
    let (errors, config) = read("bpffs = '/a'\nbpffs = '/b'\n");
    assert_eq!(errors, ["F:2: `bpffs` is set twice"]);
    assert!(config.has_unreadable(&["bpffs"]));
}

#[test]
fn a_file_of_another_format_leaves_no_setting_unreadable() {
    let (errors, config) = read(&"10.0.0.0/8\n".repeat(10_000));
    assert_eq!(errors.len(), 10_000);
    assert!(!config.has_unreadable(&["bpffs"]));
}

#[test]
fn an_error_leaves_settings_with_similar_keys_and_comments_alone() {
    let (_, config) = read("xdp_mode = # bpffs\nmode = 'monitor'\n");
    assert!(config.has_unreadable(&["xdp_mode"]));
    assert!(!config.has_unreadable(&["mode", "bpffs"]));
}

#[test]
fn keys_of_a_table_are_not_settings() {
    let (errors, config) = read("verbose\n[policy]\nmode = 'monitor'\n");
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert_eq!(row_of(&config, "mode").1, "default");
}

#[test]
fn no_text_is_too_strange() {
    for text in [
        "\"\"\"",
        "[",
        "[[",
        "a=[",
        "=",
        "\u{feff}",
        "\r",
        "a = {",
        "x=\"\u{1F600}",
        "é\n",
    ] {
        let (errors, _) = read(text);
        assert!(errors.len() < 5, "{text:?}: {errors:?}");
    }
    let mut random = 1_u32;
    for _ in 0..2_000 {
        let text: String = (0..24)
            .map(|_| {
                random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let letters = b"ports=[]{}\"'\n\n#.,0 \xff";
                char::from(letters[(random >> 16) as usize % letters.len()])
            })
            .collect();
        read(&text);
    }
}
