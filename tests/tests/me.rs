//! `me`: the source address of an SSH session.

use std::process::Command;

use anyhow::{Result, ensure};
use tests::{
    cli::{Apifence, INPUT, Ran, refused},
    site::{Family, NODE, Site, UNLISTED},
};

const PORT: u16 = 6443;

/// Runs it in a shell with this value of `SSH_CONNECTION`.
fn from(filter: &Apifence, client: &str, arguments: &[&str]) -> Result<Ran> {
    let mut by = Command::new("env");
    by.arg(format!("SSH_CONNECTION={client}"));
    filter.run_by(by, arguments)
}

/// Runs it through `sudo`, which does not pass the variable on.
fn through_sudo(filter: &Apifence, client: &str, arguments: &[&str]) -> Result<Ran> {
    let mut by = Command::new("env");
    by.arg(format!("SSH_CONNECTION={client}"));
    by.args(["sh", "-c", "env -u SSH_CONNECTION \"$@\"; exit $?", "sh"]);
    filter.run_by(by, arguments)
}

fn unlisted(family: Family) -> String {
    format!(
        "{} 50000 {} 22",
        UNLISTED[family as usize], NODE[family as usize]
    )
}

#[test]
fn me_is_the_source_address_of_the_session() -> Result<()> {
    let (site, filter, _server) = Site::guarded_server(PORT)?;
    let add = [
        "ranges",
        "add",
        "me",
        "--expires",
        "8h",
        "--comment",
        "on call",
    ];
    for family in Family::BOTH {
        let address = UNLISTED[family as usize];
        let ran = from(&filter, &unlisted(family), &["check", "me"])?;
        ensure!(ran.code == Some(1) && ran.stdout.contains(address), "{ran}");
        let ran = through_sudo(&filter, &unlisted(family), &add)?;
        ensure!(ran.code == Some(0), "{ran}");
        ran.stderr_has(&[&format!("note: `me` is {address}, the address")])?;
        site.unlisted_gets_in(family, PORT)?;
        let file = filter.list()?;
        ensure!(
            file.contains(address) && file.contains("# on call"),
            "{file}"
        );
        ensure!(from(&filter, &unlisted(family), &["check", "me"])?.code == Some(0));
        let remove = ["ranges", "remove", "me", "--force"];
        ensure!(from(&filter, &unlisted(family), &remove)?.code == Some(0));
        site.unlisted_is_dropped(family, PORT, &filter)?;
    }
    // As programs on an IPv6 socket have it; with other ranges; and in a list that is set.
    let mapped = "::ffff:203.0.113.9 50000 ::ffff:192.0.2.10 22";
    let set = ["ranges", "set", "me,198.51.100.0/24", "2001:db8:aa::/48"];
    let ran = from(&filter, mapped, &set)?;
    ensure!(ran.code == Some(0), "{ran}");
    ensure!(
        filter
            .json(&["ranges", "list"])?
            .to_string()
            .contains("203.0.113.9/32")
    );
    Ok(())
}

#[test]
fn a_shell_without_a_remote_address_is_reported() -> Result<()> {
    let (_site, filter) = Site::guarded()?;
    let before = filter.list()?;
    for (client, word) in [
        ("", "`SSH_CONNECTION` is not set"),
        ("UNKNOWN 65535 UNKNOWN 65535", "`SSH_CONNECTION` is not set"),
        ("127.0.0.1 50000 127.0.0.1 22", "comes from `127.0.0.1`"),
        ("::1 50000 ::1 22", "comes from `::1`"),
    ] {
        for arguments in [
            &["ranges", "add", "me"][..],
            &["ranges", "remove", "me"],
            &["ranges", "set", "198.51.100.0/24 me"],
            &["check", "me"],
        ] {
            let ran = from(&filter, client, arguments)?;
            refused(&ran, INPUT, &["resolve `me`", word])?;
            ensure!(
                ran.stderr.contains("hint: type the source address"),
                "{ran}"
            );
        }
    }
    // Link-local addresses, with their zone: the range authorizes that address on every link.
    let ran = from(
        &filter,
        "fe80::1%eth0 50000 fe80::2%eth0 22",
        &["ranges", "add", "me"],
    )?
    .succeeded()?;
    ran.stderr_has(&["`me` is fe80::1,"])?;
    filter.ok(&["ranges", "remove", "fe80::1"])?;
    // It is a word, and not a prefix of one; in a file it is invalid.
    for (arguments, word) in [
        (
            &["ranges", "add", "me/24"][..],
            "`me/24` works only on the command line",
        ),
        (&["ranges", "add", "home.example.org"], "is a name"),
    ] {
        refused(
            &from(&filter, &unlisted(Family::V4), arguments)?,
            INPUT,
            &[word],
        )?;
    }
    filter.write_list(format!("{before}me\n"))?;
    let ran = from(&filter, &unlisted(Family::V4), &["ranges", "reload"])?;
    refused(&ran, INPUT, &["`me` works only on the command line"])?;
    ensure!(ran.stderr.contains("`apifence ranges add me`"), "{ran}");
    Ok(())
}
