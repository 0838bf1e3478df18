//! Output for people, as files to compare with.

use tests::cli::{Apifence, Ran};

/// Compares the output of the commands with the snapshot `name`.
pub(crate) fn same(name: &str, filter: &Apifence, said: &[Ran]) {
    let ranges = filter.ranges_file().display().to_string();
    let config = filter.config_file().display().to_string();
    let state = filter.state_dir().display().to_string();
    let mut settings = insta::Settings::new();
    // Absolute, so that insta need not ask cargo for the workspace.
    settings.set_snapshot_path(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/snapshots"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    // Parts that differ from run to run.
    settings.add_filter(r"\b20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "TIME");
    settings.add_filter(
        r"by `apifence init` on [^ ,]+",
        "by `apifence init` on HOST",
    );
    settings.add_filter(r"\(pid \d+\)", "(pid ...)");
    settings.add_filter(r"Linux \d\S+", "Linux RELEASE");
    settings.add_filter(r"\b\d+ queues?\b", "QUEUES");
    settings.add_filter(r"\(program \d+\)", "(program ...)");
    settings.add_filter(r"\b\d+ s (left|more)", "SECONDS s $1");
    settings.add_filter(r"on trial for \d+ s,", "on trial for SECONDS s,");
    settings.add_filter(r#""seconds_left": \d+"#, "\"seconds_left\": SECONDS");
    settings.add_filter(r"\b(203\.0\.113\.9|2001:db8:bb::9\]):\d+ ->", "$1:PORT ->");
    settings.add_filter(r#""source_port":\d+"#, r#""source_port":PORT"#);
    settings.add_filter(r#""ifindex":\d+"#, r#""ifindex":NUMBER"#);
    let text: Vec<_> = said
        .iter()
        .map(|ran| {
            let text = ran.transcript().replace(&ranges, "RANGES-FILE");
            text.replace(&config, "CONFIG-FILE")
                .replace(&state, "STATE-DIR")
                .replace(env!("CARGO_MANIFEST_DIR"), "TESTS")
        })
        .collect();
    settings.bind(|| insta::assert_snapshot!(name, text.join("\n")));
}
