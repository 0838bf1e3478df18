//! The pages of the files, section 5.

use super::page::{Page, bold, italic};
use crate::config::{Config, DEFAULT_CONFIG, DEFAULT_RANGES_FILE};

/// The pages, each with the name of its file.
pub(super) fn pages() -> [(String, String); 2] {
    [
        ("apifence.toml.5".to_owned(), config()),
        ("apifence-ranges.5".to_owned(), ranges()),
    ]
}

fn config() -> String {
    let mut page = Page::new("apifence.toml", 5, "config file of apifence");
    page.section("SYNOPSIS");
    page.line(&italic(DEFAULT_CONFIG));
    page.section("DESCRIPTION");
    page.paragraphs(
        "The file is TOML. Each line sets a key: `key = value`. All keys are optional.\n\n\
         A flag overrides the environment, the environment overrides this file, this file overrides \
         the policy in force, and that overrides the default. A key that you remove from the file \
         has its default again. `apifence config` shows each setting and its origin.\n\n\
         `apifence run` applies a change within a second. Without it, run `apifence attach`. A file \
         with an error is refused as a whole, with the line of each error, and the policy in force \
         stays.",
    );
    page.section("KEYS");
    for key in Config::keys() {
        let mut texts = vec![key.text.to_owned()];
        let head = match &key.default {
            Some(default) => {
                let variable = key.name.to_uppercase();
                texts.push(format!(
                    "Type: {}. Default: `{default}`. Environment: `APIFENCE_{variable}`.",
                    key.kind
                ));
                bold(key.name)
            }
            None => bold(
                key.example
                    .and_then(|text| text.lines().next())
                    .unwrap_or(key.name),
            ),
        };
        page.entry(&head, &texts);
        if let Some(example) = key.example {
            page.line(".RS");
            page.example("For example:", example);
            page.line(".RE");
        }
    }
    page.section("EXAMPLES");
    page.example(
        "A node of a cluster with RKE2, in monitor mode first:",
        "mode = \"monitor\"\nports = [6443, 9345]\ninterfaces = [\"eth0\"]\n\
         cluster_cidrs = [\"@nodes\", \"@pods\"]",
    );
    page.example(
        "Print all keys with their defaults:",
        "apifence config --example",
    );
    see_also(&mut page, "apifence-ranges");
    page.finish()
}

/// A list with every kind of line.
pub(super) const LIST: &str = "# offices
198.51.100.0/24                                # Berlin
2001:db8:aa::/48                               # Berlin, IPv6
203.0.113.64/26   expires=2037-01-31T18:00:00Z # contractor
203.0.113.7                                    # one address";

fn ranges() -> String {
    let mut page = Page::new(
        "apifence-ranges",
        5,
        "lists of authorized ranges of apifence",
    );
    page.section("SYNOPSIS");
    page.line(&italic(DEFAULT_RANGES_FILE));
    page.line(".br");
    page.line(&italic(&format!("{DEFAULT_RANGES_FILE}.d/NAME")));
    page.section("DESCRIPTION");
    page.paragraphs(
        "The first file is the list `default`. Each file in the directory is another list with the \
         name of the file. A source is allowed if a range of any list has its address.\n\n\
         A file has one entry a line: a range, then its expiry and a comment, if it has them. Empty \
         lines and lines that begin with `#` are kept. Commands keep your comments and the order of \
         the lines.\n\n\
         A file with an error is refused as a whole, with the line of each error, and the list in \
         force stays. So is an empty file: an accident must not open the port.",
    );
    page.section("LINES");
    for (head, text) in [
        (
            "CIDR",
            "A range or an address, IPv4 or IPv6. The bits after the prefix are zero: `10.1.2.0/24`, \
             not `10.1.2.3/24`. An address is one host.",
        ),
        (
            "CIDR expires=TIME",
            "The entry ends at this time, which is RFC 3339 with an offset. The kernel ends it, even \
             if no process runs. A range inside a longer-lived range stays allowed.",
        ),
        (
            "CIDR # COMMENT",
            "`apifence ranges list`, `check` and `top` show the comment.",
        ),
        (
            "0.0.0.0/32",
            "As the only entry: no source is allowed, except the addresses of the node and the \
             cluster that are authorized by settings.",
        ),
        ("empty", "As the only entry: the same, in words."),
        (
            "disabled",
            "As the only entry of the list `default`: enforcement is off, and the port is open to \
             everyone.",
        ),
    ] {
        page.entry(&bold(head), &[text.to_owned()]);
    }
    page.section("EXAMPLES");
    page.example("A list with two offices, a guest and one address:", LIST);
    page.example(
        "Apply the file after you edited it, on trial:",
        "apifence ranges reload --confirm-within 60s",
    );
    page.section("NOTES");
    page.paragraphs(
        "`apifence run` applies a change of a file within a second. Write a new file next to the old \
         one and rename it: `run` could read a half-written file.\n\n\
         Names of lists have at most 64 letters, digits, `-` and `_`. Files with other names are \
         ignored, so that a backup copy authorizes no source.",
    );
    see_also(&mut page, "apifence.toml");
    page.finish()
}

fn see_also(page: &mut Page, other: &str) {
    page.section("SEE ALSO");
    let first = format!("{}(1)", bold("apifence"));
    page.line(&format!(
        "{first},\n{}(1),\n{}(1),\n{}(5)",
        bold("apifence-ranges"),
        bold("apifence-config"),
        bold(other)
    ));
}
