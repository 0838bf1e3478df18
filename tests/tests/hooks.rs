//! The hook of the program, and the reason for a fallback.

use std::{fs, process::Command};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::{
    cli::{Apifence, FAILED, Ran, refused},
    site::{ATTACH, Family, INTERFACE, Site},
    strace::strace,
};

const PORT: u16 = 6443;

/// The bpf(2) calls in a log of strace, each with its thread.
fn calls(log: &str) -> Vec<(&str, &str)> {
    log.lines()
        .filter_map(|line| line.split_once(' '))
        .filter(|(_, call)| call.trim_start().starts_with("bpf("))
        .collect()
}

/// Whether this creates a link of the program; other types are probes of aya.
fn is_link_create(call: &str) -> bool {
    call.contains("BPF_LINK_CREATE") && call.contains("attach_type=BPF_XDP")
}

/// The index, in its thread, of the first `BPF_LINK_CREATE` when `arguments` run.
fn link_call(filter: &Apifence, arguments: &[&str]) -> Result<usize> {
    let log = filter.ranges_file().with_file_name("strace");
    filter
        .run_by(strace(&log, &["trace=bpf"]), arguments)?
        .succeeded()?;
    let text = fs::read_to_string(&log)?;
    let calls = calls(&text);
    let is_link = |call: &&(&str, &str)| is_link_create(call.1);
    let (thread, _) = calls.iter().find(is_link).context("no link was made")?;
    let own = calls.iter().filter(|(id, _)| id == thread);
    let place = own.into_iter().position(|call| is_link(&call));
    Ok(place.context("no link was made")? + 1)
}

/// Runs `arguments`, with `error` for the first link.
fn with_refusal(filter: &Apifence, arguments: &[&str], error: &str, call: usize) -> Result<Ran> {
    let log = filter.ranges_file().with_file_name("strace");
    let inject = format!("inject=bpf:error={error}:when={call}");
    let strace = strace(&log, &["trace=bpf", &inject]);
    let ran = filter.run_by(strace, arguments)?;
    let text = fs::read_to_string(&log)?;
    let injected: Vec<&str> = text
        .lines()
        .filter(|line| line.contains("(INJECTED)") && is_link_create(line))
        .collect();
    ensure!(injected.len() == 1, "{injected:?}: {ran}");
    Ok(ran)
}

fn guard(filter: &Apifence) -> Result<Value> {
    Ok(filter.status("interfaces")?[0].clone())
}

#[test]
fn any_refusal_by_the_driver_leads_to_generic_xdp() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(PORT)?;
    let call = link_call(&filter, &ATTACH)?;
    assert_eq!(guard(&filter)?["native_refused"], Value::Null);
    filter.ok(&["detach"])?;
    site.node.ip(&format!("link set {INTERFACE} mtu 9001"))?;
    let native = [&ATTACH[..], &["--xdp-mode", "native"]].concat();
    for (error, words) in [
        ("EINVAL", "invalid argument"),
        ("EOPNOTSUPP", "not supported"),
        ("ERANGE", "not representable"),
        ("ENOMEM", "memory"),
        ("E2BIG", "too long"),
        ("ENOSPC", "no space"),
        ("ENOTSUPP", "not supported"),
    ] {
        let ran = with_refusal(&filter, &ATTACH, error, call)?;
        ensure!(ran.code == Some(0), "{error}: {ran}");
        for words in [words, "refused native XDP", "MTU is 9001", "(generic XDP)"] {
            ensure!(ran.stderr.contains(words), "{error}: no `{words}`: {ran}");
        }
        site.unlisted_is_dropped(Family::V4, PORT, &filter)?;
        site.admin_gets_in(Family::V6, PORT)?;
        let guard = guard(&filter)?;
        assert_eq!(guard["xdp_mode"], "generic", "{error}");
        let reason = guard["native_refused"].as_str().unwrap_or_default();
        ensure!(reason.contains(words), "{error}: {guard}");
        let text = filter.ok(&["status"])?;
        ensure!(text.contains(reason), "{error}: {text}");
        // It stays while the program is replaced.
        filter.ok(&ATTACH)?;
        ensure!(
            filter.ok(&["status"])?.contains(reason),
            "{error}: forgotten"
        );
        filter.ok(&["detach"])?;

        let ran = with_refusal(&filter, &native, error, call)?;
        refused(&ran, FAILED, &[INTERFACE, words, "MTU is 9001"])?;
        for word in ["multi-buffer", "lro off", "--xdp-mode auto"] {
            ensure!(ran.stderr.contains(word), "{error}: no `{word}`: {ran}");
        }
        ensure!(!ran.stderr.contains("5.18"), "{error}: {ran}");
        // The netlink request for the message of the driver, which succeeds here, must not leave a
        // program attached.
        let link = site.node.ip(&format!("link show dev {INTERFACE}"))?;
        ensure!(!link.contains("xdp"), "{error}: left by netlink: {link}");
        site.unlisted_gets_in(Family::V4, PORT)?;
    }
    // For a lack of privileges, or a race, another hook does not help.
    for (error, words) in [("EPERM", "not permitted"), ("EBUSY", "another XDP program")] {
        let ran = with_refusal(&filter, &ATTACH, error, call)?;
        refused(&ran, FAILED, &[words])?;
        ensure!(!filter.bpffs().exists(), "{error}: pins are left");
    }
    // The next attach finds no remains of it.
    filter.ok(&ATTACH)?;
    let guard = guard(&filter)?;
    assert_eq!(
        (&guard["xdp_mode"], &guard["native_refused"]),
        (&"native".into(), &Value::Null)
    );
    Ok(())
}

#[test]
fn the_drivers_own_words_are_shown() -> Result<()> {
    const WORDS: &str = "XDP expects number of rx queues not less than peer tx queues";
    let (site, filter) = Site::unguarded()?;
    site.node
        .ip("link add few numrxqueues 1 numtxqueues 1 type veth peer name many numrxqueues 2 numtxqueues 2")?;
    site.node.ip("link set many up")?;
    site.node.ip("link set few up")?;
    let attach = [&ATTACH[..1], &["--interface", "few"], &ATTACH[3..]].concat();
    let native = [&attach[..], &["--xdp-mode", "native"]].concat();
    refused(&filter.run(&native)?, FAILED, &["`few`", WORDS])?;
    let ran = filter.run(&attach)?;
    ensure!(ran.code == Some(0) && ran.stderr.contains(WORDS), "{ran}");
    ensure!(filter.ok(&["status"])?.contains(WORDS));
    Ok(())
}

/// Before any object is made: the kernel reports version 2.6 to a process with this personality.
#[test]
fn a_kernel_that_is_too_old_is_named() -> Result<()> {
    let (_site, filter) = Site::unguarded()?;
    for verb in ["attach", "run"] {
        let mut old = Command::new("setarch");
        old.arg("--uname-2.6");
        let ran = filter.run_by(old, &[&[verb], &ATTACH[1..]].concat())?;
        refused(&ran, FAILED, &["Linux 2.6.", "5.18"])?;
        ensure!(!filter.bpffs().exists(), "pins are left");
        ensure!(!filter.ranges_file().exists(), "a list was written");
    }
    Ok(())
}
