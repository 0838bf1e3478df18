//! An object of the API as the file of a list. Pure: text in, text out.

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc};

use ipnet::IpNet;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt as _;
use sha2::{Digest as _, Sha256};

use crate::api::{ALLOW_EMPTY, AuthorizedRanges, LONGEST_NAME, MOST_RANGES, Range};

/// The most bytes of a file: more than the most ranges with their comments have.
const MOST_BYTES: usize = 2 << 20;

/// A list as the API has it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The object.
    pub version: Version,
    /// Whether the object selects this node; `None` while the labels of the node are not known.
    pub is_selected: Option<bool>,
    /// The file, or why the object cannot be a list.
    pub content: Arc<Outcome>,
}

/// The file of an object, or why the object cannot be a list.
pub type Outcome = Result<Content, Refusal>;

/// The files of objects, each made once for as long as its object stays the same: a list may have
/// thousands of lines, and other objects change every second.
#[derive(Debug, Default)]
pub struct Contents(BTreeMap<String, (Arc<AuthorizedRanges>, Arc<Outcome>)>);

impl Contents {
    /// The files of these objects, in their order. Those of other objects are forgotten.
    pub fn of(&mut self, objects: &[Arc<AuthorizedRanges>]) -> Vec<Arc<Outcome>> {
        let mut known = std::mem::take(&mut self.0);
        let made = objects.iter().map(|object| {
            let name = object.name_any();
            let known = known.remove(&name);
            let same = known.filter(|(before, _)| Arc::ptr_eq(before, object));
            let made = same.map_or_else(|| Arc::new(content(object)), |(_, made)| made);
            self.0.insert(name, (object.clone(), made.clone()));
            made
        });
        made.collect()
    }
}

/// The text of a list's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// The lines.
    pub text: String,
    /// SHA-256 of them.
    pub sha256: String,
    /// When the last of its ranges has expired: `None` if one stays, or there is none.
    pub ends: Option<Timestamp>,
    /// The number of ranges.
    pub ranges: usize,
}

/// Why an object cannot be a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// One word: the reason of the condition `Accepted`.
    pub reason: &'static str,
    /// A sentence with the fix.
    pub message: String,
}

/// Which object it is, and how new.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Version {
    /// Its uid: another one for an object that was deleted and made again.
    pub uid: String,
    /// When it was made. An object that is older than the one of this name before came back from a
    /// backup.
    pub created: Timestamp,
    /// Its generation; of a ConfigMap its resource version. It goes back where etcd was restored.
    pub generation: i64,
}

impl Version {
    /// Whether it is newer than `other`, which has the same name.
    pub fn is_newer(&self, other: &Self) -> bool {
        match self.uid == other.uid {
            true => self.generation > other.generation,
            false => self.created >= other.created,
        }
    }
}

impl Content {
    /// A list with these lines.
    pub fn new(text: String, ends: Option<Timestamp>, ranges: usize) -> Self {
        Self {
            sha256: digest(&text),
            text,
            ends,
            ranges,
        }
    }

    /// A list without ranges, on purpose.
    pub fn empty(origin: &str) -> Self {
        Self::new(format!("# {origin}\nempty\n"), None, 0)
    }
}

/// SHA-256 of a file's bytes, in hexadecimal, as `apifence run` names the bytes in force.
pub fn digest(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().fold(String::new(), |mut text, byte| {
        // Writing into a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn refusal(reason: &'static str, message: impl Into<String>) -> Refusal {
    Refusal {
        reason,
        message: message.into(),
    }
}

/// The file of an object.
///
/// # Errors
/// If the object cannot be a list. An API server with CEL refuses most of these before.
pub fn content(object: &AuthorizedRanges) -> Result<Content, Refusal> {
    let name = object.name_any();
    check_name(&name)?;
    let origin = format!(
        "AuthorizedRanges {name}, generation {}; apifence-kube writes this file",
        object.metadata.generation.unwrap_or_default()
    );
    let ranges = &object.spec.ranges;
    if ranges.is_empty() {
        let is_meant = object
            .annotations()
            .get(ALLOW_EMPTY)
            .is_some_and(|value| value == "true");
        return match is_meant {
            true => Ok(Content::empty(&origin)),
            false => Err(refusal(
                "Empty",
                format!(
                    "the object has no ranges: the last ones stay in force; to withdraw them, set the annotation {ALLOW_EMPTY}: \"true\""
                ),
            )),
        };
    }
    if ranges.len() > MOST_RANGES {
        return Err(refusal(
            "TooMany",
            format!(
                "{} ranges; the maximum is {MOST_RANGES}: split them into several objects",
                ranges.len()
            ),
        ));
    }
    let mut text = format!("# {origin}\n");
    let mut ends = Some(Timestamp::MIN);
    for range in ranges {
        let expires = expiry(range)?;
        ends = ends.zip(expires).map(|(ends, expires)| ends.max(expires));
        text.push_str(&line(range, expires)?);
    }
    Ok(Content::new(text, ends, ranges.len()))
}

/// Whether a list can have the name, which is that of its file.
pub fn is_list_name(name: &str) -> bool {
    let is_plain = |letter: u8| letter.is_ascii_alphanumeric() || letter == b'-' || letter == b'_';
    name.len() <= LONGEST_NAME && !name.starts_with('-') && name.bytes().all(is_plain)
}

fn check_name(name: &str) -> Result<(), Refusal> {
    if is_list_name(name) {
        return Ok(());
    }
    Err(refusal(
        "Name",
        format!("invalid list name `{name}`: use at most {LONGEST_NAME} letters, digits and `-`"),
    ))
}

/// When a range ends by itself. It is read here: one object with a time that cannot be read must
/// not hold up the others.
fn expiry(range: &Range) -> Result<Option<Timestamp>, Refusal> {
    let parsed = range.expires.as_ref().map(|text| text.parse());
    parsed.transpose().map_err(|_| {
        refusal(
            "InvalidRange",
            format!(
                "`{}`: `expires` is not a time like 2026-12-01T18:00:00Z",
                range.cidr
            ),
        )
    })
}

/// The line of a range.
fn line(range: &Range, expires: Option<Timestamp>) -> Result<String, Refusal> {
    let cidr = &range.cidr;
    let invalid = |why: &str| refusal("InvalidRange", format!("`{cidr}` {why}"));
    let parsed: IpNet = cidr
        .parse()
        .map_err(|_| invalid("is not a CIDR: write it like 203.0.113.0/24"))?;
    if parsed.addr().is_unspecified() && parsed.prefix_len() == parsed.max_prefix_len() {
        // In the file of a list it stands for no source at all.
        return Err(invalid("is never a source address: leave it out"));
    }
    if parsed != parsed.trunc() {
        return Err(invalid(&format!(
            "has host bits set: write {}",
            parsed.trunc()
        )));
    }
    let mut line = parsed.to_string();
    if let Some(expires) = expires {
        let _ = write!(line, " expires={expires}");
    }
    if let Some(comment) = &range.comment {
        // A line feed would begin an entry, and two others end a line, too: `apifence run` refuses
        // a list with them.
        let ends_a_line =
            |letter: char| letter.is_control() || matches!(letter, '\u{2028}' | '\u{2029}');
        let comment: String = comment
            .chars()
            .map(|letter| if ends_a_line(letter) { ' ' } else { letter })
            .take(200)
            .collect();
        if !comment.trim().is_empty() {
            let _ = write!(line, " # {}", comment.trim());
        }
    }
    line.push('\n');
    Ok(line)
}

/// Whether `labels` has all of `selector`.
pub fn selects(selector: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    selector
        .iter()
        .all(|(name, value)| labels.get(name) == Some(value))
}

/// The lists of the objects, by name, on a node with `labels`, if they are known.
pub fn of_objects(
    objects: &[Arc<AuthorizedRanges>],
    contents: &mut Contents,
    labels: Option<&BTreeMap<String, String>>,
) -> BTreeMap<String, Wanted> {
    let contents = contents.of(objects);
    let wanted = objects.iter().zip(contents).map(|(object, content)| {
        let wanted = Wanted {
            version: Version {
                uid: object.uid().unwrap_or_default(),
                created: created(object.creation_timestamp()),
                generation: object.metadata.generation.unwrap_or_default(),
            },
            is_selected: match (labels, &object.spec.node_selector) {
                (_, selector) if selector.is_empty() => Some(true),
                (labels, selector) => labels.map(|labels| selects(selector, labels)),
            },
            content,
        };
        (object.name_any(), wanted)
    });
    wanted.collect()
}

fn created(time: Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>) -> Timestamp {
    time.map(|time| time.0).unwrap_or_default()
}

/// The lists of a ConfigMap: each key is a list in the format of the ranges file.
pub fn of_config_map(map: &ConfigMap) -> BTreeMap<String, Wanted> {
    let version = Version {
        uid: map.uid().unwrap_or_default(),
        created: created(map.creation_timestamp()),
        generation: map
            .resource_version()
            .and_then(|version| version.parse().ok())
            .unwrap_or_default(),
    };
    let keys = map.data.iter().flatten().map(|(name, text)| {
        let wanted = Wanted {
            version: version.clone(),
            is_selected: Some(true),
            content: Arc::new(of_text(name, text)),
        };
        (name.clone(), wanted)
    });
    keys.collect()
}

/// The lines of a list without comments.
pub fn entries(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim())
        .filter(|line| !line.is_empty())
}

/// The list of a ConfigMap's key. `apifence run` reads its grammar, and keeps the last good one
/// where it is broken.
fn of_text(name: &str, text: &str) -> Result<Content, Refusal> {
    check_name(name)?;
    let lines: Vec<_> = entries(text).collect();
    match lines[..] {
        [] => Err(refusal(
            "Empty",
            "the list has no ranges: the last ones stay in force; to withdraw them, write the word `empty`",
        )),
        _ if text.len() > MOST_BYTES => {
            Err(refusal("TooMany", format!("more than {MOST_BYTES} bytes")))
        }
        ["empty"] => Ok(Content::new(text.to_owned(), None, 0)),
        _ => Ok(Content::new(text.to_owned(), None, lines.len())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn object(ranges: &Value, annotations: &Value) -> AuthorizedRanges {
        let object = json!({
            "apiVersion": "apifence.io/v1alpha1",
            "kind": "AuthorizedRanges",
            "metadata": {"name": "office", "generation": 4, "annotations": annotations},
            "spec": {"ranges": ranges},
        });
        serde_json::from_value(object).expect("an object")
    }

    fn lines(object: &AuthorizedRanges) -> Vec<String> {
        let content = content(object).expect("a list");
        assert_eq!(content.ranges, object.spec.ranges.len());
        content.text.lines().skip(1).map(str::to_owned).collect()
    }

    #[test]
    fn ranges_become_lines() {
        let ranges = json!([
            {"cidr": "203.0.113.0/24", "comment": "HQ"},
            {"cidr": "198.51.100.7/32", "expires": "2026-12-01T18:00:00+02:00", "comment": ""},
            {"cidr": "2001:db8:0:0::/48", "comment": "a\n0.0.0.0/0 # b"},
            {"cidr": "192.0.2.1/32", "comment": "\u{85}a\u{2028}b\u{2029}c\u{202e}"},
        ]);
        let want = [
            "203.0.113.0/24 # HQ",
            "198.51.100.7/32 expires=2026-12-01T16:00:00Z",
            "2001:db8::/48 # a 0.0.0.0/0 # b",
            "192.0.2.1/32 # a b c\u{202e}",
        ];
        assert_eq!(lines(&object(&ranges, &json!({}))), want);
    }

    #[test]
    fn a_list_ends_when_its_last_range_does() {
        let ends = |ranges: Value| content(&object(&ranges, &json!({}))).expect("a list").ends;
        let one = json!({"cidr": "10.0.0.0/8", "expires": "2026-12-01T18:00:00Z"});
        let two = json!({"cidr": "10.0.0.1/32", "expires": "2026-12-02T18:00:00Z"});
        let end = ends(json!([one, two])).expect("an end");
        assert_eq!(end.to_string(), "2026-12-02T18:00:00Z");
        assert_eq!(ends(json!([one, {"cidr": "10.0.0.2/32"}])), None);
    }

    #[test]
    fn what_cannot_be_a_list_is_refused_with_the_fix() {
        let annotated = json!({ALLOW_EMPTY: "true"});
        for (ranges, annotations, reason, want) in [
            (json!([]), json!({}), "Empty", ALLOW_EMPTY),
            (json!([]), json!({ALLOW_EMPTY: "yes"}), "Empty", ALLOW_EMPTY),
            (
                json!([{"cidr": "10.0.0.1"}]),
                json!({}),
                "InvalidRange",
                "is not a CIDR",
            ),
            (
                json!([{"cidr": "0.0.0.0/32"}]),
                json!({}),
                "InvalidRange",
                "leave it out",
            ),
            (
                json!([{"cidr": "::/128"}]),
                json!({}),
                "InvalidRange",
                "leave it out",
            ),
            (
                json!([{"cidr": "10.0.0.1/8"}]),
                json!({}),
                "InvalidRange",
                "write 10.0.0.0/8",
            ),
            (
                json!([{"cidr": "10.0.0.0/8", "expires": "soon"}]),
                json!({}),
                "InvalidRange",
                "not a time",
            ),
            (
                Value::Array(vec![json!({"cidr": "10.0.0.0/8"}); 4001]),
                json!({}),
                "TooMany",
                "4000",
            ),
        ] {
            let refused = content(&object(&ranges, &annotations)).expect_err(reason);
            assert_eq!(refused.reason, reason);
            assert!(refused.message.contains(want), "{}", refused.message);
        }
        let mut named = object(&json!([{"cidr": "10.0.0.0/8"}]), &json!({}));
        for name in ["office.eu", "@nodes", "-a", "../default", &"x".repeat(64)] {
            named.metadata.name = Some(name.to_owned());
            assert_eq!(content(&named).expect_err(name).reason, "Name");
        }
        assert_eq!(lines(&object(&json!([]), &annotated)), ["empty"]);
    }

    #[test]
    fn a_file_is_made_once_for_an_object_that_stays() {
        let some = |cidr: &str| Arc::new(object(&json!([{"cidr": cidr}]), &json!({})));
        let (one, other) = (some("10.0.0.0/8"), some("10.1.0.0/16"));
        let mut contents = Contents::default();
        let first = contents.of(std::slice::from_ref(&one));
        let again = contents.of(std::slice::from_ref(&one));
        assert!(Arc::ptr_eq(&first[0], &again[0]));
        let changed = contents.of(&[other]);
        assert_ne!(changed, first);
        assert!(contents.of(&[]).is_empty() && contents.0.is_empty());
    }

    #[test]
    fn a_config_map_has_a_list_in_each_key() {
        let map: ConfigMap = serde_json::from_value(json!({
            "metadata": {"name": "lists", "uid": "1", "resourceVersion": "77"},
            "data": {
                "office": "203.0.113.0/24 # HQ\n\n10.0.0.0/8\n",
                "gone": "# nothing\n\n",
                "withdrawn": "empty # on purpose\n",
                "office.bak": "0.0.0.0/0\n",
            },
        }))
        .expect("a ConfigMap");
        let lists = of_config_map(&map);
        let ranges = |name: &str| {
            let content = lists[name].content.as_ref().as_ref();
            content.map(|content| content.ranges)
        };
        assert_eq!(ranges("office"), Ok(2));
        assert_eq!(ranges("withdrawn"), Ok(0));
        assert_eq!(ranges("gone").expect_err("empty").reason, "Empty");
        assert_eq!(ranges("office.bak").expect_err("a copy").reason, "Name");
        assert_eq!(lists["office"].version.generation, 77);
    }
}
