//! Words that named a mechanism that is gone, or that the glossary replaced: in comments, and in
//! what a person reads.

use std::{fs, path::Path};

use anyhow::Result;

use super::{comments, has_word, nothing_found, root, sources};

/// Gone everywhere, each with what to write.
const WORDS: [(&str, &str); 15] = [
    ("anew", "again"),
    ("anybody", "any source, anyone"),
    ("beside", "next to"),
    ("bunch", "leaf"),
    ("chunk", "array"),
    ("everybody", "every source, everyone"),
    ("leap", "impact"),
    ("mend", "fix"),
    ("mended", "fixed"),
    ("nobody", "no operator, no process"),
    ("somebody", "an operator, another process"),
    ("stranger", "unlisted source"),
    ("strangers", "unlisted sources"),
    ("strewn", "hashed"),
    ("whoever", "a process that"),
];

/// Gone from what a person reads.
const PHRASES: [(&str, &str); 13] = [
    ("is no", "is not a"),
    ("goes by", "uses, follows"),
    ("let in", "allowed"),
    ("lets in", "allows"),
    ("lets it in", "allows it"),
    ("let them in", "allow them"),
    ("take itself back", "revert"),
    ("takes itself back", "reverts"),
    ("taken back", "reverted, undone"),
    ("that there are now", "current"),
    ("is told", "is shown"),
    ("shut out", "dropped, blocked"),
    ("true to", "in sync with"),
];

/// Whether `there` is before a phrase, perhaps at the end of the line above.
fn is_after_there(before: &str) -> bool {
    let before = before.trim_end();
    before.is_empty() || before.ends_with("there")
}

/// Whether `line` has `phrase` as words of its own. `there is no` is fine.
fn has_phrase(line: &str, phrase: &str) -> bool {
    let is_letter = |letter: Option<char>| letter.is_some_and(char::is_alphanumeric);
    line.match_indices(phrase).any(|(start, _)| {
        let (before, after) = (&line[..start], &line[start + phrase.len()..]);
        !is_letter(before.chars().next_back())
            && !is_letter(after.chars().next())
            && (phrase != "is no" || !is_after_there(before))
    })
}

/// The faults of a text that a person reads.
fn faults(text: &str) -> Vec<String> {
    let lower = text.to_lowercase();
    let words = WORDS.iter().filter(|(word, _)| has_word(&lower, word));
    let phrases = PHRASES
        .iter()
        .filter(|(words, _)| has_phrase(&lower, words));
    words
        .chain(phrases)
        .map(|(gone, instead)| format!("`{gone}`: {instead}"))
        .collect()
}

/// The string literals of Rust code, each with its line.
fn literals(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(offset) = code[at..].find(['"', '\'', '/']) {
        at += offset;
        let rest = &code[at..];
        at += match rest.as_bytes() {
            [b'/', b'/', ..] => rest.find('\n').unwrap_or(rest.len()),
            [b'"', ..] => {
                let (text, len) = literal(&code[..at], &rest[1..]);
                found.push((code[..at].matches('\n').count() + 1, text));
                len + 1
            }
            [b'\'', b'\\', ..] => rest[3..].find('\'').map_or(rest.len(), |end| end + 4),
            [b'\'', _, b'\'', ..] => 3,
            _ => 1,
        };
    }
    found
}

/// The literal that begins with `rest`, after the code `before`, and its length with its end.
fn literal(before: &str, rest: &str) -> (String, usize) {
    let bare = before.trim_end_matches('#');
    if bare.ends_with('r') {
        let end = format!("\"{}", &before[bare.len()..]);
        let len = rest.find(&end).unwrap_or(rest.len());
        return (rest[..len].to_owned(), (len + end.len()).min(rest.len()));
    }
    let mut text = String::new();
    let mut letters = rest.char_indices();
    while let Some((place, letter)) = letters.next() {
        match letter {
            '"' => return (text, place + 1),
            // An escape, or a break in the literal.
            '\\' => {
                letters.next();
                text.push(' ');
            }
            letter => text.push(letter),
        }
    }
    (text, rest.len())
}

/// The text of a file before its tests.
fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {")
        .next()
        .unwrap_or(text)
}

#[test]
fn comments_have_the_words_of_the_glossary() -> Result<()> {
    let mut found = Vec::new();
    for (path, text) in sources()? {
        for (number, line) in comments(&text) {
            let lower = line.to_lowercase();
            for (word, instead) in WORDS.iter().filter(|(word, _)| has_word(&lower, word)) {
                found.push(format!("{}:{number}: `{word}`: {instead}", path.display()));
            }
        }
    }
    nothing_found(&found);
    Ok(())
}

/// Messages, and the text of help.
#[test]
fn messages_have_the_words_of_the_glossary() -> Result<()> {
    let programs = ["filter-user/src", "filter-kube/src", "xtask/src"];
    let help = [
        "filter-user/src/cli",
        "filter-kube/src/cli",
        "filter-kube/src/api",
        "xtask/src/main",
    ];
    let mut found = Vec::new();
    for (path, text) in sources()? {
        let name = path.display().to_string();
        if !programs.iter().any(|folder| path.starts_with(folder))
            || name.ends_with("tests.rs")
            || name.contains("/tests/")
        {
            continue;
        }
        let text = without_tests(&text);
        // One word alone is a key, a path or a name.
        let mut read = literals(text);
        read.retain(|(_, text)| text.trim().contains(' '));
        if help.iter().any(|start| name.starts_with(start)) {
            let lines = comments(text).filter(|(_, line)| line.trim_start().starts_with("///"));
            read.extend(lines.map(|(number, line)| (number, line.to_owned())));
        }
        for (number, text) in read {
            let faults = faults(&text).into_iter();
            found.extend(faults.map(|fault| format!("{name}:{number}: {fault}: {text}")));
        }
    }
    nothing_found(&found);
    Ok(())
}

/// The README, the pages below docs, and everything in deploy.
#[test]
fn documents_have_the_words_of_the_glossary() -> Result<()> {
    let mut folders = vec![root().join("docs"), root().join("deploy")];
    let mut files = vec![root().join("README.md")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            let is_read = |path: &Path| {
                let name = path.extension().and_then(|name| name.to_str());
                path.starts_with(root().join("deploy")) || name == Some("md")
            };
            if path.is_dir() {
                folders.push(path);
            } else if is_read(&path) && !path.ends_with("copyright") {
                files.push(path);
            }
        }
    }
    let mut found = Vec::new();
    for path in files {
        let name = path.strip_prefix(root())?.display().to_string();
        for (number, line) in (1..).zip(fs::read_to_string(&path)?.lines()) {
            let faults = faults(line).into_iter();
            found.extend(faults.map(|fault| format!("{name}:{number}: {fault}: {}", line.trim())));
        }
    }
    nothing_found(&found);
    Ok(())
}

#[test]
fn literals_and_faults_are_found() {
    let code = r##"let a = "one"; // "no"
let b = ['"', '\'', '\\']; say::<'a>("two", r#"th"ree"#);"##;
    let texts: Vec<_> = literals(code);
    let want = [(1, "one"), (2, "two"), (2, "th\"ree")];
    assert_eq!(texts, want.map(|(line, text)| (line, text.to_owned())));
    for text in [
        "`x` is no port",
        "Nobody is let in",
        "it takes itself back",
        "the port goes by it",
    ] {
        assert!(!faults(text).is_empty(), "{text}");
    }
    for text in [
        "there is no list",
        "not let into etcd",
        "is not a port",
        "besides",
    ] {
        assert!(faults(text).is_empty(), "{text}: {:?}", faults(text));
    }
}
