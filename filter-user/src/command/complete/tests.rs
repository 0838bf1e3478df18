use std::fs;

use clap_complete::engine::CompletionCandidate;

use super::{engine::candidates, *};

/// The values for the last of `words`, each with its note.
fn complete(words: &[&str]) -> Vec<(String, String)> {
    let words: Vec<OsString> = ["apifence"]
        .iter()
        .chain(words)
        .map(OsString::from)
        .collect();
    let index = words.len() - 1;
    let pair = |one: CompletionCandidate| {
        let note = one.get_help().map(ToString::to_string);
        let value = one.get_value().to_string_lossy().into_owned();
        (value, note.unwrap_or_default())
    };
    candidates(words, index).into_iter().map(pair).collect()
}

fn values(words: &[&str]) -> Vec<String> {
    complete(words)
        .into_iter()
        .map(|(value, _)| value)
        .collect()
}

#[test]
fn commands_come_first_and_options_with_their_dash() {
    let all = values(&[""]);
    assert_eq!(all[..3], ["init", "status", "ranges"]);
    assert!(all.iter().all(|value| !value.starts_with('-')), "{all:?}");
    let options = values(&["attach", "--con"]);
    assert_eq!(options, ["--confirm-within", "--config"]);
    assert_eq!(values(&["attach", "--mode", ""]), ["enforce", "monitor"]);
    // A command without arguments has options alone.
    assert!(values(&["confirm", ""]).contains(&"--output".to_owned()));
}

#[test]
fn values_come_from_this_node_and_its_files() {
    let folder = tempfile::tempdir().expect("a directory");
    let file = folder.path().join("ranges");
    fs::write(
        &file,
        "198.51.100.0/24 # office Berlin\n203.0.113.7 expires=2100-01-01T00:00:00Z # guest\n2001:db8::7\n",
    )
    .expect("a file");
    let lists = folder.path().join("ranges.d");
    fs::create_dir(&lists).expect("a directory");
    fs::write(lists.join("guests"), "192.0.2.9 # visitor\n").expect("a file");
    let path = file.display().to_string();
    let state = folder.path().join("state").display().to_string();
    let places = [
        "--ranges-file",
        &path,
        "--state-dir",
        &state,
        "--bpffs",
        "/nowhere",
    ];
    let complete = |words: &[&str]| complete(&[&places[..], words].concat());
    let pair = |value: &str, note: &str| (value.to_owned(), note.to_owned());

    let office = pair("198.51.100.0/24", "office Berlin");
    let guest = pair("203.0.113.7", "guest, until 2100-01-01T00:00:00Z");
    let third = pair("2001:db8::7", "");
    let all = [office.clone(), guest.clone(), third.clone()];
    assert_eq!(complete(&["ranges", "remove", ""]), all);
    assert_eq!(
        complete(&["ranges", "rm", "203"]),
        std::slice::from_ref(&guest)
    );
    assert_eq!(complete(&["ranges", "remove", "2001:db8:"]), [third]);
    let me = pair("me", "the address of this SSH session");
    assert_eq!(complete(&["check", ""])[..3], [me, office, guest]);
    let second = complete(&["ranges", "remove", "203.0.113.7,198"]);
    assert_eq!(
        second,
        [pair("203.0.113.7,198.51.100.0/24", "office Berlin")]
    );
    let of_list = complete(&["ranges", "--list=guests", "remove", ""]);
    assert_eq!(of_list, [pair("192.0.2.9", "visitor")]);
    let lists = complete(&["ranges", "--list", ""]);
    assert_eq!(
        lists,
        [pair("default", "the ranges file"), pair("guests", "")]
    );
    let loopback = complete(&["detach", "--interface", "l"]);
    assert!(
        loopback.iter().any(|(name, _)| name == "lo"),
        "{loopback:?}"
    );
    let codes = complete(&["status", "--ack", "W01,W08"]);
    assert_eq!(codes, [pair("W01,W08", "tunnel")]);
    let files = complete(&["ranges", "set", "--from-file", &path[..path.len() - 2]]);
    assert!(files.iter().any(|(value, _)| *value == path), "{files:?}");
    // Nothing was written.
    assert!(!folder.path().join("state").exists());
}

#[test]
fn files_that_cannot_be_read_give_no_candidates() {
    let places = [
        "--config",
        "/proc/self/mem",
        "--ranges-file",
        "/nowhere/ranges",
    ];
    let complete = |words: &[&str]| values(&[&places[..], words].concat());
    assert!(complete(&["ranges", "remove", "1"]).is_empty());
    assert!(complete(&["ranges", "rollback", "1"]).is_empty());
    assert_eq!(complete(&["ranges", "add", "m"]), ["me"]);
    assert!(shells::answer("tcsh", vec!["apifence".into(), "".into()], None).is_empty());
}

#[test]
fn a_comment_cannot_make_a_line_of_its_own() {
    let words: Vec<OsString> = vec!["apifence".into(), "explain".into(), "W08".into()];
    let answer = shells::answer("zsh", words, Some(2));
    assert_eq!(answer, "W08:tunnel\n");
    let words: Vec<OsString> = vec!["apifence".into(), "ranges".into(), "ad".into()];
    let answer = shells::answer("bash", words, Some(2));
    assert_eq!(answer, "add\tAdd ranges; a listed range is renewed\n");
}
