//! JSON: every output has a schema, every schema has an output, and `run -o json` writes nothing
//! else.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tests::{
    cli::{
        Apifence, Background, FAILED, INPUT, VERBS,
        schema::{self, Asked, SCHEMAS, check},
        words,
    },
    site::{ADMIN, ADMIN_RANGES, Family, INTERFACE, Site, UNLISTED},
    wait::until,
};

const PORT: u16 = 6443;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/schema")
}

/// All schemas inside `schema`, each with its path.
fn each(path: &str, schema: &Value, found: &mut Vec<(String, Value)>) {
    match schema {
        Value::Object(object) => {
            found.push((path.to_owned(), schema.clone()));
            for (key, value) in object {
                each(&format!("{path}/{key}"), value, found);
            }
        }
        Value::Array(list) => list.iter().for_each(|one| each(path, one, found)),
        _ => {}
    }
}

#[test]
fn the_schemas_are_the_files_and_are_schemas() -> Result<()> {
    let mut files = BTreeSet::new();
    for entry in fs::read_dir(folder())? {
        let path = entry?.path();
        let name = path.file_stem().context("a name")?;
        files.insert(name.to_string_lossy().into_owned());
    }
    let known = SCHEMAS.iter().map(|(name, _)| (*name).to_owned());
    assert_eq!(known.collect::<BTreeSet<_>>(), files);
    let page = fs::read_to_string(folder().with_file_name("json.md"))?;
    for (name, _) in SCHEMAS {
        let link = format!("[{name}](schema/{name}.json)");
        ensure!(page.contains(&link), "json.md has no {link}");
        let schema = schema::schema(name)?;
        let draft = "https://json-schema.org/draft/2020-12/schema";
        ensure!(schema["$schema"] == draft, "{name}");
        ensure!(jsonschema::meta::is_valid(schema), "{name}");
        ensure!(schema["properties"]["schema"]["const"] == 1, "{name}");
        let mut all = Vec::new();
        each("", schema, &mut all);
        for (path, part) in all {
            // A later version may have more fields.
            ensure!(
                part.get("additionalProperties") != Some(&json!(false)),
                "{name}: {path}"
            );
            let required = part["required"].as_array().into_iter().flatten();
            for field in required.filter_map(Value::as_str) {
                ensure!(
                    part["properties"].get(field).is_some(),
                    "{name}: {path}: {field} is required and not described"
                );
            }
        }
    }
    Ok(())
}

#[test]
fn the_check_of_the_harness_finds_faults() -> Result<()> {
    let (_site, filter) = Site::guarded()?;
    let status = filter.json(&["status"])?;
    check("status", &status)?;
    let fields = schema::schema("status")?["required"]
        .as_array()
        .context("fields")?;
    for field in fields.iter().filter_map(Value::as_str) {
        let mut without = status.clone();
        without.as_object_mut().context("an object")?.remove(field);
        let fault = check("status", &without).expect_err(field).to_string();
        ensure!(
            fault.contains(&format!("\"{field}\" is a required")),
            "{fault}"
        );
    }
    for (path, value) in [
        ("/schema", json!(2)),
        ("/state", json!(null)),
        ("/ports/0", json!(70_000)),
        ("/ports/0", json!("6443")),
        ("/interfaces/0/guarded", json!("yes")),
        ("/interfaces/0/xdp_mode", json!("somewhere")),
        ("/applied_at", json!("yesterday")),
        ("/ipv4_ranges", json!(-1)),
    ] {
        let mut changed = status.clone();
        *changed.pointer_mut(path).context(path)? = value;
        let fault = check("status", &changed).expect_err(path).to_string();
        ensure!(fault.contains(&format!("`{path}`")), "{path}: {fault}");
    }
    // A later version has more, and larger numbers than a double holds exactly.
    let mut more = status;
    more["new"] = json!({"a": 1});
    more["generation"] = json!(u64::MAX);
    check("status", &more)?;
    let asked = Asked::of(&["-o", "json", "--list", "check", "ranges", "ls"]).context("asked")?;
    ensure!(asked.schema == "ranges-list" && asked.json, "{asked:?}");
    ensure!(asked.check("a text").is_err() && asked.check("{}").is_err());
    ensure!(
        asked.check("").is_ok(),
        "a command that failed prints nothing"
    );
    Ok(())
}

/// Every command that prints JSON, in an order that works: the schema, the command, its status.
const COMMANDS: [(&str, &str, i32); 49] = [
    ("version", "version", 0),
    ("explain", "explain", 0),
    ("explain", "explain W08", 0),
    // Nothing is attached, and there is no list.
    ("status", "status", 0),
    ("stats", "stats", FAILED),
    ("config", "config", 0),
    ("doctor", "doctor", 0),
    ("init", "init --print", 0),
    ("detach", "detach", 0),
    ("ranges-lists", "ranges lists", 0),
    ("ranges-history", "ranges history", 0),
    ("ranges-list", "ranges list", 0),
    ("ranges-add", "ranges add 192.0.2.77", 0),
    ("ranges-clear", "ranges clear --force", 0),
    (
        "ranges-set",
        "ranges set 198.51.100.0/24,2001:db8:aa::/48",
        0,
    ),
    ("attach", "attach --interface eth0 --dry-run", 0),
    ("attach", "attach --interface eth0", 0),
    ("status", "status -v", 0),
    (
        "check",
        "check 198.51.100.7 203.0.113.9 198.51.0.0/16 ::/0",
        1,
    ),
    ("check", "check 198.51.100.7 --port 6443", 0),
    ("check", "check 198.51.100.7 --port 80", 0),
    ("stats", "stats", 0),
    ("top", "top", 0),
    ("suggest", "suggest", 0),
    ("monitor", "monitor --dry-run", 0),
    ("monitor", "monitor", 0),
    ("monitor", "monitor", 0),
    ("enforce", "enforce --confirm-within 1h", 0),
    ("status", "status", 0),
    ("confirm", "confirm", 0),
    (
        "ranges-add",
        "ranges add 192.0.2.128/25 --comment spare --expires 8h",
        0,
    ),
    ("ranges-set", "ranges set 192.0.2.1 --dry-run", 0),
    // Refused: it would open port 443 to every source.
    ("attach", "attach --interface eth0 --port 6443", INPUT),
    (
        "attach",
        "attach --interface eth0 --port 6443 --dry-run",
        INPUT,
    ),
    ("ranges-add", "ranges add 0.0.0.0/0 --dry-run", 0),
    ("ranges-remove", "ranges remove 192.0.2.128/25", 0),
    ("ranges-edit", "ranges edit", 0),
    ("ranges-prune", "ranges prune", 0),
    ("ranges-reload", "ranges reload", 0),
    ("ranges-rollback", "ranges rollback 1", 0),
    ("ranges-add", "ranges add 192.0.2.2 --confirm-within 1h", 0),
    ("ranges-history", "ranges history", 0),
    ("ranges-rollback", "ranges rollback", 0),
    ("ranges-set", "ranges set --list feed 192.0.2.3", 0),
    ("ranges-lists", "ranges lists", 0),
    ("ranges-list", "ranges list", 0),
    ("ranges-delete", "ranges delete --list feed", 0),
    ("ranges-clear", "ranges clear --dry-run", 0),
    ("detach", "detach", 0),
];

/// The schemas of outputs that other tests of this file make.
const OTHERS: [&str; 5] = ["doctor-bundle", "events", "run", "state", "stats-watch"];

#[test]
fn every_command_prints_what_its_schema_says() -> Result<()> {
    let (_site, filter) = Site::unguarded()?;
    let mut used = BTreeSet::from(OTHERS);
    let mut faults = Vec::new();
    for (name, command, status) in COMMANDS {
        let arguments = [&["-o", "json"], &words(command)[..]].concat();
        let asked = Asked::of(&arguments).with_context(|| format!("no schema: {command}"))?;
        ensure!(asked.schema == name && asked.json, "{command}: {asked:?}");
        // The editor changes nothing.
        match filter.run_with(&[("EDITOR", "true"), ("SUDO_EDITOR", "true")], &arguments) {
            Err(fault) => faults.push(format!("{command}: {fault:#}")),
            Ok(ran) if ran.code != Some(status) => faults.push(format!("{command}: {ran}")),
            Ok(ran) if ran.stdout.is_empty() != (status == FAILED) => {
                faults.push(format!("{command}: JSON, or none: {ran}"));
            }
            Ok(_) => drop(used.insert(name)),
        }
    }
    ensure!(faults.is_empty(), "{}", faults.join("\n\n"));
    let all: BTreeSet<&str> = SCHEMAS.iter().map(|(name, _)| *name).collect();
    assert_eq!(used, all, "the schemas that no command above uses");
    let texts = ["ranges", "completions", "man"];
    for verb in VERBS.into_iter().filter(|verb| !texts.contains(verb)) {
        ensure!(Asked::of(&words(verb)).is_some(), "`{verb}` has no schema");
    }
    Ok(())
}

#[test]
fn a_report_of_doctor_is_as_its_schema_says() -> Result<()> {
    let (_site, filter) = Site::guarded()?;
    let path = filter.state_dir().with_file_name("report.json");
    let named = path.to_str().context("a path")?;
    for more in [&[][..], &["--with-addresses"]] {
        filter.run(&[&["doctor", "--bundle", named], more].concat())?;
        let report = serde_json::from_slice(&fs::read(&path)?)?;
        check("doctor-bundle", &report)?;
        if !more.is_empty() {
            check("status", &with_schema(&report["status"]))?;
            check("stats", &with_schema(&report["counters"]))?;
        }
        fs::remove_file(&path)?;
    }
    Ok(())
}

fn with_schema(value: &Value) -> Value {
    let mut value = value.clone();
    value["schema"] = json!(1);
    value
}

#[test]
fn lines_of_commands_that_go_on_are_as_their_schemas_say() -> Result<()> {
    let (site, filter) = Site::guarded()?;
    let mut events = filter.start(&["-o", "json", "events"])?;
    let mut stats = filter.start(&["stats", "--watch", "--interval", "200ms", "--json"])?;
    site.unlisted_is_dropped(Family::V4, PORT, &filter)?;
    let event = object(&mut events, |line| line["source"] == UNLISTED[0])?;
    check("events", &event)?;
    let dropped = |line: &Value| {
        line["interfaces"][0]["counters"]
            .to_string()
            .contains("drop")
    };
    let line = object(&mut stats, dropped)?;
    check("stats-watch", &line)?;
    for line in [event, line] {
        has_three_digits(&line)?;
    }
    Ok(())
}

/// The next object of a background process that `wanted` accepts.
fn object(program: &mut Background, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
    let line = program.line(|line| serde_json::from_str(line).is_ok_and(|value| wanted(&value)))?;
    Ok(serde_json::from_str(&line)?)
}

fn has_three_digits(line: &Value) -> Result<()> {
    let time = line["time"].as_str().unwrap_or_default();
    ensure!(
        time.len() == "2026-12-01T10:00:00.000Z".len() && time.ends_with('Z'),
        "{line}"
    );
    Ok(())
}

/// All lines of a `run -o json` until `wanted`, each an object that its schema describes.
fn lines_until(run: &mut Background, wanted: impl Fn(&Value) -> bool) -> Result<Vec<Value>> {
    let mut seen = Vec::new();
    loop {
        let line = run
            .line(|_| true)
            .with_context(|| format!("after {seen:#?}"))?;
        let line: Value = serde_json::from_str(&line).with_context(|| line.clone())?;
        check("run", &line)?;
        has_three_digits(&line)?;
        let is_last = wanted(&line);
        seen.push(line);
        if is_last {
            return Ok(seen);
        }
    }
}

fn says(level: &'static str, words: &'static str) -> impl Fn(&Value) -> bool {
    move |line| {
        let message = line["message"].as_str().unwrap_or_default();
        line["level"] == level && message.contains(words)
    }
}

fn start(filter: &Apifence, more: &[&str]) -> Result<Background> {
    filter.start(&[&["-o", "json", "run", "--interface", INTERFACE], more].concat())
}

#[test]
fn each_line_of_run_is_an_object_with_time_and_level() -> Result<()> {
    let (site, filter) = Site::unguarded()?;
    filter.write_list(ADMIN_RANGES.replace(',', "\n") + "\n")?;
    let mut run = start(&filter, &["-v", "--detach-on-exit"])?;
    lines_until(&mut run, says("info", "guarding"))?;
    site.unlisted_is_dropped(Family::V4, PORT, &filter)?;
    let drops = lines_until(&mut run, |line| line["log"] == "first")?;
    let last = drops.last().context("a line")?;
    ensure!(
        last["source"] == UNLISTED[0] && last["level"] == "info",
        "{last}"
    );
    // The list is edited, then broken.
    filter.write_list(ADMIN_RANGES.replace(',', "\n") + "\n192.0.2.200 # a \"name\"\n")?;
    lines_until(&mut run, |line| line.to_string().contains("192.0.2.200"))?;
    filter.write_list("nonsense\n")?;
    let broken = lines_until(&mut run, says("error", "nonsense"))?;
    let error = broken.last().context("a line")?;
    ensure!(error["hint"].is_string(), "{error}");
    filter.write_list(ADMIN_RANGES.replace(',', "\n") + "\n")?;
    // The config file is broken, then names a warning's cause.
    filter.write_config("bogus = 1\n")?;
    lines_until(&mut run, says("error", "bogus"))?;
    filter.write_config("cluster_cidrs = [\"0.0.0.0/0\"]\n")?;
    let warned = lines_until(&mut run, |line| line["code"] == "W03")?;
    let warning = warned.last().context("a line")?;
    ensure!(
        warning["level"] == "warning" && warning["name"] == "everyone",
        "{warning}"
    );
    let state = filter.runtime_dir().join("state.json");
    until("the state is told", || Ok(state.exists()))?;
    check("state", &serde_json::from_slice(&fs::read(&state)?)?)?;
    run.signal(Signal::SIGTERM)?;
    lines_until(&mut run, |line| line["detached"] == json!([INTERFACE]))?;
    ensure!(run.wait()? == Some(0));
    // Again, and the filter stays.
    let mut run = start(&filter, &[])?;
    lines_until(&mut run, says("info", "guarding"))?;
    run.signal(Signal::SIGINT)?;
    lines_until(&mut run, says("info", "the filter stays"))?;
    ensure!(run.wait()? == Some(0));
    Ok(())
}

#[test]
fn a_run_that_cannot_start_says_so_in_json() -> Result<()> {
    let (site, filter) = Site::guarded()?;
    filter.write_config("output = \"json\"\nbogus = 1\n")?;
    let by_file = filter.run(&["run", "--cluster-cidrs", "all"])?;
    let by_flag = filter.run(&["run", "--json", "--no-such-flag"])?;
    let variable = [("APIFENCE_OUTPUT", "json"), ("APIFENCE_MODE", "nonsense")];
    let by_variable = filter.run_with(&variable, &["run", "--port", "0"])?;
    let held = start(&filter, &[]).and_then(|mut first| {
        lines_until(&mut first, says("info", "guarding"))?;
        filter.run(&["-o", "json", "run", "--interface", INTERFACE])
    })?;
    for (ran, want) in [
        (by_file, "every source"),
        (by_flag, "--no-such-flag"),
        (by_variable, "--port"),
        (held, "manages this filter"),
    ] {
        ensure!(ran.code.is_some_and(|code| code > 1), "{ran}");
        ensure!(ran.stdout.is_empty() && !ran.stderr.is_empty(), "{ran}");
        let mut has = false;
        for line in ran.stderr.lines() {
            let line: Value = serde_json::from_str(line).with_context(|| ran.to_string())?;
            check("run", &line)?;
            has |= line["level"] == "error" && line.to_string().contains(want);
        }
        ensure!(has, "no error `{want}`: {ran}");
    }
    // Help is for people, and other commands keep their words.
    let help = filter.ok(&["-o", "json", "run", "--help"])?;
    ensure!(help.contains("Usage:"), "{help}");
    let other = filter.run(&["-o", "json", "status", "--no-such-flag"])?;
    ensure!(other.stderr.starts_with("error: "), "{other}");
    // Text stays text.
    let mut command = filter.command(&["run", "--interface", INTERFACE, "--no-such-flag"]);
    let text = site.node.output(command.stdin(Stdio::null()))?;
    ensure!(text.stderr.starts_with(b"error: "), "{text:?}");
    Ok(())
}

#[test]
fn strange_names_and_texts_stay_json() -> Result<()> {
    let (site, filter) = Site::unguarded()?;
    // A name that is no UTF-8, and one that a terminal would obey.
    let rename = r#"ip link add "$(printf 'a\377b')" type dummy; ip link add "$(printf 'q"\\\033')" type dummy"#;
    let mut shell = std::process::Command::new("sh");
    site.node.output(shell.args(["-c", rename]))?;
    let list = "198.51.100.0/24 # \u{1f600} \"quoted\" \\ back\n2001:db8:aa::/48 # \u{e9}\n";
    filter.write_list(list)?;
    filter.ok(&["attach", "--interface", INTERFACE])?;
    for command in [
        "status",
        "doctor",
        "ranges list",
        "ranges lists",
        "stats",
        "config",
    ] {
        let ran = filter.run(&[&["-o", "json"], &words(command)[..]].concat())?;
        ensure!(ran.stdout.starts_with('{'), "{ran}");
        let is_shown = |letter: char| !letter.is_control() || letter == '\n';
        ensure!(ran.stdout.chars().all(is_shown), "{ran}");
    }
    let ranges = filter.json(&["ranges", "list"])?;
    let comment = ranges["ranges"].as_array().into_iter().flatten();
    let mut comment = comment.filter(|row| row["range"] == "198.51.100.0/24");
    let row = comment.next().context("a row")?;
    ensure!(row["comment"] == "\u{1f600} \"quoted\" \\ back", "{row}");
    ensure!(
        row["last_seen"].is_null() && row["expires"].is_null(),
        "{row}"
    );
    let answer = filter.json(&["check", ADMIN[0]])?;
    ensure!(answer["results"][0]["guards"] == json!([]), "{answer}");
    Ok(())
}
