//! YAML as text: objects of a stream, and replacements that must find what they replace.

use anyhow::{Result, ensure};

/// The objects in `text`, without comments in front of the first.
pub(super) fn objects(text: &str) -> impl Iterator<Item = &str> {
    text.split("---\n")
        .filter(|object| kind(object).is_some())
        .map(|object| object.trim_end_matches('\n'))
}

/// The kind of `object`.
pub(super) fn kind(object: &str) -> Option<&str> {
    object.lines().find_map(|line| line.strip_prefix("kind: "))
}

/// Puts the objects together, below the comment `header`.
pub(super) fn stream<'text>(header: &str, objects: impl IntoIterator<Item = &'text str>) -> String {
    let mut text = format!("{header}\n");
    for object in objects {
        text.push_str("---\n");
        text.push_str(object);
        text.push('\n');
    }
    text
}

/// Replaces `from`, which must be there `times` times.
pub(super) fn replace(text: &str, from: &str, to: &str, times: usize) -> Result<String> {
    let found = text.matches(from).count();
    ensure!(
        found == times,
        "replace `{from}` in an object: found {found} times, expected {times}"
    );
    Ok(text.replace(from, to))
}

/// Replaces what is inside the mapping at each line `key`, in their order, by the lines of
/// `inside`. Where that is `None`, the mapping stays.
pub(super) fn replace_inside(text: &str, key: &str, inside: &[Option<String>]) -> Result<String> {
    let depth = key.len() - key.trim_start().len();
    let deeper = |line: &str| line.len() - line.trim_start().len() > depth;
    let mut lines = text.lines().peekable();
    let (mut done, mut found) = (String::new(), 0);
    while let Some(line) = lines.next() {
        done.push_str(line);
        done.push('\n');
        if line != key {
            continue;
        }
        if let Some(Some(inside)) = inside.get(found) {
            while lines.next_if(|line| deeper(line)).is_some() {}
            done.push_str(inside);
            done.push('\n');
        }
        found += 1;
    }
    ensure!(
        found == inside.len(),
        "replace text of `{}`: found {found} times, expected {}",
        key.trim(),
        inside.len()
    );
    done.pop();
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_its_objects() {
        let text = "# a comment\n---\nkind: A\na: 1\n---\nkind: B\n";
        let found: Vec<_> = objects(text).collect();
        assert_eq!(found, ["kind: A\na: 1", "kind: B"]);
        assert_eq!(stream("# a comment", found), text);
        assert_eq!(objects("# only a comment\n").count(), 0);
    }

    #[test]
    fn a_replacement_that_finds_something_else_fails() -> Result<()> {
        assert_eq!(replace("a b a", "a", "c", 2)?, "c b c");
        assert!(replace("a b a", "a", "c", 1).is_err());
        let text = "x:\n  in:\n    a: 1\n  in:\n    b: 2\ny: 3";
        let inside = [None, Some("    c".to_owned())];
        assert_eq!(
            replace_inside(text, "  in:", &inside)?,
            "x:\n  in:\n    a: 1\n  in:\n    c\ny: 3"
        );
        assert!(replace_inside(text, "  in:", &[None]).is_err());
        Ok(())
    }
}
